"""The value by which a source's rows are told apart, as a digest.

Why it exists: clients send ids of their own (`messageId`, `uuid`, `_id`, `insert_id`); a source may
say which property that is (`dedup_field`, a name or a JSON pointer). What is kept of it for a day
must not grow with what clients send: 16 bytes each.

1. Equal digests mean values equal as sent, of the same kind: `1` is not `"1"`, and not `1.0`.
   White space within an object or array, and how a string is escaped, make no difference.
2. Absent, null and "" are no id: None, never a duplicate.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import Any

import msgspec

from .chunk_shape import Array
from .json_pointer import parse_pointer
from .json_text import any_value, compact

__all__ = ["DEDUP_TABLES", "DIGEST_BYTES", "DedupField", "dedup_field_of", "dedup_scope"]

DIGEST_BYTES = 16
# Of which rows a source may leave out repeats.
DEDUP_TABLES = ("events", "logs")
_NO_RAW = msgspec.Raw()


class DedupField:
    """Compiled once a source. Raises ValueError for what is neither a name nor a pointer."""

    def __init__(self, field: str) -> None:
        if not field:
            raise ValueError("dedup_field is empty; name a property, or a JSON pointer")
        self._pointer = parse_pointer(field) if field.startswith("/") else None
        name = field if self._pointer is None else self._pointer.tokens[0]
        # Only the first step: the decoder passes over everything else.
        step = msgspec.defstruct(
            "Step", [("value", msgspec.Raw, _NO_RAW)], rename={"value": name}, gc=False
        )
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(step)

    def digest(self, text: bytes) -> bytes | None:
        """Of one accepted value, a JSON object or not."""
        if text[0] != 0x7B:
            found = self._pointer.find(text) if self._pointer else None
        else:
            found = bytes(self._decoder.decode(text).value)
            if found and self._pointer is not None and len(self._pointer.tokens) > 1:
                found = self._pointer.find(text)
        if not found or found == b"null":
            return None
        if found[0] == 0x22:
            # Without an escape it is its own value.
            value = found[1:-1] if b"\\" not in found else any_value(found).encode()
            return _digest(b"s" + value) if value else None
        kind = b"j" if found[0] in b"{[" else b"v"
        return _digest(kind + compact(found).encode())

    def digests(self, data: bytes, starts: Array, lengths: Array) -> list[bytes | None]:
        """Of the rows of a batch (`LogBatch` and `EventBatch` have these three)."""
        spans = zip(starts.tolist(), lengths.tolist(), strict=True)
        return [self.digest(data[start : start + length]) for start, length in spans]


def _digest(tagged: bytes) -> bytes:
    return blake2b(tagged, digest_size=DIGEST_BYTES).digest()


@lru_cache(maxsize=256)
def dedup_field_of(field: str) -> DedupField:
    """Compiled once: the same field comes with every request of its source."""
    return DedupField(field)


def dedup_scope(table: str, source: str, field: str) -> str:
    """Among which rows an id is looked for: those of one table, source and field.

    These bytes are on disk. No source name has a colon, nor has a table.
    """
    return f"{table}:{source}:{field}"
