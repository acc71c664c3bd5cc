"""The bounded inflater: whole, cut, corrupt, concatenated and hostile bodies.

Every deflate test runs on both backends (isal, and zlib as the fallback).
"""

from __future__ import annotations

import gzip
import importlib.util
import random
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from isal import isal_zlib

from ingester.errors import BodyTooLarge, MalformedBody, RequestError
from ingester.protocol import inflate
from ingester.protocol.inflate import (
    WINDOW_BYTES_MAX,
    Encoding,
    InflateLimits,
    inflate_whole,
    make_inflater,
    parse_content_encoding,
)

FREE = InflateLimits(output_bytes_max=0, ratio_max=10**9)
SKIPPABLE = b"\x57\x2a\x4d\x18\x05\x00\x00\x00hello"
ZSTD_HEAD = b"\x28\xb5\x2f\xfd\x00\x58"  # no checksum, no size, window 2 MiB


@pytest.fixture(params=["isal", "zlib"], autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inflate, "_deflate", isal_zlib if request.param == "isal" else zlib)


def text(byte_count: int, seed: int = 1) -> bytes:
    """Compressible text with a few repeats."""
    rng = random.Random(seed)
    words = [bytes(rng.choices(b"abcdefgh_", k=rng.randint(2, 9))) for _ in range(40)]
    made = b" ".join(rng.choices(words, k=byte_count // 3 + 1))
    return made[:byte_count]


def raw_deflate(data: bytes, level: int = 6, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    stream = zlib.compressobj(level, zlib.DEFLATED, -15, 8, strategy)
    return stream.compress(data) + stream.flush()


def named_gzip(data: bytes, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    """A member with every optional field (RFC 1952, 2.3), and no header checksum."""
    head = b"\x1f\x8b\x08\x1c" + b"\x11\x22\x33\x44\x00\x03" + b"\x03\x00xyz" + b"name\x00note\x00"
    return (
        head
        + raw_deflate(data, strategy=strategy)
        + zlib.crc32(data).to_bytes(4, "little")
        + len(data).to_bytes(4, "little")
    )


def zstd(data: bytes, *, checksum: bool = True, size: bool = True) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=checksum, write_content_size=size).compress(data)


def rle_block(byte_count: int, *, last: bool = False) -> bytes:
    return (byte_count << 3 | 2 | last).to_bytes(3, "little") + b"A"


def sliced(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        yield data[start:end]


def inflated(parts: Iterator[bytes], encoding: Encoding, limits: InflateLimits = FREE) -> bytes:
    inflater = make_inflater(encoding, limits)
    pieces: list[bytes] = []
    for part in parts:
        for piece in inflater.feed(part):
            assert 0 < len(piece) <= limits.piece_bytes
            pieces.append(piece)
    inflater.finish()
    assert inflater.output_bytes == sum(map(len, pieces))
    return b"".join(pieces)


WRITERS: dict[str, tuple[Encoding, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", lambda data: gzip.compress(data, mtime=7)),
    "gzip-named": ("gzip", named_gzip),
    "gzip-stored": ("gzip", lambda data: gzip.compress(data, 0)),
    "zlib": ("deflate", zlib.compress),
    "raw": ("deflate", raw_deflate),
    "raw-stored": ("deflate", lambda data: raw_deflate(data, 0)),
    "zstd": ("zstd", zstd),
    "zstd-bare": ("zstd", lambda data: zstd(data, checksum=False, size=False)),
    "identity": ("identity", bytes),
}
COMPRESSED = [name for name in WRITERS if name != "identity"]


# --- what the header names


@pytest.mark.parametrize(
    ("value", "encoding"),
    [
        (None, "identity"),
        (b"", "identity"),
        (b" ", "identity"),
        (b"identity", "identity"),
        (b"gzip", "gzip"),
        (b"GZip", "gzip"),
        (b"x-gzip", "gzip"),
        (b"X-GZIP ", "gzip"),
        (b"deflate", "deflate"),
        (b"\tzstd", "zstd"),
        (b"br", None),
        (b"gzip, gzip", None),
        (b"gzip,", None),
        (b"g\xffzip", None),
    ],
)
def test_content_encoding_is_read(value: bytes | None, encoding: str | None) -> None:
    assert parse_content_encoding(value) == encoding


# --- the same output however it is cut


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("byte_count", [0, 1, 100, 3_000, 70_000, 400_000])
def test_whole_body_comes_back(name: str, byte_count: int) -> None:
    encoding, write = WRITERS[name]
    data = text(byte_count)
    body = write(data)
    assert inflate_whole(body, encoding, FREE) == data
    assert inflated(iter([body]), encoding) == data


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("piece_bytes", [1, 7, 256 * 1024])
def test_byte_by_byte_equals_whole(name: str, piece_bytes: int) -> None:
    encoding, write = WRITERS[name]
    data = text(1_500)
    body = write(data)
    limits = InflateLimits(output_bytes_max=0, ratio_max=10**9, piece_bytes=piece_bytes)
    assert inflated((body[i : i + 1] for i in range(len(body))), encoding, limits) == data


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(WRITERS)),
    parts=st.lists(st.integers(0, 3_000), min_size=1, max_size=5),
    cuts=st.lists(st.integers(0, 10**6), max_size=12),
    piece_bytes=st.sampled_from([1, 100, 4096, 256 * 1024]),
)
@pytest.mark.parametrize("module", [isal_zlib, zlib], ids=["isal", "zlib"])
def test_any_cut_of_any_members_gives_the_same(
    module: object, name: str, parts: list[int], cuts: list[int], piece_bytes: int
) -> None:
    encoding, write = WRITERS[name]
    if encoding == "deflate":
        parts = parts[:1]
    texts = [text(byte_count, seed) for seed, byte_count in enumerate(parts)]
    body = b"".join(map(write, texts))
    limits = InflateLimits(output_bytes_max=0, ratio_max=10**9, piece_bytes=piece_bytes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inflate, "_deflate", module)
        assert inflated(sliced(body, cuts), encoding, limits) == b"".join(texts)


def test_skippable_frames_are_skipped() -> None:
    data = text(500)
    body = SKIPPABLE + zstd(data) + b"\x50\x2a\x4d\x18\0\0\0\0" + zstd(data) + SKIPPABLE
    assert inflate_whole(body, "zstd", FREE) == data * 2
    assert inflated((body[i : i + 1] for i in range(len(body))), "zstd") == data * 2
    assert inflate_whole(SKIPPABLE, "zstd", FREE) == b""


def test_flushed_blocks_arrive_before_the_end() -> None:
    stream = zstandard.ZstdCompressor().compressobj()
    first = stream.compress(b"one\n") + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    inflater = make_inflater("zstd", FREE)
    assert b"".join(inflater.feed(first)) == b"one\n"
    with pytest.raises(MalformedBody):
        inflater.finish()


# --- the end is proved


@pytest.mark.parametrize("name", COMPRESSED)
@pytest.mark.parametrize("byte_count", [0, 200])
def test_every_truncation_is_refused(name: str, byte_count: int) -> None:
    encoding, write = WRITERS[name]
    body = write(text(byte_count))
    for length in range(len(body)):
        with pytest.raises(MalformedBody):
            inflate_whole(body[:length], encoding, FREE)
        with pytest.raises(MalformedBody):
            inflated((body[i : i + 1] for i in range(length)), encoding)


@pytest.mark.parametrize("name", COMPRESSED)
@pytest.mark.parametrize(
    "tail", [b"\0", b"\0" * 512, b"\n", b"junk", b"\x1f", b"\x1f\x8b", b"(\xb5"]
)
def test_trailing_bytes_are_refused(name: str, tail: bytes) -> None:
    encoding, write = WRITERS[name]
    body = write(text(300))
    for parts in ([body + tail], [body, tail], [body[:-1], body[-1:] + tail]):
        with pytest.raises(MalformedBody):
            inflated(iter(parts), encoding)


def test_second_deflate_stream_is_refused() -> None:
    for write in (zlib.compress, raw_deflate):
        with pytest.raises(MalformedBody, match="follow the end"):
            inflate_whole(write(b"a") + write(b"b"), "deflate", FREE)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
@pytest.mark.parametrize("body", [b"", b'{"plain": "text"}\n', b"\xff" * 40])
def test_plain_text_and_nothing_are_refused(encoding: Encoding, body: bytes) -> None:
    with pytest.raises(MalformedBody):
        inflate_whole(body, encoding, FREE)


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


# --- limits and bombs


def drained(body: bytes, encoding: Encoding, limits: InflateLimits) -> tuple[int, int]:
    """Output bytes handed out until the limit struck, and the traced peak meanwhile."""
    inflater = make_inflater(encoding, limits)
    byte_count = 0
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge, match="split the upload"):  # noqa: PT012
            for start in range(0, len(body), 65_536):
                for piece in inflater.feed(body[start : start + 65_536]):
                    assert len(piece) <= limits.piece_bytes
                    byte_count += len(piece)
        return byte_count, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def zeros(wbits: int, byte_count: int) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, wbits)
    made = b"".join(stream.compress(bytes(1 << 20)) for _ in range(byte_count >> 20))
    return made + stream.flush()


BOMBS: dict[str, tuple[Encoding, Callable[[], bytes]]] = {
    "gzip": ("gzip", lambda: zeros(31, 64 << 20)),
    "gzip-members": ("gzip", lambda: gzip.compress(bytes(1 << 20)) * 64),
    "zlib": ("deflate", lambda: zeros(15, 64 << 20)),
    "raw": ("deflate", lambda: zeros(-15, 64 << 20)),
    "zstd": ("zstd", lambda: zstd(bytes(64 << 20))),
    "zstd-frames": ("zstd", lambda: zstd(bytes(1 << 20)) * 64),
    "zstd-rle": (
        "zstd",
        lambda: ZSTD_HEAD + rle_block(131_072) * 512 + rle_block(1, last=True),
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_ends_at_the_ratio_in_bounded_memory(name: str) -> None:
    encoding, write = BOMBS[name]
    limits = InflateLimits(output_bytes_max=0, ratio_max=100)
    body = write()
    byte_count, peak = drained(body, encoding, limits)
    assert byte_count <= max(limits.ratio_grace_bytes, 100 * len(body))
    assert peak < 2 << 20


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_ends_at_the_size_in_bounded_memory(name: str) -> None:
    encoding, write = BOMBS[name]
    limits = InflateLimits(output_bytes_max=5_000_000, ratio_max=10**9)
    byte_count, peak = drained(write(), encoding, limits)
    assert 5_000_000 - limits.piece_bytes <= byte_count <= 5_000_000
    assert peak < 2 << 20


@pytest.mark.parametrize("name", BOMBS)
def test_one_long_bomb_piece_is_as_bounded_as_small_ones(name: str) -> None:
    encoding, write = BOMBS[name]
    body = write() * (8 if name in {"gzip", "zstd"} else 1)
    limits = InflateLimits(output_bytes_max=20_000_000, ratio_max=10**9, piece_bytes=65_536)
    inflater = make_inflater(encoding, limits)
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge):  # noqa: PT012
            for piece in inflater.feed(body):
                assert len(piece) <= 65_536
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


def test_size_limit_is_inclusive() -> None:
    for name, (encoding, write) in WRITERS.items():
        body = write(text(1_000))
        exact = InflateLimits(output_bytes_max=1_000, ratio_max=1000)
        assert len(inflate_whole(body, encoding, exact)) == 1_000, name
        with pytest.raises(BodyTooLarge, match=r"999 bytes.*split the upload"):
            inflate_whole(body, encoding, InflateLimits(output_bytes_max=999, ratio_max=1000))


def test_ratio_is_not_looked_at_below_the_grace() -> None:
    body = gzip.compress(bytes(100_000))
    limits = InflateLimits(output_bytes_max=0, ratio_max=2, ratio_grace_bytes=100_000)
    assert len(inflate_whole(body, "gzip", limits)) == 100_000
    with pytest.raises(BodyTooLarge, match="more than 2 times"):
        inflate_whole(gzip.compress(bytes(100_001)), "gzip", limits)


def test_zstd_window_above_8_mib_is_refused_by_name() -> None:
    for descriptor, refused in ((0x68, False), (0x69, True), (0xFF, True)):
        body = b"\x28\xb5\x2f\xfd\x00" + bytes([descriptor]) + b"\x09\0\0x"
        if refused:
            with pytest.raises(MalformedBody, match=f"{WINDOW_BYTES_MAX:,}"):
                inflate_whole(body, "zstd", FREE)
        else:
            assert inflate_whole(body, "zstd", FREE) == b"x"


def test_zstd_single_segment_above_8_mib_is_refused_by_name() -> None:
    for size in (WINDOW_BYTES_MAX + 1, 2**63):
        body = b"\x28\xb5\x2f\xfd\xe0" + size.to_bytes(8, "little") + b"\x09\0\0x"
        with pytest.raises(MalformedBody, match="window of"):
            inflate_whole(body, "zstd", FREE)


def test_zstd_content_size_must_be_true() -> None:
    for size in (0, 2, 256):
        body = b"\x28\xb5\x2f\xfd\xa0" + size.to_bytes(4, "little") + b"\x09\0\0x"
        with pytest.raises(MalformedBody):
            inflate_whole(body, "zstd", FREE)


def test_zstd_block_longer_than_its_window_is_refused() -> None:
    head = b"\x28\xb5\x2f\xfd\x00\x00"  # window 1 KiB
    assert inflate_whole(head + rle_block(1024, last=True), "zstd", FREE) == b"A" * 1024
    with pytest.raises(MalformedBody, match="block header"):
        inflate_whole(head + rle_block(1025, last=True), "zstd", FREE)
    with pytest.raises(MalformedBody, match="block header"):
        inflate_whole(head + b"\x07\x00\x00", "zstd", FREE)


def test_identity_pieces_are_bounded_too() -> None:
    limits = InflateLimits(output_bytes_max=0, ratio_max=1, ratio_grace_bytes=0, piece_bytes=100)
    data = text(100_000)
    assert inflated(iter([data]), "identity", limits) == data
