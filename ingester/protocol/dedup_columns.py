"""Arrow columns of the ids that came with stored rows; the store's `dedup_keys` table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from .dedup import DIGEST_BYTES
from .requests import SmallRequest, dedup_scope_of

__all__ = ["UPLOAD_DEDUP_SCHEMA", "small_dedup_rows", "upload_dedup_rows"]

_TIMESTAMP = pa.timestamp("us")

# One upload: scope and receive time are the same for every id and given as constants.
UPLOAD_DEDUP_SCHEMA = pa.schema({"digest": pa.binary()})

_SMALL_DEDUP_SCHEMA = pa.schema({
    "digest": pa.binary(),
    "source": pa.string(),
    "received_at": _TIMESTAMP,
})


def upload_dedup_rows(digests: bytes) -> pa.Table:
    """Digests that lie one behind the other as `UPLOAD_DEDUP_SCHEMA`."""
    return pa.Table.from_arrays([_digests(digests)], schema=UPLOAD_DEDUP_SCHEMA)


def small_dedup_rows(requests: Sequence[SmallRequest]) -> pa.Table:
    """The ids of many small requests, each of which has some."""
    counts = [len(r.digests) // DIGEST_BYTES for r in requests]
    times = np.fromiter((r.entry.received_at_us for r in requests), np.int64, len(requests))
    scopes = [dedup_scope_of(r.entry) for r in requests]
    columns = [
        _digests(b"".join(r.digests for r in requests)),
        pa.array([scope for scope, n in zip(scopes, counts, strict=True) for _ in range(n)]),
        pa.array(np.repeat(times, counts)).view(_TIMESTAMP),
    ]
    return pa.Table.from_arrays(columns, schema=_SMALL_DEDUP_SCHEMA)


def _digests(joined: bytes) -> pa.Array:
    count = len(joined) // DIGEST_BYTES
    ends = np.arange(count + 1, dtype=np.int32) * DIGEST_BYTES
    return pa.Array.from_buffers(
        pa.binary(), count, [None, pa.py_buffer(ends), pa.py_buffer(joined)]
    )
