"""One life of a data folder in this process: what journal, loader, bulk workers, maintenance,
rollups and sealer do, one call at a time, and the book of what was answered.

Why beside the server: hundreds of ends a minute instead of ten, and every one at a chosen call.
Folder, start and every step are the product's own (`startup.open_all` on); only the actors that
decide when to do what are left out, and here the test decides.

`Book` is the client's side and the model: sets of requests, and what each must have become.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import trio

from ingester import startup
from ingester.config import Config, IntakeConfig, JournalConfig, StoreConfig
from ingester.doors.idempotency import Remembered
from ingester.errors import JournalFailed, StoreBusy
from ingester.journal.writer import JournalWriter
from ingester.messages import RequestRecord
from ingester.protocol.columns import REJECT_SCHEMA, REQUEST_SCHEMA, request_rows
from ingester.protocol.requests import SmallRequest, decode_entry
from ingester.store.database import StoreBroken
from ingester.store.ledger import AppliedBatch
from ingester.store.retention import Keeping, due
from ingester.store.sealing import Sealer, joinable
from tests.actors.requests import payload_of, small_request
from tests.store.rollup_recount import recount_problems
from tests.store.stores import rows
from tests.system.ledger import Sent, Stored, Verdict, reconcile

__all__ = ["DAY_0", "Book", "Life", "Request", "random_request"]

KiB = 1024
DAY_0 = datetime(2026, 10, 1, tzinfo=UTC)
_DAY_US = 86_400 * 10**6
_KEPT_DAYS = 3
_TRIES_MAX = 5


class Request(Sent):
    """What a client sends. `day`: of its arrival, and of the times of its rows."""

    def __init__(
        self,
        batch: str,
        kind: str,
        row_count: int,
        reject_count: int = 0,
        *,
        day: int = 0,
        key: str | None = None,
    ) -> None:
        lines = [
            json.dumps({
                "accountId": batch,
                "userId": f"u{n % 5}",
                "action": "feature" if n % 3 else "sessionSync",
                "sessionId": str(n),
                "createdAt": _ms(day) + n,
                "activeDuration": n,
            })
            for n in range(row_count)
        ]
        bad = [json.dumps({"accountId": batch, "sessionId": str(n)}) for n in range(reject_count)]
        super().__init__(
            batch,
            kind,
            row_count,
            reject_count,
            sum(map(len, lines)),
            key=key,
            body="\n".join([*lines, *bad]).encode(),
        )
        self.lines = lines
        self.day = day

    __slots__ = ("day", "lines")


def _ms(day: int) -> int:
    return int((DAY_0 + timedelta(days=day)).timestamp() * 1000)


class Book:
    """Requests by batch. Who was told nothing is `unanswered`; what a comparison finds of them is
    from then on what they are.
    """

    def __init__(self) -> None:
        self.requests: dict[str, Request] = {}
        self.gone: set[str] = set()  # removed by retention, as it had to be
        self.going: set[str] = set()  # retention has begun: there whole, or not at all
        self.total = Verdict()
        self.serial = 0
        self.day = 0  # the newest that retention has looked at

    def name(self) -> str:
        self.serial += 1
        return f"b{self.serial:06d}"

    def compare(self, life: Life) -> list[str]:
        """What is wrong; then nothing is unanswered any more."""
        stored = life.stored()
        for batch in self.going:
            found = stored.get(batch)
            if found is None and self.requests[batch].outcome != "refused":
                self.gone.add(batch)
        self.going.clear()
        wanted = [r for name, r in self.requests.items() if name not in self.gone]
        verdict = reconcile(wanted, stored)
        problems = verdict.problems + life.problems(wanted)
        for request in wanted:
            if request.outcome == "unanswered":
                request.outcome = "acknowledged" if request.batch in stored else "refused"
        self.total = verdict
        return problems


class Life:
    """From a start to whatever ends it."""

    def __init__(
        self,
        folder: Path,
        book: Book,
        *,
        say: Callable[[str], None] = lambda _: None,
        segment_bytes: int = 4 * KiB,
    ) -> None:
        self.folder = folder
        self.book = book
        self._say = say
        config = Config(
            store=StoreConfig(
                data_dir=str(folder),
                retention_days=(f"events={_KEPT_DAYS}", f"rejects={_KEPT_DAYS}"),
            ),
            journal=JournalConfig(
                segment_bytes=segment_bytes, retention_hours=0, retention_bytes_max=0
            ),
            intake=IntakeConfig(idempotency_hours=10**6),
        )
        self.opened = startup.open_all(config)
        self.store = self.opened.store
        self.writer: JournalWriter = self.opened.writer
        self.rollups = self.opened.rollups
        self.sealer = Sealer(self.store)
        self._waiting: list[tuple[int, list[SmallRequest]]] = []

    # --- what clients do

    def send_small(self, *requests: Request) -> None:
        """One group of the journal; what it has is loaded when `load` is called."""
        fresh = [self._entry(request) for request in requests]
        self._sending(requests)
        try:
            first_seq, _ = self.writer.append([payload_of(request) for request in fresh])
        except JournalFailed:
            self._answer(requests, "refused")
            return
        for request, made in zip(requests, fresh, strict=True):
            request.request_id = f"{made.entry.request_number:016x}"
            if request.key is not None:
                self._claim(request.key, made.record())
        self._answer(requests, "acknowledged")
        self._waiting.append((first_seq, fresh))

    def send_bulk(self, request: Request, *, as_file: bool) -> None:
        """A transaction of its own, as `actors/bulk/insert.py` makes it."""
        number = self.opened.numbers.next()
        self._sending([request])
        record = _record(number, request)
        try:
            self._insert(request, record, as_file=as_file)
        except StoreBusy as error:
            self._answer([request], "refused")
            self._reopen(error)
            return
        request.request_id = f"{number:016x}"
        if request.key is not None:
            self._claim(request.key, record)
        self._answer([request], "acknowledged")

    def send_again(self, request: Request, *, as_file: bool | None = None) -> str | None:
        """A retry under the same key; what is wrong with the answer."""
        assert request.key is not None
        claim = trio.run(self.opened.idempotency.join, "natero", "source:1", request.key, _ms(0))
        if isinstance(claim, Remembered):
            found = (f"{claim.request_number:016x}", claim.accepted, claim.rejected)
            wanted = (request.request_id, request.row_count, request.reject_count)
            if not request.request_id:  # it was never answered, and turned out to be there
                request.request_id = found[0]
            elif request.outcome == "acknowledged" and found != wanted:
                return f"{request.batch}: a repeat was answered {found}, not {wanted}"
            if request.outcome == "refused":
                return f"{request.batch}: refused, and known by its key"
            return None
        with claim:
            if request.outcome == "acknowledged" and request.batch not in self.book.gone:
                return f"{request.batch}: acknowledged, and its key is not known"
        if request.batch in self.book.gone:
            return None
        if as_file is None:
            self.send_small(request)
        else:
            self.send_bulk(request, as_file=as_file)
        return None

    # --- what actors do

    def load(self) -> None:
        while self._waiting:
            first_seq, some = self._waiting[0]
            self._until_done(
                lambda seq=first_seq, those=some: startup.load_requests(  # type: ignore[misc]
                    self.store, seq, those, self.opened.dead_letters, self.opened.loader_counters
                )
            )
            self._waiting.pop(0)

    def checkpoint(self) -> None:
        self._until_done(self.store.checkpoint)
        self._until_done(lambda: self.rollups.maybe_checkpoint(bytes_min=1))

    def rotate(self) -> None:
        self._until_done(self.store.rotate)

    def roll_up(self) -> None:
        self._until_done(self.rollups.step)
        self._until_done(self.rollups.maybe_merge)

    def seal(self) -> None:
        """What can be sealed, and then all that is worth joining, as the sealer comes to it."""
        self.roll_up()
        while (part := self.sealer.next_part()) is not None:
            self._until_done(lambda of=part: self.sealer.seal(of))  # type: ignore[misc]
            self.store.remove_unread()
        # The first group by name is of the ledger, and there is one behind every sealing.
        while files := joinable(self.store.sealed.all_files(), "2100-01-01"):
            self.sealer.join(files)
            self.store.remove_unread()

    def purge(self, today: int) -> None:
        """Remove what is sealed and past its time at the beginning of that day."""
        self.book.day = max(self.book.day, today)
        self._say(f"day {self.book.day}")
        now = (DAY_0 + timedelta(days=today)).timestamp()
        kept = Keeping(days={"events": _KEPT_DAYS, "rejects": _KEPT_DAYS})
        files = [
            file for _, file in due(self.store.sealed.all_files(), kept, stored_bytes=0, now=now)
        ]
        files = [file for file in files if file.table in kept.days]
        if not files:
            return
        going = sorted({
            name
            for file in files
            if file.table == "events"
            for name in pq.read_table(self.store.sealed.path(file), columns=["account_id"])[
                "account_id"
            ].to_pylist()
        })
        self.book.going.update(going)
        self._say("going " + " ".join(going))
        self.store.publish_sealed(dropped=files)
        self.store.remove_unread()
        self.book.gone.update(going)
        self.book.going.difference_update(going)
        self._say("gone " + " ".join(going))

    def clean_journal(self) -> None:
        self.writer.delete_applied(self.store.ledger.applied_seq, now=4e9)

    def close(self) -> None:
        """A clean stop."""
        self.load()
        startup.close(self.opened)

    def drop(self) -> None:
        """Let go without any tidying, as a kill does; for folders that were copied before."""
        with suppress(Exception):
            self.writer.close()
        with suppress(Exception):
            self.store.database.close()
        for thing in (self.opened.control.close, self.opened.lock.release):
            with suppress(Exception):
                thing()

    # --- what is there

    def stored(self) -> dict[str, Stored]:
        found: dict[str, Stored] = {}
        for name, count, distinct, size in rows(self.store, _EVENTS):
            found[name] = Stored(count, distinct, int(size))
        for line, count in rows(self.store, _REJECTS):
            bad = json.loads(line)
            there = found.setdefault(bad["accountId"], Stored())
            there.reject_count += count
            there.distinct_reject_count += 1
        return found

    def problems(self, requests: Iterable[Request]) -> list[str]:
        """Rows of `requests` that are not one for each, and files that the manifest and the folder
        do not agree on: a kill leaves none that the start does not know what to do with.
        """
        found = dict(rows(self.store, "SELECT request_id, count(*) FROM requests GROUP BY 1"))
        wrong = [
            f"{r.batch}: {found.get(r.request_id, 0)} rows of requests under {r.request_id}"
            for r in requests
            if r.outcome == "acknowledged" and r.request_id and found.get(r.request_id) != 1
        ]
        if any(count != 1 for count in found.values()):
            wrong.append(f"requests that are there twice: {found}")
        sealed = self.store.sealed
        wrong += [f"{name}: in the manifest, and not there" for name in sealed.missing]
        wrong += [f"{name}: there, and not in the manifest" for name in sealed.strangers]
        return wrong

    def recount(self) -> list[str]:
        """Where rollups are not what the rows say that retention has left."""
        since = DAY_0 + timedelta(days=self.book.day - _KEPT_DAYS)
        if self.rollups._is_rebuild_due:
            self.rollups.step()
        return recount_problems(self.store, self.rollups, since=since.replace(tzinfo=None))

    # --- means

    def _sending(self, requests: Sequence[Request]) -> None:
        for request in requests:
            request.outcome = "unanswered"
            self.book.requests[request.batch] = request
            self._say(f"sent {_told(request)}")

    def _answer(self, requests: Sequence[Request], outcome: Any) -> None:
        for request in requests:
            request.outcome = outcome
            self._say(f"{outcome} {request.batch} {request.request_id}")

    def _claim(self, key: str, record: RequestRecord) -> None:
        claim = trio.run(self.opened.idempotency.join, "natero", "source:1", key, _ms(0))
        if not isinstance(claim, Remembered):
            with claim:
                claim.settle(record)

    def _entry(self, request: Request) -> SmallRequest:
        number = self.opened.numbers.next()
        made = small_request(1, request.body, key=request.key)
        return decode_entry(
            msgspec.structs.replace(
                made.entry, request_number=number, received_at_us=_ms(request.day) * 1000
            )
        )

    def _insert(self, request: Request, record: RequestRecord, *, as_file: bool) -> None:
        events = _events(request)
        batch_id = self.store.ledger.take_batch_id()
        constants: dict[str, str | int] = {
            "request_number": record.request_number,
            "received_at_us": record.received_at_us,
            "batch_id": batch_id,
            "source": "test",
        }
        with self.store.begin("bulk") as transaction:
            transaction.prepare("events", events.schema)
            transaction.prepare("rejects", REJECT_SCHEMA)
            transaction.prepare("requests", REQUEST_SCHEMA)
            for start in range(0, events.num_rows, 100):
                some = events.slice(start, 100)
                if as_file:
                    transaction.write_upload(
                        "events", some, constants, request_number=record.request_number
                    )
                else:
                    transaction.insert("events", some, constants)
            transaction.insert("requests", request_rows([record]))
            number = record.request_number
            transaction.commit([AppliedBatch(batch_id, "bulk", 0, 0, events.num_rows, number)])

    def _until_done(self, call: Callable[[], object]) -> None:
        """As the actors: what is broken is opened again, and tried again."""
        for _ in range(_TRIES_MAX):
            try:
                call()
                return
            except StoreBusy as error:
                self._reopen(error)
        call()

    def _reopen(self, error: StoreBusy) -> None:
        if isinstance(error, StoreBroken):
            self.store.recover(error.generation)


_EVENTS = (
    "SELECT account_id, count(*), count(DISTINCT session_id), sum(strlen(body::VARCHAR)) "
    "FROM events GROUP BY account_id"
)
_REJECTS = "SELECT decode(line), count(*) FROM rejects GROUP BY 1"


def _told(request: Request) -> str:
    fields = (request.batch, request.kind, request.row_count, request.reject_count)
    return json.dumps([*fields, request.day, request.key])


def _record(number: int, request: Request) -> RequestRecord:
    return RequestRecord(
        request_number=number,
        received_at_us=_ms(request.day) * 1000,
        door="natero",
        source="test",
        credential="source:1",
        accepted=request.row_count,
        rejected=0,
        bytes_in=len(request.body),
        bytes_raw=len(request.body),
        encoding="identity",
        idempotency_key=request.key,
        fingerprint=b"0123456789abcdef" if request.key is not None else None,
    )


def _events(request: Request) -> pa.Table:
    values: Sequence[Mapping[str, Any]] = [json.loads(line) for line in request.lines]
    count = len(values)
    return pa.table({
        "line_number": pa.array(range(1, count + 1), pa.int64()),
        "account_id": [value["accountId"] for value in values],
        "user_id": [value["userId"] for value in values],
        "created_at": pa.array([value["createdAt"] * 1000 for value in values], pa.int64()).view(
            pa.timestamp("us")
        ),
        "action": [value["action"] for value in values],
        "session_id": [value["sessionId"] for value in values],
        "body": request.lines,
    })


def random_request(book: Book, chance: random.Random, day: int) -> Request:
    """Small or bulk, some with bad lines, some with a key."""
    name = book.name()
    is_bulk = chance.random() < 0.3
    row_count = chance.randint(100, 400) if is_bulk else chance.choice((1, 1, 1, 7, 30))
    return Request(
        name,
        "bulk" if is_bulk else "small",
        row_count,
        0 if is_bulk else chance.choice((0, 0, 2)),
        day=day,
        key=f"key-{name}" if chance.random() < 0.3 else None,
    )
