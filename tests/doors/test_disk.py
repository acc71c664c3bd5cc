"""The disk watch refuses before the disk is full, also on disks smaller than its reserve."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from ingester.doors import disk
from ingester.doors.disk import DiskWatch
from ingester.errors import Overloaded

GIB = 1024**3
MIB = 1024**2


class Disks:
    """File systems of our own, and a clock."""

    def __init__(self) -> None:
        self.sizes: dict[Path, tuple[int, int]] = {}
        self.looks = 0
        self.now_s = 0.0

    def statvfs(self, directory: Path) -> SimpleNamespace:
        self.looks += 1
        total, free = self.sizes[directory]
        # More blocks are free than an ordinary user may take.
        return SimpleNamespace(
            f_frsize=4096, f_blocks=total // 4096, f_bavail=free // 4096, f_bfree=total // 4096
        )


A, B = Path("/a"), Path("/b")


@pytest.fixture
def disks(monkeypatch: pytest.MonkeyPatch) -> Disks:
    disks = Disks()
    monkeypatch.setattr(disk.os, "statvfs", disks.statvfs)
    monkeypatch.setattr(disk.time, "monotonic", lambda: disks.now_s)
    return disks


@pytest.mark.parametrize(
    ("total", "reserve"),
    [
        (100 * GIB, 5 * GIB),  # 5 %
        (10 * GIB, GIB),  # at least 1 GiB
        (2 * GIB, GIB // 2),  # at most a quarter
        (8 * MIB, 2 * MIB),
        (64 * 1024, 16 * 1024),
    ],
)
def test_the_automatic_reserve(disks: Disks, total: int, reserve: int) -> None:
    disks.sizes[A] = (total, reserve)
    assert not DiskWatch([A], 0).is_full
    disks.sizes[A] = (total, reserve - 4096)
    assert DiskWatch([A], 0).is_full


def test_an_empty_file_system_of_a_given_size_takes_something(disks: Disks) -> None:
    for total in (4096, 64 * 1024, MIB, GIB):
        disks.sizes[A] = (total, total)
        assert not DiskWatch([A], 0).is_full


def test_a_reserve_that_is_set_is_taken_as_it_is(disks: Disks) -> None:
    disks.sizes[A] = (100 * GIB, 10 * MIB)
    assert not DiskWatch([A], 10 * MIB).is_full
    assert DiskWatch([A], 10 * MIB + 1).is_full


def test_half_of_the_reserve_is_told_apart_from_all_of_it(disks: Disks) -> None:
    told = []
    for free in (10 * MIB, 8 * MIB, 5 * MIB, 5 * MIB - 4096):
        disks.sizes[A] = (100 * GIB, free)
        watch = DiskWatch([A], 10 * MIB)
        told.append((watch.is_full, watch.is_half_gone))
    assert told == [(False, False), (True, False), (True, False), (True, True)]


def test_the_fullest_of_several_file_systems_counts(disks: Disks) -> None:
    disks.sizes = {A: (100 * GIB, 50 * GIB), B: (GIB, 1 * MIB)}
    watch = DiskWatch([A, B], 0)
    assert watch.is_full
    found = watch.statistics()
    assert found.pop("reserve_bytes") > MIB
    assert found == {"free_bytes": MIB, "is_full": 1, "refused_total": 0}
    disks.sizes[B] = (GIB, GIB // 2)
    disks.now_s += 1
    assert not watch.is_full
    assert watch.free_bytes == GIB // 2


def test_it_looks_at_the_first_question_and_then_now_and_again(disks: Disks) -> None:
    disks.sizes[A] = (GIB, GIB)
    watch = DiskWatch([A], 0)
    for _ in range(10):
        assert not watch.is_full
    assert disks.looks == 1, "also in the first moments after the machine started"
    disks.sizes[A] = (GIB, 0)
    disks.now_s += 0.049
    assert not watch.is_full
    disks.now_s += 0.001
    assert watch.is_full
    disks.sizes[A] = (GIB, GIB)
    disks.now_s += 0.05
    assert not watch.is_full


def test_refusals_say_when_to_come_back_and_are_counted(disks: Disks) -> None:
    disks.sizes[A] = (GIB, GIB)
    watch = DiskWatch([A], 0)
    watch.refuse_if_full()
    disks.sizes[A] = (GIB, 0)
    disks.now_s += 1
    for _ in range(2):
        with pytest.raises(Overloaded) as caught:
            watch.refuse_if_full()
    assert caught.value.retry_after_s == 5
    assert watch.statistics()["refused_total"] == 2


def test_a_real_file_system(tmp_path: Path) -> None:
    assert not DiskWatch([tmp_path], 1).is_full
    assert DiskWatch([tmp_path], 1 << 62).is_full
