"""Whether a text is refused, for tests that take either answer."""

from __future__ import annotations

from ingester.errors import QueryError
from ingester.lql import Context, check

__all__ = ["maybe_refusal"]


def maybe_refusal(query: str, context: Context = "search") -> QueryError | None:
    try:
        check(query, context)
    except QueryError as refusal:
        return refusal
    return None
