"""A server under test and a raw client for it, in one event loop over real loopback sockets."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from ingester.actors.intake import IntakeServer
from ingester.actors.tls import Certificates
from ingester.config import IntakeConfig
from ingester.doors.exchange import Handler, Request, Response, Shortcut
from ingester.errors import BodyTooLarge, Overloaded
from ingester.messages import RequestNumbers
from ingester.protocol.http1 import PIECE_BYTES_MAX

__all__ = [
    "Answer",
    "Peer",
    "Served",
    "quick_config",
    "reset",
    "serving",
    "shapes_handler",
    "until",
]


@dataclass
class Answer:
    """One answer as the client read it."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def closes(self) -> bool:
        return self.headers.get(b"connection") == b"close"


class Peer:
    """A client that sends what it is told and reads answers by their length."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.held = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def answer(self, *, to_head: bool = False) -> Answer:
        while b"\r\n\r\n" not in self.held:
            await self._read()
        head, _, self.held = self.held.partition(b"\r\n\r\n")
        line, *fields = head.split(b"\r\n")
        pairs = [field.partition(b":") for field in fields]
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        status = int(line.split(b" ")[1])
        length = 0 if to_head or status < 200 else int(headers.get(b"content-length", b"0"))
        while len(self.held) < length:
            await self._read()
        body, self.held = self.held[:length], self.held[length:]
        return Answer(status, headers, body)

    async def ask(self, data: bytes) -> Answer:
        await self.send(data)
        return await self.answer()

    async def is_closed(self) -> bool:
        """Wait for the end; True when nothing came before it."""
        return not self.held and not await self.stream.receive_some()

    async def _read(self) -> None:
        data = await self.stream.receive_some()
        if not data:
            raise EOFError(f"ended with {self.held[:200]!r}")
        self.held += data


@dataclass
class Served:
    """A running server and how to reach it."""

    server: IntakeServer
    port: int

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Peer]:
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            yield Peer(stream)

    @asynccontextmanager
    async def connected_tls(self, context: ssl.SSLContext) -> AsyncIterator[Peer]:
        plain = await trio.open_tcp_stream("127.0.0.1", self.port)
        stream = trio.SSLStream(plain, context, server_hostname="localhost", https_compatible=True)
        async with plain, stream:
            await stream.do_handshake()
            yield Peer(stream)


def quick_config(**changes: Any) -> IntakeConfig:
    """Deadlines short enough to be waited for, long enough for a busy machine."""
    settings: dict[str, Any] = {
        "stall_seconds_max": 0.4,
        "keep_alive_seconds_max": 0.4,
        "bytes_per_second_min": 0,
    }
    return IntakeConfig(**{**settings, **changes})


@asynccontextmanager
async def serving(
    handler: Handler,
    config: IntakeConfig | None = None,
    *,
    tls: Certificates | None = None,
    listener: str = "intake",
    shortcut: Shortcut | None = None,
) -> AsyncIterator[Served]:
    shortcuts = {} if shortcut is None else {"intake": shortcut}
    server = IntakeServer(handler, config or IntakeConfig(), RequestNumbers(), shortcuts)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:

            async def run(task_status: Any) -> None:
                await server.run(listeners, listener=listener, tls=tls, task_status=task_status)

            await nursery.start(run)
            yield Served(server, port)
            nursery.cancel_scope.cancel()


async def shapes_handler(request: Request) -> Response:
    """`/echo` reads and returns the body; other paths do what they are called."""
    match request.head.path:
        case "/unread":
            return Response(200, b"unread", door="test")
        case "/early":
            raise BodyTooLarge("too large; split it")
        case "/overloaded":
            raise Overloaded("full", retry_after_s=7)
        case "/fault":
            raise RuntimeError("secret")
        case "/close":
            return Response(200, b"closing", close=True, door="test")
        case "/address":
            return Response(200, request.client_address.encode(), door="test")
        case "/listener":
            return Response(200, request.listener.encode(), door="test")
        case "/empty":
            return Response(204, door="test")
    whole = request.body.whole_nowait()
    if whole is None:
        pieces = []
        while piece := await request.body.receive():
            assert len(piece) <= PIECE_BYTES_MAX
            pieces.append(piece)
        whole = b"".join(pieces)
    assert request.body.received_bytes == len(whole)
    return Response(200, whole, content_type=b"text/plain", door="test")


def reset(stream: trio.SocketStream) -> None:
    """Make the coming close of a client a reset."""
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what only a counter shows."""
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - nothing to wait on but the counter
            await trio.sleep(0.01)
