"""Recovery of whole, torn, damaged and missing segments."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

import pytest

from ingester.config import JournalConfig
from ingester.errors import JournalFailed
from ingester.journal import JournalWriter, Recovery, recover
from ingester.protocol import frames
from ingester.protocol.frames import (
    FRAME_HEAD_BYTES,
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    encode_frame,
    encode_segment_header,
)

PAYLOADS = [b"first", b"", b"third" * 5, bytes(10), b"fifth"]


def write_segment(
    directory: Path, number: int, first_seq: int, payloads: list[bytes], zero_bytes: int = 64
) -> Path:
    path = directory / f"{number:020d}.seg"
    body = b"".join(encode_frame(seq, payload) for seq, payload in enumerate(payloads, first_seq))
    header = encode_segment_header(SegmentHeader(number=number, first_seq=first_seq))
    path.write_bytes(header + body + bytes(zero_bytes))
    return path


def frame_offset(index: int) -> int:
    return SEGMENT_HEADER_BYTES + sum(
        FRAME_HEAD_BYTES + len(payload) for payload in PAYLOADS[:index]
    )


def frame_at(offset: int) -> int:
    return sum(frame_offset(index) <= offset for index in range(1, len(PAYLOADS) + 1))


def recovered(directory: Path, after_seq: int = 0) -> tuple[dict[int, bytes], Recovery]:
    recovery = recover(directory, after_seq=after_seq)
    found = list(recovery)
    assert [seq for seq, _ in found] == sorted({seq for seq, _ in found})
    assert recovery.report.records_delivered == len(found)
    return dict(found), recovery


# --- sound journals


def test_no_folder_is_an_empty_journal(tmp_path: Path) -> None:
    found, recovery = recovered(tmp_path / "none", after_seq=41)
    assert (found, recovery.next_seq) == ({}, 42)


def test_records_come_back_in_order_across_segments(tmp_path: Path) -> None:
    write_segment(tmp_path, 1, 1, PAYLOADS[:2])
    write_segment(tmp_path, 2, 3, PAYLOADS[2:], zero_bytes=0)
    write_segment(tmp_path, 10, 6, [])
    found, recovery = recovered(tmp_path)
    assert found == dict(enumerate(PAYLOADS, 1))
    assert recovery.next_seq == 6
    report = recovery.report
    assert (report.segment_count, report.record_count, report.problems) == (3, 5, [])
    assert (report.torn_tail, report.torn_tail_bytes, report.records_void) == ("", 0, 0)


@pytest.mark.parametrize("after_seq", range(9))
def test_only_records_above_after_seq_are_delivered(tmp_path: Path, after_seq: int) -> None:
    write_segment(tmp_path, 1, 1, PAYLOADS[:2])
    write_segment(tmp_path, 2, 3, PAYLOADS[2:])
    found, recovery = recovered(tmp_path, after_seq)
    assert found == {seq: p for seq, p in enumerate(PAYLOADS, 1) if seq > after_seq}
    assert recovery.next_seq == max(6, after_seq + 1)
    assert recovery.report.segments_skipped == (after_seq >= 2)
    assert recovery.report.problems == []


def test_next_seq_reads_what_was_not_iterated(tmp_path: Path) -> None:
    write_segment(tmp_path, 1, 1, PAYLOADS)
    recovery = recover(tmp_path, after_seq=0)
    assert next(iter(recovery)) == (1, b"first")
    assert recovery.next_seq == 6
    assert list(recovery) == []


def test_header_alone_says_where_to_go_on(tmp_path: Path) -> None:
    write_segment(tmp_path, 4, 100, [])
    found, recovery = recovered(tmp_path, after_seq=99)
    assert (found, recovery.next_seq, recovery.report.problems) == ({}, 100, [])


def test_refused_records_are_void(tmp_path: Path) -> None:
    write_segment(tmp_path, 1, 1, [b"a", b"b", b"refused", b"refused"])
    write_segment(tmp_path, 2, 3, [])
    write_segment(tmp_path, 3, 3, [b"c", b"refused again"])
    write_segment(tmp_path, 4, 4, [b"d"])
    found, recovery = recovered(tmp_path)
    assert found == {1: b"a", 2: b"b", 3: b"c", 4: b"d"}
    assert recovery.report.records_void == 3
    assert recovery.report.problems == []


def test_void_reaches_past_a_segment_between(tmp_path: Path) -> None:
    write_segment(tmp_path, 1, 1, [b"a", b"refused", b"refused"])
    write_segment(tmp_path, 2, 4, [b"refused"])
    write_segment(tmp_path, 3, 2, [b"b"])
    found, recovery = recovered(tmp_path)
    assert found == {1: b"a", 2: b"b"}
    assert recovery.next_seq == 3


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    write_segment(tmp_path, 1, 1, PAYLOADS)
    (tmp_path / "spare.tmp").write_bytes(bytes(100))
    (tmp_path / "notes.seg").write_bytes(b"not ours")
    found, recovery = recovered(tmp_path)
    assert len(found) == 5
    assert recovery.report.problems == []


def test_payloads_are_read_one_at_a_time(tmp_path: Path) -> None:
    write_segment(tmp_path, 1, 1, [random.Random(1).randbytes(10_000)] * 1_600)
    tracemalloc.start()
    try:
        recovery = recover(tmp_path, after_seq=0)
        assert sum(len(payload) for _, payload in recovery) == 16_000_000
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


# --- the torn end of the newest segment


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """One old segment, and the newest, whose every byte is going to suffer."""
    write_segment(tmp_path, 1, 1, [b"old 1", b"old 2"])
    return write_segment(tmp_path, 2, 3, PAYLOADS, zero_bytes=40)


def expected(whole_frames: int) -> dict[int, bytes]:
    return {1: b"old 1", 2: b"old 2", **dict(enumerate(PAYLOADS[:whole_frames], 3))}


def test_every_cut_keeps_all_before_it_and_is_reported(journal: Path) -> None:
    sound = journal.read_bytes()
    for length in range(len(sound)):
        journal.write_bytes(sound[:length])
        found, recovery = recovered(journal.parent)
        report = recovery.report
        if length < SEGMENT_HEADER_BYTES:
            assert found == expected(0)
            assert report.problems == [f"{journal.name}, offset 0: the header is damaged"]
            continue
        whole = frame_at(length)
        assert found == expected(whole)
        assert recovery.next_seq == 3 + whole
        assert report.problems == []
        torn_bytes = 0 if whole == len(PAYLOADS) else length - frame_offset(whole)
        if torn_bytes:
            assert report.torn_tail.startswith(f"{journal.name}, offset {frame_offset(whole)}: ")
            assert 0 < report.torn_tail_bytes <= torn_bytes
        else:
            assert (report.torn_tail_bytes, report.torn_tail) == (0, "")


def test_zeros_from_any_byte_keep_all_before_and_are_reported(journal: Path) -> None:
    sound = journal.read_bytes()
    for offset in range(SEGMENT_HEADER_BYTES, len(sound)):
        zeroed = sound[:offset] + bytes(len(sound) - offset)
        journal.write_bytes(zeroed)
        found, recovery = recovered(journal.parent)
        # A frame that ends in zeros may be whole all the same.
        whole = max(n for n in range(6) if zeroed[: frame_offset(n)] == sound[: frame_offset(n)])
        assert found == expected(whole)
        assert recovery.report.problems == []
        torn_bytes = len(zeroed.rstrip(b"\0")) - frame_offset(whole)
        assert recovery.report.torn_tail_bytes == max(0, torn_bytes)


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_every_flipped_byte_keeps_all_before_it_and_is_reported(journal: Path, mask: int) -> None:
    sound = journal.read_bytes()
    for offset in range(len(sound)):
        damaged = bytearray(sound)
        damaged[offset] ^= mask
        journal.write_bytes(damaged)
        found, recovery = recovered(journal.parent)
        report = recovery.report
        if offset < SEGMENT_HEADER_BYTES:
            # The first frame says what the header said.
            assert found == expected(5)
            assert report.problems == [f"{journal.name}, offset 0: the header is damaged"]
            continue
        whole = frame_at(offset)
        assert found == expected(whole)
        assert report.problems == []
        assert report.torn_tail_bytes > 0
        assert report.torn_tail.startswith(f"{journal.name}, offset {frame_offset(whole)}: ")


def test_every_zeroed_sector_is_reported(journal: Path) -> None:
    sound = journal.read_bytes()
    for offset in range(SEGMENT_HEADER_BYTES, frame_offset(5) - 8):
        damaged = sound[:offset] + bytes(8) + sound[offset + 8 :]
        if damaged == sound:
            continue
        journal.write_bytes(damaged)
        found, recovery = recovered(journal.parent)
        assert found.items() <= expected(5).items()
        assert set(found) >= set(expected(frame_at(offset)))
        assert recovery.report.torn_tail_bytes > 0 or len(found) == 7


def test_torn_tail_is_void_after_the_writer_came_back(journal: Path) -> None:
    sound = journal.read_bytes()
    journal.write_bytes(sound[: frame_offset(3) - 1])
    _, recovery = recovered(journal.parent)
    config = JournalConfig(segment_bytes=1000)
    writer = JournalWriter.open(journal.parent, config, next_seq=recovery.next_seq)
    assert writer.append([b"new"]) == (5, 5)
    writer.close()
    found, recovery = recovered(journal.parent)
    assert found == {**expected(2), 5: b"new"}
    assert recovery.report.problems == []
    assert recovery.report.torn_tail == ""


# --- damage before the newest segment


def test_gap_is_named_with_file_offset_and_records(journal: Path) -> None:
    write_segment(journal.parent, 3, 8, [b"later 1", b"later 2"])
    sound = journal.read_bytes()
    for offset in range(SEGMENT_HEADER_BYTES, frame_offset(5)):
        damaged = bytearray(sound)
        damaged[offset] ^= 0x10
        journal.write_bytes(damaged)
        found, recovery = recovered(journal.parent)
        whole = frame_at(offset)
        assert found == {**expected(whole), 8: b"later 1", 9: b"later 2"}
        assert recovery.next_seq == 10
        (problem,) = recovery.report.problems
        assert problem.startswith(f"{journal.name}, offset {frame_offset(whole)}: ")
        assert problem.endswith(f"; records {3 + whole} to 7 are lost")


def test_loss_of_applied_records_is_no_problem(journal: Path) -> None:
    write_segment(journal.parent, 3, 8, [b"later"])
    journal.write_bytes(journal.read_bytes()[: frame_offset(2)])
    assert recovered(journal.parent, after_seq=7)[1].report.problems == []
    (problem,) = recovered(journal.parent, after_seq=6)[1].report.problems
    assert problem.endswith("records 7 to 7 are lost")


def test_missing_segment_is_named(journal: Path) -> None:
    write_segment(journal.parent, 3, 8, [b"later"])
    journal.unlink()
    found, recovery = recovered(journal.parent)
    assert list(found) == [1, 2, 8]
    (problem,) = recovery.report.problems
    assert problem.startswith("00000000000000000001.seg, offset ")
    assert problem.endswith("records 3 to 7 are lost")


def test_journal_that_begins_too_late_is_named(journal: Path) -> None:
    (journal.parent / "00000000000000000001.seg").unlink()
    (problem,) = recovered(journal.parent, after_seq=1)[1].report.problems
    assert problem.endswith("records 2 to 2 are lost")
    assert recovered(journal.parent, after_seq=2)[1].report.problems == []


def test_damaged_header_in_the_middle_still_voids_and_delivers(tmp_path: Path) -> None:
    write_segment(tmp_path, 1, 1, [b"a", b"refused"])
    path = write_segment(tmp_path, 2, 2, [b"b", b"c"])
    write_segment(tmp_path, 3, 4, [b"d"])
    path.write_bytes(bytes(SEGMENT_HEADER_BYTES) + path.read_bytes()[SEGMENT_HEADER_BYTES:])
    found, recovery = recovered(tmp_path)
    assert found == {1: b"a", 2: b"b", 3: b"c", 4: b"d"}
    assert recovery.report.problems == [f"{path.name}, offset 0: the header is damaged"]


@pytest.mark.parametrize("content", [b"", b"\0" * 500, b"junk" * 100, b"\xa7rec" * 50])
def test_segment_of_junk_is_named_and_passed(tmp_path: Path, content: bytes) -> None:
    write_segment(tmp_path, 1, 1, [b"a"])
    (tmp_path / "00000000000000000002.seg").write_bytes(content)
    write_segment(tmp_path, 3, 2, [b"b"])
    found, recovery = recovered(tmp_path)
    assert found == {1: b"a", 2: b"b"}
    assert recovery.report.problems == ["00000000000000000002.seg, offset 0: the header is damaged"]


def test_copy_under_another_name_is_named_and_not_read(tmp_path: Path) -> None:
    path = write_segment(tmp_path, 1, 1, [b"a", b"b"])
    (tmp_path / "00000000000000000007.seg").write_bytes(path.read_bytes())
    found, recovery = recovered(tmp_path)
    assert found == {1: b"a", 2: b"b"}
    (problem,) = recovery.report.problems
    assert problem.endswith("the header is that of segment 1")


def test_unreadable_bytes_are_damage_not_a_crash(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_segment(journal.parent, 3, 8, [b"later"])
    real_scan = frames.FrameScan._next_frame

    def failing(scan: frames.FrameScan) -> tuple[int, bytes] | None:
        if scan.next_seq == 5:
            raise OSError(5, "Input/output error")
        return real_scan(scan)

    monkeypatch.setattr(frames.FrameScan, "_next_frame", failing)
    found, recovery = recovered(journal.parent)
    assert list(found) == [1, 2, 3, 4, 8]
    (problem,) = recovery.report.problems
    assert "cannot be read" in problem
    assert problem.endswith("records 5 to 7 are lost")


def test_newer_format_stops_the_start(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(frames, "FORMAT_VERSION", 2)
        write_segment(journal.parent, 3, 8, [])
    with pytest.raises(JournalFailed, match=r"00000000000000000003\.seg: journal format 2"):
        recover(journal.parent, after_seq=0)


def test_random_damage_never_crashes_and_never_invents(tmp_path: Path) -> None:
    rng = random.Random(5)
    truth: dict[int, bytes] = {}
    paths = []
    for number in range(1, 5):
        payloads = [rng.randbytes(rng.randrange(60)) for _ in range(6)]
        first_seq = len(truth) + 1
        truth.update(enumerate(payloads, first_seq))
        paths.append(write_segment(tmp_path, number, first_seq, payloads))
    sound = [path.read_bytes() for path in paths]
    for _ in range(400):
        for path, content in zip(paths, sound, strict=True):
            damaged = bytearray(content)
            for _ in range(rng.choice([0, 0, 1, 3])):
                start = rng.randrange(len(damaged) + 1)
                damaged[start : start + rng.randrange(30)] = rng.randbytes(rng.randrange(30))
            path.write_bytes(damaged)
        found, recovery = recovered(tmp_path)
        assert found.items() <= truth.items()
        report = recovery.report
        assert len(found) == len(truth) or report.problems or report.torn_tail_bytes
