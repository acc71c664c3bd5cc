"""Bare echo: trio and httptools answering 200 with nothing else, the ceiling `small` is held to.

It parses every request with llhttp, reads its body and throws it away. It has none of what the
intake door adds: limits, deadlines, strict framing, counting, request ids, a handler. A figure
is only comparable when both servers ran under the same load client in the same run.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial

import httptools
import trio

__all__ = ["main", "serve"]

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
PIECE_BYTES_MAX = 64 * 1024


class _Messages:
    """llhttp callbacks: counts the requests completed by one read."""

    __slots__ = ("complete_count",)

    def __init__(self) -> None:
        self.complete_count = 0

    def on_message_complete(self) -> None:
        self.complete_count += 1


async def _echo(stream: trio.SocketStream) -> None:
    messages = _Messages()
    parser = httptools.HttpRequestParser(messages)
    try:
        while data := await stream.receive_some(PIECE_BYTES_MAX):
            parser.feed_data(data)
            if messages.complete_count:
                await stream.send_all(ANSWER * messages.complete_count)
                messages.complete_count = 0
    except (httptools.HttpParserError, trio.BrokenResourceError):
        pass
    await stream.aclose()


async def serve(port: int) -> None:
    """Listen on loopback and echo until cancelled; prints one ready line on standard output."""
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    bound = listeners[0].socket.getsockname()[1]
    sys.stdout.write(json.dumps({"event": "ready", "port": bound}) + "\n")
    sys.stdout.flush()
    await trio.serve_listeners(_echo, listeners)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.echo", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port")
    arguments = parser.parse_args()
    trio.run(partial(serve, arguments.port))


if __name__ == "__main__":
    main()
