"""A small HTTP server for the client's tests: stores bodies, answers as it is told."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import zstandard


class Request:
    def __init__(self, path: str, headers: dict[str, str], body: bytes) -> None:
        self.path = path
        self.headers = headers
        self.body = body

    @property
    def decoded(self) -> bytes:
        encoding = self.headers.get("content-encoding", "")
        if encoding == "gzip":
            return gzip.decompress(self.body)
        if encoding == "zstd":
            with zstandard.ZstdDecompressor().stream_reader(
                self.body, read_across_frames=True
            ) as stream:
                return stream.read()
        return self.body


Answer = tuple[int, dict[str, str], bytes]
Reply = Callable[[Request], Answer | None]


class Door:
    """What arrived, and idempotent storage of it. `reply` may answer first (None: store)."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.stored: dict[str, Request] = {}
        self.reply: Reply = lambda request: None
        self.url = ""
        self.lock = threading.Lock()

    def lines(self) -> list[bytes]:
        return [
            line
            for request in self.stored.values()
            for line in request.decoded.splitlines()
            if line.strip()
        ]

    def answer(self, request: Request) -> Answer | None:
        with self.lock:
            self.requests.append(request)
            early = self.reply(request)
            if early is not None:
                return early
            key = request.headers["idempotency-key"]
            assert self.stored.setdefault(key, request).body == request.body
        lines = [line for line in request.decoded.splitlines() if line.strip()]
        rejected = sum(not line.startswith(b"{") for line in lines)
        return 200, _counts(len(lines) - rejected, rejected), b""


def _counts(accepted: int, rejected: int) -> dict[str, str]:
    return {"Ingester-Accepted": str(accepted), "Ingester-Rejected": str(rejected)}


# An answer with this status closes the connection without a word.
HANG_UP: Answer = (0, {}, b"")


@contextmanager
def open_door() -> Iterator[Door]:
    door = Door()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            if len(body) < length:  # the client gave up: such a request stores nothing
                self.close_connection = True
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = door.answer(Request(self.path, headers, body))
            assert answer is not None
            status, extra, content = answer
            if not status:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in extra.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    door.url = f"http://127.0.0.1:{server.server_address[1]}/v1/authkey/apikey"
    try:
        yield door
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def write_events(path: Path, count: int, *, wrong: int = 0) -> list[bytes]:
    """Lines of varied length; the last has no line end."""
    lines = [b'{"n":%d,"pad":"%s"}' % (n, b"x" * (n * 37 % 211)) for n in range(count - wrong)]
    lines += [b"wrong"] * wrong
    path.write_bytes(b"\n".join(lines))
    return lines
