"""Framing: what is written is read back, and damage ends a scan where it is."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingester.protocol import frames
from ingester.protocol.frames import (
    FRAME_HEAD_BYTES,
    SEGMENT_HEADER_BYTES,
    FrameScan,
    SegmentHeader,
    UnknownVersion,
    decode_segment_header,
    encode_frame,
    encode_segment_header,
    scan_frames,
)

PAYLOADS = [b"one", b"", b"three" * 9, bytes(20)]
BODY = b"".join(encode_frame(seq, payload) for seq, payload in enumerate(PAYLOADS, 7))


def scan(data: bytes, first_seq: int | None = 7) -> FrameScan:
    return scan_frames(io.BytesIO(data), offset=0, end=len(data), first_seq=first_seq)


def frame_at(offset: int) -> int:
    """The index of the frame that holds the byte at `offset` of BODY."""
    for index, payload in enumerate(PAYLOADS):
        offset -= FRAME_HEAD_BYTES + len(payload)
        if offset < 0:
            return index
    return len(PAYLOADS)


@given(
    st.lists(st.binary(max_size=200), max_size=8), st.integers(1, 2**64 - 100), st.integers(0, 50)
)
def test_frames_come_back_with_their_sequences(
    payloads: list[bytes], first_seq: int, zero_bytes: int
) -> None:
    body = b"".join(encode_frame(seq, payload) for seq, payload in enumerate(payloads, first_seq))
    scanned = scan(body + bytes(zero_bytes), first_seq)
    assert list(scanned) == list(enumerate(payloads, first_seq))
    assert scanned.offset == len(body)
    assert scanned.reason == ("zeros" if zero_bytes else "end")


def test_scan_without_a_header_takes_the_first_frames_sequence() -> None:
    assert list(scan(BODY, None)) == list(enumerate(PAYLOADS, 7))


def test_every_cut_keeps_the_frames_before_it() -> None:
    for length in range(len(BODY)):
        scanned = scan(BODY[:length])
        whole = frame_at(length)
        assert list(scanned) == list(enumerate(PAYLOADS[:whole], 7))
        at_edge = scanned.offset == length
        assert (scanned.reason == "end") == at_edge


@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit_ends_the_scan_at_its_frame(bit: int) -> None:
    for offset in range(len(BODY)):
        damaged = bytearray(BODY)
        damaged[offset] ^= 1 << bit
        scanned = scan(bytes(damaged))
        assert list(scanned) == list(enumerate(PAYLOADS[: frame_at(offset)], 7))
        assert scanned.reason in {"magic", "length", "checksum"}


def test_reasons_say_what_is_wrong() -> None:
    whole = encode_frame(1, b"abc")
    cases = [
        (b"", "end"),
        (bytes(5), "zeros"),
        (bytes(500), "zeros"),
        (whole[:5], "cut"),
        (b"\xff" * 20, "magic"),
        (whole[:-1], "length"),
        (whole[:-1] + b"d", "checksum"),
        (encode_frame(2, b"abc"), "sequence"),
        (encode_frame(0, b"abc"), "sequence"),
    ]
    for data, reason in cases:
        scanned = scan(data, 1)
        assert list(scanned) == []
        assert (scanned.offset, scanned.reason) == (0, reason)


def test_source_that_ends_early_is_a_cut() -> None:
    data = encode_frame(1, b"abc")
    scanned = scan_frames(io.BytesIO(data[:-1]), offset=0, end=len(data), first_seq=1)
    assert list(scanned) == []
    assert scanned.reason == "cut"


def test_length_is_judged_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Source(io.BytesIO):
        def read(self, byte_count: int | None = -1, /) -> bytes:
            assert byte_count == FRAME_HEAD_BYTES
            return super().read(byte_count)

    data = bytearray(encode_frame(1, b"abc"))
    data[8:12] = b"\xff\xff\xff\x7f"
    scanned = scan_frames(Source(bytes(data)), offset=0, end=2**40, first_seq=1)
    assert list(scanned) == []
    assert scanned.reason == "length"


def test_frames_inside_a_damaged_payload_are_never_read() -> None:
    forged = encode_frame(1, b"forged") + encode_frame(2, b"forged")
    data = bytearray(encode_frame(1, forged) + encode_frame(2, b"true"))
    data[4] ^= 1  # the outer frame's checksum
    assert list(scan(bytes(data), 1)) == []


@given(st.integers(1, 2**64 - 1), st.integers(1, 2**64 - 1))
def test_segment_header_comes_back(number: int, first_seq: int) -> None:
    header = SegmentHeader(number=number, first_seq=first_seq)
    data = encode_segment_header(header)
    assert len(data) == SEGMENT_HEADER_BYTES
    assert decode_segment_header(data + b"rest") == header


def test_damaged_segment_header_is_none() -> None:
    data = encode_segment_header(SegmentHeader(number=3, first_seq=9))
    for length in range(len(data)):
        assert decode_segment_header(data[:length]) is None
    for position in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << position % 8
        assert decode_segment_header(bytes(damaged)) is None
    assert decode_segment_header(bytes(SEGMENT_HEADER_BYTES)) is None


def test_newer_format_is_refused_not_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(frames, "FORMAT_VERSION", 2)
        data = encode_segment_header(SegmentHeader(number=1, first_seq=1))
    with pytest.raises(UnknownVersion, match="format 2"):
        decode_segment_header(data)
