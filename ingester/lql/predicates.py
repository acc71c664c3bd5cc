"""What one operator asks of one value: of a text column, or of one JSON scalar as JSON text.

A predicate is a function from the SQL of the value to the SQL of a condition. The condition is
never an error: it is NULL or false where a value is not of the kind that is asked for.

JSON text tells the kind by its first character, and DuckDB writes a value in one way only, however
it was sent; so equality compares texts and costs one extraction and no cast. Beside its condition
a predicate names a `needle`: bytes that stand in every payload that satisfies it, or contain an
escape.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from msgspec import Struct

from .ast import Boolean, Date, Filter, Null, Number, Operator, Range, Text, Value
from .numbers import ceiling, decimal_of, double_at_least, double_at_most, floor, forms
from .sql import Fragment, joined, sql
from .times import maybe_instant

__all__ = ["NUMERIC", "Predicate", "json_string", "numeric", "predicate_of"]

Condition = Callable[[Fragment], Fragment]

# Text that reads as a number. Narrower than DuckDB's casts, which know nan, inf, 1_000 and blanks.
NUMERIC = "[+-]?[0-9]+(\\.[0-9]+)?([eE][+-]?[0-9]+)?"

# Compared as HUGEINT; longer ones as doubles.
_INTEGER = "[+-]?[0-9]{1,38}"

# DuckDB's TIMESTAMP cast ignores an offset, and no cast of its takes minutes without seconds.
_ISO = (
    "[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\\.[0-9]+)?)?"
    "([Zz]|[+-]([01][0-9]|2[0-3])(:?[0-5][0-9])?)?)?"
)

# Offsets are below a day, so a text outside of these dates cannot be inside the bounds.
_OFFSET_MAX = timedelta(days=2)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
}
_ESCAPED = re.compile(r'["\\\x00-\x1f]')


class Predicate(Struct, frozen=True):
    """`of_text`: of a column; `of_json`: of the JSON text of one scalar."""

    of_text: Condition
    of_json: Condition
    needle: str | None = None


def json_string(text: str) -> str:
    """A string as DuckDB writes it in JSON."""
    return '"' + _ESCAPED.sub(_escape, text) + '"'


def _escape(found: re.Match[str]) -> str:
    return _ESCAPES.get(found[0]) or f"\\u{ord(found[0]):04X}"


def predicate_of(clause: Filter) -> Predicate:
    """The predicate of a clause on one value; absence is not its business."""
    operator, value = clause.operator, clause.value
    match value:
        case Text() if operator in {"=", "@>"}:
            return _is_text(value.text)
        case Text() if operator in {"~", "@>~"}:
            return _matches(value.text)
        case Boolean():
            return _is_boolean("true" if value.is_true else "false")
        case Number() if operator in {"=", "@>"}:
            return _is_number(value.spelling)
        case Null():
            return Predicate(lambda t: sql("{} IS NULL", t), lambda d: sql("{} = 'null'", d))
    return _is_within(_bounds(operator, value))


def _is_text(text: str) -> Predicate:
    written = json_string(text)
    return Predicate(
        lambda t: sql("{} = {}", t, text),
        lambda d: sql("{} = {}", d, written),
        needle=written[1:] if len(written) > 2 else None,
    )


def _is_boolean(name: str) -> Predicate:
    return Predicate(
        lambda t: sql("{} = {}", t, name),
        lambda d: sql("list_contains({}, {})", [name, f'"{name}"'], d),
    )


def _is_number(spelling: str) -> Predicate:
    texts, doubles = forms(spelling)
    listed = joined(
        ", ",
        [sql("{}", text) for text in [*texts, json_string(spelling)]]
        + [sql("to_json({}::DOUBLE)::VARCHAR", double) for double in doubles],
    )
    return Predicate(
        lambda t: sql("{} = {}", t, spelling),
        lambda d: sql("list_contains([{}], {})", listed, d),
    )


def _matches(pattern: str) -> Predicate:
    if "$" in pattern[:-1] or "^" in pattern[1:]:
        # DuckDB turns plain patterns into LIKE and takes an anchor in their middle for a literal
        # end (seen in 1.5.6: `$a` finds "ab"). An empty alternative in front prevents that.
        pattern = f"(?:|){pattern}"
    return Predicate(
        lambda t: sql("regexp_matches({}, {})", t, pattern),
        lambda d: sql(
            "CASE WHEN left({}, 1) IN ('[', '{') THEN false "
            "ELSE regexp_matches(json_extract_string({}, '$'), {}) END",
            d,
            d,
            pattern,
        ),
    )


class _Bounds(Struct, frozen=True):
    """`low` and `high` are of one kind; at least one is given."""

    low: Number | Date | Text | None = None
    high: Number | Date | Text | None = None
    has_low: bool = True
    has_high: bool = True


def _bounds(operator: Operator, value: Value) -> _Bounds:
    if isinstance(value, Range):
        return _Bounds(value.low, value.high)
    assert isinstance(value, Number | Date | Text)
    if operator.startswith(">"):
        return _Bounds(value, None, has_low=operator == ">=")
    return _Bounds(None, value, has_high=operator == "<=")


def _is_within(bounds: _Bounds) -> Predicate:
    ends = (bounds.low, bounds.high)
    if any(isinstance(end, Number) for end in ends):
        # A number in a JSON string has no escapes, and no other kind of value reads as a number.
        return Predicate(
            lambda t: _is_number_within(t, bounds),
            lambda d: _is_number_within(sql("trim({}, '\"')", d), bounds),
        )
    if any(isinstance(end, Date) for end in ends):
        return Predicate(
            lambda t: _is_instant_within(t, bounds),
            lambda d: sql(
                "CASE WHEN starts_with({}, '\"') THEN {} ELSE false END",
                d,
                _is_instant_within(sql("trim({}, '\"')", d), bounds),
            ),
        )
    return Predicate(
        lambda t: _is_text_within(t, bounds),
        lambda d: sql(
            "CASE WHEN starts_with({}, '\"') THEN {} ELSE false END",
            d,
            _is_text_within(sql("json_extract_string({}, '$')", d), bounds),
        ),
    )


def _between(
    subject: Fragment, low: object, high: object, *, has_low: bool = True, has_high: bool = True
) -> Fragment:
    """`None` is an open end."""
    parts = []
    if low is not None:
        parts.append(sql("{} >= {}" if has_low else "{} > {}", subject, low))
    if high is not None:
        parts.append(sql("{} <= {}" if has_high else "{} < {}", subject, high))
    return joined(" AND ", parts)


def _is_text_within(text: Fragment, bounds: _Bounds) -> Fragment:
    low, high = (end.text if isinstance(end, Text) else None for end in (bounds.low, bounds.high))
    return _between(text, low, high, has_low=bounds.has_low, has_high=bounds.has_high)


def _is_number_within(text: Fragment, bounds: _Bounds) -> Fragment:
    """Exact for integers. The double is tried first: it is cheap, and rounding keeps the order,
    so what it refuses is refused.
    """
    low, high = (
        decimal_of(end.spelling) if isinstance(end, Number) else None
        for end in (bounds.low, bounds.high)
    )
    nearest = [None if end is None else float(end) for end in (low, high)]
    double = sql("TRY_CAST({} AS DOUBLE)", text)
    integer = sql("TRY_CAST({} AS HUGEINT)", text)
    return sql(
        "CASE WHEN {} THEN CASE WHEN regexp_full_match({}, {}) THEN {} "
        "WHEN regexp_full_match({}, {}) THEN {} ELSE false END ELSE false END",
        _between(double, *nearest),
        text,
        _INTEGER,
        _integers_within(integer, low, high, bounds),
        text,
        NUMERIC,
        _doubles_within(double, low, high, bounds),
    )


def _integers_within(
    integer: Fragment, low: Decimal | None, high: Decimal | None, bounds: _Bounds
) -> Fragment:
    first = last = None
    if low is not None:
        first = ceiling(low) if bounds.has_low else floor(low) + 1
    if high is not None:
        last = floor(high) if bounds.has_high else ceiling(high) - 1
    return _between(integer, first, last)


def _doubles_within(
    double: Fragment, low: Decimal | None, high: Decimal | None, bounds: _Bounds
) -> Fragment:
    parts = []
    if low is not None:
        # Not above the bound is not above the largest double that is at most the bound.
        is_low = bounds.has_low
        parts.append(
            sql("{} >= {}", double, double_at_least(low))
            if is_low
            else sql("{} > {}", double, double_at_most(low))
        )
    if high is not None:
        parts.append(
            sql("{} <= {}", double, double_at_most(high))
            if bounds.has_high
            else sql("{} < {}", double, double_at_least(high))
        )
    return joined(" AND ", parts)


def _is_instant_within(text: Fragment, bounds: _Bounds) -> Fragment:
    """ISO texts as instants; UTC unless they name an offset."""
    low, high = (
        maybe_instant(end.spelling) if isinstance(end, Date) else None
        for end in (bounds.low, bounds.high)
    )
    earliest = latest = None
    if low is not None and low.replace(tzinfo=None) - datetime.min > _OFFSET_MAX:
        earliest = (low - _OFFSET_MAX).date().isoformat()
    if high is not None and datetime.max - high.replace(tzinfo=None) > _OFFSET_MAX:
        latest = (high + _OFFSET_MAX).date().isoformat() + "~"
    seconds = sql("regexp_replace(upper({}), '^(.{10})[T ](.{5})($|[^:])', '\\1 \\2:00\\3')", text)
    seconds = sql("regexp_replace({}, '^(.{10})$', '\\1 00:00:00')", seconds)
    zoned = sql("regexp_replace({}, '^(.{10}[T ][0-9:]{8}(\\.[0-9]+)?)$', '\\1Z')", seconds)
    instant = sql("epoch_us(TRY_CAST({} AS TIMESTAMPTZ))", zoned)
    condition = _between(
        instant,
        *(None if end is None else (end - _EPOCH) // _MICROSECOND for end in (low, high)),
        has_low=bounds.has_low,
        has_high=bounds.has_high,
    )
    coarse = _between(text, earliest, latest) if earliest or latest else Fragment("true")
    return sql(
        "CASE WHEN {} THEN CASE WHEN regexp_full_match({}, {}) THEN {} ELSE false END "
        "ELSE false END",
        coarse,
        text,
        _ISO,
        condition,
    )


def numeric(text: Fragment) -> Fragment:
    """A finite DOUBLE, or NULL."""
    double = sql("TRY_CAST({} AS DOUBLE)", text)
    return sql(
        "CASE WHEN regexp_full_match({}, {}) AND isfinite({}) THEN {} END",
        text,
        NUMERIC,
        double,
        double,
    )
