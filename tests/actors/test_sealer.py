"""The sealer actor: what it does by itself, when it waits, and what it tells before rows go."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio
import trio.testing

from ingester.actors import sealer
from ingester.actors.sealer import NOTICE_S, Load, SealerCounters
from ingester.store.rejects import RejectBudget
from ingester.store.retention import Keeping
from ingester.store.sealing import Sealer
from ingester.store.store import Store
from tests.store.sealing_rows import DAY, contents, fill
from tests.store.stores import opened, value

START = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
def clock(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> trio.testing.MockClock:
    """Jumps when nothing happens; so that this is never while a thread works, there is none."""

    async def run_sync(function: Callable[..., Any], *arguments: Any, **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return function(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    return autojump_clock


class Rig:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.keeping = Keeping(days={})
        self.load: Load = "idle"
        self.ask_load: Callable[[], Load] = lambda: self.load
        self.has_room = True
        self.counters = SealerCounters()
        self.rejects = RejectBudget(1 << 30, 10_000)
        # Asked from the thread of the sealer too.
        self.clock = trio.lowlevel.current_clock()
        self.began_at = self.clock.current_time()

    def now(self) -> float:
        return START.timestamp() + self.clock.current_time() - self.began_at

    async def run(self) -> None:
        await sealer.run(
            store=self.store,
            rejects=self.rejects,
            keeping=lambda: self.keeping,
            load=lambda: self.ask_load(),
            has_room=lambda: self.has_room,
            counters=self.counters,
            now=self.now,
        )


@contextlib.asynccontextmanager
async def running(store: Store) -> AsyncIterator[Rig]:
    rig = Rig(store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.run)
        yield rig
        nursery.cancel_scope.cancel()


async def test_rotated_parts_are_sealed_and_small_files_joined(
    tmp_path: Path, clock: trio.testing.MockClock
) -> None:
    with opened(tmp_path) as store:
        for seed in range(2):
            fill(store, row_count=10, seed=seed, day=START - timedelta(days=9))
            store.rotate()
        before = contents(store)
        async with running(store) as rig:
            await trio.sleep(60)
            counters = rig.counters
            # The ledger of this day is joined once there are four files of it, or the day is over.
            assert (counters.sealed_parts, counters.joined_files) == (2, 36)
            assert counters.parts_waiting == 0
            assert contents(store) == before
            assert len(list((tmp_path / "sealed").glob("*/*/*"))) == len(store.sealed.all_files())


@pytest.mark.parametrize("load", ["some", "busy"])
async def test_it_waits_while_the_server_is_busy_and_goes_on_all_the_same(
    tmp_path: Path, clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, load: Load
) -> None:
    monkeypatch.setattr(sealer, "_PAUSE_S_MAX", 0.05)
    with opened(tmp_path) as store:
        fill(store, row_count=10)
        store.rotate()
        async with running(store) as rig:
            rig.load = load
            await trio.sleep(3)
            assert rig.counters.sealed_parts == 1
            assert rig.counters.paused_seconds > 0


async def test_a_full_disk_puts_sealing_off(tmp_path: Path, clock: trio.testing.MockClock) -> None:
    with opened(tmp_path) as store:
        fill(store, row_count=10)
        store.rotate()
        async with running(store) as rig:
            rig.has_room = False
            await trio.sleep(10)
            assert (rig.counters.sealed_parts, rig.counters.failure_count) == (0, 1)
            assert list((tmp_path / "sealed").glob("*/*/*")) == []
            rig.has_room = True
            await trio.sleep(30)
            assert rig.counters.sealed_parts == 1


async def test_what_goes_is_told_first(tmp_path: Path, clock: trio.testing.MockClock) -> None:
    with opened(tmp_path) as store:
        fill(store, row_count=10, day=START - timedelta(days=30))
        store.rotate()
        async with running(store) as rig:
            await trio.sleep(30)
            assert rig.counters.sealed_parts == 1
            assert rig.counters.next_purge_rows == 0
            with structlog.testing.capture_logs() as told:
                rig.keeping = Keeping(days={"events": 3, "rejects": 3})
                await trio.sleep(NOTICE_S - 5)
            assert value(store, "SELECT count(*) FROM events") == 60
            notices = [entry for entry in told if entry["event"].startswith("next purge")]
            assert len(notices) == 1
            assert "events of 2026-10-22 to 2026-10-24 (60 rows" in notices[0]["event"]
            assert rig.counters.next_purge_rows == 60 + 15
            assert START.timestamp() < rig.counters.next_purge_at < rig.now()
            await trio.sleep(30)
            assert value(store, "SELECT count(*) FROM events") == 0
            assert value(store, "SELECT count(*) FROM rejects") == 0
            assert value(store, "SELECT count(*) FROM logs") == 60
            assert rig.rejects.kept_bytes == 10_000 - 15 * 2
            assert list((tmp_path / "sealed" / "events").glob("*/*")) == []


async def test_a_purge_that_is_taken_back_in_time_removes_nothing(
    tmp_path: Path, clock: trio.testing.MockClock
) -> None:
    with opened(tmp_path) as store:
        fill(store, row_count=10, day=START - timedelta(days=30))
        store.rotate()
        async with running(store) as rig:
            await trio.sleep(30)
            rig.keeping = Keeping(days={"events": 3})
            await trio.sleep(NOTICE_S / 2)
            rig.keeping = Keeping(days={})
            await trio.sleep(NOTICE_S * 3)
            assert value(store, "SELECT count(*) FROM events") == 60
            # Only ids that no repeat is looked for under any more.
            assert rig.counters.purged_rows == 3


async def test_an_open_part_larger_than_the_store_may_be_is_rotated_and_goes(
    tmp_path: Path, clock: trio.testing.MockClock
) -> None:
    with opened(tmp_path) as store:
        fill(store, row_count=3000, day=START - timedelta(days=30))
        bytes_max = 800_000
        assert store.stored_bytes() > bytes_max
        async with running(store) as rig:
            rig.keeping = Keeping(days={}, bytes_max=bytes_max)
            await trio.sleep(NOTICE_S * 3)
            assert 0 < value(store, "SELECT count(*) FROM events") < 18_000
            assert store.stored_bytes() < bytes_max


async def test_rows_past_their_time_in_the_open_part_go(
    tmp_path: Path, clock: trio.testing.MockClock
) -> None:
    with opened(tmp_path) as store:
        fill(store, row_count=10, day=START - timedelta(days=30))
        store.parts.newest.created_at = START.timestamp() - 20 * 86_400
        async with running(store) as rig:
            rig.keeping = Keeping(days={"logs": 10})
            await trio.sleep(NOTICE_S * 2)
            assert value(store, "SELECT count(*) FROM logs") == 0
            assert value(store, "SELECT count(*) FROM events") == 60


async def test_a_damaged_part_is_told_of_once_and_holds_up_no_other(
    tmp_path: Path, clock: trio.testing.MockClock
) -> None:
    with opened(tmp_path) as store:
        fill(store, row_count=10)
        store.rotate()
        fill(store, row_count=10)
        store.rotate()
    next((tmp_path / "uploads").glob("000001-*")).unlink()
    with opened(tmp_path) as store, structlog.testing.capture_logs() as told:
        async with running(store) as rig:
            await trio.sleep(60)
            assert rig.counters.sealed_parts == 1
            assert rig.counters.parts_stuck == 1
        errors = [entry for entry in told if entry["log_level"] == "error"]
        assert len(errors) == 1
        assert [part.number for part in store.parts.parts] == [1, 3]


async def test_a_damaged_sealed_file_is_told_of_once_and_the_others_are_joined(
    tmp_path: Path, clock: trio.testing.MockClock
) -> None:
    with opened(tmp_path) as store:
        for seed in range(4):
            fill(store, row_count=10, seed=seed)
            store.rotate()
        sealing = Sealer(store)
        part = sealing.next_part()
        assert part is not None
        sealing.seal(part)
        damaged = store.sealed.path(store.sealed.files["events"][0])
        content = bytearray(damaged.read_bytes())
        content[200] ^= 0x40
        damaged.write_bytes(content)
        with structlog.testing.capture_logs() as told:
            async with running(store) as rig:
                await trio.sleep(120)
                assert rig.counters.sealed_parts == 3
                assert rig.counters.joined_files > 0
            errors = [entry for entry in told if entry["log_level"] == "error"]
            assert len(errors) == 1
            assert damaged.name in errors[0]["reason"]
        # As it is: joined with others its rows would have got new checksums.
        assert damaged.read_bytes() == content
        others = [file for file in store.sealed.files["logs"] if file.day == str(DAY.date())]
        assert len(others) == 1


async def test_a_disk_that_removes_nothing_does_not_end_it(
    tmp_path: Path, clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, **_: object) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    with opened(tmp_path) as store:
        fill(store, row_count=10)
        store.rotate()
        async with running(store) as rig:
            with monkeypatch.context() as patch:
                patch.setattr(Path, "unlink", fail)
                await trio.sleep(40)
                assert rig.counters.sealed_parts == 1
                assert rig.counters.failure_count > 0
                assert len(list((tmp_path / "open").glob("*.duckdb"))) == 2
            await trio.sleep(40)
        assert len(list((tmp_path / "open").glob("*.duckdb"))) == 1
        assert list((tmp_path / "uploads").iterdir()) == []


async def test_it_ends_soon_when_cancelled_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With real threads: the pause that ends it is that of the thread."""
    monkeypatch.setattr(sealer, "_ROUND_S", 0.01)
    monkeypatch.setattr(sealer, "_PAUSE_S_MAX", 60.0)
    with opened(tmp_path) as store:
        fill(store, row_count=10)
        before = contents(store)
        store.rotate()
        async with running(store) as rig:
            token, asked = trio.lowlevel.current_trio_token(), trio.Event()

            def load() -> Load:
                token.run_sync_soon(asked.set)
                return "busy"

            rig.ask_load = load
            await asked.wait()
            began = time.monotonic()
        assert time.monotonic() - began < 30
        assert rig.counters.sealed_parts == 0
        assert list((tmp_path / "sealed").glob("*/*/*")) == []
        assert contents(store) == before
