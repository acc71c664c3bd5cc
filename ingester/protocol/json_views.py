"""JSON columns that point into the bytes they were sent in.

Why it exists beside `columns.json_views`: a log may be `1` or `{}`. Arrow's string view ("Variable-
size Binary View Layout") is 16 bytes a row: length, then either the first four bytes, a buffer and
an offset, or, up to 12 bytes, the text itself. The column is tagged `arrow.json`: the store takes
it without parsing it again, so the texts must have passed `json_text` (or what equals it).

Invariants: `starts` and `lengths` lie within `data`; the result keeps `data` alive.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["JSON", "json_views", "packed_json"]

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
    octets = np.frombuffer(data, np.uint8)
    views = np.zeros(count, _VIEW)
    views["length"] = lengths
    views["offset"] = starts
    is_short = np.asarray(lengths) <= _INLINE_BYTES_MAX
    if is_short.any():
        # Reads beyond the end are cut off by the mask below; `take` keeps them within the data.
        cells = views.view(np.uint8).reshape(count, 16)
        short = is_short.nonzero()[0]
        places = np.arange(_INLINE_BYTES_MAX)
        found = octets.take(starts[short][:, None] + places, mode="clip") if data else 0
        cells[short, 4:] = np.where(places < lengths[short][:, None], found, 0)
        long = (~is_short).nonzero()[0]
        views["prefix"][long] = _prefixes(octets, starts[long])
    else:
        views["prefix"] = _prefixes(octets, starts)
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


def _prefixes(octets: np.ndarray[Any, Any], starts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return octets[starts[:, None] + np.arange(4)].view("<u4")[:, 0]
