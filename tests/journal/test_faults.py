"""The journal on a disk that fails: every file call, alone, in a row, at random, with power cuts.

The promise under test: acknowledged records are all there, once, in order and under the sequence
that was returned; refused ones never come back; acknowledged sequences have no gaps.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from ingester.config import JournalConfig
from ingester.errors import JournalFailed
from ingester.journal import JournalWriter, recover

from .model_disk import Died, ModelDisk

CONFIG = JournalConfig(segment_bytes=600, retention_hours=0, retention_bytes_max=0)


def start_inline(work: Callable[[], None]) -> Thread | None:
    """Spares are made where they begin, so that call numbers repeat."""
    work()
    return None


class Client:
    """Appends numbered payloads and remembers what became of each."""

    def __init__(self, disk: ModelDisk, directory: Path) -> None:
        self.disk = disk
        self.directory = directory
        self.acknowledged: dict[int, bytes] = {}
        self.refused: set[bytes] = set()
        # Refused, but the void could not be made durable yet; or never answered.
        self.open_ended: set[bytes] = set()
        self.applied_seq = 0
        self.writer: JournalWriter | None = None
        self._numbers = itertools.count(1)

    def start(self) -> None:
        self.disk.show(self.directory)
        next_seq = self.check()
        for name in ("spare.tmp", "large.tmp"):  # the writer unlinks these in the real folder
            self.disk._names.pop(name, None)
            self.disk._durable_names.pop(name, None)
        self.writer = JournalWriter.open(
            self.directory, CONFIG, next_seq=next_seq, calls=self.disk, start=start_inline
        )

    def append(self, *byte_counts: int) -> None:
        assert self.writer is not None
        payloads = [b"%06d" % next(self._numbers) + b"x" * count for count in byte_counts]
        self.open_ended.update(payloads)
        first_expected = self.writer.statistics().next_seq
        try:
            first, last = self.writer.append(payloads)
        except JournalFailed:
            assert self.writer.statistics().next_seq == first_expected
            if self.writer._active is not None:
                self.refused |= self.open_ended
                self.open_ended.clear()
            return
        assert (first, last) == (first_expected, first_expected + len(payloads) - 1)
        self.acknowledged.update(zip(range(first, last + 1), payloads, strict=True))
        self.refused |= self.open_ended.difference(payloads)
        self.open_ended.clear()

    def delete(self) -> None:
        assert self.writer is not None
        self.applied_seq = max(self.acknowledged, default=0)
        self.writer.delete_applied(self.applied_seq, now=4e9)

    def check(self) -> int:
        """Read the journal back; what it holds becomes what is known."""
        recovery = recover(self.directory, after_seq=self.applied_seq)
        found = dict(recovery)
        assert list(found) == sorted(found)
        assert recovery.report.problems == []
        kept = {seq: p for seq, p in self.acknowledged.items() if seq > self.applied_seq}
        assert {seq: found.get(seq) for seq in kept} == kept
        extra = {payload for seq, payload in found.items() if seq not in kept}
        assert not extra & self.refused
        assert extra <= self.open_ended
        assert recovery.next_seq > max(self.acknowledged, default=0)
        self.acknowledged.update(found)
        self.refused |= self.open_ended - extra
        self.open_ended.clear()
        assert sorted(self.acknowledged) == list(range(1, recovery.next_seq))
        return recovery.next_seq

    def crash(self, *, power: bool) -> None:
        if power:
            self.disk.cut_power()
        else:
            self.disk.kill()
        self.disk.verdict = lambda number, name: "ok"
        self.start()


def workload(client: Client) -> None:
    client.start()
    for byte_counts in [(20,), (30, 1, 0), (200,), (150, 90), (900,), (10,), (300,), (40,)]:
        client.append(*byte_counts)
    client.delete()
    for byte_counts in [(250,), (250,), (5, 5, 5)]:
        client.append(*byte_counts)


def call_count(tmp_path: Path) -> int:
    disk = ModelDisk(random.Random(0))
    workload(Client(disk, tmp_path))
    return disk.call_count


def in_stretch(
    numbers: range, how: str, names: frozenset[str] | None = None
) -> Callable[[int, str], str]:
    def verdict(number: int, name: str) -> str:
        return how if number in numbers and (names is None or name in names) else "ok"

    return verdict


def run(tmp_path: Path, seed: int, verdict: Callable[[int, str], str], *, power: bool) -> Client:
    disk = ModelDisk(random.Random(seed))
    client = Client(disk, tmp_path)
    disk.verdict = verdict
    try:
        workload(client)
    except Died:
        client.crash(power=power)
    else:
        disk.verdict = lambda number, name: "ok"
        client.append(50, 60)  # goes on when the fault has passed
        assert client.writer is not None
        assert client.writer.statistics().last_error == ""
        assert not client.open_ended
        client.crash(power=power)
    client.append(7)
    client.crash(power=False)
    return client


@pytest.mark.parametrize("how", ["before", "after", "short"])
@pytest.mark.parametrize("power", [False, True])
def test_each_call_may_fail_once(tmp_path: Path, how: str, power: bool) -> None:
    for failing in range(1, call_count(tmp_path) + 1):
        run(tmp_path, failing, in_stretch(range(failing, failing + 1), how), power=power)


@pytest.mark.parametrize("how", ["before", "after"])
@pytest.mark.parametrize("length", [2, 3, 5, 9])
def test_failures_in_a_row_lose_nothing(tmp_path: Path, how: str, length: int) -> None:
    for first in range(1, call_count(tmp_path) + 1):
        verdict = in_stretch(range(first, first + length), how)
        client = run(tmp_path, first, verdict, power=True)
        assert client.acknowledged


def test_disk_that_stays_full_refuses_and_resumes(tmp_path: Path) -> None:
    full = frozenset({"open", "write", "fallocate"})
    for first in range(1, call_count(tmp_path) + 1, 3):
        verdict = in_stretch(range(first, 10**6), "before", full)
        client = run(tmp_path, first, verdict, power=False)
        assert client.acknowledged


@pytest.mark.parametrize("power", [False, True])
def test_process_may_end_at_each_call(tmp_path: Path, power: bool) -> None:
    for last in range(1, call_count(tmp_path) + 1):
        for seed in range(4):
            run(tmp_path, seed, in_stretch(range(last, last + 1), "die"), power=power)


@pytest.mark.parametrize("seed", range(25))
def test_random_faults_over_many_lives_lose_nothing(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    disk = ModelDisk(rng)
    client = Client(disk, tmp_path)
    client.start()
    for _ in range(12):
        rate = rng.choice([0.0, 0.02, 0.2])

        def verdict(number: int, name: str, rate: float = rate) -> str:
            draw = rng.random()
            if draw < rate / 10:
                return "die"
            return rng.choice(["before", "after", "short"]) if draw < rate else "ok"

        disk.verdict = verdict
        try:
            for _ in range(rng.randint(0, 25)):
                client.append(*(rng.choice([0, 5, 60, 700]) for _ in range(rng.randint(1, 4))))
                if rng.random() < 0.1:
                    client.delete()
        except Died:
            pass
        client.crash(power=rng.random() < 0.5)
    assert client.acknowledged
