"""The bounded inflater: which flipped bits and malformed heads it refuses, bit by bit.

Every deflate test runs on both backends (isal, and zlib as the fallback).
"""

from __future__ import annotations

import gzip
import importlib.util
import random
import sys
import zlib

import pytest
import zstandard
from isal import isal_zlib

from ingester.errors import MalformedBody, RequestError
from ingester.protocol import inflate
from ingester.protocol.inflate import (
    Encoding,
    InflateLimits,
    inflate_whole,
    make_inflater,
)
from tests.protocol.compressed import (
    COMPRESSED,
    FREE,
    WRITERS,
    raw_deflate,
    text,
    zstd,
)


@pytest.fixture(params=["isal", "zlib"], autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inflate, "_deflate", isal_zlib if request.param == "isal" else zlib)


# --- corruption, bit by bit

# Literals only, in one fixed block: every bit of it changes the text, so that what is accepted is
# exactly what the format leaves unprotected.
LINE = b'{"action":"pageViewEnd"}\n'
# 3 header bits, 25 literals of 8 bits, 7 bits of end-of-block: six bits of byte 26 are idle.
FIXED = raw_deflate(LINE, strategy=zlib.Z_FIXED)
FIXED_IDLE = {8 * 26 + bit for bit in range(2, 8)}
TRAILER = zlib.crc32(LINE).to_bytes(4, "little") + len(LINE).to_bytes(4, "little")


def every_bit(*byte_numbers: int) -> set[int]:
    return {8 * number + bit for number in byte_numbers for bit in range(8)}


def moved(positions: set[int], byte_count: int) -> set[int]:
    return {position + 8 * byte_count for position in positions}


def accepted_flips(body: bytes, encoding: Encoding) -> dict[int, bytes]:
    """The output by position (8 * byte + bit) of each single-bit flip that is accepted."""
    accepted = {}
    for position in range(8 * len(body)):
        corrupt = bytearray(body)
        corrupt[position // 8] ^= 1 << position % 8
        try:
            accepted[position] = inflate_whole(bytes(corrupt), encoding, FREE)
        except MalformedBody:
            continue
    return accepted


def test_gzip_refuses_every_flip_outside_its_unprotected_header_fields() -> None:
    body = b"\x1f\x8b\x08\x00" + b"\x11\x22\x33\x44\x00\x03" + FIXED + TRAILER
    accepted = accepted_flips(body, "gzip")
    # FTEXT; MTIME, XFL, OS; the idle bits after the last block.
    assert set(accepted) == {8 * 3} | every_bit(4, 5, 6, 7, 8, 9) | moved(FIXED_IDLE, 10)
    assert set(accepted.values()) == {LINE}


def test_gzip_with_optional_fields_protects_none_of_them() -> None:
    head = b"\x1f\x8b\x08\x1c" + bytes(6) + b"\x03\x00xyz" + b"name\x00note\x00"
    accepted = accepted_flips(head + FIXED + TRAILER, "gzip")
    fields = every_bit(4, 5, 6, 7, 8, 9, *range(12, 15), *range(15, 19), *range(20, 24))
    # A shorter FEXTRA (bits 0 to 2 of its length 3) makes the rest of it part of the name.
    assert set(accepted) == {8 * 3, 80, 81, 82} | fields | moved(FIXED_IDLE, len(head))
    assert set(accepted.values()) == {LINE}


def test_gzip_with_header_checksum_protects_all_but_the_idle_bits() -> None:
    head = b"\x1f\x8b\x08\x02" + b"\x11\x22\x33\x44\x00\x03"
    body = head + (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little") + FIXED + TRAILER
    assert set(accepted_flips(body, "gzip")) == moved(FIXED_IDLE, 12)


def test_zlib_wrapped_deflate_protects_all_but_the_idle_bits() -> None:
    body = b"\x78\x9c" + FIXED + zlib.adler32(LINE).to_bytes(4, "big")
    accepted = accepted_flips(body, "deflate")
    assert set(accepted) == moved(FIXED_IDLE, 2)
    assert set(accepted.values()) == {LINE}


def test_raw_deflate_protects_only_what_ends_it() -> None:
    body = raw_deflate(LINE, 0)  # stored: one byte of flags, LEN, NLEN, then the text
    accepted = accepted_flips(body, "deflate")
    # The padding of the flag byte is idle, except where the flip makes a zlib header of it.
    assert {position for position in accepted if position >= 8} == every_bit(*range(5, len(body)))
    assert {position for position in accepted if position < 8} <= set(range(3, 8))


@pytest.mark.parametrize("name", ["gzip", "zlib", "zstd"])
def test_accepted_flip_of_a_checked_format_never_changes_the_text(name: str) -> None:
    encoding, write = WRITERS[name]
    data = text(400)
    assert set(accepted_flips(write(data), encoding).values()) <= {data}


def test_zstd_with_checksum_refuses_every_flip_outside_its_window_size() -> None:
    data = bytes(range(40))  # does not compress: one raw block
    accepted = accepted_flips(zstd(data), "zstd")
    # Bit 4 of the descriptor is unused. Without bit 5 the content size reads as a window size.
    assert set(accepted) == {8 * 4 + 4, 8 * 4 + 5}
    sizeless = accepted_flips(zstd(data, size=False), "zstd")
    # Any window that is large enough will do; bit 7 asks for more than 8 MiB.
    assert set(sizeless) == {8 * 4 + 4} | {8 * 5 + bit for bit in range(7)}
    assert set(accepted.values()) | set(sizeless.values()) == {data}


def test_zstd_without_checksum_protects_only_its_structure() -> None:
    data = bytes(range(40))
    body = zstd(data, checksum=False)
    accepted = accepted_flips(body, "zstd")
    assert set(accepted) == {8 * 4 + 4, 8 * 4 + 5} | every_bit(*range(9, len(body)))


@pytest.mark.parametrize("name", COMPRESSED)
def test_random_bytes_in_a_body_only_ever_raise_request_errors(name: str) -> None:
    encoding, write = WRITERS[name]
    body = write(text(2_000))
    rng = random.Random(name)
    limits = InflateLimits(output_bytes_max=10**6, ratio_max=1000)
    for _ in range(300):
        corrupt = bytearray(body)
        start = rng.randrange(len(corrupt))
        corrupt[start : start + rng.randrange(8)] = rng.randbytes(rng.randrange(8))
        try:
            inflate_whole(bytes(corrupt), encoding, limits)
        except RequestError:
            continue


def test_reserved_gzip_flags_are_refused() -> None:
    for bit in (5, 6, 7):
        body = bytearray(gzip.compress(LINE))
        body[3] |= 1 << bit
        with pytest.raises(MalformedBody, match="reserved"):
            inflate_whole(bytes(body), "gzip", FREE)


def test_endless_gzip_name_is_refused() -> None:
    inflater = make_inflater("gzip", FREE)
    assert list(inflater.feed(b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * 60_000)) == []
    with pytest.raises(MalformedBody, match="header is longer"):
        list(inflater.feed(b"n" * 10_000))


def test_preset_dictionaries_are_refused() -> None:
    stream = zlib.compressobj(zdict=b"action")
    with pytest.raises(MalformedBody, match="dictionary"):
        inflate_whole(stream.compress(LINE) + stream.flush(), "deflate", FREE)
    dictionary = zstandard.train_dictionary(2_000, [text(400, seed) for seed in range(200)])
    body = zstandard.ZstdCompressor(dict_data=dictionary).compress(LINE)
    with pytest.raises(MalformedBody):
        inflate_whole(body, "zstd", FREE)


def test_zstd_frame_must_end_where_its_blocks_do(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unfinished:
        eof = False

        def decompress(self, data: bytes) -> bytes:
            return b""

    class Decompressor:
        def __init__(self, **_: object) -> None: ...

        def decompressobj(self) -> Unfinished:
            return Unfinished()

    monkeypatch.setattr(zstandard, "ZstdDecompressor", Decompressor)
    with pytest.raises(MalformedBody, match="does not end where it says"):
        inflate_whole(zstd(LINE), "zstd", FREE)


def test_zlib_stands_in_where_isal_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isal", None)
    spec = importlib.util.find_spec("ingester.protocol.inflate")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module._deflate is zlib
    assert module.inflate_whole(gzip.compress(LINE), "gzip", FREE) == LINE
