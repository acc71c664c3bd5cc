"""Builds that are broken on purpose: two steps in the wrong order, or one left out.

A fault test that finds nothing wrong with them proves nothing. Each breaks one promise only, and
works as ever as long as nothing ends the process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from msgspec.structs import replace

from ingester import startup
from ingester.journal.writer import JournalWriter
from ingester.store import rollups, store
from ingester.store.control.sealed_files import SealedFiles
from ingester.store.store import Store
from ingester.store.transaction import Transaction
from tests.faults.points import Patch, patching

__all__ = ["BREAKS", "broken"]


@contextmanager
def broken(name: str) -> Iterator[None]:
    """One of `BREAKS`, until the end."""
    with patching() as patch:
        BREAKS[name](patch)
        yield


def _acknowledge_early(patch: Patch) -> None:
    held: list[bytes] = []

    def wrap(append: Any) -> Any:
        def appended(self: JournalWriter, payloads: Any) -> tuple[int, int]:
            first = self.next_seq + len(held)
            late, held[:] = list(held), payloads
            if late:
                append(self, late)
            return first, first + len(payloads) - 1

        return appended

    patch(JournalWriter, "append", wrap)


def _forget_sequences(patch: Patch) -> None:
    def wrap(write: Any) -> Any:
        def written(cursor: Any, name: str, batches: Any, number: int) -> None:
            write(cursor, name, [replace(b, first_seq=0, last_seq=0) for b in batches], number)

        return written

    patch(store, "write_applied", wrap)


def _leave_unlisted(patch: Patch) -> None:
    patch(Transaction, "_list_upload", lambda _: lambda *__: None)


def _unlink_segments_early(patch: Patch) -> None:
    def wrap(delete: Any) -> Any:
        return lambda self, applied_seq, *, now: delete(self, self.next_seq, now=math.inf)

    patch(JournalWriter, "delete_applied", wrap)


def _remove_parts_early(patch: Patch) -> None:
    def wrap(publish: Any) -> Any:
        def published(self: Store, **changes: Any) -> None:
            told = changes.get("part")
            for suffix in ("", ".wal") if told is not None else ():
                path = self.parts.directory / f"{told.part_number:06d}.duckdb{suffix}"
                path.unlink(missing_ok=True)
            publish(self, **changes)

        return published

    patch(Store, "publish_sealed", wrap)


def _forget_files(patch: Patch) -> None:
    def wrap(swap: Any) -> Any:
        def swapped(self: SealedFiles, **changes: Any) -> None:
            if changes.get("part") is None:
                changes["removals"] = changes["dropped"] = ()
            swap(self, **changes)

        return swapped

    patch(SealedFiles, "swap_sealed", wrap)


def _move_cursor_first(patch: Patch) -> None:
    def wrap(add: Any) -> Any:
        def added(cursor: Any, snapshot: Any, ids: Any, tables: Any) -> None:
            cursor.execute(
                f"INSERT INTO {tables['progress']} VALUES (?, now()::TIMESTAMP, {tables.horizon})",
                [snapshot.commit_number],
            )
            cursor.execute("COMMIT")
            cursor.execute("BEGIN")
            add(cursor, snapshot, ids, tables)

        return added

    patch(rollups, "_add", wrap)


def _replay_again(patch: Patch) -> None:
    def recover(call: Any) -> Any:
        return lambda directory, *, after_seq: call(directory, after_seq=max(0, after_seq - 3))

    def load(call: Any) -> Any:
        def loaded(target: Store, first_seq: int, requests: Any, *rest: Any) -> None:
            target.ledger.applied_seq = min(target.ledger.applied_seq, first_seq - 1)
            call(target, first_seq, requests, *rest)

        return loaded

    patch(startup, "recover", recover)
    patch(startup, "load_requests", load)


BREAKS = {
    # Acknowledged, and written with the next group.
    "not written": _acknowledge_early,
    # What was loaded is not told from what was not.
    "ledger without sequences": _forget_sequences,
    "upload not listed": _leave_unlisted,
    # Before its records are loaded.
    "segment unlinked early": _unlink_segments_early,
    # Before the manifest has its rows.
    "part removed early": _remove_parts_early,
    # What was joined or removed stays listed: there twice until it is unlinked, and missing then.
    "manifest forgets": _forget_files,
    "rollup cursor first": _move_cursor_first,
    "replayed again": _replay_again,
}
