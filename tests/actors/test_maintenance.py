"""Maintenance: when a checkpoint is made, what a failed one costs, what ends the actor."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing

from ingester.actors import maintenance
from ingester.config import StoreConfig
from ingester.doors.dedup import DedupWindows
from ingester.doors.disk import DiskWatch
from ingester.doors.quota import HourQuotas
from ingester.doors.usage import UsageCounters
from ingester.errors import StoreBusy, StoreError, StoreFailed
from ingester.flow import Doorbell
from ingester.store.control import ControlStore
from ingester.store.database import StoreBroken
from ingester.store.store import Store

KiB = 1024


class _Store:
    """What the actor sees of a store; errors are raised in turn."""

    def __init__(self) -> None:
        self.wal = 0
        self.is_space_owed = False
        self.checkpoints: list[bool] = []
        self.checkpointed_at: list[float] = []
        self.errors: list[Exception | bool] = []
        self.rotate_errors: list[Exception] = []
        self.rotated_looks = 0
        self.recovered: list[int] = []
        self.recover_errors: list[Exception] = []
        self.clock: trio.testing.MockClock | None = None

    def wal_bytes(self) -> int:
        return self.wal

    def checkpoint(self, *, beside_writers: bool = False) -> bool:
        self.checkpoints.append(beside_writers)
        if self.clock is not None:
            self.checkpointed_at.append(self.clock.current_time())
        error = self.errors.pop(0) if self.errors else True
        if isinstance(error, Exception):
            raise error
        if error:
            self.wal = 0
            self.is_space_owed = False
        return error

    def maybe_rotate(self) -> bool:
        if self.rotate_errors:
            raise self.rotate_errors.pop(0)
        return False

    def checkpoint_rotated(self) -> None:
        self.rotated_looks += 1

    def recover(self, generation: int) -> None:
        self.recovered.append(generation)
        if self.recover_errors:
            raise self.recover_errors.pop(0)


class _Disk:
    def __init__(self, free_bytes: int) -> None:
        self.measured_bytes = free_bytes
        self.free_bytes = 0  # nobody has looked yet

    def look(self) -> None:
        self.free_bytes = self.measured_bytes


class _Control:
    def __init__(self) -> None:
        self.stored: list[dict[str, int]] = []
        self.errors: list[StoreError] = []

    def store_hour_counts(self, hour: int, counts: dict[str, int]) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.stored.append(counts)


class _Bench:
    def __init__(self) -> None:
        self.store = _Store()
        self.disk = _Disk(1 << 30)
        self.control = _Control()
        self.quotas = HourQuotas()
        self.trouble = Doorbell()

    @contextlib.asynccontextmanager
    async def running(self, clock: trio.testing.MockClock) -> AsyncIterator[None]:
        self.store.clock = clock
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.run)
            yield
            nursery.cancel_scope.cancel()

    async def run(self) -> None:
        await maintenance.run(
            store=cast(Store, self.store),
            control=cast(ControlStore, self.control),
            quotas=self.quotas,
            usage=UsageCounters(),
            disk=cast(DiskWatch, self.disk),
            dedup=DedupWindows(),
            trouble=self.trouble,
            config=StoreConfig(checkpoint_bytes=100 * KiB, checkpoint_seconds=60),
        )


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


async def test_a_large_wal_is_checkpointed_at_once_and_a_small_one_after_a_while(
    clock: trio.testing.MockClock,
) -> None:
    bench = _Bench()
    async with bench.running(clock):
        bench.store.wal = 101 * KiB
        await trio.sleep(3)
        assert bench.store.checkpoints == [False]
        bench.store.wal = 1
        await trio.sleep(50)
        assert bench.store.checkpoints == [False]
        await trio.sleep(15)
        assert bench.store.checkpoints == [False, False]
        await trio.sleep(300)
        assert bench.store.checkpoints == [False, False], "nothing to do"


async def test_uploads_that_never_end_do_not_let_the_wal_grow_for_ever(
    clock: trio.testing.MockClock,
) -> None:
    bench = _Bench()
    bench.store.errors = [False] * 20
    async with bench.running(clock):
        bench.store.wal = 101 * KiB
        await trio.sleep(5.5)
        assert bench.store.checkpoints == [False] * 5
        bench.store.wal = 801 * KiB
        await trio.sleep(1)
        assert bench.store.checkpoints[-1]


async def test_trouble_is_answered_without_waiting_and_again_until_it_is_done(
    clock: trio.testing.MockClock,
) -> None:
    bench = _Bench()
    bench.store.is_space_owed = True
    bench.store.errors = [False, False]
    async with bench.running(clock):
        await trio.sleep(0.5)
        bench.trouble.ring()
        await trio.sleep(0.1)
        assert len(bench.store.checkpoints) == 1
        await trio.sleep(10)
        assert len(bench.store.checkpoints) == 3


async def test_none_is_tried_without_room_unless_it_gives_room(
    clock: trio.testing.MockClock,
) -> None:
    bench = _Bench()
    bench.store.wal = 101 * KiB
    bench.disk.measured_bytes = 100 * KiB
    async with bench.running(clock):
        await trio.sleep(5)
        assert bench.store.checkpoints == []
        assert bench.store.rotated_looks == 0
        bench.store.is_space_owed = True
        await trio.sleep(1.5)
        assert len(bench.store.checkpoints) == 1
        bench.store.wal = 101 * KiB
        await trio.sleep(5)
        assert len(bench.store.checkpoints) == 1
        bench.disk.measured_bytes = 102 * KiB
        await trio.sleep(1.5)
        assert len(bench.store.checkpoints) == 2, "space came back, and no request had to tell"
        assert bench.store.rotated_looks > 0, "rotated parts as well"


async def test_a_failed_checkpoint_reopens_the_store_and_is_not_repeated_at_once(
    clock: trio.testing.MockClock,
) -> None:
    bench = _Bench()
    bench.store.wal = 101 * KiB
    bench.store.errors = [StoreBroken("no space", 4), StoreBroken("no space", 5)]
    bench.store.recover_errors = [StoreBusy("cursors are still in use")]
    async with bench.running(clock):
        await trio.sleep(60)
    assert bench.store.recovered == [4, 5]
    first, second, third = bench.store.checkpointed_at
    assert second - first >= 15
    assert third - second >= 15


async def test_a_store_that_a_rotation_finds_broken_is_reopened(
    clock: trio.testing.MockClock,
) -> None:
    bench = _Bench()
    bench.store.rotate_errors = [StoreBusy("no space"), StoreBroken("gone", 7)]
    async with bench.running(clock):
        await trio.sleep(5)
    assert bench.store.recovered == [7]


@pytest.mark.parametrize("where", ["checkpoint", "recover", "rotate"])
async def test_a_store_that_failed_ends_the_actor(
    clock: trio.testing.MockClock, where: str
) -> None:
    bench = _Bench()
    bench.store.wal = 101 * KiB
    if where == "checkpoint":
        bench.store.errors = [StoreFailed("for good")]
    elif where == "recover":
        bench.store.errors = [StoreBroken("gone", 0)]
        bench.store.recover_errors = [StoreFailed("for good")]
    else:
        bench.store.rotate_errors = [StoreFailed("for good")]
    with pytest.raises(StoreFailed):
        await bench.run()


async def test_quota_counters_are_stored_and_kept_when_that_fails(
    clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    bench = _Bench()
    bench.control.errors = [StoreBusy("locked")]
    async with bench.running(clock):
        bench.quotas.count("source:1", 10, 0)
        await trio.sleep(1.5)
        assert bench.control.stored == []
        await trio.sleep(1)
        assert bench.control.stored == [{"source:1": 1}]
        await trio.sleep(10)
        assert len(bench.control.stored) == 1


async def test_usage_is_saved_and_kept_when_it_could_not_be(tmp_path: Path) -> None:
    with contextlib.closing(ControlStore.open(tmp_path / "control.sqlite")) as control:
        usage = UsageCounters()
        usage.count("tok_1", accepted=3)
        with trio.CancelScope() as scope:
            scope.cancel()
            await maintenance.save_usage(control, usage)
        assert usage.is_changed

        class Busy:
            def store_usage(self, *arguments: object) -> None:
                raise StoreBusy("not now")

        await maintenance.save_usage(cast(ControlStore, Busy()), usage)
        assert usage.is_changed
        await maintenance.save_usage(control, usage)
        assert not usage.is_changed
        assert control.usage_hours("tok_1", since_hour=0)[0].accepted == 3


async def test_quotas_not_saved_are_saved_later(tmp_path: Path) -> None:
    with contextlib.closing(ControlStore.open(tmp_path / "control.sqlite")) as control:
        quotas = HourQuotas()
        quotas.count("tok_1", 5, 3600.0)
        with trio.CancelScope() as scope:
            scope.cancel()
            await maintenance.save_quotas(control, quotas)
        assert quotas.is_changed
        await maintenance.save_quotas(control, quotas)
        assert control.hour_counts(1) == {"tok_1": 1}
