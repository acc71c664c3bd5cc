"""JSON columns that point into the bytes they were sent in.

Why it exists: Arrow's string view ("Variable-size Binary View Layout") is 16 bytes a row and copies
nothing: length, then either the first four bytes, a buffer and an offset, or, up to 12 bytes, the
text itself. The column is tagged `arrow.json`: the store takes it without parsing it again
(measured: 0.9 CPU-s of 2.6 per million events went into that second parse), so the texts must have
passed `json_text` or `event_lines`.

Invariants: `starts` and `lengths` lie within `data`; the result keeps `data` alive.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["JSON", "json_lengths", "json_views", "kept_rows", "packed_json"]

JSON = pa.json_(pa.string_view())

_INLINE_BYTES_MAX = 12
_VIEW = np.dtype([("length", "<i4"), ("prefix", "<u4"), ("buffer", "<i4"), ("offset", "<i4")])


def json_views(
    data: bytes,
    starts: np.ndarray[Any, Any],
    lengths: np.ndarray[Any, Any],
    is_null: np.ndarray[Any, Any] | None = None,
) -> pa.ExtensionArray:
    """`data[starts[i]:starts[i] + lengths[i]]` as a JSON column; null where `is_null`."""
    count = len(starts)
    views = np.zeros(count, _VIEW)
    views["length"] = lengths
    views["offset"] = starts
    is_short = np.asarray(lengths) <= _INLINE_BYTES_MAX
    if is_short.any():
        # Reads beyond the end are cut off by the mask below; `take` keeps them within the data.
        cells = views.view(np.uint8).reshape(count, 16)
        short = is_short.nonzero()[0]
        places = np.arange(_INLINE_BYTES_MAX)
        octets = np.frombuffer(data, np.uint8)
        found = octets.take(starts[short][:, None] + places, mode="clip") if data else 0
        cells[short, 4:] = np.where(places < lengths[short][:, None], found, 0)
        long = (~is_short).nonzero()[0]
        views["prefix"][long] = _prefixes(data, starts[long])
    else:
        views["prefix"] = _prefixes(data, starts)
    validity = None
    if is_null is not None:
        validity = pa.py_buffer(np.packbits(~is_null, bitorder="little"))
    storage = pa.Array.from_buffers(
        pa.string_view(), count, [validity, pa.py_buffer(views), pa.py_buffer(data)]
    )
    return pa.ExtensionArray.from_storage(JSON, storage)


def packed_json(texts: list[bytes]) -> pa.ExtensionArray:
    """Texts that lie apart as one JSON column; an empty one is null."""
    lengths = np.fromiter(map(len, texts), np.int32, len(texts))
    starts = np.zeros(len(texts), np.int32)
    np.cumsum(lengths[:-1], out=starts[1:])
    is_null = lengths == 0
    return json_views(b"".join(texts), starts, lengths, is_null if is_null.any() else None)


def json_lengths(column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    """The bytes of each value of a column of `json_views`; int32, 0 for null."""
    views = [np.frombuffer(chunk.storage.buffers()[1], _VIEW) for chunk in column.chunks]
    return np.concatenate([view["length"] for view in views])


def kept_rows(rows: pa.RecordBatch, is_kept: np.ndarray[Any, Any]) -> pa.RecordBatch:
    """The rows where `is_kept`. Arrow filters no string views (pyarrow 26): here theirs are."""
    wanted = pa.array(is_kept)
    columns = [
        _kept_json(column, is_kept)
        if isinstance(column.type, pa.JsonType)
        else column.filter(wanted)
        for column in rows.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=rows.schema)


def _kept_json(column: pa.ExtensionArray, is_kept: np.ndarray[Any, Any]) -> pa.ExtensionArray:
    """Of a column as `json_views` makes it: from the start of its buffers, and nothing null."""
    storage = column.storage
    assert storage.offset == 0
    assert storage.null_count == 0
    _, views, *data = storage.buffers()
    kept = np.frombuffer(views, _VIEW, len(storage))[is_kept]
    taken = pa.Array.from_buffers(pa.string_view(), len(kept), [None, pa.py_buffer(kept), *data])
    return pa.ExtensionArray.from_storage(JSON, taken)


def _prefixes(data: bytes, starts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The four bytes from each place on, in one step. No long text starts in the last three."""
    fours: np.ndarray[Any, Any] = np.ndarray((max(0, len(data) - 3),), "<u4", data, strides=(1,))
    found: np.ndarray[Any, Any] = fours[starts]
    return found
