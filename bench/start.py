"""A start, from the command to the ready line: empty, behind 100 sealed days, behind a journal.

The folders are made through the store's and the journal's own calls, as a server that was killed
leaves them; each round starts on a fresh copy. The rows are counted afterwards: a start that left
some of the journal behind would be quick and wrong.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from bench.corpus import cache_directory
from bench.options import Options
from bench.report import Row, median_row
from bench.server import timed_start
from ingester.actors.loader import load_batch
from ingester.config import JournalConfig, StoreConfig
from ingester.journal.writer import JournalWriter
from ingester.protocol.frames import FRAME_HEAD_BYTES
from ingester.protocol.requests import ENTRY_VERSION, JournalEntry, decode_entry, entry_to_bytes
from ingester.store.control import ControlStore
from ingester.store.sealing import Sealer
from ingester.store.store import Store

__all__ = ["run"]

_DAYS = 100
_EVENTS_A_DAY = 2_000
_JOURNAL_BYTES = 256 * 1024 * 1024
_GROUP_BYTES = 1024 * 1024
_LARGE_BODY_BYTES = 800_000
_RECEIVED_AT_US = 1_780_000_000_000_000
_DAY_US = 86_400_000_000


class _Folder(Struct):
    """What a start finds: days that are sealed, and bodies that only the journal holds."""

    name: str
    days: int = 0
    bodies: Sequence[bytes] = ()

    @property
    def events(self) -> int:
        return self.days * _EVENTS_A_DAY + sum(body.count(b"\n") for body in self.bodies)


def run(options: Options) -> list[Row]:
    """A row for each kind of folder; `events` are those of the journal and of the days."""
    lines = options.corpus().plain.read_bytes().splitlines(keepends=True)
    days = 3 if options.smoke else _DAYS
    journal_bytes = 1_000_000 if options.smoke else _JOURNAL_BYTES
    single = _bodies(lines, journal_bytes, 1)
    large = _bodies(lines, journal_bytes, _LARGE_BODY_BYTES)
    mib = f"{journal_bytes / 1024**2:.0f} MiB of journal"
    kinds = (
        _Folder("empty"),
        _Folder(f"{days} sealed days", days),
        _Folder(f"{days} days, {mib}, bodies of 0.8 MB", days, large),
        _Folder(f"{days} days, {mib}, single events", days, single),
    )
    return [_measured(kind, lines, 1 if options.smoke else options.rounds) for kind in kinds]


def _bodies(lines: Sequence[bytes], bytes_max: int, body_bytes: int) -> list[bytes]:
    """Bodies of whole lines, each at least `body_bytes` long, `bytes_max` in the journal."""
    bodies: list[bytes] = []
    gathered: list[bytes] = []
    size = total = 0
    around = FRAME_HEAD_BYTES + len(entry_to_bytes(_entry(b"", 1 << 62, 0)))
    while total < bytes_max:
        for line in lines:
            gathered.append(line)
            size += len(line)
            if size >= body_bytes:
                bodies.append(b"".join(gathered))
                total, gathered, size = total + size + around, [], 0
                if total >= bytes_max:
                    break
    return bodies


def _measured(kind: _Folder, lines: Sequence[bytes], rounds: int) -> Row:
    with _folder() as made:
        _fill(made, kind, lines)
        found: list[Row] = []
        for _ in range(rounds):
            with _folder() as folder:
                if any(made.iterdir()):
                    shutil.copytree(made, folder, dirs_exist_ok=True)
                row = timed_start(folder, expected=kind.events)
                row.bench, row.name = "start", kind.name
                found.append(row)
        return median_row(found)


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="start-", dir=cache_directory())) / "data"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder.parent, ignore_errors=True)


def _fill(folder: Path, kind: _Folder, lines: Sequence[bytes]) -> None:
    if not kind.events:
        return
    control = ControlStore.open(folder / "control.sqlite")
    store = Store(folder, StoreConfig(), control)
    store.open()
    try:
        body = b"".join(lines[:_EVENTS_A_DAY])
        for day in range(kind.days):
            load_batch(store, day + 1, [decode_entry(_entry(body, day + 1, day))])
        store.checkpoint()
        if kind.days:
            store.rotate()
            sealer = Sealer(store)
            while (part := sealer.next_part()) is not None:
                sealer.seal(part)
    finally:
        store.close()
        control.close()
    (folder / "journal").mkdir(mode=0o700)
    writer = JournalWriter.open(folder / "journal", JournalConfig(), next_seq=kind.days + 1)
    try:
        _append(writer, kind)
    finally:
        writer.close()


def _append(writer: JournalWriter, kind: _Folder) -> None:
    group: list[bytes] = []
    size = 0
    for number, body in enumerate(kind.bodies, kind.days + 1):
        group.append(entry_to_bytes(_entry(body, number, kind.days)))
        size += len(body)
        if size >= _GROUP_BYTES:
            writer.append(group)
            group, size = [], 0
    if group:
        writer.append(group)


def _entry(body: bytes, number: int, day: int) -> JournalEntry:
    return JournalEntry(
        version=ENTRY_VERSION,
        door="natero",
        source="default",
        credential="default",
        request_number=number,
        received_at_us=_RECEIVED_AT_US + day * _DAY_US + number,
        encoding="identity",
        encoding_name="",
        is_plain=True,
        lenient_session=False,
        line_bytes_max=1024 * 1024,
        depth_max=128,
        rejects_max=1000,
        idempotency_key=None,
        fingerprint=None,
        body=body,
    )
