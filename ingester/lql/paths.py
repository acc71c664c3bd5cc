"""Paths into the attributes: which values a path leads to, and whether any of them will do.

A path descends into objects and, element by element, into lists of objects; at its end the elements
of a list stand for the list. One level of list at each step: a list within a list is no list of
objects.

What a row costs: a substring test (is there such a key, or such a value, at all), one extraction,
and only if that found a list or nothing while there is a list on the path, a descent element by
element. An extraction is bound by a one-element `list_transform`, because DuckDB would repeat it
for each mention in a filter (measured: 150 instead of 70 ms for three on 200,000 rows).

Keys reach DuckDB inside of a path, which is a parameter. JSONPath has no spelling for the keys `*`
and the empty one, a JSON pointer reads `0` as an index of a list: a path is spelt as one or the
other, and a path that needs both goes step by step.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .sql import FALSE, Fragment, sql

__all__ = ["any_value", "first_value", "is_null", "location", "may_be_escaped", "values"]

Condition = Callable[[Fragment], Fragment]

_NO_JSONPATH = frozenset({"", "*"})
_INDEX = re.compile(r"[0-9]+|-")

# Characters that JSON text always escapes, or may escape otherwise than by \u.
_MAY_BE_ESCAPED = re.compile(r'["\\\x00-\x1f]')


def location(keys: tuple[str, ...]) -> str | None:
    """JSONPath or JSON pointer of a path; None if neither can say it."""
    if not _NO_JSONPATH.intersection(keys):
        steps = (key.replace("\\", "\\\\").replace('"', '\\"') for key in keys)
        return "$" + "".join(f'."{step}"' for step in steps)
    if any(_INDEX.fullmatch(key) for key in keys):
        return None
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in keys)


def may_be_escaped(text: str) -> bool:
    """Whether JSON may spell a text otherwise than as it is, but for `\\u` and `\\/`."""
    return _MAY_BE_ESCAPED.search(text) is not None


def _holds(document: Fragment, needle: str | None) -> Fragment | None:
    """Whether `needle` may be in a payload, escaped or not. None: there is no telling."""
    if needle is None or _MAY_BE_ESCAPED.search(needle.removesuffix('"')):
        return None
    test = sql("contains({}, {}) OR contains({}, '\\u')", document, needle, document)
    if "/" in needle:
        test = sql("{} OR contains({}, '\\/')", test, document)
    return test


def any_value(
    document: Fragment,
    keys: tuple[str, ...],
    condition: Condition,
    *,
    absent: Fragment = FALSE,
    needle: str | None = None,
) -> Fragment:
    """Whether a value at the path satisfies `condition`. `absent`: what holds if the path leads
    nowhere. `needle`: bytes of every payload that satisfies, beside its keys.
    """
    ends = _lists(
        document,
        keys,
        sql(
            "CASE WHEN len(l) > 0 THEN list_contains(list_transform({}, lambda v: {}), true) END",
            _elements(Fragment("l")),
            condition(Fragment("v")),
        ),
    )
    found = _direct(document, keys, sql("CASE WHEN {} THEN true {} END", condition(_D), _UNLESS))
    test = _holds(document, needle) or _holds(document, _key_needle(keys))
    return _whether(test, found, ends, absent)


def is_null(document: Fragment, keys: tuple[str, ...], *, absent: Fragment) -> Fragment:
    """Whether the path leads to null, or lacks an end in one element of a list on it."""
    ends = _lists(
        document,
        keys,
        sql(
            "CASE WHEN len(l) > 0 THEN list_contains({}, 'null') END",
            _elements(_descent(document, keys, keeps_missing=True)),
        ),
    )
    found = _direct(document, keys, sql("CASE WHEN d = 'null' THEN true {} END", _UNLESS))
    return _whether(_holds(document, _key_needle(keys)), found, ends, absent)


def values(document: Fragment, keys: tuple[str, ...]) -> Fragment:
    """Every end of the path, as a list of JSON texts; a list at an end is one of them."""
    return _descent(document, keys, keeps_missing=False)


def first_value(document: Fragment, keys: tuple[str, ...]) -> Fragment:
    """The end of the path as JSON text, or NULL; lists on the way are not entered."""
    place = location(keys)
    if place is not None:
        return sql("json_extract({}, {})::VARCHAR", document, place)
    found = document
    for key in keys:
        found = sql("json_extract({}, {})::VARCHAR", found, location((key,)))
    return found


_D = Fragment("d")

# The direct value decides unless it is a list, or there is none.
_UNLESS = Fragment("WHEN d IS NULL OR starts_with(d, '[') THEN NULL ELSE false")


def _key_needle(keys: tuple[str, ...]) -> str | None:
    return keys[-1] + '"' if keys[-1] else None


def _direct(document: Fragment, keys: tuple[str, ...], condition: Fragment) -> Fragment | None:
    place = location(keys)
    if place is None:
        return None
    return sql(
        "list_transform([json_extract({}, {})::VARCHAR], lambda d: {})[1]",
        document,
        place,
        condition,
    )


def _lists(document: Fragment, keys: tuple[str, ...], condition: Fragment) -> Fragment:
    """`condition` on the ends `l` of the path, or NULL if there is no list on it."""
    ends = sql("list_transform([{}], lambda l: {})[1]", values(document, keys), condition)
    prefixes = [location(keys[:n]) for n in range(1, len(keys) + 1)]
    if None in prefixes:
        return ends
    # The root has a spelling in both notations, and a list may be given a mix.
    return sql(
        "CASE WHEN contains({}, '[') AND list_contains(json_type({}, {}), 'ARRAY') THEN {} END",
        document,
        document,
        ["$", *prefixes],
        ends,
    )


def _whether(
    test: Fragment | None, found: Fragment | None, ends: Fragment, absent: Fragment
) -> Fragment:
    whole = sql("coalesce({}, {})", ends, absent)
    if found is not None:
        whole = sql("coalesce({}, {}, {})", found, ends, absent)
    return whole if test is None else sql("CASE WHEN {} THEN {} ELSE {} END", test, whole, absent)


def _descent(document: Fragment, keys: tuple[str, ...], *, keeps_missing: bool) -> Fragment:
    """The ends of the path, step by step. `keeps_missing`: null where an element lacks a step."""
    found = sql(
        "CASE WHEN json_type({}) = 'ARRAY' THEN json_extract({}, '$[*]')::VARCHAR[] "
        "ELSE [{}::VARCHAR] END",
        document,
        document,
        document,
    )
    for n, key in enumerate(keys):
        if n:
            found = _elements(found)
        place = location((key,))
        if keeps_missing:
            template = (
                "list_transform({}, lambda x: coalesce(json_extract(x, {})::VARCHAR, 'null'))"
            )
        else:
            template = (
                "list_filter(list_transform({}, lambda x: json_extract(x, {})::VARCHAR), "
                "lambda y: y IS NOT NULL)"
            )
        found = sql(template, found, place)
    return found


def _elements(items: Fragment) -> Fragment:
    """Lists in a list of JSON texts give way to their elements."""
    return sql(
        "flatten(list_transform({}, lambda x: CASE WHEN starts_with(x, '[') "
        "THEN json_extract(x, '$[*]')::VARCHAR[] ELSE [x] END))",
        items,
    )
