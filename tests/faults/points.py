"""Named points of the write path, at which a test may end the process.

The product has no hooks for it: its functions are wrapped here, and `reach` is called with the
name of a point each time one is passed. What is done then is the caller's: SIGKILL to itself
(`killer.py`, `tests/system/faulty_server.py`), or a copy of the folder and an exception
(`machine.py`).

1. A name says what has just been done and, by that, what has not.
2. Every name in `POINTS` is passed by ordinary work; `test_named_points.py` fails where one is not.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ingester import startup
from ingester.journal import segments, writer
from ingester.journal.writer import JournalWriter
from ingester.store import metadata_copy, parts, rollup_file, rollups, sealing, store
from ingester.store.control.sealed_files import SealedFiles
from ingester.store.parts import PartFiles
from ingester.store.rollup_file import RollupFile
from ingester.store.rollups import Rollups
from ingester.store.sealed import SealedData
from ingester.store.store import Store
from ingester.store.transaction import Transaction
from ingester.store.upload_files import UploadFile

__all__ = ["POINTS", "POINT_GROUPS", "STARTING", "Patch", "install", "patching"]

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
    "seal committed",  # in the manifest; readers find the part
    "join committed",  # readers find the files before
    "purge committed",
    "manifest swapped",
    "part removed",
    "sealed unlinked",  # what was replaced
    "retention unlinked",
    "removals forgotten",
)
# Passed by a start that has something to replay.
STARTING = ("replaying", "replayed")

_GROUPS = {
    "journal": _JOURNAL,
    "loading": _LOADING,
    "uploads": _UPLOADS,
    "rotation": _ROTATION,
    "checkpoint": _CHECKPOINT,
    "rollups": _ROLLUPS,
    "sealing": _SEALING,
    "starting": STARTING,
}
POINT_GROUPS = {point: group for group, points in _GROUPS.items() for point in points}
POINTS = tuple(POINT_GROUPS)

# Replaces a function of an owner by what the last argument makes of it.
Patch = Callable[[Any, str, Callable[[Any], Any]], None]


@contextmanager
def patching() -> Iterator[Patch]:
    """What is patched with it is as before at the end."""
    undo: list[tuple[Any, str, Any]] = []

    def patch(owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
        undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, wrap(getattr(owner, name)))

    try:
        yield patch
    finally:
        for owner, name, original in reversed(undo):
            setattr(owner, name, original)


@contextmanager
def install(reach: Reach) -> Iterator[None]:
    """Call `reach` at every point until the end."""
    with patching() as patch:
        for patches in (_on_journal, _on_commits, _on_parts, _on_rollups, _on_sealing):
            patches(patch, reach)
        yield


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

    def swapped(call: Any) -> Any:
        def called(self: SealedFiles, **changes: Any) -> None:
            call(self, **changes)
            is_join = bool(changes.get("added"))
            kind = "seal" if changes.get("part") else "join" if is_join else "purge"
            reach(f"{kind} committed")

        return called

    patch(sealing, "reached", lambda _: lambda name: reach(names[name]))
    patch(SealedFiles, "_transaction", transaction_of)
    patch(SealedFiles, "swap_sealed", swapped)
    patch(SealedFiles, "forget_removals", _behind(reach, "removals forgotten"))
    patch(Store, "publish_sealed", published)
    patch(PartFiles, "remove", _behind(reach, "part removed"))
    patch(SealedData, "_unlink", unlinked)
