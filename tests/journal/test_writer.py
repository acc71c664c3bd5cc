"""The journal's writer on real files: groups, roll-over, retention, reopening, kill -9."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Thread

import pytest

from ingester.config import JournalConfig
from ingester.errors import JournalFailed
from ingester.journal import FileCalls, JournalWriter, recover, segments, writer
from ingester.protocol.frames import FRAME_HEAD_BYTES, SEGMENT_HEADER_BYTES

CONFIG = JournalConfig(segment_bytes=4096)
EACH = 1000  # payload bytes: three records and their heads fill a segment


class CountingCalls(FileCalls):
    """Real files; notes what was called, and fails what `failing` names."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.failing: frozenset[str] = frozenset()
        self.buffers_written: list[int] = []

    def _note(self, name: str) -> None:
        self.names.append(name)
        if name in self.failing:
            raise OSError(errno.ENOSPC, f"injected in {name}")

    def open(self, path: Path, flags: int) -> int:
        self._note("open")
        return super().open(path, flags)

    def write(self, fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        self._note("write")
        self.buffers_written.append(len(buffers))
        return super().write(fd, buffers, offset)

    def fdatasync(self, fd: int) -> None:
        self._note("fdatasync")
        super().fdatasync(fd)

    def fallocate(self, fd: int, byte_count: int) -> None:
        self._note("fallocate")
        super().fallocate(fd, byte_count)

    def truncate(self, fd: int, byte_count: int) -> None:
        self._note("truncate")
        super().truncate(fd, byte_count)

    def unlink(self, path: Path) -> None:
        self._note("unlink")
        super().unlink(path)


def start_never(work: Callable[[], None]) -> Thread | None:
    return None


@pytest.fixture
def calls() -> CountingCalls:
    return CountingCalls()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data" / "journal"


@pytest.fixture
def journal(directory: Path, calls: CountingCalls) -> Iterator[JournalWriter]:
    opened = JournalWriter.open(directory, CONFIG, next_seq=1, calls=calls, start=start_never)
    yield opened
    opened.close()


def segment_names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def segment_name(number: int) -> str:
    return f"{number:020d}.seg"


def test_one_append_is_one_write_and_one_sync(journal: JournalWriter, calls: CountingCalls) -> None:
    calls.names.clear()
    assert journal.append([b"a"]) == (1, 1)
    assert journal.append([b"b", b"", b"d"]) == (2, 4)
    assert calls.names == ["write", "fdatasync"] * 2
    assert dict(recover(journal._directory, after_seq=0)) == {1: b"a", 2: b"b", 3: b"", 4: b"d"}


def test_group_of_more_records_than_one_writev_takes(directory: Path, calls: CountingCalls) -> None:
    config = JournalConfig(segment_bytes=10**6)
    payloads = [b"%d" % number for number in range(3_000)]
    opened = JournalWriter.open(directory, config, next_seq=1, calls=calls, start=start_never)
    assert opened.append(payloads) == (1, 3_000)
    opened.close()
    assert max(calls.buffers_written) == 1024
    assert [payload for _, payload in recover(directory, after_seq=0)] == payloads


def test_folder_and_files_are_private(journal: JournalWriter, directory: Path) -> None:
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / segment_name(1)).stat().st_mode & 0o777 == 0o600


def test_group_that_does_not_fit_rolls_over_whole(journal: JournalWriter, directory: Path) -> None:
    journal.append([bytes(EACH)] * 2)
    journal.append([bytes(EACH)] * 2)
    assert segment_names(directory) == [segment_name(1), segment_name(2)]
    closed = directory / segment_name(1)
    assert closed.stat().st_size == SEGMENT_HEADER_BYTES + 2 * (FRAME_HEAD_BYTES + EACH)
    assert [seq for seq, _ in recover(directory, after_seq=0)] == [1, 2, 3, 4]


def test_group_that_fits_exactly_does_not_roll_over(
    journal: JournalWriter, directory: Path
) -> None:
    journal.append([bytes(4096 - SEGMENT_HEADER_BYTES - FRAME_HEAD_BYTES)])
    assert segment_names(directory) == [segment_name(1)]
    journal.append([b""])
    assert segment_names(directory) == [segment_name(1), segment_name(2)]


def test_record_longer_than_a_segment_gets_its_own(journal: JournalWriter, directory: Path) -> None:
    journal.append([b"before"])
    big = random.Random(1).randbytes(50_000)
    assert journal.append([big]) == (2, 2)
    assert journal.append([b"after"]) == (3, 3)
    assert dict(recover(directory, after_seq=0)) == {1: b"before", 2: big, 3: b"after"}
    sizes = [path.stat().st_size for path in sorted(directory.iterdir())]
    assert sizes[1] == SEGMENT_HEADER_BYTES + FRAME_HEAD_BYTES + 50_000
    assert sizes[2] == 4096


def test_group_above_the_bound_is_refused_and_nothing_changes(
    journal: JournalWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_SEGMENT_BYTES_MAX", 10_000)
    with pytest.raises(JournalFailed, match="more than a segment holds"):
        journal.append([bytes(6_000)] * 2)
    assert journal.append([b"a"]) == (1, 1)
    assert journal.statistics().groups_failed == 1


def test_spare_is_ready_before_the_roll_over(directory: Path, calls: CountingCalls) -> None:
    threads: list[Thread] = []

    def start(work: Callable[[], None]) -> Thread:
        threads.append(segments.start_thread(work))
        return threads[-1]

    opened = JournalWriter.open(directory, CONFIG, next_seq=1, calls=calls, start=start)
    opened.append([bytes(EACH)])
    assert not threads
    opened.append([bytes(EACH)])
    threads[0].join()
    assert segment_names(directory) == [segment_name(1), "spare.tmp"]
    assert (directory / "spare.tmp").read_bytes() == bytes(4096)
    calls.names.clear()
    opened.append([bytes(EACH)] * 2)
    # Its header, the end of the old segment, the group; then the next spare begins.
    assert calls.names[:5] == ["write", "fdatasync", "truncate", "write", "fdatasync"]
    threads[1].join()
    assert segment_names(directory) == [segment_name(1), segment_name(2), "spare.tmp"]
    opened.close()
    assert segment_names(directory) == [segment_name(1), segment_name(2)]


def test_roll_over_takes_a_spare_that_is_not_full_yet(directory: Path) -> None:
    filling = threading.Event()

    class SlowCalls(CountingCalls):
        def fdatasync(self, fd: int) -> None:
            if threading.current_thread() is not threading.main_thread():
                filling.set()
            super().fdatasync(fd)

    config = JournalConfig(segment_bytes=64 * 1024 * 1024)
    opened = JournalWriter.open(directory, config, next_seq=1, calls=SlowCalls())
    opened.append([bytes(40_000_000)])
    assert filling.wait(20)
    opened.append([bytes(40_000_000)])
    assert opened.statistics().segments_started == 2
    opened.close()
    assert [seq for seq, _ in recover(directory, after_seq=0)] == [1, 2]


def test_failed_spare_is_made_again_at_the_roll_over(directory: Path, calls: CountingCalls) -> None:
    def start(work: Callable[[], None]) -> Thread | None:
        calls.failing = frozenset({"fallocate"})
        work()
        calls.failing = frozenset()
        return None

    opened = JournalWriter.open(directory, CONFIG, next_seq=1, calls=calls, start=start)
    for _ in range(5):
        opened.append([bytes(EACH)] * 2)
    assert opened.statistics().last_error == ""
    opened.close()
    assert len(list(recover(directory, after_seq=0))) == 10


def test_durable_append_succeeds_when_no_thread_can_be_started(directory: Path) -> None:
    def start(work: Callable[[], None]) -> Thread | None:
        raise RuntimeError("can't start new thread")

    opened = JournalWriter.open(directory, CONFIG, next_seq=1, start=start)
    assert opened.append([bytes(EACH)] * 3) == (1, 3)
    assert opened.append([bytes(EACH)] * 3) == (4, 6)
    opened.close()


def test_file_system_without_fallocate_gets_a_growing_file(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    opened = JournalWriter.open(directory, CONFIG, next_seq=1)
    for number in range(6):
        opened.append([bytes(EACH), b"%d" % number])
    opened.close()
    assert len(list(recover(directory, after_seq=0))) == 12


# --- failures


@pytest.mark.parametrize("failing", ["write", "fdatasync"])
def test_failed_group_is_refused_and_its_sequence_used_again(
    journal: JournalWriter, directory: Path, calls: CountingCalls, failing: str
) -> None:
    journal.append([b"good"])
    calls.failing = frozenset({failing})
    with pytest.raises(JournalFailed, match="injected"):
        journal.append([b"refused", b"refused"])
    assert "injected" in journal.statistics().last_error
    calls.failing = frozenset()
    assert journal.append([b"next"]) == (2, 2)
    assert journal.statistics().last_error == ""
    recovery = recover(directory, after_seq=0)
    assert dict(recovery) == {1: b"good", 2: b"next"}
    assert recovery.report.problems == []


def test_refused_group_stays_away_when_no_new_segment_could_be_made(
    journal: JournalWriter, directory: Path, calls: CountingCalls
) -> None:
    journal.append([b"good"])
    calls.failing = frozenset({"fdatasync", "open"})
    with pytest.raises(JournalFailed):
        journal.append([b"refused"])
    # The process ends here: the segment was cut back, so the record is not even readable.
    recovery = recover(directory, after_seq=0)
    assert dict(recovery) == {1: b"good"}
    assert recovery.next_seq == 2


def test_full_disk_at_the_roll_over_leaves_the_active_segment_in_use(
    journal: JournalWriter, directory: Path, calls: CountingCalls
) -> None:
    journal.append([bytes(EACH)] * 3)
    calls.failing = frozenset({"fallocate"})
    for _ in range(3):
        with pytest.raises(JournalFailed, match="cannot start a segment"):
            journal.append([bytes(EACH)] * 3)
    assert journal.append([b"fits"]) == (4, 4)
    calls.failing = frozenset()
    assert journal.append([bytes(EACH)] * 3) == (5, 7)
    assert segment_names(directory) == [segment_name(1), segment_name(5)]
    assert [seq for seq, _ in recover(directory, after_seq=0)] == list(range(1, 8))


def test_writer_opens_on_a_full_disk_and_works_when_space_returns(
    directory: Path, calls: CountingCalls
) -> None:
    calls.failing = frozenset({"fallocate"})
    opened = JournalWriter.open(directory, CONFIG, next_seq=5, calls=calls, start=start_never)
    assert "injected" in opened.statistics().last_error
    for _ in range(3):
        with pytest.raises(JournalFailed):
            opened.append([b"refused"])
    assert segment_names(directory) == []
    calls.failing = frozenset()
    assert opened.append([b"a"]) == (5, 5)
    opened.close()
    assert dict(recover(directory, after_seq=4)) == {5: b"a"}


def test_write_that_takes_nothing_is_a_failure(
    journal: JournalWriter, calls: CountingCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(calls, "write", lambda *_: 0)
        with pytest.raises(JournalFailed):
            journal.append([b"refused"])
    assert journal.append([b"a"]) == (1, 1)


# --- retention


def fill_segments(journal: JournalWriter, count: int) -> None:
    """Records 1 to 3 in the first segment, 4 to 6 in the second, …, and one in the active one."""
    for _ in range(count):
        journal.append([bytes(EACH)] * 3)
    journal.append([bytes(EACH)])


def test_only_wholly_applied_segments_are_deleted(journal: JournalWriter, directory: Path) -> None:
    fill_segments(journal, 3)
    assert [journal.delete_applied(seq, now=4e9) for seq in (0, 2, 3, 5, 8)] == [0, 0, 1, 0, 1]
    assert segment_names(directory) == [segment_name(3), segment_name(4)]
    assert journal.delete_applied(10, now=4e9) == 1
    assert segment_names(directory) == [segment_name(4)]
    assert journal.statistics().closed_segments == 0
    assert journal.statistics().closed_bytes == 0
    assert journal.append([b"goes on"]) == (11, 11)


def test_young_segments_are_kept_until_their_bytes_are_over_the_bound(directory: Path) -> None:
    config = JournalConfig(segment_bytes=4096, retention_hours=2, retention_bytes_max=7_000)
    journal = JournalWriter.open(directory, config, next_seq=1, start=start_never)
    fill_segments(journal, 4)
    modified_at = (directory / segment_name(4)).stat().st_mtime
    assert journal.delete_applied(12, now=modified_at + 10) == 2  # 4 × 3,092 bytes
    assert journal.delete_applied(12, now=modified_at + 7_100) == 0
    assert journal.delete_applied(12, now=modified_at + 7_300) == 2
    journal.close()


def test_segments_of_earlier_lives_are_deleted_too(directory: Path) -> None:
    first = JournalWriter.open(directory, CONFIG, next_seq=1, start=start_never)
    fill_segments(first, 2)
    first.close()
    second = JournalWriter.open(directory, CONFIG, next_seq=8, start=start_never)
    assert second.statistics().closed_segments == 3
    assert second.delete_applied(6, now=4e9) == 2
    assert second.delete_applied(7, now=4e9) == 1
    assert segment_names(directory) == [segment_name(4)]
    second.close()


def test_segment_with_a_damaged_header_waits_for_the_next_sound_one(directory: Path) -> None:
    first = JournalWriter.open(directory, CONFIG, next_seq=1, start=start_never)
    fill_segments(first, 2)
    first.close()
    with (directory / segment_name(2)).open("r+b") as file:
        file.write(b"damaged")
    second = JournalWriter.open(directory, CONFIG, next_seq=8, start=start_never)
    assert second.delete_applied(5, now=4e9) == 0
    assert second.delete_applied(6, now=4e9) == 2
    second.close()


def test_segment_that_cannot_be_deleted_is_tried_again(
    journal: JournalWriter, calls: CountingCalls
) -> None:
    fill_segments(journal, 2)
    calls.failing = frozenset({"unlink"})
    assert journal.delete_applied(6, now=4e9) == 0
    assert "injected" in journal.statistics().last_error
    calls.failing = frozenset()
    assert journal.delete_applied(6, now=4e9) == 2


# --- lives


def test_reopening_many_times_keeps_everything(directory: Path) -> None:
    truth: dict[int, bytes] = {}
    for life in range(30):
        recovery = recover(directory, after_seq=0)
        assert dict(recovery) == truth
        assert recovery.report.problems == []
        opened = JournalWriter.open(directory, CONFIG, next_seq=recovery.next_seq)
        for _ in range(life % 4):
            payloads = [b"life %d" % life, bytes(EACH)]
            first, _ = opened.append(payloads)
            truth.update(enumerate(payloads, first))
        opened.close()
        opened.close()
    assert len(truth) == 86


def test_sequences_never_fall_behind_the_ledger(directory: Path) -> None:
    opened = JournalWriter.open(directory, CONFIG, next_seq=1)
    opened.append([b"a"])
    opened.close()
    recovery = recover(directory, after_seq=70)
    opened = JournalWriter.open(directory, CONFIG, next_seq=recovery.next_seq)
    assert opened.append([b"b"]) == (71, 71)
    opened.close()
    assert dict(recover(directory, after_seq=70)) == {71: b"b"}


CHILD = """
import sys
from pathlib import Path
from ingester.config import JournalConfig
from ingester.journal import JournalWriter, recover

directory = Path(sys.argv[1])
next_seq = recover(directory, after_seq=0).next_seq
journal = JournalWriter.open(directory, JournalConfig(segment_bytes=20_000), next_seq=next_seq)
number = 0
while True:
    payloads = [b"%d:%d" % (number, i) + b"x" * (number * 37 % 500) for i in range(number % 5 + 1)]
    first, last = journal.append(payloads)
    print(first, last, number, flush=True)
    number += 1
"""


def test_killed_process_keeps_every_acknowledged_record(directory: Path) -> None:
    rng = random.Random()
    truth: dict[int, bytes] = {}
    for _ in range(5):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(directory)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(rng.randint(1, 300))]
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
        child.wait()
        child.stdout.close()
        for line in lines:
            if not line.endswith("\n"):
                break  # cut by the kill
            first, last, number = map(int, line.split())
            for index, seq in enumerate(range(first, last + 1)):
                truth[seq] = b"%d:%d" % (number, index) + b"x" * (number * 37 % 500)
        recovery = recover(directory, after_seq=0)
        found = dict(recovery)
        assert recovery.report.problems == []
        assert truth.items() <= found.items()
        assert len(found) - len(truth) <= 5  # the group in flight: whole records, or none
        assert list(found) == list(range(1, recovery.next_seq))
        truth = found
