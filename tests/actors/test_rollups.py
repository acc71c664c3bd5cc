"""The rollup actor: rung by commits, patient with a store in trouble, not nice when it lags."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from ingester.actors import rollups as actor
from ingester.config import StoreConfig
from ingester.errors import StoreBusy, StoreError, StoreFailed
from ingester.store.database import StoreBroken
from ingester.store.rollups import Rollups, Step
from ingester.store.store import Store
from tests.search.rows import NOW, Rows, event
from tests.store.stores import opened


class _Rollups:
    """What the actor sees of rollups. Steps give out what `outcomes` holds, in turn."""

    def __init__(self) -> None:
        self.outcomes: list[Step | Exception] = []
        self.calls: list[str] = []
        self.are_small: list[bool] = []
        self.threads: list[str] = []
        self.merges = 0
        self.purged: list[int] = []
        self.noted = 0
        self.lag_s = 0.0

    def lag_seconds(self) -> float:
        return self.lag_s

    def note_commit(self) -> None:
        self.noted += 1

    def step(self, *, is_small: bool = False) -> Step:
        self.calls.append("step")
        self.are_small.append(is_small)
        self.threads.append(threading.current_thread().name)
        outcome = self.outcomes.pop(0) if self.outcomes else Step(0, 0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def maybe_merge(self) -> bool:
        self.calls.append("merge")
        self.merges -= 1
        return self.merges >= 0

    def maybe_checkpoint(self, *, bytes_min: int = 0) -> bool:
        self.calls.append("checkpoint")
        return False

    def purge(self, days: int) -> int:
        self.purged.append(days)
        return 3


class _Store:
    def __init__(self) -> None:
        self.commit_listeners: tuple[Callable[[], None], ...] = ()
        self.recovered: list[int] = []

    def listen(self, listener: Callable[[], None]) -> None:
        self.commit_listeners = (*self.commit_listeners, listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        self.commit_listeners = tuple(one for one in self.commit_listeners if one != listener)

    def recover(self, generation: int) -> None:
        self.recovered.append(generation)


@asynccontextmanager
async def running(rollups: _Rollups, store: _Store, **settings: Any) -> AsyncIterator[None]:
    config = StoreConfig(rollup_retention_days=settings.pop("days", 0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(
                actor.run,
                rollups=cast(Rollups, rollups),
                store=cast(Store, store),
                config=lambda: config,
                **settings,
            )
        )
        yield
        nursery.cancel_scope.cancel()


async def until(is_so: Callable[[], bool]) -> None:
    with trio.fail_after(15):
        # What is waited for happens in threads.
        while not is_so():  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_steps_follow_each_other_while_rows_wait_and_merges_come_last() -> None:
    rollups, store = _Rollups(), _Store()
    rollups.outcomes = [Step(5, 900_000), Step(5, 10), Step(5, 0)]
    rollups.merges = 2
    async with running(rollups, store):
        await until(lambda: rollups.calls.count("merge") == 3)
    # A step looks again between two pieces of a merge.
    calls = [call for call in rollups.calls if call != "checkpoint"]
    assert calls[:8] == ["step", "step", "step", "merge", "step", "merge", "step", "merge"]
    assert rollups.threads[:3] == ["rollups", "rollups-late", "rollups"]


async def test_a_commit_rings_and_a_listener_of_others_stays() -> None:
    rollups, store = _Rollups(), _Store()
    others: list[int] = []
    store.commit_listeners = (lambda: others.append(1),)
    async with running(rollups, store):
        await until(lambda: rollups.calls.count("step") == 1)
        for listener in store.commit_listeners:
            await trio.to_thread.run_sync(listener)
        await until(lambda: rollups.calls.count("step") >= 2)
        assert (rollups.noted, others) == (2, [1])  # one at the start
    assert len(store.commit_listeners) == 1


@pytest.mark.parametrize("error", [StoreBusy("no"), StoreBroken("gone", 7), StoreError("bad")])
async def test_a_step_that_fails_is_tried_again(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor, "_BUSY_WAIT_S", 0.01)
    monkeypatch.setattr(actor, "_FAILED_WAIT_S", 0.01)
    monkeypatch.setattr(actor, "_ROUND_S", 0.05)
    rollups, store = _Rollups(), _Store()
    rollups.outcomes = [error, Step(1, 0)]
    async with running(rollups, store):
        await until(lambda: not rollups.outcomes)
    assert store.recovered == ([7] if isinstance(error, StoreBroken) else [])


async def test_a_lost_store_ends_it() -> None:
    rollups, store = _Rollups(), _Store()
    rollups.outcomes = [StoreFailed("lost")]
    with pytest.raises(ExceptionGroup) as caught:
        async with running(rollups, store):
            await trio.sleep_forever()
    assert caught.group_contains(StoreFailed)
    assert store.commit_listeners == ()


async def test_nothing_is_written_while_the_disk_is_nearly_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(actor, "_ROUND_S", 0.02)
    rollups, store = _Rollups(), _Store()
    has_room = False
    async with running(rollups, store, has_room=lambda: has_room):
        await trio.sleep(0.1)
        assert rollups.calls == []
        has_room = True
        await until(lambda: "step" in rollups.calls)


async def test_steps_wait_while_several_uploads_are_under_way_but_not_for_ever() -> None:
    rollups, store = _Rollups(), _Store()
    is_crowded = True
    async with running(rollups, store, is_crowded=lambda: is_crowded):
        await trio.sleep(0.1)
        assert rollups.calls == []
        # What was there at the start waits from then on: it lags though nothing is committed.
        assert rollups.noted == 1
        # More than are taken before the lag is gone again.
        rollups.outcomes = [Step(70_000, 500_000)] * 10_000
        rollups.lag_s = 61.0
        await until(lambda: "step" in rollups.calls)
        rollups.lag_s = 0.0
        steps = rollups.calls.count("step")
        rollups.outcomes = [Step(70_000, 500_000) for _ in range(5)]
        await trio.sleep(0.3)
        # One may have been under way.
        assert rollups.calls.count("step") <= steps + 1
        is_crowded = False
        await until(lambda: not rollups.outcomes)
        # What the uploads took of the memory is not all free again.
        assert all(rollups.are_small)
        await until(lambda: rollups.calls[-1] == "merge")
        rollups.outcomes = [Step(5, 0)]
        for listener in store.commit_listeners:
            listener()
        await until(lambda: not rollups.outcomes)
        assert not rollups.are_small[-1]


async def test_old_buckets_go_when_that_is_set() -> None:
    rollups, store = _Rollups(), _Store()
    async with running(rollups, store, days=30):
        await until(lambda: bool(rollups.purged))
    assert rollups.purged == [30]


async def test_a_real_store_is_followed(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        config = StoreConfig()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(actor.run, rollups=rollups, store=store, config=lambda: config)
            )
            for number in range(1, 4):
                rows = [event(NOW)]
                await trio.to_thread.run_sync(made.add, "events", rows)
                await until(lambda number=number: rollups.row_count == number)
            assert rollups.statistics()["lag_seconds"] == 0.0
            nursery.cancel_scope.cancel()
