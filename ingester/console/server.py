"""The console door's listeners: a TCP one for people and scrapers, a unix one for the command line.

The application is served by our own accept loop and connection class (`connection.py`), not by
Hypercorn's server: that one cannot tell two listeners apart, keeps its sockets to itself, cuts
open requests after 3 s at a stop, and ends the process when one connection fails.

Invariants:

1. Requests of the unix socket count as the local administrator's. The socket has mode 0600 from
   before it listens; a request's listener is told to the application by `guard.py`.
2. A stale socket file is replaced, a file of another kind is never touched, and at the end only
   our own socket is removed.
3. `stop` closes the listeners at once, idle connections at once, busy ones after their answer;
   what is left after `drain_seconds_max`, or when it is cancelled, is cut. Signals are the
   topology's affair.
4. Over `connections_max` a connection is answered 503 and closed; the unix socket has places of
   its own, so that a flood over TCP does not lock the administrator out.
5. Without free descriptors accepting pauses and goes on by itself.

Who starts it holds the lock on the data folder: that makes every socket file found there stale.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ASGIFramework
from msgspec import Struct

from ingester.console.connection import (
    Connection,
    ConsoleCounters,
    ConsoleLimits,
    FaultLog,
    TlsContext,
    hypercorn_config,
)
from ingester.console.guard import Application, Guard, Listener
from ingester.errors import ConfigError

__all__ = [
    "Bind",
    "ConsoleAddresses",
    "ConsoleCounters",
    "ConsoleLimits",
    "StartedOnce",
    "TlsContext",
    "serve_console",
    "socket_address",
]

# "host:port" (port 0: any free one), or a bound socket; None: no TCP listener.
Bind = str | socket.socket | trio.socket.SocketType | None

# sun_path of sockaddr_un(7) is 108 bytes with its NUL.
_SUN_PATH_BYTES_MAX = 107

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_EXHAUSTED_PAUSE_SECONDS = 0.1

_REFUSE_SECONDS_MAX = 1.0
_PORT_MAX = 65_535

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    b"Content-Length: 47\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
    b'{"error": "too many connections to this door"}\n'
)


class ConsoleAddresses(Struct, frozen=True, kw_only=True):
    """Where the door really listens. `url` is "" and `port` 0 without a TCP listener."""

    url: str
    host: str
    port: int
    unix_path: Path | None


class StartedOnce(trio.TaskStatus[ConsoleAddresses]):
    """Reports the first start; `bind` is where the next one must listen."""

    def __init__(self, task_status: trio.TaskStatus[ConsoleAddresses]) -> None:
        self._task_status = task_status
        self.addresses: ConsoleAddresses | None = None

    def started(self, value: ConsoleAddresses | None = None) -> None:
        assert value is not None
        if self.addresses is None:
            self.addresses = value
            self._task_status.started(value)

    def bind(self, configured: str) -> str:
        if self.addresses is None:
            return configured
        host, _, _ = configured.rpartition(":")
        return f"{host}:{self.addresses.port}"


class _Door(Struct, frozen=True, kw_only=True):
    """One kind of listener: what serves it and how many at once."""

    name: Listener
    app: AppWrapper
    tls: TlsContext
    connections_max: int


async def serve_console(
    app: ASGIFramework,
    *,
    bind: Bind,
    unix_path: Path | None,
    tls: TlsContext,
    stop: trio.Event,
    limits: ConsoleLimits | None = None,
    counters: ConsoleCounters | None = None,
    task_status: trio.TaskStatus[ConsoleAddresses] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` until `stop` is set and the open requests are answered."""
    limits = limits or ConsoleLimits()
    counters = counters or ConsoleCounters()
    with contextlib.ExitStack() as sockets:
        tcp = await _open_tcp(bind, limits.backlog)
        for listener in tcp:
            sockets.callback(listener.socket.close)
        console = _door("console", app, tls, limits, counters)
        doors = [(listener, console) for listener in tcp]
        if unix_path is not None:
            control = _door("control", app, None, limits, counters)
            doors.append((sockets.enter_context(_open_unix(unix_path, limits.backlog)), control))
        task_status.started(_addresses(tcp, unix_path, secure=tls is not None))
        await _serve_until(doors, stop, limits=limits, counters=counters, sockets=sockets)


async def _serve_until(
    doors: list[tuple[trio.SocketListener, _Door]],
    stop: trio.Event,
    *,
    limits: ConsoleLimits,
    counters: ConsoleCounters,
    sockets: contextlib.ExitStack,
) -> None:
    config = hypercorn_config(limits)
    context = WorkerContext(None)
    faults = FaultLog()
    served: set[Connection] = set()

    async def serve(connection: Connection, places: trio.CapacityLimiter) -> None:
        served.add(connection)
        try:
            await connection.run()
        finally:
            served.discard(connection)
            places.release_on_behalf_of(connection)

    async def accept(listener: trio.SocketListener, door: _Door) -> None:
        places = trio.CapacityLimiter(door.connections_max)
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                counters.accept_failures_total += 1
                faults.report("the console door cannot accept a connection now", error)
                await trio.sleep(_EXHAUSTED_PAUSE_SECONDS)
                continue
            connection = Connection(
                stream,
                door.app,
                config=config,
                context=context,
                tls=door.tls,
                limits=limits,
                counters=counters,
                faults=faults,
            )
            try:
                places.acquire_on_behalf_of_nowait(connection)
            except trio.WouldBlock:
                counters.connections_refused_total += 1
                await _refuse(stream, secure=door.tls is not None)
            else:
                connections.start_soon(serve, connection, places)

    async with trio.open_nursery() as watch:
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as listening:
                for listener, door in doors:
                    listening.start_soon(accept, listener, door)
                await stop.wait()
                listening.cancel_scope.cancel()
            sockets.close()
            await context.terminated.set()
            watch.start_soon(_cut, served, connections.cancel_scope, limits.drain_seconds_max)
        watch.cancel_scope.cancel()


async def _cut(served: set[Connection], scope: trio.CancelScope, after_seconds: float) -> None:
    """End what is still open when the time to drain is over, or when whoever serves is cancelled
    before that: an answer nobody reads is shielded, and would hold up the end of the process.
    """
    try:
        await trio.sleep(after_seconds)
    finally:
        for connection in list(served):
            connection.kill()
    scope.cancel()


async def _refuse(stream: trio.SocketStream, *, secure: bool) -> None:
    """The door is full. The answer fits the empty send buffer of a new socket, so nothing waits."""
    try:
        with trio.move_on_after(_REFUSE_SECONDS_MAX):
            if not secure:
                await stream.send_all(_FULL)
    except trio.BrokenResourceError:
        pass  # gone already
    finally:
        stream.socket.close()


def _door(
    name: Listener,
    app: ASGIFramework,
    tls: TlsContext,
    limits: ConsoleLimits,
    counters: ConsoleCounters,
) -> _Door:
    guard = Guard(cast(Application, app), listener=name, limits=limits, counters=counters)
    places = limits.control_connections_max if name == "control" else limits.connections_max
    return _Door(
        name=name, app=ASGIWrapper(cast(ASGIFramework, guard)), tls=tls, connections_max=places
    )


def _addresses(
    tcp: list[trio.SocketListener], unix_path: Path | None, *, secure: bool
) -> ConsoleAddresses:
    if not tcp:
        return ConsoleAddresses(url="", host="", port=0, unix_path=unix_path)
    host, port = tcp[0].socket.getsockname()[:2]
    scheme = "https" if secure else "http"
    shown = f"[{host}]" if ":" in host else host
    return ConsoleAddresses(
        url=f"{scheme}://{shown}:{port}", host=host, port=port, unix_path=unix_path
    )


async def _open_tcp(bind: Bind, backlog: int) -> list[trio.SocketListener]:
    if bind is None:
        return []
    if isinstance(bind, socket.socket):
        bind = trio.socket.from_stdlib_socket(bind)
    if not isinstance(bind, str):
        bind.listen(backlog)
        return [trio.SocketListener(bind)]
    host, port = _host_and_port(bind)
    try:
        listeners = await trio.open_tcp_listeners(port, host=host or None, backlog=backlog)
    except OSError as error:
        raise ConfigError(
            "console.bind", f"cannot listen on {bind}: {error.strerror or error}"
        ) from error
    if port == 0:
        # A name with several addresses gets a port for each; one must be the port that is told.
        for extra in listeners[1:]:
            extra.socket.close()
        del listeners[1:]
    return listeners


def _host_and_port(bind: str) -> tuple[str, int]:
    host, separator, port = bind.rpartition(":")
    if not separator or not port.isascii() or not port.isdigit() or int(port) > _PORT_MAX:
        raise ConfigError("console.bind", f"HOST:PORT, like 127.0.0.1:8081, got {bind!r}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return host, int(port)


@contextlib.contextmanager
def _open_unix(path: Path, backlog: int) -> Iterator[trio.SocketListener]:
    """A listening unix socket at `path`, put there whole by a rename and removed at the end."""
    try:
        bound = _bind_unix(path)
    except OSError as error:
        raise ConfigError(
            "store.data_dir", f"cannot listen on {path}: {error.strerror or error}"
        ) from error
    with bound:
        bound.listen(backlog)
        bound.setblocking(False)
        ours = _identity(path)
        try:
            yield trio.SocketListener(trio.socket.from_stdlib_socket(bound))
        finally:
            if ours == _identity(path):
                path.unlink(missing_ok=True)


def _bind_unix(path: Path) -> socket.socket:
    if os.path.lexists(path) and not stat.S_ISSOCK(path.lstat().st_mode):
        raise ConfigError("store.data_dir", f"{path} is in the way: it is not a socket")
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with socket_address(new) as address:
            bound.bind(address)
        new.chmod(0o600)  # nobody can connect before `listen`
        new.rename(path)
    except BaseException:
        bound.close()
        new.unlink(missing_ok=True)
        raise
    return bound


@contextlib.contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """The address to bind or connect to for a socket file, also where its path is too long."""
    if len(os.fsencode(path)) <= _SUN_PATH_BYTES_MAX:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
