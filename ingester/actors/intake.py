"""Intake server: accepts connections and runs one `Connection` for each.

Why not a stock server: on trio there is one, and a single hostile request ends its process
(`ARCHITECTURE.md`, "the intake door"). HTTP/1.1 only; HTTP/2 belongs to a reverse proxy.

1. At most `connections_max` connections, and `connections_per_address_max` of one address. One
   more takes the place of a client that is silent, slow or resting (`Connection.rank`); when there
   is none, and for its address, it is told 503 and closed without being read. Likewise slow senders
   end when others wait for the memory that is kept for their bodies.
2. Running out of descriptors slows accepting down and ends nothing.
3. No fault of one connection reaches another, or the process.
4. `drain` accepts nothing more, closes idle connections at once and lets open requests finish;
   what does not finish in time is for the caller to cancel.

Deadlines are kept by one task for all connections (see `connection.py`): a timer per request
costs about as much as parsing it.
"""

from __future__ import annotations

import errno
import heapq
import socket
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter

import structlog
import trio

from ingester.actors.connection import RANK_SLOW, Connection
from ingester.actors.intake_shared import IntakeShared, IntakeStatistics
from ingester.actors.readiness import Readiness
from ingester.actors.tls import Certificates
from ingester.actors.transport import PlainTransport, TlsTransport, Transport
from ingester.config import IntakeConfig
from ingester.doors.exchange import Handler, Shortcut, error_response
from ingester.errors import ClientGone
from ingester.messages import RequestNumbers
from ingester.protocol.forwarded import address_text, is_in
from ingester.protocol.http1 import response_bytes

__all__ = ["IntakeServer"]

log = structlog.get_logger(__name__)

# accept(2): these pass when something is closed elsewhere. Any other error concerns one client.
_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS))
_EXHAUSTED_WAIT_S = 0.1
_EXHAUSTED_LOG_S = 1.0

# Of all places, made free at once when there is none: looking for them costs a look at each.
_ROOM_SHARE = 16

# Refused clients that are given a second to read why; more are closed at once.
_TURNED_AWAY_MAX = 32
_TURNED_AWAY_S = 1.0


class IntakeServer:
    """Serves one handler on any number of listeners. `run` may be called once per listener set."""

    def __init__(
        self,
        handler: Handler,
        config: IntakeConfig,
        numbers: RequestNumbers,
        shortcuts: Mapping[str, Shortcut] | None = None,
        *,
        is_short_of_memory: Callable[[], bool] = lambda: False,
    ) -> None:
        """`shortcuts` by listener."""
        self._shared = IntakeShared(handler, config, numbers.next, shortcuts or {})
        self._take(config)
        self._is_short_of_memory = is_short_of_memory
        # In the order of their coming.
        self._connections: dict[Connection, None] = {}
        self._leaving: set[Connection] = set()
        self._no_room_at_s = float("-inf")
        self._per_address: dict[str, int] = {}
        self._accept_scopes: set[trio.CancelScope] = set()
        self._empty = trio.Event()
        self._accepted_count = 0
        self._refused_count = 0
        self._ended_count = 0
        self._turned_away_count = 0
        self._exhausted_logged_s = float("-inf")

    async def run(
        self,
        listeners: Sequence[trio.SocketListener],
        *,
        listener: str = "intake",
        tls: Certificates | None = None,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `drain` and the last connection's end. Owns `listeners`."""
        self._shared.tick()
        readiness = Readiness()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._reap)
            nursery.start_soon(readiness.run)
            async with trio.open_nursery() as serving:
                for one in listeners:
                    serving.start_soon(self._serve_listener, one, listener, tls, readiness)
                task_status.started()
            nursery.cancel_scope.cancel()

    def take(self, config: IntakeConfig) -> None:
        """Settings that were read again."""
        self._shared.take(config)
        self._take(config)

    def _take(self, config: IntakeConfig) -> None:
        self._connections_max = config.connections_max
        self._per_address_max = config.connections_per_address_max

    def drain(self) -> None:
        """Accept nothing more; close idle connections; answers from now on end theirs."""
        self._shared.draining = True
        for scope in self._accept_scopes:
            scope.cancel()
        for connection in list(self._connections):
            connection.end_if_idle()
        self._note_if_empty()

    async def wait_drained(self) -> None:
        """Until `drain` was called and the last connection is gone."""
        await self._empty.wait()

    def statistics(self) -> IntakeStatistics:
        shared = self._shared
        return IntakeStatistics(
            connections_open=len(self._connections),
            connections_accepted=self._accepted_count,
            connections_refused=self._refused_count,
            connections_ended=self._ended_count,
            requests=dict(shared.requests),
            received_bytes=shared.received_bytes,
            sent_bytes=shared.sent_bytes,
            stalls=shared.stalls,
            gone=shared.gone,
            faults=shared.faults,
            draining=shared.draining,
        )

    async def _reap(self) -> None:
        """End every wait whose deadline passed."""
        while True:
            await trio.sleep(self._shared.tick_s)
            now_s = self._shared.tick()
            for connection in [one for one in self._connections if one.deadline <= now_s]:
                connection.expire()
            if self._is_short_of_memory():
                for connection in self._connections:
                    rank = connection.rank()
                    if rank is not None and rank[0] == RANK_SLOW:
                        self._end(connection)

    async def _serve_listener(
        self,
        listener: trio.SocketListener,
        name: str,
        tls: Certificates | None,
        readiness: Readiness,
    ) -> None:
        async with listener, trio.open_nursery() as clients:
            with trio.CancelScope() as scope:
                self._accept_scopes.add(scope)
                if self._shared.draining:
                    scope.cancel()
                while True:
                    accepted = await self._accept(listener)
                    if accepted is None:
                        continue
                    sock, address = accepted
                    if self._is_full(address):
                        self._refused_count += 1
                        plain = PlainTransport(sock, readiness)
                        clients.start_soon(self._turn_away, plain, tls is None)
                    else:
                        transport = (
                            PlainTransport(sock, readiness)
                            if tls is None
                            else TlsTransport(sock, tls.context, readiness)
                        )
                        connection = self._admit(transport, address, name)
                        clients.start_soon(self._serve_client, connection, address)
            self._accept_scopes.discard(scope)
            await listener.aclose()  # refuse new clients while the open ones finish

    async def _accept(self, listener: trio.SocketListener) -> tuple[socket.socket, str] | None:
        """The next client, or None when this one was lost; waits when descriptors ran out."""
        try:
            accepted, peer = await listener.socket.accept()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                now_s = trio.current_time()
                if now_s - self._exhausted_logged_s >= _EXHAUSTED_LOG_S:
                    self._exhausted_logged_s = now_s
                    log.warning("accept_exhausted", error=errno.errorcode[error.errno])
                await trio.sleep(_EXHAUSTED_WAIT_S)
            return None
        sock = socket.socket(fileno=accepted.detach())
        sock.setblocking(False)
        if sock.family == socket.AF_UNIX:
            return sock, "local"
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:  # reset before we came to it
            sock.close()
            return None
        return sock, address_text(peer[0])

    def _is_full(self, address: str) -> bool:
        used_count = len(self._connections) - len(self._leaving)
        if used_count >= self._connections_max and not self._make_room():
            return True
        return (
            self._per_address_max > 0
            and self._per_address.get(address, 0) >= self._per_address_max
            and not is_in(address, self._shared.trusted)  # a proxy stands for many clients
        )

    def _make_room(self) -> bool:
        """End those who are the least needed; False when all are. Looks once a tick at most."""
        now_s = self._shared.now_s
        if now_s == self._no_room_at_s:
            return False
        ranked = ((one.rank(), one) for one in self._connections)
        dispensable = [(rank, one) for rank, one in ranked if rank is not None]
        if not dispensable:
            self._no_room_at_s = now_s
            return False
        count = max(1, self._connections_max // _ROOM_SHARE)
        for _, connection in heapq.nsmallest(count, dispensable, key=itemgetter(0)):
            self._end(connection)
        return True

    def _end(self, connection: Connection) -> None:
        self._leaving.add(connection)
        self._ended_count += 1
        connection.make_room()

    def _admit(self, transport: Transport, address: str, name: str) -> Connection:
        connection = Connection(transport, address, name, self._shared)
        self._connections[connection] = None
        self._per_address[address] = self._per_address.get(address, 0) + 1
        self._accepted_count += 1
        return connection

    async def _serve_client(self, connection: Connection, address: str) -> None:
        try:
            await connection.run()
        except Exception as error:
            self._shared.count_fault("connection_failed", error)
        finally:
            del self._connections[connection]
            self._leaving.discard(connection)
            left_count = self._per_address[address] - 1
            if left_count:
                self._per_address[address] = left_count
            else:
                del self._per_address[address]
            self._note_if_empty()

    async def _turn_away(self, transport: PlainTransport, is_plain: bool) -> None:
        """Say 503, give the client a moment to read it, close. Over TLS only close."""
        self._turned_away_count += 1
        try:
            if is_plain and self._turned_away_count <= _TURNED_AWAY_MAX:
                with trio.move_on_after(_TURNED_AWAY_S):
                    await transport.send(self._full_answer())
                    transport.shut_sending()
                    await transport.discard()
        except ClientGone:
            pass
        finally:
            self._turned_away_count -= 1
            transport.close()

    def _full_answer(self) -> bytes:
        response = error_response(503, "too many connections", retry_after_s=1)
        return response_bytes(
            response.status,
            ((b"Content-Type", response.content_type), *response.headers),
            response.body,
            keep_alive=False,
            first_lines=self._shared.first_lines(self._shared.next_number()),
        )

    def _note_if_empty(self) -> None:
        if self._shared.draining and not self._connections:
            self._empty.set()
