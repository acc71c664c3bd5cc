"""The bounded inflater: bombs end at the ratio and the size, in bounded memory.

Every deflate test runs on both backends (isal, and zlib as the fallback).
"""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from isal import isal_zlib

from ingester.errors import BodyTooLarge, MalformedBody
from ingester.protocol import inflate
from ingester.protocol.inflate import (
    WINDOW_BYTES_MAX,
    Encoding,
    InflateLimits,
    inflate_whole,
    make_inflater,
)
from tests.protocol.compressed import (
    FREE,
    WRITERS,
    ZSTD_HEAD,
    inflated,
    rle_block,
    text,
    zstd,
)


@pytest.fixture(params=["isal", "zlib"], autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inflate, "_deflate", isal_zlib if request.param == "isal" else zlib)


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


def test_zstd_content_size_must_be_true_also_before_an_empty_last_block() -> None:
    head = b"\x28\xb5\x2f\xfd\x20"  # one segment, a size of one byte
    block, empty = b"\x18\0\0abc", b"\x01\0\0"
    assert inflate_whole(head + b"\x03" + block + empty, "zstd", FREE) == b"abc"
    for size in (0, 2, 4, 255):
        with pytest.raises(MalformedBody):
            inflate_whole(head + bytes([size]) + block + empty, "zstd", FREE)
    with pytest.raises(MalformedBody, match="not as long as told"):
        inflate_whole(head + b"\x04" + empty, "zstd", FREE)


def test_zstd_block_longer_than_its_window_is_refused() -> None:
    head = b"\x28\xb5\x2f\xfd\x00\x00"  # window 1 KiB
    assert inflate_whole(head + rle_block(1024, last=True), "zstd", FREE) == b"A" * 1024
    with pytest.raises(MalformedBody, match="block header"):
        inflate_whole(head + rle_block(1025, last=True), "zstd", FREE)
    for block in (b"\x07\x00\x00", b"\x05\x00\x00"):  # reserved; compressed, of no size
        with pytest.raises(MalformedBody, match="block header"):
            inflate_whole(head + block, "zstd", FREE)


def test_identity_pieces_are_bounded_too() -> None:
    limits = InflateLimits(output_bytes_max=0, ratio_max=1, ratio_grace_bytes=0, piece_bytes=100)
    data = text(100_000)
    assert inflated(iter([data]), "identity", limits) == data
