"""Group commit: who shares a group, who fails with it, what is counted."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import msgspec
import pytest
import trio
import trio.lowlevel
import trio.testing

from ingester.actors import journal
from ingester.config import JournalConfig
from ingester.doors.small_lane import JournalGate, JournalledGroup
from ingester.errors import JournalFailed, Overloaded
from ingester.flow import Mark
from ingester.journal.recovery import recover
from ingester.journal.writer import JournalWriter

from .requests import payload_of, small_request


class _Writer:
    """Keeps what is appended; stops at `gate` and fails when told."""

    def __init__(self) -> None:
        self.groups: list[list[bytes]] = []
        self.next_seq = 1
        self.may_write = threading.Event()
        self.may_write.set()
        self.failures = 0

    def append(self, payloads: Sequence[bytes]) -> tuple[int, int]:
        assert self.may_write.wait(10)
        if self.failures:
            self.failures -= 1
            raise JournalFailed("no space")
        first_seq = self.next_seq
        self.next_seq += len(payloads)
        self.groups.append(list(payloads))
        return first_seq, self.next_seq - 1


class _Bench:
    def __init__(self) -> None:
        self.gate = JournalGate(backlog_bytes_max=10_000_000)
        self.writer = _Writer()
        self.send, self.receive = trio.open_memory_channel[JournalledGroup](float("inf"))
        self.answers: dict[int, int | str] = {}
        self.answered = Mark()

    async def run(self) -> None:
        writer = cast(JournalWriter, self.writer)
        await journal.run(self.gate, self.send, writer=writer, turn=threading.Lock())

    async def append(self, number: int) -> None:
        request = small_request(number)
        try:
            self.answers[number] = await self.gate.append(payload_of(request), request)
        except Overloaded as error:
            self.answers[number] = str(error)
        self.answered.rise(len(self.answers))

    async def wait_answers(self, count: int) -> None:
        await self.answered.wait_reached(count)

    def load_all(self) -> list[int]:
        """What the loader would do: the sequences it got."""
        found: list[int] = []
        while True:
            try:
                group = self.receive.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                return found
            found += range(group.first_seq, group.first_seq + len(group.requests))
            self.gate.applied(group.byte_count)


async def test_what_comes_while_one_group_is_written_is_the_next_group() -> None:
    bench = _Bench()
    bench.writer.may_write.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.run)
        nursery.start_soon(bench.append, 1)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(2, 12):
            nursery.start_soon(bench.append, number)
        await trio.testing.wait_all_tasks_blocked()
        bench.writer.may_write.set()
        await bench.wait_answers(11)
        bench.gate.close()
    assert [len(group) for group in bench.writer.groups] == [1, 10]
    assert sorted(cast(int, s) for s in bench.answers.values()) == list(range(1, 12))
    for number, sequence in bench.answers.items():
        written = [p for group in bench.writer.groups for p in group][cast(int, sequence) - 1]
        assert written == payload_of(small_request(number)), "each gets the sequence of its record"
    assert bench.gate.backlog_bytes > 0
    assert bench.load_all() == list(range(1, 12))
    assert bench.gate.backlog_bytes == 0


async def test_a_failed_write_refuses_exactly_its_group() -> None:
    bench = _Bench()
    bench.writer.may_write.clear()
    bench.writer.failures = 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.run)
        await trio.testing.wait_all_tasks_blocked()  # else it may come between the two
        for number in (1, 2):
            nursery.start_soon(bench.append, number)
        await trio.testing.wait_all_tasks_blocked()
        for number in (3, 4, 5):
            nursery.start_soon(bench.append, number)
        await trio.testing.wait_all_tasks_blocked()
        bench.writer.may_write.set()
        await bench.wait_answers(5)
        bench.gate.close()
    assert all("no space" in str(bench.answers[number]) for number in (1, 2))
    assert sorted(cast(int, bench.answers[number]) for number in (3, 4, 5)) == [1, 2, 3]
    assert bench.load_all() == [1, 2, 3]
    assert bench.gate.backlog_bytes == 0
    assert bench.gate.statistics()["failures_total"] == 1


async def test_the_request_of_a_cancelled_waiter_is_journalled() -> None:
    bench = _Bench()
    bench.writer.may_write.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.run)
        with trio.CancelScope() as gone:
            async with trio.open_nursery() as waiters:
                for number in (1, 2):
                    waiters.start_soon(bench.append, number)
                await trio.testing.wait_all_tasks_blocked()
                gone.cancel()
        bench.writer.may_write.set()
        await bench.append(3)
        bench.gate.close()
    assert list(bench.answers) == [3]
    assert bench.load_all() == [1, 2, 3]
    assert bench.gate.backlog_bytes == 0


async def test_closing_writes_what_waits_and_then_ends_the_channel() -> None:
    bench = _Bench()
    bench.writer.may_write.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.run)
        for number in range(1, 4):
            nursery.start_soon(bench.append, number)
            await trio.testing.wait_all_tasks_blocked()
        bench.gate.close()
        bench.writer.may_write.set()
    assert len(bench.answers) == 3
    assert bench.load_all() == [1, 2, 3]
    with pytest.raises(trio.EndOfChannel):
        bench.receive.receive_nowait()


async def test_an_empty_gate_closes_at_once() -> None:
    bench = _Bench()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.run)
        await trio.testing.wait_all_tasks_blocked()
        bench.gate.close()
    assert bench.writer.groups == []


async def test_the_gate_is_full_until_the_loader_has_stored() -> None:
    bench = _Bench()
    bench.gate.backlog_bytes_max = 1
    assert not bench.gate.is_full
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.run)
        await bench.append(1)
        assert bench.gate.is_full
        bench.load_all()
        assert not bench.gate.is_full
        bench.gate.close()


def test_the_last_eighth_of_the_backlog_is_for_those_who_have_the_least_in_it() -> None:
    gate = JournalGate(backlog_bytes_max=200_000)

    def add(credential: str) -> None:
        request = small_request(1)
        request.entry = msgspec.structs.replace(request.entry, credential=credential)
        gate.append_nowait(b"x" * 100, request, lambda failure: None)

    def fill(credential: str) -> int:
        count = 0
        while not gate.is_full_for(credential):
            add(credential)
            count += 1
        return count

    assert fill("greedy") > 50
    assert 7 / 8 <= gate.backlog_bytes / gate.backlog_bytes_max < 8 / 9
    assert not gate.is_full_for("polite")
    # The second one has less than the first, until it has too much itself; a third has room then.
    for _ in range(3):
        add("polite")
    assert gate.is_full_for("greedy")
    assert not gate.is_full_for("polite")
    fill("eager")
    assert gate.is_full_for("eager")
    assert not gate.is_full_for("polite") or gate.is_full
    # What the loader makes free is not the greedy one's alone: it is back when it has room.
    gate.applied(gate.backlog_bytes // 4)
    assert not gate.is_full_for("greedy")
    fill("greedy")
    assert not gate.is_full_for("polite")
    gate.applied(gate.backlog_bytes)
    assert (gate.backlog_bytes, gate._shares) == (0, {})


async def test_the_fault_of_the_harness_acknowledges_before_the_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INGESTER_FAULT", "ack_before_journal")
    bench = _Bench()
    bench.writer.may_write.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.run)
        await bench.append(1)
        assert bench.writer.groups == []
        bench.writer.may_write.set()
        bench.gate.close()
    assert len(bench.writer.groups) == 1


async def test_cancelling_the_actor_leaves_no_group_half_told(tmp_path: Path) -> None:
    """The write under way is finished, its waiters may hear of it; nothing else is written."""
    bench = _Bench()
    writer = JournalWriter.open(tmp_path, JournalConfig(segment_bytes=1 << 20), next_seq=1)
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await journal.run(bench.gate, bench.send, writer=writer, turn=threading.Lock())

        nursery.start_soon(run)
        for number in range(1, 4):
            nursery.start_soon(bench.append, number)
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    writer.close()
    recovered = [seq for seq, _ in recover(tmp_path, after_seq=0)]
    assert recovered == list(range(1, len(recovered) + 1))
    told = {sequence for sequence in bench.answers.values() if isinstance(sequence, int)}
    assert told <= set(recovered)
