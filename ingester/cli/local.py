"""The server of a data folder as seen from the same machine: its unix socket, or its absence.

A running server listens on `<data_dir>/control.sock` (HTTP/1.1, the JSON API of the console door,
trusted as admin because only the folder's owner can open it) and holds an `flock` on
`<data_dir>/lock`. A command asks the socket when it answers, and works on the files itself only
while it holds the lock, so that no server starts beside it with an older view.
"""

from __future__ import annotations

import http.client
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from ingester.cli.common import (
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    CommandFailed,
    console_base,
    intake_base,
)
from ingester.config_load import Loaded
from ingester.errors import StoreBusy

if TYPE_CHECKING:
    from ingester.management.calls import RejectDesk
    from ingester.store.control import ControlStore

__all__ = [
    "LocalServer",
    "Manager",
    "ServerEvent",
    "calls_in_process",
    "find_server",
    "follow",
    "open_manager",
    "settled_server",
]

# sun_path holds 108 bytes with the final NUL (unix(7)).
_SOCKET_PATH_MAX = 107

# A starting server holds the lock some time before its socket answers (recovery, migrations).
_STARTING_SECONDS_MAX = 10.0
_POLL_SECONDS = 0.1

_CONNECT_SECONDS = 5.0

# A live stream gives a sign of life every 15 s.
_SILENCE_SECONDS = 45.0

_PIECE_BYTES = 256 * 1024


class LocalServer:
    """A server that answered on its socket a moment ago."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    def call(
        self,
        method: str,
        path: str,
        document: Mapping[str, object] | None = None,
        *,
        timeout_s: float = 60.0,
    ) -> bytes:
        """The body of a 2xx answer; any other answer, or none, ends the command."""
        return b"".join(self.stream(method, path, document, timeout_s=timeout_s))

    def stream(
        self,
        method: str,
        path: str,
        document: Mapping[str, object] | None = None,
        *,
        timeout_s: float = 60.0,
    ) -> Iterator[bytes]:
        """The same piece by piece; ends the command too when the answer stops in the middle."""
        body = None if document is None else msgspec.json.encode(document)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        with closing(_SocketConnection(self._data_dir, timeout_s)) as connection:
            try:
                connection.request(method, path, body=body, headers=headers)
                answer = connection.getresponse()
                if 200 <= answer.status < 300:
                    while piece := answer.read(_PIECE_BYTES):
                        yield piece
                    return
                content = answer.read()
            except TimeoutError as error:
                raise CommandFailed(f"the server did not answer within {timeout_s:g} s") from error
            except (OSError, http.client.HTTPException) as error:
                raise CommandFailed(
                    f"the server closed the connection: {error or type(error).__name__}",
                    EXIT_UNREACHABLE,
                ) from error
            raise CommandFailed(_error_sentence(answer.status, content))


def find_server(data_dir: Path) -> LocalServer | None:
    """The running server of the folder, or None."""
    probe = _SocketConnection(data_dir, _CONNECT_SECONDS)
    try:
        probe.connect()
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return None
    except PermissionError as error:
        raise CommandFailed(
            f"the server's socket in {data_dir} may not be opened: run this as the user that"
            " started the server"
        ) from error
    except OSError as error:
        raise CommandFailed(
            f"the server of {data_dir} does not answer: {error}", EXIT_UNREACHABLE
        ) from error
    finally:
        probe.close()
    return LocalServer(data_dir)


def settled_server(data_dir: Path) -> LocalServer | None:
    """The running server, waiting for one that is starting; None when the folder is at rest."""
    if (server := find_server(data_dir)) is not None:
        return server
    if not data_dir.is_dir():
        raise CommandFailed(f"there is no data folder at {data_dir}; name it with --data-dir")
    with _lock_or_server(data_dir) as found:
        return found


@contextmanager
def open_manager(loaded: Loaded, *, create: bool = False) -> Iterator[Manager]:
    """Who manages keys and members: the server when one runs, else this process under the lock."""
    data_dir = Path(loaded.config.store.data_dir)
    server = find_server(data_dir)
    if server is not None:
        yield Manager(server.call)
        return
    if create:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    elif not data_dir.is_dir():
        raise CommandFailed(f"there is no data folder at {data_dir}; name it with --data-dir")
    with _lock_or_server(data_dir) as server:
        if server is not None:
            yield Manager(server.call)
            return
        from ingester.store.control import ControlStore

        with closing(ControlStore.open(data_dir / "control.sqlite")) as control:
            yield Manager(calls_in_process(control, loaded))


class Manager:
    """The management routes, by socket or in this process: the same documents either way."""

    def __init__(self, call: Callable[[str, str, Mapping[str, object] | None], bytes]) -> None:
        self._call = call

    def __call__(
        self, method: str, path: str, document: Mapping[str, object] | None = None
    ) -> dict[str, Any]:
        """The document of a 2xx answer; any other answer ends the command."""
        try:
            answer: dict[str, Any] = msgspec.json.decode(self._call(method, path, document))
        except UnicodeEncodeError:
            raise CommandFailed("an argument is not valid UTF-8", EXIT_USAGE) from None
        return answer


def calls_in_process(
    control: ControlStore, loaded: Loaded, rejects: RejectDesk | None = None
) -> Callable[[str, str, Mapping[str, object] | None], bytes]:
    """The management routes in this process, which holds the folder's lock."""
    from ingester.delivery_desk import OfflineDesk
    from ingester.management import Links, Management
    from ingester.management.calls import LOCAL_ADMIN
    from ingester.watch_desk import OfflineWatchDesk

    links = Links(
        intake=lambda: intake_base(loaded.config), console=lambda: console_base(loaded.config)
    )
    delivery = OfflineDesk(loaded.config.delivery)
    watch = OfflineWatchDesk(loaded.config)
    management = Management(control, links, rejects=rejects, delivery=delivery, watch=watch)

    def call(method: str, path: str, document: Mapping[str, object] | None) -> bytes:
        path, _, query = path.partition("?")
        body = b"" if document is None else msgspec.json.encode(document)
        answer = management.handle(method, path, dict(parse_qsl(query)), body, LOCAL_ADMIN)
        if not 200 <= answer.status < 300:
            raise CommandFailed(str(answer.document["error"]))
        return msgspec.json.encode(answer.document)

    return call


@contextmanager
def _lock_or_server(data_dir: Path) -> Iterator[LocalServer | None]:
    """Hold the folder's lock (None), or find the server that has it once it answers."""
    from ingester.store.lock import FolderLock

    lock = FolderLock(data_dir)
    deadline = time.monotonic() + _STARTING_SECONDS_MAX
    while True:
        try:
            lock.acquire()
            break
        except StoreBusy as error:
            if (server := find_server(data_dir)) is not None:
                yield server
                return
            if time.monotonic() >= deadline:
                raise CommandFailed(
                    f"{error}, which does not answer on {data_dir / 'control.sock'}",
                    EXIT_UNREACHABLE,
                ) from error
        time.sleep(_POLL_SECONDS)
    try:
        yield None
    finally:
        lock.release()


class _SocketConnection(http.client.HTTPConnection):
    """`http.client` over AF_UNIX."""

    def __init__(self, data_dir: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._data_dir = data_dir

    def connect(self) -> None:
        path = str(self._data_dir / "control.sock")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout)
            if len(os.fsencode(path)) <= _SOCKET_PATH_MAX:
                sock.connect(path)
            else:
                # Too long for sun_path: the same file through a descriptor of its folder.
                folder = os.open(self._data_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    sock.connect(f"/proc/self/fd/{folder}/control.sock")
                finally:
                    os.close(folder)
        except BaseException:
            sock.close()
            raise
        self.sock = sock


class ServerEvent(Struct, frozen=True, kw_only=True):
    """One server-sent event: `kind` "" for an ordinary one; `id` where the stream goes on."""

    kind: str = ""
    id: str | None = None
    data: bytes = b""


def follow(data_dir: Path, path: str, last_event_id: str | None) -> Iterator[ServerEvent]:
    """The events of a stream until it ends or breaks; none when nobody listens. A refusal ends the
    command.
    """
    headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
    with closing(_SocketConnection(data_dir, _SILENCE_SECONDS)) as connection:
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise CommandFailed(_error_sentence(answer.status, answer.read()))
            yield from _events(answer)
        except (OSError, http.client.HTTPException):
            return


def _events(answer: http.client.HTTPResponse) -> Iterator[ServerEvent]:
    """As our own server writes them: one line a field, one field of a name."""
    fields: dict[bytes, bytes] = {}
    while line := answer.readline():
        name, _, value = line.rstrip(b"\n").partition(b": ")
        if name:
            fields[name] = value
            continue
        event_id = fields.get(b"id")
        yield ServerEvent(
            kind=fields.get(b"event", b"").decode(),
            id=None if event_id is None else event_id.decode(),
            data=fields.get(b"data", b""),
        )
        fields.clear()


def _error_sentence(status: int, content: bytes) -> str:
    try:
        document = msgspec.json.decode(content)
        sentence = document["error"]
    except (msgspec.DecodeError, KeyError, TypeError, UnicodeDecodeError):
        return f"the server answered {status}"
    return str(sentence)
