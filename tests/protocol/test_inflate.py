"""The bounded inflater: whole, cut, corrupt, concatenated and hostile bodies.

Every deflate test runs on both backends (isal, and zlib as the fallback).
"""

from __future__ import annotations

import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from isal import isal_zlib

from ingester.errors import MalformedBody
from ingester.protocol import inflate
from ingester.protocol.inflate import (
    Encoding,
    InflateLimits,
    inflate_whole,
    make_inflater,
    parse_content_encoding,
)
from tests.protocol.compressed import (
    COMPRESSED,
    FREE,
    SKIPPABLE,
    WRITERS,
    inflated,
    raw_deflate,
    sliced,
    text,
    zstd,
)


@pytest.fixture(params=["isal", "zlib"], autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inflate, "_deflate", isal_zlib if request.param == "isal" else zlib)


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
