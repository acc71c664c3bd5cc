"""Transports: one client's bytes in and out, plain or over TLS, with waits that can be ended.

trio's `SocketStream` yields to the scheduler on every successful read and write, and a cancel
scope around each wait costs more than parsing the request; on the way of a small request both
are most of the cost. So the plain transport owns the non-blocking socket, sends without a
scheduling point when the kernel takes everything, and waits for readability before it reads
(after an answer there is nothing to read yet). Its waits carry no deadline: `interrupt` ends the
one under way, which then raises `WaitExpired`.

1. One task uses a transport at a time; `interrupt` may be called by any other.
2. A reset, a broken pipe or a TLS fault is `ClientGone`; never an `OSError`.
3. `receive` always gives way to other tasks; `send` and `receive_nowait` need not.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import Protocol

import trio

from ingester.errors import ClientGone
from ingester.protocol.http1 import PIECE_BYTES_MAX

__all__ = ["PlainTransport", "TlsTransport", "Transport", "WaitExpired"]


class WaitExpired(Exception):
    """The wait was ended by `interrupt`; the transport can still be used."""


class Transport(Protocol):
    """What a connection needs of its client's bytes."""

    async def handshake(self) -> None:
        """Whatever must happen before the first byte."""

    async def receive(self) -> bytes:
        """At most 64 KiB; b"" when the client sends no more."""

    def receive_nowait(self) -> bytes | None:
        """Like `receive`, or None when nothing is here or only waiting could tell."""

    async def send(self, data: bytes) -> None:
        """Hand everything to the kernel."""

    async def discard(self) -> int:
        """Read and drop what comes next; its size on the wire, 0 at the end."""

    def shut_sending(self) -> None:
        """Say that nothing more will be sent; receiving goes on."""

    def interrupt(self) -> None:
        """End the wait under way, if there is one."""

    def close(self) -> None:
        """Let go of the socket at once."""


class PlainTransport:
    """A connected, non-blocking socket. Owns it."""

    __slots__ = ("_fileno", "_receive_bytes", "_send_bytes", "_sock")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._fileno = sock.fileno()
        self._receive_bytes = sock.recv
        self._send_bytes = sock.send

    async def handshake(self) -> None:
        return

    async def receive(self) -> bytes:
        while True:
            try:
                await trio.lowlevel.wait_readable(self._fileno)
                return self._receive_bytes(PIECE_BYTES_MAX)
            except BlockingIOError:
                continue  # a spurious wake-up
            except trio.ClosedResourceError:
                raise WaitExpired from None
            except OSError:
                raise ClientGone("the connection was reset") from None

    def receive_nowait(self) -> bytes | None:
        try:
            return self._receive_bytes(PIECE_BYTES_MAX)
        except BlockingIOError:
            return None
        except OSError:
            raise ClientGone("the connection was reset") from None

    async def send(self, data: bytes) -> None:
        try:
            sent_bytes = self._send_bytes(data)
        except BlockingIOError:
            sent_bytes = 0
        except OSError:
            raise ClientGone("the connection was reset") from None
        if sent_bytes < len(data):
            await self._send_rest(memoryview(data)[sent_bytes:])

    async def _send_rest(self, rest: memoryview) -> None:
        while rest:
            try:
                await trio.lowlevel.wait_writable(self._fileno)
                rest = rest[self._send_bytes(rest) :]
            except BlockingIOError:
                continue
            except trio.ClosedResourceError:
                raise WaitExpired from None
            except OSError:
                raise ClientGone("the connection was reset") from None

    async def discard(self) -> int:
        return len(await self.receive())

    def shut_sending(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def interrupt(self) -> None:
        # Wakes the waiting task with ClosedResourceError; the descriptor stays open.
        trio.lowlevel.notify_closing(self._fileno)

    def close(self) -> None:
        self._sock.close()


class _WireStream(trio.abc.Stream):
    """A `PlainTransport` as the stream `trio.SSLStream` wants below it."""

    def __init__(self, transport: PlainTransport) -> None:
        self._transport = transport

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._transport.send(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self._transport.receive()

    async def aclose(self) -> None:
        self._transport.close()
        await trio.lowlevel.checkpoint()


class TlsTransport:
    """TLS over a socket. Ends with FIN and no close_notify: answers carry their length."""

    __slots__ = ("_stream", "_wire")

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._wire = PlainTransport(sock)
        self._stream = trio.SSLStream(
            _WireStream(self._wire), context, server_side=True, https_compatible=True
        )

    async def handshake(self) -> None:
        try:
            await self._stream.do_handshake()
        except trio.BrokenResourceError:
            raise ClientGone("the TLS handshake failed") from None

    async def receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(PIECE_BYTES_MAX))
        except trio.BrokenResourceError:
            raise ClientGone("the TLS stream broke") from None

    def receive_nowait(self) -> bytes | None:
        return None

    async def send(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError:
            raise ClientGone("the TLS stream broke") from None

    async def discard(self) -> int:
        return await self._wire.discard()

    def shut_sending(self) -> None:
        self._wire.shut_sending()

    def interrupt(self) -> None:
        self._wire.interrupt()

    def close(self) -> None:
        self._wire.close()
