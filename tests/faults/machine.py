"""Random interleavings of sending, retries, crashes, replay, FATAL errors, rotation, sealing and
retention, against a model of sets (`Book`).

A crash is a copy of the folder, taken at a named point or between two steps, on which the next life
starts; the old life is dropped without any tidying. What a start finds must be what the book says:
acknowledged requests whole and once, refused ones not at all, unanswered ones whole or not at all,
and rollups that are a recount.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import duckdb
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from ingester.journal.segments import FileCalls
from ingester.store import rollups
from ingester.store.store import Store
from tests.faults.life import Book, Life, Request
from tests.faults.points import POINT_GROUPS, STARTING, install, patching
from tests.store.stores import FaultyCursor

__all__ = ["Crashed", "StoreMachine"]

_UNMERGED_ROWS_MAX = 60
# What is done, in this order, to come by the points of a group.
_WORK = {
    # Cleaned before the load, which must leave everything, and behind it.
    "journal": ("send", "send", "send", "clean", "load", "clean"),
    "loading": ("send", "load"),
    "uploads": ("upload", "upload"),
    "rotation": ("rotate",),
    "checkpoint": ("send", "load", "roll_up", "checkpoint"),
    "rollups": ("send", "load", "roll_up", "upload", "roll_up", "roll_up"),
    "sealing": ("send", "load", "upload", "seal", "upload", "seal", "seal", "purge"),
    "starting": ("send", "restart"),
}
_ACTORS = ("load", "roll_up", "checkpoint", "rotate", "seal", "purge", "clean", "recount")
_sizes = st.lists(
    st.tuples(st.sampled_from([1, 1, 3, 30]), st.sampled_from([0, 0, 2]), st.booleans()),
    min_size=1,
    max_size=3,
)


class Crashed(BaseException):
    """The process ended at a point; the folder as it was then has been copied."""


class StoreMachine(RuleBasedStateMachine):
    """`crash_count` and `points` tell what a run has come to, over all machines of it;
    `crash_points` are those that it may end at.
    """

    crash_points: ClassVar[Sequence[str]] = sorted(POINT_GROUPS)
    crash_count = 0
    points: ClassVar[set[str]] = set()

    def __init__(self) -> None:
        super().__init__()
        self._root = Path(tempfile.mkdtemp(prefix="ingester-machine-"))
        self._folder_count = 0
        self._folder = self._root / "0"
        self._book = Book()
        self._armed: tuple[str, int] | None = None
        self._stack = ExitStack()
        self._stack.callback(shutil.rmtree, self._root, ignore_errors=True)
        self._stack.enter_context(install(self._reach))
        patch = self._stack.enter_context(patching())
        patch(rollups, "_UNMERGED_ROWS_MAX", lambda _: _UNMERGED_ROWS_MAX)
        self._life: Life | None = None
        self._start()

    # --- what is done

    @rule(sizes=_sizes)
    def send_small(self, sizes: list[tuple[int, int, bool]]) -> None:
        requests = [self._request("small", *size) for size in sizes]
        self._do(lambda life: life.send_small(*requests))

    @rule(row_count=st.integers(1, 300), as_file=st.booleans(), is_keyed=st.booleans())
    def send_bulk(self, row_count: int, as_file: bool, is_keyed: bool) -> None:
        request = self._request("bulk", row_count, 0, is_keyed)
        self._do(lambda life: life.send_bulk(request, as_file=as_file))

    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        keyed = [r for r in self._book.requests.values() if r.key is not None]
        if keyed:
            request = data.draw(st.sampled_from(keyed), label="request")
            self._do(lambda life: _no_problem(life.send_again(request, as_file=_as_file(request))))

    # Few rules: of many, hypothesis leaves most out of a machine.
    @rule(names=st.lists(st.sampled_from(_ACTORS), min_size=1, max_size=4))
    def work(self, names: list[str]) -> None:
        for name in names:
            getattr(self, f"_{name}")()

    # --- what goes wrong

    @rule(data=st.data(), count=st.integers(1, 2))
    def crash_at(self, data: st.DataObject, count: int) -> None:
        """With the work that comes by it."""
        point = data.draw(st.sampled_from(self.crash_points), label="point")
        self._armed = point, 1 if point in STARTING else count
        for name in _WORK[POINT_GROUPS[point]]:
            getattr(self, f"_{name}")()
            if self._armed is None:
                return
        self._armed = None

    crash_at_another = crash_at  # twice as often

    @rule(
        fault=st.sampled_from(("crash", "commit", "checkpoint", "journal", "stop")),
        is_durable=st.booleans(),
        is_bulk=st.booleans(),
    )
    def fail(self, fault: str, is_durable: bool, is_bulk: bool) -> None:
        if fault == "crash":
            self._copy()
            self._restart()
        elif fault == "commit":
            self._fatal_commit(is_durable, is_bulk)
        elif fault == "checkpoint":
            self._do(_fatal_checkpoint)
        elif fault == "journal":
            self._refuse(is_durable)
        else:
            self._do(Life.close)
            self._restart()

    def _fatal_commit(self, is_durable: bool, is_bulk: bool) -> None:
        """The COMMIT ends the instance, and is durable all the same or not."""
        request = self._request("bulk" if is_bulk else "small", 5, 0, True)
        with _commit_fails(is_durable):
            if is_bulk:
                self._do(lambda life: life.send_bulk(request, as_file=is_durable))
            else:
                self._do(lambda life: life.send_small(request))
                self._do(Life.load)

    def _refuse(self, is_write: bool) -> None:
        """The journal's disk fails once, in the write or in the sync."""
        request = self._request("small", 2, 0, True)
        with _disk_fails("write" if is_write else "fdatasync"):
            self._do(lambda life: life.send_small(request))

    def teardown(self) -> None:
        try:
            self._armed = None
            self._copy()
            self._restart()
            self._do(Life.load)
            self._do(lambda life: _no_problems(life.recount()))
        finally:
            if self._life is not None:
                self._life.drop()
            self._stack.close()

    # --- work that passes points

    def _send(self) -> None:
        requests = [self._request("small", 20, 1, True), self._request("small", 1, 0, False)]
        self._do(lambda life: life.send_small(*requests))

    def _upload(self) -> None:
        request = self._request("bulk", 120, 0, True)
        self._do(lambda life: life.send_bulk(request, as_file=True))

    def _seal(self) -> None:
        self._do(Life.load)
        self._do(Life.rotate)
        self._do(Life.seal)

    def _purge(self) -> None:
        self._book.day += 5
        self._do(lambda life: life.purge(self._book.day))

    def _load(self) -> None:
        self._do(Life.load)

    def _roll_up(self) -> None:
        self._do(Life.roll_up)

    def _checkpoint(self) -> None:
        self._do(Life.checkpoint)

    def _rotate(self) -> None:
        self._do(Life.rotate)

    def _clean(self) -> None:
        self._do(Life.clean_journal)

    def _recount(self) -> None:
        self._do(lambda life: _no_problems(life.recount()))

    # --- means

    def _request(self, kind: str, row_count: int, reject_count: int, is_keyed: bool) -> Request:
        name = self._book.name()
        key = f"key-{name}" if is_keyed else None
        return Request(name, kind, row_count, reject_count, day=self._book.day, key=key)

    def _do(self, step: Callable[[Life], object]) -> None:
        """One step, and the next life when it ended in a crash."""
        assert self._life is not None
        try:
            step(self._life)
        except Crashed:
            self._restart()

    def _reach(self, point: str) -> None:
        if self._armed is None or self._armed[0] != point:
            return
        left = self._armed[1] - 1
        self._armed = (point, left) if left else None
        if not left:
            note(f"crash at {point}")
            StoreMachine.points.add(point)
            self._copy()
            raise Crashed(point)

    def _copy(self) -> None:
        """The folder as a kill leaves it now."""
        self._folder_count += 1
        StoreMachine.crash_count += 1
        target = self._root / str(self._folder_count)
        for _ in range(3):
            # The journal's spare is made, filled and removed by a thread.
            with suppress(shutil.Error):
                shutil.copytree(self._folder, target, ignore=_spares)
                break
            shutil.rmtree(target)
        self._folder = target

    def _restart(self) -> None:
        if self._life is not None:
            armed, self._armed = self._armed, None
            self._life.drop()
            if self._life.folder != self._folder:
                shutil.rmtree(self._life.folder, ignore_errors=True)
            self._life = None
            self._armed = armed
        self._start()

    def _start(self) -> None:
        while self._life is None:
            # A start may end at a point as well.
            with suppress(Crashed):
                self._life = Life(self._folder, self._book)
        _no_problems(self._book.compare(self._life))


def _spares(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name.endswith(".tmp") and os.sep not in name]


def _as_file(request: Request) -> bool | None:
    return True if request.kind == "bulk" else None


def _no_problem(problem: str | None) -> None:
    assert problem is None, problem


def _no_problems(problems: list[str]) -> None:
    assert problems == [], "\n".join(problems[:10])


def _fatal_checkpoint(life: Life) -> None:
    with life.store.database.lease() as lease, lease.using() as cursor:
        cursor.execute("SET GLOBAL debug_checkpoint_abort = 'BEFORE_HEADER'")
    life.checkpoint()


@contextmanager
def _commit_fails(is_durable: bool) -> Iterator[None]:
    """The next COMMIT behind the gate."""
    is_due = True

    def fail(cursor: Any) -> None:
        if is_durable:
            cursor.execute("COMMIT")
        raise duckdb.FatalException("injected: database has been invalidated")

    def wrap(commit: Any) -> Any:
        def called(self: Store, *arguments: Any) -> Any:
            nonlocal is_due
            *rest, cursor = arguments
            if is_due:
                is_due = False
                cursor = FaultyCursor(cursor, "COMMIT", fail)
            return commit(self, *rest, cursor)

        return called

    with patching() as patch:
        patch(Store, "_commit", wrap)
        yield


@contextmanager
def _disk_fails(name: str) -> Iterator[None]:
    """The next such call of the journal, once."""
    is_due = True

    def wrap(call: Any) -> Any:
        def called(*arguments: Any) -> Any:
            nonlocal is_due
            if is_due:
                is_due = False
                raise OSError(5, "injected")
            return call(*arguments)

        return called

    with patching() as patch:
        patch(FileCalls, name, wrap)
        yield
