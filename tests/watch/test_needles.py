"""Many needles in one pass: exactly those rows that hold them."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.watch.needles import Haystack, Needles

_texts = st.text(alphabet="abé😀", max_size=12)


def pairs(needles: list[str], column: pa.Array) -> list[tuple[int, int]]:
    found = Needles([needle.encode() for needle in needles]).pairs(Haystack(column))
    return list(zip(found.needles.tolist(), found.rows.tolist(), strict=True))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(_texts.filter(lambda text: len(text.encode()) >= 4), min_size=1, max_size=8),
    st.lists(st.none() | _texts, max_size=20),
    st.integers(0, 3),
)
def test_needles_find_what_in_finds(
    needles: list[str], rows: list[str | None], offset: int
) -> None:
    column = pa.array(rows, pa.string()).slice(offset)
    assert pairs(needles, column) == [
        (n, row)
        for n, needle in enumerate(needles)
        for row, text in enumerate(column.to_pylist())
        if text is not None and needle in text
    ]


def test_a_match_does_not_reach_into_the_next_row() -> None:
    column = pa.array(["xxab", "cdxx", "abcd"])
    assert pairs(["abcd", "xxab"], column) == [(0, 2), (1, 0)]


def test_a_text_longer_than_a_block_is_searched_whole() -> None:
    text = "a" * 700_000 + "needle" + "a" * 700_000
    assert pairs(["needle", "aaaaaaaa", "aneedlea"], pa.array(["x", text])) == [
        *((0, 1), (1, 1), (2, 1))
    ]
