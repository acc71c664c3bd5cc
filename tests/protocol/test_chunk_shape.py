"""The shape of a chunk: what it calls regular is, byte for byte."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingester.protocol.chunk_shape import ChunkShape
from ingester.protocol.event_lines import lone_surrogate_at

from .lines import is_utf8

_PARTS = [
    b"x", b" ", b"[", b"{", b"\\", b"\\\\", b"u", b"\\u", b"\\u00e9", b"\\ud83d", b"\\ude00",
    b"\r", b"\\uD83D\\uDE00", b"\\\\ud83d", b"\xc3\xa9", b"\xc3", b"\xa9", b"\xe4\xbf\x9d",
    b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\xef\xbb\xbf",
    b"\0", b"x" * 63,
]  # fmt: skip
_LINES = st.lists(
    st.builds(
        lambda parts, end: b"{" + b"".join(parts) + end,
        st.lists(st.sampled_from(_PARTS), max_size=8),
        st.sampled_from([b"}\n", b"}\n", b"}\r\n", b"\n", b"} \n"]),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=1500, deadline=None)
@given(_LINES)
@example([b"{\\u}\n"])
@example([b"{" + b"x" * 200 + b"\\ud800}\n"])
def test_a_regular_chunk_is_what_it_is_called(lines: list[bytes]) -> None:
    shape = ChunkShape(line_bytes_max=250, depth_max=3)
    shape.regular_lines(b"{[[[[\\u\xff\xff" * 9 + b"}\n")  # what an earlier chunk left is no matter
    chunk = b"".join(lines)
    found = shape.regular_lines(chunk)
    texts = [line[:-1].removesuffix(b"\r") for line in lines]
    is_whole = all(text.endswith(b"}") for text in texts) and max(map(len, texts)) <= 250
    is_clean = is_utf8(chunk) and not lone_surrogate_at(chunk)
    opened = [text.count(b"{") + text.count(b"[") for text in texts]
    if found is None:
        # It may be too careful with depth, which it counts by neighbourhoods.
        assert not (is_whole and is_clean and sum(opened) <= 3)
        return
    assert is_whole
    assert is_clean
    assert max(opened) <= 3
    starts, lengths = found
    assert (starts.dtype, lengths.dtype) == (np.int32, np.int32)
    spans = zip(starts.tolist(), lengths.tolist(), strict=True)
    assert [chunk[start : start + length] for start, length in spans] == texts


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=200), min_size=1, max_size=20),
       st.integers(1, 40))  # fmt: skip
def test_the_depth_guess_never_misses(marks: list[list[bool]], depth_max: int) -> None:
    lines = [b'{"' + bytes(b"["[0] if mark else b"x"[0] for mark in m) + b'"}\n' for m in marks]
    found = ChunkShape(10_000, depth_max).regular_lines(b"".join(lines))
    if any(sum(mark) + 1 > depth_max for mark in marks):
        assert found is None


def test_a_pair_of_escapes_is_regular() -> None:
    line = json.dumps({"a": "😀 é", "b": "C:\\users"}).encode() + b"\n"
    assert ChunkShape(1000, 5).regular_lines(line * 3) is not None
