"""`ingester` as it would be with a fault in it, or with few descriptors.

`BROKEN=cut_bodies` is a build that stores what arrived of a body that was cut: a test that finds
nothing wrong with such a build proves nothing. `DESCRIPTORS=256` limits the process, hard.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import trio

from ingester import process, topology
from ingester.actors.connection import Connection, RequestBody
from ingester.actors.intake import IntakeServer
from ingester.cli import main
from ingester.delivery import ssrf
from ingester.doors import natero
from ingester.doors.exchange import Response
from ingester.doors.idempotency import IdempotencyKeys
from ingester.errors import ClientGone, RequestError
from ingester.journal.recovery import Recovery
from ingester.journal.segments import FileCalls, list_segments
from ingester.journal.writer import JournalWriter
from ingester.management import Actor, Route, dispatch
from ingester.protocol import http1
from ingester.protocol.http1 import RequestHead, RequestReader
from ingester.safekeeping import repair
from ingester.services import ProcessServices
from ingester.store.sealed import SealedData

__all__ = ["BROKEN"]

# As much as a body may have that is journalled.
_BUFFER_BYTES = 1024 * 1024


def crowded() -> None:
    """Whoever has a place keeps it, and connections may have every descriptor."""
    IntakeServer._make_room = lambda self: False  # type: ignore[method-assign]
    process.connections_allowed = lambda wanted: wanted  # type: ignore[attr-defined]


def cut_bodies() -> None:
    """The end of a connection is the end of the body."""
    receive = RequestBody.receive

    async def received(self: RequestBody) -> bytes:
        try:
            return await receive(self)
        except ClientGone:
            return b""

    RequestBody.receive = received  # type: ignore[method-assign]


def forgets() -> None:
    """No idempotency key is remembered."""
    IdempotencyKeys._remember = lambda *_: None  # type: ignore[method-assign]


def cuts() -> None:
    """A stop closes every connection at once."""
    drain = IntakeServer.drain

    def drained(self: IntakeServer) -> None:
        for one in list(self._connections):
            one._transport.close()
        drain(self)

    IntakeServer.drain = drained  # type: ignore[method-assign]


def deaf() -> None:
    """A second signal is not heard."""

    async def nothing(_: object) -> None:
        await trio.sleep_forever()

    topology._end_at_second_signal = nothing  # type: ignore[assignment]


def dies() -> None:
    """What is no HTTP raises, and nothing holds it up."""

    async def refuse(self: Connection, response: Response) -> None:
        raise RuntimeError("malformed")

    async def serve(self: IntakeServer, connection: Connection, address: str) -> None:
        await connection.run()

    Connection._refuse = refuse  # type: ignore[method-assign]
    IntakeServer._serve_client = serve  # type: ignore[method-assign]


def smuggles() -> None:
    """A body that no door has read is taken for the next request."""

    def discard(self: RequestReader) -> bool:
        self._state, self._remaining_bytes = http1._HEAD, 0
        return True

    RequestReader.discard_buffered = discard  # type: ignore[method-assign]


def faulty_when_full() -> None:
    """What is too much is a fault of ours, and is told as one."""
    answer = natero._answer

    def answered(status: int, *arguments: Any, **options: Any) -> Response:
        return answer(500 if status == 503 else status, *arguments, **options)

    natero._answer = answered


def guardless() -> None:
    """Every address may be connected to."""
    ssrf.is_allowed = lambda *_: True  # type: ignore[attr-defined]


def open_route() -> None:
    """Of one route nobody has thought who may ask."""
    refuse = dispatch._refuse_role

    def refused(route: Route, actor: Actor) -> None:
        if route.pattern != "/api/v1/audit":
            refuse(route, actor)

    dispatch._refuse_role = refused


def talks() -> None:
    """Every request is told to standard error, as it came."""
    exchange = Connection._exchange

    async def exchanged(self: Connection, head: RequestHead) -> bool:
        print("request", head.path, file=sys.stderr, flush=True)
        return await exchange(self, head)

    Connection._exchange = exchanged  # type: ignore[method-assign]


def blocks() -> None:
    """A query of a user holds up the event loop."""

    async def query(self: ProcessServices, *_: Any) -> Any:
        time.sleep(3)  # noqa: ASYNC251 - that is the fault
        raise RequestError("no")

    ProcessServices.query = query  # type: ignore[method-assign]


def hasty() -> None:
    """A group of the journal is acknowledged while its sync is under way."""
    sync = FileCalls.fdatasync

    def begin(self: FileCalls, fd: int) -> None:
        threading.Thread(target=sync, args=(self, os.dup(fd)), daemon=True).start()

    FileCalls.fdatasync = begin  # type: ignore[method-assign]


def leaks() -> None:
    """A descriptor stays behind each group of the journal."""
    _behind_appending(lambda _: os.dup(0))


def hoards() -> None:
    """Buffers that are large enough for every body of the journal stay, one for each."""
    kept: list[bytes] = []
    _behind_appending(lambda payloads: kept.extend(p.ljust(_BUFFER_BYTES) for p in payloads))


def _behind_appending(act: Callable[[Sequence[bytes]], object]) -> None:
    append = JournalWriter.append

    def appended(self: JournalWriter, payloads: Sequence[bytes]) -> tuple[int, int]:
        act(payloads)
        return append(self, payloads)

    JournalWriter.append = appended  # type: ignore[method-assign]


def keeps_files() -> None:
    """What was sealed, joined or past its time is in no list any more, and stays."""
    SealedData._unlink = lambda *_: 0  # type: ignore[method-assign]


def skips_segment() -> None:
    """A repair does not read the oldest segment of the journal."""
    recover = repair.recover

    def recovered(directory: Path, *, after_seq: int) -> Recovery:
        _, second, *_ = list_segments(directory)
        assert second.header is not None
        return recover(directory, after_seq=max(after_seq, second.header.first_seq - 1))

    repair.recover = recovered  # type: ignore[attr-defined]


BROKEN: dict[str, Callable[[], None]] = {
    one.__name__: one
    for one in (
        crowded,
        cut_bodies,
        forgets,
        cuts,
        deaf,
        dies,
        smuggles,
        faulty_when_full,
        guardless,
        open_route,
        talks,
        blocks,
        hasty,
        leaks,
        hoards,
        keeps_files,
        skips_segment,
    )
}

if __name__ == "__main__":
    if limit := int(os.environ.get("DESCRIPTORS", "0")):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    if name := os.environ.get("BROKEN"):
        BROKEN[name]()
    main(prog_name="ingester")
