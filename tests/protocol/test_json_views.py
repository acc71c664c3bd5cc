"""JSON views of any length, inline ones included."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ingester.protocol.json_views import JSON, json_views, kept_rows, packed_json

_texts = st.lists(st.text(max_size=30).map(str.encode), max_size=8)


@given(_texts, st.binary(max_size=14), st.data())
def test_views_are_their_bytes_at_any_length(
    texts: list[bytes], gap: bytes, data: st.DataObject
) -> None:
    octets = gap + gap.join(texts)
    starts = np.zeros(len(texts), np.int32)
    position = len(gap)
    for index, text in enumerate(texts):
        starts[index] = position
        position += len(text) + len(gap)
    lengths = np.array([len(text) for text in texts], np.int32)
    views = json_views(octets, starts, lengths)
    assert views.type == JSON
    views.storage.validate(full=True)
    assert views.storage.cast(pa.binary_view()).to_pylist() == texts
    nulls = data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts)))
    views = json_views(octets, starts, lengths, np.array(nulls, np.bool_))
    expected = [None if null else text for null, text in zip(nulls, texts, strict=True)]
    assert views.storage.cast(pa.binary_view()).to_pylist() == expected
    assert views.null_count == sum(nulls)


@given(_texts)
def test_packed_texts_are_null_where_empty(texts: list[bytes]) -> None:
    packed = packed_json(texts)
    packed.storage.validate(full=True)
    assert packed.storage.cast(pa.binary_view()).to_pylist() == [text or None for text in texts]


def test_short_views_equal_those_arrow_makes() -> None:
    texts = [b"1", b"{}", b"null", b"x" * 12, b"y" * 13, b"z" * 4]
    ours, arrows = (
        packed_json(texts).storage,
        pa.array([t.decode() for t in texts], pa.string_view()),
    )
    assert ours.equals(arrows)
    views = [np.frombuffer(a.buffers()[1], np.uint8).reshape(-1, 16) for a in (ours, arrows)]
    for place, text in enumerate(texts):
        if len(text) <= 12:
            assert (views[0][place] == views[1][place]).all()


@given(st.lists(st.tuples(st.text(max_size=20), st.booleans()), max_size=30))
def test_kept_rows_are_the_rows_asked_for(rows: list[tuple[str, bool]]) -> None:
    texts = [text.encode() for text, _ in rows]
    starts = np.array([sum(map(len, texts[:n])) for n in range(len(texts))], np.int32)
    lengths = np.array([len(text) for text in texts], np.int32)
    batch = pa.RecordBatch.from_arrays(
        [json_views(b"".join(texts), starts, lengths), pa.array(range(len(rows)), pa.int64())],
        names=["json", "number"],
    )
    kept = kept_rows(batch, np.array([is_kept for _, is_kept in rows], bool))
    kept.validate(full=True)
    assert kept.schema == batch.schema
    assert kept["json"].storage.to_pylist() == [text for text, is_kept in rows if is_kept]
    wanted = [number for number, (_, is_kept) in enumerate(rows) if is_kept]
    assert kept["number"].to_pylist() == wanted
