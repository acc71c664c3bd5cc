"""Transports: one client's bytes in and out, plain or over TLS, with waits that can be ended.

trio's `SocketStream` yields to the scheduler on every successful read and write, and a cancel
scope around each wait costs more than parsing the request; on the way of a small request both
are most of the cost. So the plain transport owns the non-blocking socket, sends without a
scheduling point when the kernel takes everything, and reads only what `Readiness` told of. Its
waits carry no deadline: `interrupt` ends the one under way, which then raises `WaitExpired`.

1. One task uses a transport at a time; `interrupt` may be called by any other.
2. A reset, a broken pipe or a TLS fault is `ClientGone`; never an `OSError`.
3. `receive` always gives way to other tasks; `send` and `receive_nowait` need not.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Protocol

import trio

from ingester.actors.readiness import Readiness
from ingester.errors import ClientGone
from ingester.protocol.http1 import PIECE_BYTES_MAX

__all__ = ["PlainTransport", "TlsTransport", "Transport", "WaitExpired"]


# Read at a time, until a read has filled it: a large body follows.
_FIRST_PIECE_BYTES = 64 * 1024


class WaitExpired(Exception):
    """The wait was ended by `interrupt`; the transport can still be used."""


class Transport(Protocol):
    """What a connection needs of its client's bytes."""

    async def handshake(self) -> None:
        """Whatever must happen before the first byte."""

    async def receive(self) -> bytes:
        """At most 256 KiB; b"" when the client sends no more."""

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
    """A connected, non-blocking socket. Owns it.

    `is_readable`: bytes or the end were told of and not read to the last. `on_readable` is asked
    when that is told while the task waits for it: True leaves the task waiting.
    """

    __slots__ = (
        "_fileno",
        "_has_ended",
        "_is_expired",
        "_piece_bytes",
        "_readiness",
        "_receive_bytes",
        "_send_bytes",
        "_sock",
        "_waiting",
        "is_readable",
        "on_readable",
    )

    def __init__(self, sock: socket.socket, readiness: Readiness) -> None:
        self._sock = sock
        self._fileno = sock.fileno()
        self._receive_bytes = sock.recv
        self._send_bytes = sock.send
        self._readiness = readiness
        self._waiting: trio.lowlevel.Task | None = None
        self._piece_bytes = _FIRST_PIECE_BYTES
        self._has_ended = False
        self._is_expired = False
        self.is_readable = False
        self.on_readable: Callable[[], bool] | None = None
        readiness.add(self._fileno, self._note_readable)

    async def handshake(self) -> None:
        return

    async def wait_readable(self) -> None:
        """Until something may be read, or `wake` is called. Raises WaitExpired."""
        if self.is_readable:
            await trio.lowlevel.checkpoint()
            return
        self._waiting = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort_wait)
        if self._is_expired:
            self._is_expired = False
            raise WaitExpired

    def _abort_wait(self, _: object) -> trio.lowlevel.Abort:
        self._waiting = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _note_readable(self, has_ended: bool) -> None:
        self.is_readable = True
        self._has_ended = self._has_ended or has_ended
        if self._waiting is not None and (self.on_readable is None or not self.on_readable()):
            self.wake()

    def wake(self) -> None:
        """End the wait for something to read, if there is one."""
        task, self._waiting = self._waiting, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    async def receive(self) -> bytes:
        while True:
            await self.wait_readable()
            data = self.receive_nowait()
            if data is not None:
                return data

    def receive_nowait(self) -> bytes | None:
        try:
            data = self._receive_bytes(self._piece_bytes)
        except BlockingIOError:
            self.is_readable = False
            return None
        except OSError:
            raise ClientGone("the connection was reset") from None
        if len(data) < self._piece_bytes:
            # All of it: what comes later is told anew. The end is told only once.
            self.is_readable = self._has_ended
        else:
            self._piece_bytes = PIECE_BYTES_MAX
        return data

    def send_nowait(self, data: bytes) -> int:
        """How much of it the kernel took."""
        try:
            return self._send_bytes(data)
        except BlockingIOError:
            return 0
        except OSError:
            raise ClientGone("the connection was reset") from None

    async def send(self, data: bytes) -> None:
        sent_bytes = self.send_nowait(data)
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
        task, self._waiting = self._waiting, None
        if task is not None:
            self._is_expired = True
            trio.lowlevel.reschedule(task)
            return
        # Wakes a task that waits to send with ClosedResourceError; the descriptor stays open.
        trio.lowlevel.notify_closing(self._fileno)

    def close(self) -> None:
        self._readiness.remove(self._fileno)
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

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, readiness: Readiness) -> None:
        self._wire = PlainTransport(sock, readiness)
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
