"""Reading the journal back at start-up, or to check it.

Segments are read in the order of their numbers and frames in the order of their sequences, one
payload in memory at a time. Nothing on disk is changed: a torn tail becomes void when the writer
opens its next segment.

Invariants:
1. A record is delivered at most once, in rising sequence, and only if its frame is sound.
2. A record is void when a later segment begins at or below its sequence: it belongs to a group that
   was refused, and a refused request must not come back.
3. `next_seq` is above every sound record that counts, every header and `after_seq`.
4. Acknowledged records that cannot be read are never passed over in silence: a gap before the next
   segment, or a damaged header, is a problem named with file and offset. A torn end of the newest
   segment is the ordinary trace of a crash and is counted instead: nothing tells the rest of a
   write nobody was promised from later damage.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from msgspec import Struct, field

from ingester.journal.segments import SegmentInfo, list_segments
from ingester.protocol.frames import (
    SEGMENT_HEADER_BYTES,
    StopReason,
    scan_frames,
)

__all__ = ["Gap", "Recovery", "RecoveryReport", "recover"]

_READ_BYTES: Final = 1024 * 1024


class Gap(Struct, frozen=True):
    """Records `first_seq` to `last_seq` cannot be read; `where` says since which place, and why."""

    where: str
    first_seq: int
    last_seq: int


class RecoveryReport(Struct, kw_only=True):
    """What a recovery saw so far; whole when its iteration has ended.

    `problems` are losses; a torn tail is not one. `gaps` are those of them that have sequences.
    Skipped segments were wholly applied, so only their headers were read.
    """

    segment_count: int = 0
    segments_skipped: int = 0
    record_count: int = 0
    records_delivered: int = 0
    records_void: int = 0
    torn_tail_bytes: int = 0
    torn_tail: str = ""
    problems: list[str] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)


class _Extent(Struct, frozen=True):
    """A segment and the sequences it may speak for: from `first_seq` to below `bound`.

    `first_seq` None: nothing in it can be read. `bound` None: no later segment bounds it.
    """

    path: Path
    byte_count: int
    first_seq: int | None
    bound: int | None


class Recovery:
    """Iterates `(seq, payload)` above `after_seq`, once."""

    def __init__(self, directory: Path, *, after_seq: int) -> None:
        self.report = RecoveryReport()
        self._extents = _extents(directory, self.report)
        self._after_seq = after_seq
        self._expected = 0  # the sequence after the newest record that counts; 0: none yet
        self._last_stop = ""  # where and why the newest scan ended
        self._next_seq: int | None = None
        self._used: tuple[Path, int] | None = None
        self._records = self._read()

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        return self._records

    @property
    def next_seq(self) -> int:
        """The first sequence nobody was promised. Reads what is left of the journal if need be."""
        for _ in self._records:
            pass
        assert self._next_seq is not None
        return self._next_seq

    @property
    def first_seq(self) -> int | None:
        """Where the oldest segment that can be read begins."""
        return next((x.first_seq for x in self._extents if x.first_seq is not None), None)

    @property
    def last_stop(self) -> str:
        """Where and why the newest scan has ended."""
        return self._last_stop

    @property
    def newest_used(self) -> tuple[Path, int] | None:
        """The newest segment and how many of its bytes are not trailing zeros; once read."""
        assert self._next_seq is not None
        return self._used

    def _read(self) -> Iterator[tuple[int, bytes]]:
        for extent in self._extents:
            if extent.first_seq is None:
                continue
            self._name_missing(extent.path, extent.first_seq)
            if extent.bound is not None and extent.bound - 1 <= self._after_seq:
                self.report.segments_skipped += 1
                self._expected = extent.bound
                continue
            self._expected = extent.first_seq
            with extent.path.open("rb", buffering=_READ_BYTES) as file:
                yield from self._read_extent(file, extent)
        self._next_seq = max(self._expected, self._after_seq + 1)

    def _name_missing(self, path: Path, first_seq: int) -> None:
        missing_from = max(self._expected, self._after_seq + 1)
        if first_seq > missing_from:
            where = self._last_stop or f"{path.name}, offset 0: the journal begins here"
            self.report.gaps.append(Gap(where, missing_from, first_seq - 1))
            self.report.problems.append(
                f"{where}; records {missing_from} to {first_seq - 1} are lost"
            )

    def _read_extent(self, file: BinaryIO, extent: _Extent) -> Iterator[tuple[int, bytes]]:
        report = self.report
        file.seek(SEGMENT_HEADER_BYTES)
        scan = scan_frames(
            file, offset=SEGMENT_HEADER_BYTES, end=extent.byte_count, first_seq=extent.first_seq
        )
        reason = ""
        try:
            for seq, payload in scan:
                if extent.bound is not None and seq >= extent.bound:
                    report.records_void += 1
                    continue
                report.record_count += 1
                self._expected = seq + 1
                if seq > self._after_seq:
                    report.records_delivered += 1
                    yield seq, payload
        except OSError as error:
            reason = f"it cannot be read ({error})"
        reason = reason or _REASONS[scan.reason or "end"]
        self._last_stop = f"{extent.path.name}, offset {scan.offset}: {reason}"
        if extent.bound is None and scan.reason != "end":
            torn_bytes = _bytes_before_zeros(extent.path, scan.offset)
            self._used = extent.path, scan.offset + torn_bytes
            if torn_bytes:
                report.torn_tail_bytes = torn_bytes
                report.torn_tail = self._last_stop


_REASONS: Final[dict[StopReason, str]] = {
    "end": "the segment ends",
    "zeros": "zeros where a record should begin",
    "cut": "the file ends inside a record",
    "magic": "no record begins where one should",
    "length": "a record is longer than what is left",
    "checksum": "a record fails its checksum",
    "sequence": "a record has another sequence than the one that follows",
}


def recover(directory: Path, *, after_seq: int) -> Recovery:
    """Read what lies in `directory` past `after_seq`, the newest sequence the store has applied.

    A folder that does not exist is an empty journal. Raises `JournalFailed` when a segment was
    written by a newer release, and `OSError` when a file cannot be opened.
    """
    assert after_seq >= 0
    return Recovery(directory, after_seq=after_seq)


def _extents(directory: Path, report: RecoveryReport) -> list[_Extent]:
    """The segments in order, each bounded by the first sequences of all later ones."""
    found: list[_Extent] = []
    bound: int | None = None
    for info in reversed(list_segments(directory)):
        report.segment_count += 1
        first_seq = None if info.header is None else info.header.first_seq
        if info.header is None:
            first_seq = _first_frame_seq(info)
            report.problems.insert(0, f"{info.path.name}, offset 0: the header is damaged")
        elif info.header.number != info.number:
            # A copy under another name: its number says nothing about its place in the order.
            first_seq = None
            report.problems.insert(
                0, f"{info.path.name}, offset 0: the header is that of segment {info.header.number}"
            )
        found.append(
            _Extent(path=info.path, byte_count=info.byte_count, first_seq=first_seq, bound=bound)
        )
        if first_seq is not None:
            bound = first_seq if bound is None else min(bound, first_seq)
    found.reverse()
    return found


def _first_frame_seq(info: SegmentInfo) -> int | None:
    """The sequence of a segment's first frame: what its damaged header said, if it has one."""
    try:
        with info.path.open("rb") as file:
            file.seek(SEGMENT_HEADER_BYTES)
            scan = scan_frames(
                file, offset=SEGMENT_HEADER_BYTES, end=info.byte_count, first_seq=None
            )
            for seq, _ in scan:
                return seq
    except OSError:
        pass
    return None


def _bytes_before_zeros(path: Path, offset: int) -> int:
    """How many bytes follow `offset`, not counting the zeros at the end of the file."""
    used = at = 0
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            while chunk := file.read(_READ_BYTES):
                text = chunk.rstrip(b"\0")
                if text:
                    used = at + len(text)
                at += len(chunk)
    except OSError:
        used = max(used, at + 1)  # unreadable is not zero
    return used
