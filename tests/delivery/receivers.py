"""Receivers over real sockets that behave as badly as receivers do."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

import trio
from msgspec import Struct

__all__ = ["OK", "Received", "Receiver", "answer", "receiving"]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Received(Struct, frozen=True):
    """One request whose body has come whole."""

    target: str
    headers: Mapping[str, str]
    body: bytes


Behaviour = Callable[["Receiver", Received, trio.abc.Stream], Awaitable[None]]


def answer(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    """Always this answer; `_` in the name of a header stands for `-`."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{lines}\r\n"

    async def behave(_receiver: Receiver, _received: Received, stream: trio.abc.Stream) -> None:
        await stream.send_all(head.encode() + body)

    return behave


class Receiver:
    """What has come, and where it listens."""

    def __init__(self, behaviours: list[Behaviour]) -> None:
        self.received: list[Received] = []
        self.connection_count = 0
        self.url = ""
        self._behaviours = behaviours
        self._came = trio.Condition()

    async def wait_for(self, count: int) -> list[Received]:
        async with self._came:
            while len(self.received) < count:
                await self._came.wait()
        return self.received

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Requests of one connection. The n-th request meets the n-th behaviour, then the last."""
        self.connection_count += 1
        pending = b""
        async with stream:
            while True:
                while b"\r\n\r\n" not in pending:
                    try:
                        piece = await stream.receive_some(65536)
                    except (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError):
                        return
                    if not piece:
                        return
                    pending += piece
                head, _, pending = pending.partition(b"\r\n\r\n")
                first, *lines = head.decode("latin-1").split("\r\n")
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in lines)
                }
                length = int(headers.get("content-length", "0"))
                while len(pending) < length:
                    pending += await stream.receive_some(65536)
                body, pending = pending[:length], pending[length:]
                received = Received(first.split(" ")[1], headers, body)
                async with self._came:
                    self.received.append(received)
                    index = len(self.received) - 1
                    self._came.notify_all()
                behave = self._behaviours[min(index, len(self._behaviours) - 1)]
                try:
                    await behave(self, received, stream)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return


@asynccontextmanager
async def receiving(
    *behaviours: Behaviour, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    """A receiver on a free port of loopback."""
    receiver = Receiver(list(behaviours) or [answer(200, b"ok")])
    async with trio.open_nursery() as nursery:
        if tls is None:
            serve = partial(trio.serve_tcp, receiver.serve, 0, host="127.0.0.1")
        else:
            serve = partial(
                trio.serve_ssl_over_tcp, receiver.serve, 0, tls, host="127.0.0.1",
                https_compatible=True,
            )  # fmt: skip
        listeners = await nursery.start(serve)
        inner = getattr(listeners[0], "transport_listener", listeners[0])
        port = inner.socket.getsockname()[1]
        receiver.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/hook"
        yield receiver
        nursery.cancel_scope.cancel()
