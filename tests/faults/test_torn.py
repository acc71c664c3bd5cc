"""F3b: damage of a journal segment at every byte of its end, and anywhere.

The records are real entries of a server. What is recovered must be what was written, up to the
damage; damage in front of other records is a problem that names its place; nothing is invented.
`tests/journal/test_recovery.py` has the same of a segment of 200 bytes, with every way that several
segments can hang together; this has the size and the content of real ones.
"""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingester import startup
from ingester.config import JournalConfig
from ingester.journal import JournalWriter, recover
from ingester.protocol import frames
from ingester.protocol.frames import FRAME_HEAD_BYTES, SEGMENT_HEADER_BYTES
from tests.actors.requests import payload_of, small_request
from tests.faults.life import Book, Life, Request

_TAIL_BYTES = 4096
_RECORDS = 60


class Segment:
    """The newest of two, and what lies where in it."""

    def __init__(self, folder: Path) -> None:
        config = JournalConfig(segment_bytes=64 * 1024)
        self.folder = folder
        self.payloads = [payload_of(small_request(n)) for n in range(1, _RECORDS + 11)]
        older = JournalWriter.open(folder, config, next_seq=1)
        older.append(self.payloads[:10])
        older.close()
        newer = JournalWriter.open(folder, config, next_seq=11)
        for start in range(10, len(self.payloads), 3):
            newer.append(self.payloads[start : start + 3])
        newer.close()
        self.path = max(folder.glob("*.seg"))
        self.sound = self.path.read_bytes()
        self.ends = [SEGMENT_HEADER_BYTES]
        for payload in self.payloads[10:]:
            self.ends.append(self.ends[-1] + FRAME_HEAD_BYTES + len(payload))
        assert self.ends[-1] == len(self.sound) > _TAIL_BYTES
        self.truth = dict(enumerate(self.payloads, 1))

    def whole_before(self, offset: int) -> int:
        """How many records of it end at or before `offset`."""
        return sum(end <= offset for end in self.ends[1:])

    def look(self, content: bytes | bytearray) -> tuple[int, bool]:
        """How many records of it are recovered; whether damage is told. Nothing is invented."""
        self.path.write_bytes(content)
        recovery = recover(self.folder, after_seq=0)
        found = dict(recovery)
        assert found.items() <= self.truth.items()
        assert list(found) == list(range(1, len(found) + 1)), "not up to the damage"
        assert recovery.next_seq == len(found) + 1
        report = recovery.report
        return len(found) - 10, bool(report.problems or report.torn_tail)


@pytest.fixture
def segment(tmp_path: Path) -> Segment:
    return Segment(tmp_path / "journal")


def _tail(segment: Segment, long_form: bool) -> Iterator[int]:
    """Every byte of the end; in the short form every eleventh and all of the last two heads."""
    size = len(segment.sound)
    edges = {end + n for end in segment.ends[-3:] for n in range(-2, FRAME_HEAD_BYTES + 1)}
    for offset in range(size - _TAIL_BYTES, size):
        if long_form or offset % 11 == 0 or offset in edges:
            yield offset


def test_every_cut_of_the_end_keeps_what_is_before_it(segment: Segment, long_form: bool) -> None:
    for offset in _tail(segment, long_form):
        kept, is_told = segment.look(segment.sound[:offset])
        assert kept == segment.whole_before(offset)
        assert is_told == (offset not in segment.ends)


def test_zeros_from_any_byte_of_the_end_keep_what_is_before(
    segment: Segment, long_form: bool
) -> None:
    for offset in _tail(segment, long_form):
        zeroed = segment.sound[:offset] + bytes(len(segment.sound) - offset)
        kept, is_told = segment.look(zeroed)
        # A record whose last bytes are zeros is whole all the same.
        same = len(zeroed) - len(segment.sound[offset:].lstrip(b"\0"))
        assert kept == segment.whole_before(same)
        rest = zeroed[segment.ends[kept] :]
        assert is_told == any(rest)


def test_a_zeroed_byte_of_the_end_is_told(segment: Segment, long_form: bool) -> None:
    for offset in _tail(segment, long_form):
        if not segment.sound[offset]:
            continue
        damaged = bytearray(segment.sound)
        damaged[offset] = 0
        assert segment.look(damaged) == (segment.whole_before(offset), True)


def test_every_flipped_byte_of_the_end_is_told(segment: Segment, long_form: bool) -> None:
    for offset in _tail(segment, long_form):
        for bit in range(8) if long_form else (offset % 8,):
            damaged = bytearray(segment.sound)
            damaged[offset] ^= 1 << bit
            assert segment.look(damaged) == (segment.whole_before(offset), True)


def test_flipped_bits_anywhere_are_told(segment: Segment, long_form: bool) -> None:
    number = int(os.environ.get("TORN_SEED") or secrets.randbelow(1 << 32))
    chance = random.Random(number)
    count = 20_000 if long_form else 150
    print(f"seed {number}: {count} damaged segments")
    for _ in range(count):
        damaged = bytearray(segment.sound)
        places = sorted(chance.sample(range(len(damaged)), chance.choice((1, 1, 2, 5))))
        for place in places:
            damaged[place] ^= 1 << chance.randrange(8)
        kept, is_told = segment.look(damaged)
        behind = [place for place in places if place >= SEGMENT_HEADER_BYTES]
        first = min(behind, default=len(damaged))
        assert (kept, is_told) == (segment.whole_before(first), True), places


def test_without_a_checksum_a_flip_is_not_found(
    segment: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That these tests can fail."""
    middle = (segment.ends[-2] + segment.ends[-1]) // 2
    damaged = bytearray(segment.sound)
    damaged[middle] ^= 1
    monkeypatch.setattr(frames.zlib, "crc32", lambda *_: int.from_bytes(damaged[:0]) or 0)
    monkeypatch.setattr(frames, "_FRAME_HEAD", _Lenient())
    with pytest.raises(AssertionError):
        segment.look(damaged)


class _Lenient:
    """Heads whose checksum is what the scan computes."""

    def unpack(self, head: bytes) -> tuple[bytes, int, int, int]:
        magic, _, length, seq = frames.struct.Struct("<4sIIQ").unpack(head)
        return magic, 0, length, seq


@pytest.mark.parametrize("damage", ["cut", "zeros", "flip", "noise behind"])
def test_a_start_on_a_torn_end_has_everything_before_it(tmp_path: Path, damage: str) -> None:
    """What was not loaded yet, of a whole folder; and it goes on."""
    folder = tmp_path / "data"
    book = Book()
    life = Life(folder, book)
    sent = [Request(book.name(), "small", 2) for _ in range(8)]
    for request in sent:
        life.send_small(request)
    life.drop()
    path = max((folder / "journal").glob("*.seg"))
    used = path.read_bytes().rstrip(b"\0")
    if damage == "cut":
        path.write_bytes(used[:-7])
    elif damage == "zeros":
        path.write_bytes(used[:-30] + bytes(30))
    elif damage == "flip":
        path.write_bytes(used[:-20] + bytes([used[-20] ^ 4]) + used[-19:])
    else:
        path.write_bytes(used + os.urandom(200))
    if damage != "noise behind":
        # The last one of them is gone: nobody can tell it from a write that was never promised.
        sent[-1].outcome = "refused"
    for _ in range(2):
        life = Life(folder, book)
        assert book.compare(life) == []
        assert life.opened.problems == []
        life.send_small(Request(book.name(), "small", 1))
        life.drop()
    life = Life(folder, book)
    assert book.compare(life) == []
    startup.close(life.opened)
