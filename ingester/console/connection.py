"""One HTTP/1.1 connection of the console door: Hypercorn's protocol inside our own guards.

Hypercorn 0.18 on trio ends the whole process when one connection fails in an unexpected way, and
three kinds of requests make it fail (a malformed `HTTP2-Settings` on an h2c upgrade, WebSocket
upgrades with trailing bytes, a bad extension or a body). Its own connection class also waits
without end for a client that does not read, and keeps the descriptor of a client that left while
the connection was idle. This class replaces it; what stays Hypercorn's is the parsing (h11) and
the ASGI dialogue.

Invariants:

1. `run` raises nothing but what ends the process on purpose (cancellation, KeyboardInterrupt): a
   fault is counted, logged at most once a second, and costs its own connection only.
2. When `run` returns the socket is closed.
3. Only HTTP/1.x is spoken. Upgrade requests (h2c, WebSocket) are plain requests; no code of
   HTTP/2 or WebSocket is reached.
4. Every wait for the client is bounded: the TLS handshake, the head (`keep_alive_seconds`, from
   the end of the answer before), each piece of an answer (`send_seconds_max` for 64 KiB), and the
   reading away of what follows a last answer (`linger_*`). The body is bounded in `guard.py`.

It refuses to time the handler: a query has its own deadline in the store.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import Callable
from typing import cast

import h11
import structlog
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import EndBody
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Request as StreamRequest
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import TrioSingleTask, WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState, LifespanState
from hypercorn.utils import parse_socket_addr
from msgspec import Struct

__all__ = [
    "Connection",
    "ConsoleCounters",
    "ConsoleLimits",
    "FaultLog",
    "TlsContext",
    "hypercorn_config",
]

# A function is asked at every connection, so that re-read certificates count for new ones.
TlsContext = ssl.SSLContext | Callable[[], ssl.SSLContext] | None

_RECEIVE_BYTES_MAX = 64 * 1024
_SEND_BYTES_MAX = 64 * 1024

# h11's states of a client whose request has arrived.
_WHOLE_STATES = frozenset({h11.DONE, h11.MUST_CLOSE, h11.CLOSED})

# One line per kind of fault in this time; the rest is counted in the next line.
_FAULT_LOG_SECONDS = 1.0


class ConsoleLimits(Struct, frozen=True, kw_only=True):
    """Bounds of the console door; seconds and bytes."""

    connections_max: int = 256
    control_connections_max: int = 64
    backlog: int = 1024
    head_bytes_max: int = 16 * 1024
    target_bytes_max: int = 8 * 1024
    # A rejected line that was mended (64 KiB, escaped); a dashboard; SQL. Times `connections_max`
    # it is memory.
    body_bytes_max: int = 256 * 1024
    control_body_bytes_max: int = 1024 * 1024
    body_seconds_max: float = 30.0
    keep_alive_seconds: float = 5.0
    handshake_seconds_max: float = 10.0
    send_seconds_max: float = 30.0
    linger_seconds_max: float = 2.0
    linger_bytes_max: int = 8 * 1024 * 1024
    drain_seconds_max: float = 30.0


class ConsoleCounters:
    """What the door counts; `snapshot` has the form `console.metrics` reads."""

    def __init__(self) -> None:
        self.connections_open = 0
        self.connections_total = 0
        self.connections_refused_total = 0
        self.connection_faults_total = 0
        self.accept_failures_total = 0
        self.requests_by_listener: dict[str, dict[str, int]] = {}

    def answered(self, listener: str, status: int) -> None:
        by_status = self.requests_by_listener.setdefault(listener, {})
        by_status[str(status)] = by_status.get(str(status), 0) + 1

    def snapshot(self) -> dict[str, object]:
        return {
            "connections_open": self.connections_open,
            "connections_total": self.connections_total,
            "connections_refused_total": self.connections_refused_total,
            "connection_faults_total": self.connection_faults_total,
            "accept_failures_total": self.accept_failures_total,
            "requests_total": {
                "by_listener": {
                    listener: {"by_status": dict(counts)}
                    for listener, counts in self.requests_by_listener.items()
                }
            },
        }


class FaultLog:
    """Logs a repeated fault at most once a second: an attack must not fill the log."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("ingester.console")
        self._last: dict[str, float] = {}
        self._suppressed: dict[str, int] = {}

    def report(self, sentence: str, error: BaseException) -> None:
        now = trio.current_time()
        if now - self._last.get(sentence, float("-inf")) < _FAULT_LOG_SECONDS:
            self._suppressed[sentence] = self._suppressed.get(sentence, 0) + 1
            return
        self._last[sentence] = now
        suppressed = self._suppressed.pop(sentence, 0)
        self._log.error(sentence, exc_info=error, suppressed=suppressed)


class PlainStream(HTTPStream):
    """One request and its answer; knows when the request is whole."""

    request_is_whole = False

    async def handle(self, event: StreamEvent) -> None:
        if isinstance(event, EndBody):
            self.request_is_whole = True
        await super().handle(event)


class PlainH11(H11Protocol):
    """Hypercorn's HTTP/1.1 without the two doors out of it."""

    @property
    def is_answering(self) -> bool:
        """Whether an answer is due or under way that faults behind its request do not touch."""
        if self.connection.our_state is h11.SEND_BODY:
            return True
        return isinstance(self.stream, PlainStream) and self.stream.request_is_whole

    @property
    def is_receiving(self) -> bool:
        """Whether the client may have more on its way than the request it has sent."""
        if self.connection.their_state not in _WHOLE_STATES:
            return True
        return bool(self.connection.trailing_data[0])

    async def _check_protocol(self, event: h11.Request) -> None:
        """No h2c upgrade and no HTTP/2 by prior knowledge."""

    async def _create_stream(self, request: h11.Request) -> None:
        """As the original, without its WebSocket branch."""
        stream = PlainStream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        self.stream = stream
        await stream.handle(
            StreamRequest(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1
        await self.context.mark_request()

    async def _send_error_response(self, status_code: int) -> None:
        """Not in the place of an answer that is due."""
        if not self.is_answering:
            await super()._send_error_response(status_code)


class Connection:
    """One accepted stream. `run` serves it to its end; `kill` ends it from another task."""

    def __init__(
        self,
        stream: trio.SocketStream,
        app: AppWrapper,
        *,
        config: HypercornConfig,
        context: WorkerContext,
        tls: TlsContext,
        limits: ConsoleLimits,
        counters: ConsoleCounters,
        faults: FaultLog,
    ) -> None:
        self._socket = stream.socket
        self._stream: trio.SocketStream | trio.SSLStream[trio.SocketStream] = stream
        self._app = app
        self._config = config
        self._context = context
        self._tls = tls
        self._limits = limits
        self._counters = counters
        self._faults = faults
        self._idle = TrioSingleTask()
        self._send_lock = trio.Lock()
        self._closing = False
        self._deaf = False
        self._reader: trio.lowlevel.Task | None = None
        self._reader_done = trio.Event()
        self._reading = trio.CancelScope()

    async def run(self) -> None:
        self._counters.connections_open += 1
        self._counters.connections_total += 1
        try:
            await self._serve()
        except OSError:
            pass  # the client is gone
        except Exception as error:
            self._fault(error)
        except BaseExceptionGroup as group:
            # A fault may arrive together with the cancellation of a stop.
            faults, rest = group.split(Exception)
            if faults is not None:
                self._fault(faults)
            if rest is not None:
                raise rest from None
        finally:
            self._counters.connections_open -= 1
            self.kill()

    def kill(self) -> None:
        """Close the socket now; whoever waits on it goes on with an error.

        The reader may instead wait for the end of an answer that never ends (Hypercorn holds
        pipelined requests back until then, and forgets them when the client leaves).
        """
        self._socket.close()
        if not self._is_reader():
            self._reading.cancel()

    async def _serve(self) -> None:
        client = parse_socket_addr(self._socket.family, self._socket.getpeername())
        server = parse_socket_addr(self._socket.family, self._socket.getsockname())
        tls = self._tls() if callable(self._tls) else self._tls
        if tls is not None and not await self._handshake(tls):
            return
        async with TaskGroup() as tasks:
            self._tasks = tasks
            self._protocol = PlainH11(
                self._app,
                self._config,
                self._context,
                tasks,
                ConnectionState(LifespanState({})),
                tls is not None,
                client,
                server,
                self._send,
            )
            await self._protocol.initiate()
            await self._idle.restart(tasks, self._idle_timeout)
            await self._read()
        await self._close()

    async def _handshake(self, context: ssl.SSLContext) -> bool:
        # HTTP/2 must not be agreed on: nothing here speaks it.
        context.set_alpn_protocols(["http/1.1"])
        stream = trio.SSLStream(
            cast(trio.SocketStream, self._stream),
            context,
            server_side=True,
            https_compatible=True,
        )
        self._stream = stream
        try:
            with trio.fail_after(self._limits.handshake_seconds_max):
                await stream.do_handshake()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            return False
        return True

    async def _read(self) -> None:
        self._reader = trio.lowlevel.current_task()
        try:
            with self._reading:
                while not (self._closing or self._deaf):
                    data = await self._receive()
                    if self._closing:
                        break
                    await self._protocol.handle(RawData(data))
                    if not data:
                        break
                if self._closing or self._deaf:
                    await self._discard()
            await self._protocol.handle(Closed())
        finally:
            self._reader_done.set()
            # Else a client that left keeps its descriptor until the idle time is over.
            await self._idle.stop()

    async def _receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(_RECEIVE_BYTES_MAX))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def _send(self, event: Event) -> None:
        """What Hypercorn calls to write, to close, and when the connection (un)idles."""
        if isinstance(event, RawData):
            async with self._send_lock:
                sent = await self._send_pieces(event.data)
            if not sent:
                self.kill()
                await self._protocol.handle(Closed())
        elif isinstance(event, Closed):
            if self._is_reader() and self._protocol.is_answering:
                # What follows a request is no HTTP, or comes after "Connection: close". The
                # answer under way goes on (else it is cut), the connection ends after it.
                self._deaf = True
                return
            await self._close()
            await self._protocol.handle(Closed())
        elif isinstance(event, Updated):
            if not event.idle:
                await self._idle.stop()
            elif not self._reader_done.is_set():
                await self._idle.restart(self._tasks, self._idle_timeout)

    async def _send_pieces(self, data: bytes) -> bool:
        """Shielded, as a cut answer must not look whole; `kill` still ends it."""
        view = memoryview(data)
        for start in range(0, len(view), _SEND_BYTES_MAX):
            with trio.move_on_after(self._limits.send_seconds_max, shield=True) as scope:
                try:
                    await self._stream.send_all(view[start : start + _SEND_BYTES_MAX])
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return False
            if scope.cancelled_caught:
                return False
        return True

    async def _close(self) -> None:
        """Half-close, read away what the client still sends, close.

        Closing with unread bytes in the socket makes the kernel send RST, which can destroy the
        answer (a 413, say) before the client has read it.
        """
        if self._closing:
            return
        self._closing = True
        if isinstance(self._stream, trio.SocketStream):
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                async with self._send_lock:
                    await self._stream.send_eof()
        if self._deaf or self._protocol.is_receiving:
            with trio.move_on_after(self._limits.linger_seconds_max):
                if self._reader_done.is_set() or self._is_reader():
                    await self._discard()
                else:
                    await self._reader_done.wait()
        self.kill()

    async def _discard(self) -> None:
        """Read to the end of the stream, bounded in bytes; `kill` ends it as well."""
        left = self._limits.linger_bytes_max
        while left > 0 and (data := await self._receive()):
            left -= len(data)

    def _is_reader(self) -> bool:
        return trio.lowlevel.current_task() is self._reader

    async def _idle_timeout(self) -> None:
        with trio.move_on_after(self._limits.keep_alive_seconds):
            await self._context.terminated.wait()
        with trio.CancelScope(shield=True):
            await self._protocol.handle(Closed())
            self.kill()

    def _fault(self, error: BaseException) -> None:
        self._counters.connection_faults_total += 1
        self._faults.report("a console connection failed and was closed", error)


def hypercorn_config(limits: ConsoleLimits) -> HypercornConfig:
    """Hypercorn's settings; its sockets, signals, access log and workers are never used."""
    config = HypercornConfig()
    config.accesslog = None  # paths may hold keys
    config.errorlog = logging.getLogger("hypercorn.error")  # without handlers of its own
    config.include_server_header = False
    config.h11_max_incomplete_size = limits.head_bytes_max
    return config
