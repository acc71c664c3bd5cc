"""Named points of the write path, at which a test may end the process.

The product has no hooks for it: its functions are wrapped here, and `reach` is called with the
name of a point each time one is passed. What is done then is the caller's: SIGKILL to itself
(`killer.py`, `tests/system/faulty_server.py`), or a copy of the folder and an exception
(`machine.py`).

1. A name says what has just been done and, by that, what has not.
2. Every name in `POINTS` is passed by ordinary work; `test_named_points.py` fails where one is not.
3. `broken` builds do two steps in the wrong order or leave one out. A fault test that finds
   nothing wrong with them proves nothing.
"""

from __future__ import annotations

import os
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ingester import startup
from ingester.journal import segments, writer
from ingester.journal.writer import JournalWriter
from ingester.store import metadata_copy, parts, rollup_file, rollups, sealing, store, transaction
from ingester.store.control.sealed_files import SealedFiles
from ingester.store.parts import PartFiles
from ingester.store.rollup_file import RollupFile
from ingester.store.rollups import Rollups
from ingester.store.sealed import SealedData
from ingester.store.store import Store
from ingester.store.transaction import Transaction
from ingester.store.upload_files import UploadFile

__all__ = ["BREAKS", "POINTS", "STARTING", "break_build", "install"]

Reach = Callable[[str], None]

_JOURNAL = (
    "journal written",  # a group, not synced
    "journal synced",  # not answered
    "segment headed",  # a new segment under its temporary name
    "segment renamed",  # the folder not synced
    "segment unlinked",  # by the journal's retention
)
_LOADING = ("small inserted", "small committed")
_UPLOADS = (
    "bulk inserted",  # all rows; no file synced, nothing listed
    "upload renamed",  # the file durable, not listed
    "upload listed",  # not in the ledger
    "ledger written",  # not committed
    "bulk committed",  # not answered
)
_ROTATION = ("part made", "part noted")
_CHECKPOINT = ("metadata copying", "metadata copied", "checkpointing", "checkpointed")
_ROLLUPS = ("rollup added", "rollup committed", "rollup merged", "generation named", "switching")
_SEALING = (
    "sealed written",  # under temporary names
    "sealed renamed",
    "manifest written",  # the transaction open
    "manifest committed",  # readers find the old
    "manifest swapped",
    "part removed",
    "sealed unlinked",  # what was replaced
    "retention unlinked",
    "removals forgotten",
)
# Passed by a start that has something to replay.
STARTING = ("replaying", "replayed")

POINTS = (
    *_JOURNAL,
    *_LOADING,
    *_UPLOADS,
    *_ROTATION,
    *_CHECKPOINT,
    *_ROLLUPS,
    *_SEALING,
    *STARTING,
)

# By name, what is wrong with the build.
BREAKS = (
    "not written",  # acknowledged, and written only with the next group
    "ledger without sequences",  # what was loaded is not told from what was not
    "upload not listed",
    "segment unlinked early",  # before its records are loaded
    "part removed early",  # before the manifest has its rows
    "manifest forgets",  # files go, and are not named as removals nor taken out
    "rollup cursor first",
    "replayed again",
)


@contextmanager
def install(reach: Reach) -> Iterator[None]:
    """Call `reach` at every point until the end."""
    undo: list[tuple[Any, str, Any]] = []

    def patch(owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
        undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, wrap(getattr(owner, name)))

    for patches in (_on_journal, _on_commits, _on_parts, _on_rollups, _on_sealing):
        patches(patch, reach)
    try:
        yield
    finally:
        for owner, name, original in reversed(undo):
            setattr(owner, name, original)


Patch = Callable[[Any, str, Callable[[Any], Any]], None]


def _behind(reach: Reach, point: str) -> Callable[[Any], Any]:
    """A function that comes to `point` when it has returned."""

    def wrap(call: Any) -> Any:
        def called(*arguments: Any, **options: Any) -> Any:
            value = call(*arguments, **options)
            reach(point)
            return value

        return called

    return wrap


def _before(reach: Reach, point: str) -> Callable[[Any], Any]:
    def wrap(call: Any) -> Any:
        def called(*arguments: Any, **options: Any) -> Any:
            reach(point)
            return call(*arguments, **options)

        return called

    return wrap


def _on_journal(patch: Patch, reach: Reach) -> None:
    def write_all(call: Any) -> Any:
        def called(calls: Any, descriptor: int, buffers: Any, offset: int) -> None:
            call(calls, descriptor, buffers, offset)
            reach("journal written" if offset else "segment headed")

        return called

    def unlink(call: Any) -> Any:
        def called(self: Any, path: Path) -> None:
            call(self, path)
            if path.suffix == ".seg":
                reach("segment unlinked")

        return called

    patch(writer, "write_all", write_all)
    patch(JournalWriter, "append", _behind(reach, "journal synced"))
    patch(segments.FileCalls, "rename", _behind(reach, "segment renamed"))
    patch(segments.FileCalls, "unlink", unlink)
    patch(startup, "_replay", _before(reach, "replaying"))
    patch(startup, "_replay", _behind(reach, "replayed"))


def _on_commits(patch: Patch, reach: Reach) -> None:
    def commit(call: Any) -> Any:
        def called(self: Transaction, batches: Any) -> None:
            lane = "bulk" if self.lane == "bulk" else "small"
            reach(f"{lane} inserted")
            call(self, batches)
            reach(f"{lane} committed")

        return called

    patch(Transaction, "commit", commit)
    patch(UploadFile, "finish", _behind(reach, "upload renamed"))
    patch(Transaction, "_list_upload", _behind(reach, "upload listed"))
    patch(store, "write_applied", _behind(reach, "ledger written"))


def _on_parts(patch: Patch, reach: Reach) -> None:
    def noted(call: Any) -> Any:
        def called(self: SealedData, number: int) -> None:
            is_new = number > self._newest_part
            call(self, number)
            if is_new:
                reach("part noted")

        return called

    patch(PartFiles, "create", _behind(reach, "part made"))
    patch(SealedData, "note_part", noted)
    for owner in (store, parts, rollup_file):
        patch(owner, "keep_metadata", _behind(reach, "metadata copied"))
    patch(metadata_copy, "os", _with_points(reach))
    patch(Store, "_checkpoint_behind_gate", _before(reach, "checkpointing"))
    patch(Store, "_checkpoint_behind_gate", _behind(reach, "checkpointed"))


def _with_points(reach: Reach) -> Callable[[Any], Any]:
    """`os` as the copying of metadata sees it: synced, and not yet renamed."""

    def wrap(module: Any) -> Any:
        seen = types.SimpleNamespace(**vars(module))
        seen.fsync = _behind(reach, "metadata copying")(module.fsync)
        return seen

    return wrap


def _on_rollups(patch: Patch, reach: Reach) -> None:
    patch(rollups, "_write_progress", _behind(reach, "rollup added"))
    patch(Rollups, "_step", _behind(reach, "rollup committed"))
    patch(Rollups, "_merge_piece", _behind(reach, "rollup merged"))
    patch(RollupFile, "name_generations", _behind(reach, "generation named"))
    patch(RollupFile, "switch", _before(reach, "switching"))


def _on_sealing(patch: Patch, reach: Reach) -> None:
    names = {
        "before the rename": "sealed written",
        "before the manifest": "sealed renamed",
        "after the manifest": "manifest swapped",
    }
    purged: set[str] = set()

    def published(call: Any) -> Any:
        def called(self: Store, **changes: Any) -> None:
            call(self, **changes)
            if not changes.get("added"):
                purged.update(f"sealed/{file.name}" for file in changes.get("dropped", ()))

        return called

    def unlinked(call: Any) -> Any:
        def called(self: SealedData, path: str) -> Any:
            size = call(self, path)
            reach("retention unlinked" if path in purged else "sealed unlinked")
            return size

        return called

    def transaction_of(call: Any) -> Any:
        @contextmanager
        def called(self: SealedFiles, *arguments: Any) -> Iterator[Any]:
            with call(self, *arguments) as connection:
                yield connection
                if not arguments:  # not of a reader
                    reach("manifest written")

        return called

    patch(sealing, "reached", lambda _: lambda name: reach(names[name]))
    patch(SealedFiles, "_transaction", transaction_of)
    patch(SealedFiles, "swap_sealed", _behind(reach, "manifest committed"))
    patch(SealedFiles, "forget_removals", _behind(reach, "removals forgotten"))
    patch(Store, "publish_sealed", published)
    patch(PartFiles, "remove", _behind(reach, "part removed"))
    patch(SealedData, "_unlink", unlinked)


def break_build(name: str) -> None:
    """For good: in a process of its own."""
    assert name in BREAKS, name
    _BROKEN[name]()


def _acknowledge_early() -> None:
    append = JournalWriter.append
    held: list[bytes] = []

    def appended(self: JournalWriter, payloads: Any) -> tuple[int, int]:
        first = self.next_seq + len(held)
        late, held[:] = list(held), payloads
        if late:
            append(self, late)
        return first, first + len(payloads) - 1

    JournalWriter.append = appended  # type: ignore[method-assign]


def _forget_sequences() -> None:
    write = store.write_applied

    def written(cursor: Any, name: str, batches: Any, number: int) -> None:
        from msgspec.structs import replace

        write(cursor, name, [replace(b, first_seq=0, last_seq=0) for b in batches], number)

    store.write_applied = written  # type: ignore[attr-defined]


def _leave_unlisted() -> None:
    Transaction._list_upload = lambda *_: None  # type: ignore[method-assign,assignment]


def _unlink_segments_early() -> None:
    delete = JournalWriter.delete_applied
    JournalWriter.delete_applied = (  # type: ignore[method-assign]
        lambda self, applied_seq, *, now: delete(self, self.next_seq, now=float("inf"))
    )


def _remove_parts_early() -> None:
    publish = Store.publish_sealed

    def published(self: Store, **changes: Any) -> None:
        told = changes.get("part")
        if told is not None:
            for suffix in ("", ".wal"):
                path = self.parts.directory / f"{told.part_number:06d}.duckdb{suffix}"
                path.unlink(missing_ok=True)
        publish(self, **changes)

    Store.publish_sealed = published  # type: ignore[method-assign,assignment]


def _forget_files() -> None:
    swap = SealedFiles.swap_sealed

    def swapped(self: SealedFiles, **changes: Any) -> None:
        if not changes.get("part"):
            changes["removals"] = ()
            changes["dropped"] = ()
        swap(self, **changes)

    SealedFiles.swap_sealed = swapped  # type: ignore[method-assign,assignment]


def _move_cursor_first() -> None:
    add = rollups._add

    def added(cursor: Any, snapshot: Any, ids: Any, tables: Any) -> None:
        number = snapshot.commit_number
        cursor.execute(
            f"INSERT INTO {tables['progress']} VALUES (?, now()::TIMESTAMP, {tables.horizon})",
            [number],
        )
        cursor.execute("COMMIT")
        cursor.execute("BEGIN")
        add(cursor, snapshot, ids, tables)

    rollups._add = added  # type: ignore[assignment]


def _replay_again() -> None:
    recover = startup.recover
    startup.recover = (  # type: ignore[attr-defined]
        lambda directory, *, after_seq: recover(directory, after_seq=max(0, after_seq - 3))
    )
    load = startup.load_requests

    def loaded(target: Store, first_seq: int, requests: Any, *rest: Any) -> None:
        target.ledger.applied_seq = min(target.ledger.applied_seq, first_seq - 1)
        load(target, first_seq, requests, *rest)

    startup.load_requests = loaded  # type: ignore[attr-defined]


_BROKEN: dict[str, Callable[[], None]] = {
    "not written": _acknowledge_early,
    "ledger without sequences": _forget_sequences,
    "upload not listed": _leave_unlisted,
    "segment unlinked early": _unlink_segments_early,
    "part removed early": _remove_parts_early,
    "manifest forgets": _forget_files,
    "rollup cursor first": _move_cursor_first,
    "replayed again": _replay_again,
}
assert set(_BROKEN) == set(BREAKS)
assert transaction is not None
assert os.name == "posix"
