"""A fake `Services`, a console served on loopback, and a small HTTP client over any stream."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from ingester.console.app import make_app
from ingester.console.metrics import make_registry, metrics_text
from ingester.console.server import (
    ConsoleAddresses,
    ConsoleCounters,
    ConsoleLimits,
    serve_console,
)
from ingester.errors import Overloaded, RequestError, StoreBusy, Unauthorized
from ingester.management import Actor, Links, Management
from ingester.management import Answer as Managed
from ingester.management.calls import NOBODY
from ingester.sandbox.messages import Format, QueryCut
from ingester.store.control import ControlStore, MemberRole
from ingester.store.retention import Retention


class QueryError(RequestError):
    def __init__(self, sentence: str, column: int) -> None:
        super().__init__(sentence)
        self.column = column


class FakeStream:
    """The pieces of a result; an error among them is raised."""

    content_type = "application/json"

    def __init__(self, pieces: Sequence[str | Exception]) -> None:
        self._pieces = list(pieces)
        self.is_closed = False

    async def receive(self) -> bytes:
        assert not self.is_closed
        await trio.lowlevel.checkpoint()
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece.encode()

    async def aclose(self) -> None:
        self.is_closed = True


class FakeServices:
    """Management over a control store of its own; `query` answers by the text it is given."""

    def __init__(self, folder: Path) -> None:
        self.control = ControlStore.open(folder.with_name(f"{folder.name}-keys") / "control.sqlite")
        links = Links(intake=lambda: "http://x", console=lambda: "http://c")
        self.management = Management(self.control, links)
        self.tokens: dict[bytes, MemberRole] = {b"admin-key": "admin", b"read-key": "viewer"}
        self.addresses: list[str] = []
        self.proxies: list[str] = []
        self.url = ""
        self.reasons: list[str] = []
        self.problems: list[str] = []
        self.gate = trio.Event()
        self.entered = trio.Event()
        self.cancelled = 0
        self.formats: list[str] = []
        self.snapshot: dict[str, dict[str, object]] = {"journal": {"lag_records": 2}}
        self.registry = make_registry(self.statistics)
        self.searches: Any = None

    def ready(self) -> tuple[bool, list[str]]:
        return not self.reasons, self.reasons

    def statistics(self) -> Mapping[str, Mapping[str, object]]:
        return self.snapshot

    def metrics_text(self) -> bytes:
        return metrics_text(self.registry)

    def viewer_requests(self) -> Sequence[Mapping[str, object]]:
        return [{"request_id": "01", "accepted": 1, "rejected": 0}]

    def metric_warnings(self) -> Sequence[Any]:
        return []

    async def query(self, sql: str, format_name: Format) -> FakeStream:
        self.formats.append(format_name)
        if sql == "wait":
            self.entered.set()
            try:
                await self.gate.wait()
            except trio.Cancelled:
                self.cancelled += 1
                raise
        elif sql.startswith("large"):
            size = int(sql.split()[1])
            head = '{"columns":["a"],"types":["VARCHAR"],"rows":[["'
            return FakeStream([head, "x" * size, '"]]}'])
        elif sql.startswith("rows"):
            count = int(sql.split()[1])
            rows = json.dumps([[n] for n in range(count)])
            return FakeStream(['{"columns":["a"],"types":["BIGINT"],"rows":' + rows + "}"])
        elif sql == "cut":
            return FakeStream(["a" * 100_000, "b" * 100_000, QueryCut("the process ended")])
        elif sql == "cut early":
            return FakeStream([QueryCut("the process ended")])
        elif sql == "bad":
            raise QueryError('there is no column "x"', 8)
        elif sql == "busy":
            raise StoreBusy("the store is being opened again")
        elif sql == "full":
            raise Overloaded("too many searches", retry_after_s=7)
        elif sql == "bug":
            raise RuntimeError("secret detail")
        elif sql == "group":
            async with trio.open_nursery():
                raise StoreBusy("the store is being opened again")
        return FakeStream(['{"columns":["n","x"],"types":["BIGINT","DOUBLE"],"rows":[[1,null]]}'])

    async def export(self, *, table: str, format_name: Format, **_span: object) -> FakeStream:
        self.formats.append(format_name)
        return FakeStream([f'{{"table":"{table}"}}\n'])

    async def backup(self, directory: str, *, with_secrets: bool) -> FakeStream:
        return FakeStream(['{"copied_bytes":1}\n', '{"done":{}}\n'])

    async def authenticate(
        self, authorization: bytes | None, session_secret: str | None, address: str
    ) -> Actor:
        if authorization is not None:
            role = self.tokens.get(authorization.removeprefix(b"Bearer "))
            if role is None:
                raise Unauthorized("the key is unknown")
            return Actor(name="tok_1", role=role)
        session = self.control.session(session_secret) if session_secret else None
        if session is None:
            return NOBODY
        return Actor(name=session.member.email or "", role=session.member.role, session=session)

    async def manage(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: bytes,
        actor: Actor,
        address: str,
    ) -> Managed:
        self.addresses.append(address)
        return self.management.handle(method, path, query, body, actor)

    def trusted_proxies(self) -> Sequence[str]:
        return self.proxies

    def intake_url(self) -> str:
        return "http://intake.example:8080"

    def public_url(self) -> str:
        return self.url

    async def retention(self) -> Retention:
        return Retention(days={"events": 7}, stored_bytes=1, store_bytes_max=0, purges=[])

    async def check(self) -> list[str]:
        return self.problems


@dataclass
class Console:
    """A served console."""

    addresses: ConsoleAddresses
    services: FakeServices
    counters: ConsoleCounters
    stop: trio.Event
    ended: trio.Event = field(default_factory=trio.Event)

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream(self.addresses.host, self.addresses.port)

    async def connect_control(self) -> trio.SocketStream:
        assert self.addresses.unix_path is not None
        return await trio.open_unix_socket(self.addresses.unix_path)

    async def get(
        self, path: str, *, method: str = "GET", body: bytes = b"", headers: Sequence[str] = ()
    ) -> Answer:
        async with await self.connect() as stream:
            return await ask(stream, method, path, body, headers=headers)

    async def control(self, method: str, path: str, body: object = None) -> Answer:
        async with await self.connect_control() as stream:
            data = b"" if body is None else json.dumps(body).encode()
            return await ask(stream, method, path, data)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


async def ask(
    stream: trio.abc.Stream,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    headers: Sequence[str] = (),
) -> Answer:
    """One request on a stream that may be used again."""
    head = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    if body:
        head.append(f"Content-Length: {len(body)}")
    await stream.send_all("\r\n".join([*head, "", ""]).encode() + body)
    return await read_answer(stream, method)


async def read_answer(stream: trio.abc.Stream, method: str = "GET") -> Answer:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = await stream.receive_some(65536)
        if not piece:
            raise EOFError(data)
        data += piece
    head, _, data = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    if headers.get("transfer-encoding") == "chunked":
        body = await _chunked_body(stream, data)
        return Answer(status=int(first.split()[1]), headers=headers, body=body)
    length = 0 if method == "HEAD" else int(headers.get("content-length", 0))
    while len(data) < length:
        piece = await stream.receive_some(65536)
        if not piece:
            raise EOFError(head + data)
        data += piece
    return Answer(status=int(first.split()[1]), headers=headers, body=data[:length])


async def _chunked_body(stream: trio.abc.Stream, data: bytes) -> bytes:
    body = bytearray()
    unread = bytearray(data)

    async def take(size: int) -> bytes:
        while len(unread) < size:
            piece = await stream.receive_some(65536)
            if not piece:
                raise EOFError("the answer ends in the middle of a chunk")
            unread.extend(piece)
        taken = bytes(unread[:size])
        del unread[:size]
        return taken

    while True:
        line = b""
        while not line.endswith(b"\r\n"):
            line += await take(1)
        size = int(line, 16)
        body += await take(size)
        assert await take(2) == b"\r\n"
        if not size:
            return bytes(body)


async def eventually(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait for what no event tells: counters and descriptors of the served side."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)


async def read_to_end(stream: trio.abc.Stream) -> bytes:
    data = b""
    try:
        while piece := await stream.receive_some(65536):
            data += piece
    except trio.BrokenResourceError:
        pass
    return data


@asynccontextmanager
async def served(
    tmp_path: Path,
    *,
    limits: ConsoleLimits | None = None,
    tls: ssl.SSLContext | Callable[[], ssl.SSLContext] | None = None,
    app: Any = None,
) -> AsyncIterator[Console]:
    services = FakeServices(tmp_path)
    counters = ConsoleCounters()
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        ended = trio.Event()

        async def run(task_status: trio.TaskStatus[ConsoleAddresses]) -> None:
            await serve_console(
                app or make_app(services),
                bind="127.0.0.1:0",
                unix_path=tmp_path / "control.sock",
                tls=tls,
                stop=stop,
                limits=limits,
                counters=counters,
                task_status=task_status,
            )
            ended.set()

        addresses = await nursery.start(run)
        try:
            yield Console(addresses, services, counters, stop, ended)
        finally:
            services.gate.set()
            stop.set()
    services.control.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def settled(count: int) -> int:
    """Descriptors once those of ended connections are gone: `count`, or what stays longer."""
    with contextlib.suppress(trio.TooSlowError):
        await eventually(lambda: descriptors() <= count, 3.0)
    return descriptors()


async def refusing_app(scope: object, receive: object, send: object) -> None:
    raise AssertionError
