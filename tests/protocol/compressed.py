"""Bodies in every encoding, and inflaters over their pieces, for the tests of the inflater."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise

import zstandard

from ingester.protocol.inflate import (
    Encoding,
    InflateLimits,
    make_inflater,
)

FREE = InflateLimits(output_bytes_max=0, ratio_max=10**9)
SKIPPABLE = b"\x57\x2a\x4d\x18\x05\x00\x00\x00hello"
ZSTD_HEAD = b"\x28\xb5\x2f\xfd\x00\x58"  # no checksum, no size, window 2 MiB


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
