"""Pieces of SQL that carry their parameters.

A template holds `{}` where something goes in: a `Fragment` is spliced with its parameters, any
other value becomes a parameter, `?`. So text of a query reaches the database as a parameter or
not at all.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

__all__ = ["FALSE", "NULL", "TRUE", "Fragment", "joined", "sql"]


class Fragment(Struct, frozen=True):
    """SQL text and the values of its `?`, in order."""

    sql: str
    params: tuple[object, ...] = ()


TRUE = Fragment("true")
FALSE = Fragment("false")
NULL = Fragment("NULL")


def sql(template: str, *parts: object) -> Fragment:
    """Fill the `{}` of `template`, which is ours, with `parts`."""
    pieces = template.split("{}")
    assert len(pieces) == len(parts) + 1, template
    text: list[str] = [pieces[0]]
    params: list[object] = []
    for part, piece in zip(parts, pieces[1:], strict=True):
        if isinstance(part, Fragment):
            text.append(part.sql)
            params += part.params
        else:
            text.append("?")
            params.append(part)
        text.append(piece)
    return Fragment("".join(text), tuple(params))


def joined(separator: str, fragments: Iterable[Fragment]) -> Fragment:
    found = list(fragments)
    params = tuple(param for fragment in found for param in fragment.params)
    return Fragment(separator.join(fragment.sql for fragment in found), params)
