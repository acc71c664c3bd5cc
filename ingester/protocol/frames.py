"""Framing of the journal: segment headers and checksummed, numbered records.

A segment is one header and then frames without gaps; what follows the last frame is zeros (the
file is preallocated) or the torn rest of a write that was never acknowledged. All integers are
little-endian.

    header  magic 8 | CRC-32 4 | version 4 | segment number 8 | first sequence 8
    frame   magic 4 | CRC-32 4 | length 4  | sequence 8       | payload

Invariants:
1. Each CRC covers everything after itself, so a changed length or sequence is seen like a changed
   payload.
2. Sequences in a segment begin at the header's and rise by one.
3. A scan stops at the first frame that breaks 1 or 2 and never looks for a later one: a payload is
   the client's bytes and may contain a well-formed frame.

CRC-32 (`zlib.crc32`) and not CRC-32C: both find every burst up to 32 bits and miss one random
change in 2^32; the standard library has only the first, and here it runs at more than 1 GB/s.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final, Literal, Protocol

from msgspec import Struct

__all__ = [
    "FORMAT_VERSION",
    "FRAME_HEAD_BYTES",
    "PAYLOAD_BYTES_MAX",
    "SEGMENT_HEADER_BYTES",
    "FrameScan",
    "SegmentHeader",
    "StopReason",
    "UnknownVersion",
    "decode_segment_header",
    "encode_frame",
    "encode_frame_head",
    "encode_segment_header",
    "scan_frames",
]

FORMAT_VERSION: Final = 1
# The length field could say more, but offsets and lengths below 2^31 fit every file call.
PAYLOAD_BYTES_MAX: Final = 2**31 - 1024

_SEGMENT_MAGIC: Final = b"ingJrnl\x01"
_FRAME_MAGIC: Final = b"\xa7rec"
_NO_MAGIC: Final = bytes(4)
_SEGMENT_HEADER: Final = struct.Struct("<8sIIQQ")
_SEGMENT_CHECKED: Final = struct.Struct("<IQQ")
_FRAME_HEAD: Final = struct.Struct("<4sIIQ")
_FRAME_CHECKED: Final = struct.Struct("<IQ")

SEGMENT_HEADER_BYTES: Final = _SEGMENT_HEADER.size
FRAME_HEAD_BYTES: Final = _FRAME_HEAD.size

# end: the buffer ends where a frame ends. zeros: no frame begins here. The rest is damage, or the
# torn end of the last write: cut (the buffer ends inside a frame), magic, length (beyond the
# buffer or the bound), checksum, sequence (a whole frame, but not the one that must come here).
StopReason = Literal["end", "zeros", "cut", "magic", "length", "checksum", "sequence"]


class UnknownVersion(ValueError):
    """A sound header of a format this code does not know: written by a newer release."""


class SegmentHeader(Struct, frozen=True):
    """What the first bytes of a segment say."""

    number: int
    first_seq: int


class Readable(Protocol):
    def read(self, byte_count: int, /) -> bytes: ...


def encode_segment_header(header: SegmentHeader) -> bytes:
    checked = _SEGMENT_CHECKED.pack(FORMAT_VERSION, header.number, header.first_seq)
    return _SEGMENT_MAGIC + zlib.crc32(checked).to_bytes(4, "little") + checked


def decode_segment_header(data: bytes) -> SegmentHeader | None:
    """None when these are not the bytes of a whole, sound header."""
    if len(data) < SEGMENT_HEADER_BYTES:
        return None
    magic, crc, version, number, first_seq = _SEGMENT_HEADER.unpack_from(data)
    if magic != _SEGMENT_MAGIC or zlib.crc32(data[12:SEGMENT_HEADER_BYTES]) != crc:
        return None
    if version != FORMAT_VERSION:
        raise UnknownVersion(f"journal format {version}; this release reads {FORMAT_VERSION}")
    return SegmentHeader(number=number, first_seq=first_seq)


def encode_frame_head(seq: int, payload: bytes) -> bytes:
    """The bytes that go before `payload`."""
    length = len(payload)
    assert length <= PAYLOAD_BYTES_MAX
    crc = zlib.crc32(payload, zlib.crc32(_FRAME_CHECKED.pack(length, seq)))
    return _FRAME_HEAD.pack(_FRAME_MAGIC, crc, length, seq)


def encode_frame(seq: int, payload: bytes) -> bytes:
    return encode_frame_head(seq, payload) + payload


def scan_frames(source: Readable, *, offset: int, end: int, first_seq: int | None) -> FrameScan:
    """Frames of `source`, which stands at `offset` of a segment of `end` bytes.

    `first_seq` None takes the first frame's own (the segment's header is damaged).
    """
    return FrameScan(source, offset=offset, end=end, first_seq=first_seq)


class FrameScan:
    """Iterates `(seq, payload)`, one payload in memory at a time.

    `offset` is where the next frame begins; after the end, where the scan stopped, with `reason`.
    """

    def __init__(self, source: Readable, *, offset: int, end: int, first_seq: int | None) -> None:
        self._source = source
        self._end = end
        self.next_seq = first_seq
        self.offset = offset
        self.reason: StopReason | None = None

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        while self.reason is None:
            frame = self._next_frame()
            if frame is not None:
                yield frame

    def _next_frame(self) -> tuple[int, bytes] | None:
        head = self._source.read(FRAME_HEAD_BYTES)
        if len(head) < FRAME_HEAD_BYTES:
            # A preallocated file may end in fewer zeros than a head.
            self.reason = "end" if not head else "cut" if any(head) else "zeros"
            return None
        magic, crc, length, seq = _FRAME_HEAD.unpack(head)
        if magic != _FRAME_MAGIC:
            self.reason = "zeros" if magic == _NO_MAGIC else "magic"
            return None
        # Looked at before the payload is read: a damaged length must not cost 4 GiB of memory.
        if length > PAYLOAD_BYTES_MAX or self.offset + FRAME_HEAD_BYTES + length > self._end:
            self.reason = "length"
            return None
        payload = self._source.read(length)
        if len(payload) < length:
            self.reason = "cut"
            return None
        if zlib.crc32(payload, zlib.crc32(head[8:])) != crc:
            self.reason = "checksum"
            return None
        if self.next_seq is not None and seq != self.next_seq:
            self.reason = "sequence"
            return None
        self.offset += FRAME_HEAD_BYTES + length
        self.next_seq = seq + 1
        return seq, payload
