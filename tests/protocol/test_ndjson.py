"""Line framing: the same lines however the bytes were cut, in bounded memory."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingester.protocol.ndjson import EXCERPT_BYTES_MAX, LineFramer, OverlongLine

from ..helpers import sliced

LIMIT = 12


def framed(pieces: list[bytes], limit: int = LIMIT) -> list[bytes | OverlongLine]:
    """Lines in order, each without LF or CRLF; over-long ones as `OverlongLine`, wherever found."""
    framer = LineFramer(limit)
    parts = [part for piece in pieces for part in framer.feed(piece)]
    parts += framer.finish()
    lines: list[bytes | OverlongLine] = []
    for part in parts:
        if isinstance(part, OverlongLine):
            lines.append(part)
            continue
        assert part.endswith(b"\n")
        lines += (as_the_decoder_sees(line, limit) for line in part[:-1].split(b"\n"))
    return lines


def as_the_decoder_sees(line: bytes, limit: int) -> bytes | OverlongLine:
    line = line.removesuffix(b"\r")
    if len(line) <= limit:
        return line
    return OverlongLine(line[:EXCERPT_BYTES_MAX], len(line), not line.strip(b" \t\r"))


def reference(body: bytes, limit: int = LIMIT) -> list[bytes | OverlongLine]:
    """The plain definition, for the whole body at once."""
    lines = body.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not lines[-1]:
        lines.pop()
    return [as_the_decoder_sees(line, limit) for line in lines]


BODIES = [
    b"",
    b"\n",
    b"\r\n",
    b"a",
    b"a\n",
    b"a\r\nb\r\n",
    b"a\n\n\r\n  \nb",
    b"\xef\xbb\xbfa\nb",
    b"\xef\xbb\xbf",
    b"\xef\xbb",
    b"\xef",
    b"\xef\xbba\n",
    b"a\n\xef\xbb\xbfb\n",
    b"\xef\xbb\xbf\xef\xbb\xbfa\n",
    b"x" * LIMIT + b"\n" + b"y" * LIMIT + b"\r\n" + b"z" * LIMIT,
    b"x" * (LIMIT + 1) + b"\n" + b"y" * (LIMIT + 1) + b"\r\n" + b"z" * (LIMIT + 1),
    b"x" * LIMIT + b"\r",
    b"x" * LIMIT + b"\r\r\n",
    b"x" * 100 + b"\r",
    b"x" * 100 + b"\r\n" + b"y" * 100,
    b"short\n" + b"x" * 100 + b"\nshort\n" + b"y" * 200 + b"\n" + b"z" * 300 + b"\nend",
    b" " * 100 + b"\nend\n" + b" " * 100,
    b"\r" * 50 + b"\n",
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_lines_do_not_depend_on_cuts(body: bytes) -> None:
    for pieces in sliced(body):
        assert framed(pieces) == reference(body)


@given(
    st.lists(
        st.sampled_from([
            b"\n",
            b"\r",
            b"\r\n",
            b" ",
            b"a",
            b"bcdefghij",
            b"\xef\xbb\xbf",
            b"\xef",
        ]),
        max_size=40,
    ),
    st.lists(st.integers(0, 300), max_size=10),
    st.integers(1, 14),
)
def test_any_body_in_any_cut_gives_the_lines_of_the_whole(
    tokens: list[bytes], cuts: list[int], limit: int
) -> None:
    body = b"".join(tokens)
    edges = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    pieces = [body[a:b] for a, b in pairwise(edges)]
    assert framed(pieces, limit) == reference(body, limit)
    assert framed([*pieces, b""], limit) == reference(body, limit)


def test_an_empty_piece_changes_nothing() -> None:
    assert framed([b"", b"\xef", b"", b"\xbb\xbfa", b"", b"\nb"]) == [b"a", b"b"]


def test_an_overlong_line_keeps_its_first_64_kib() -> None:
    line = b"0123456789" * 20_000
    for pieces in ([line], [line[:5], line[5:70_000], line[70_000:]]):
        [found] = framed(pieces)
        assert found == OverlongLine(line[:EXCERPT_BYTES_MAX], len(line), False)
    assert repr(found) == "OverlongLine(200000 bytes)"


def test_skipping_an_overlong_line_buffers_no_more_than_the_limit_and_a_piece() -> None:
    limit, piece = 256 * 1024, b"x" * 65_536
    framer = LineFramer(limit)
    tracemalloc.start()
    try:
        for _ in range(400):
            assert list(framer.feed(piece)) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The growing carry is copied once in a while; 26 MB went through.
    assert peak < 3 * (limit + len(piece))
    assert list(framer.feed(b"\nnext\n")) == [
        OverlongLine(piece, 400 * 65_536, False),
        b"next\n",
    ]


def test_tiny_pieces_are_not_copied_over_and_over() -> None:
    """A megabyte line in pieces of four bytes: 250,000 copies of it would take a minute."""
    framer = LineFramer(1024 * 1024)
    line = b"x" * 1024 * 1024
    for start in range(0, len(line), 4):
        assert not list(framer.feed(line[start : start + 4]))
    assert list(framer.finish()) == [line + b"\n"]
