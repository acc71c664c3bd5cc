"""Numbers of a query, exact whatever their size.

A query's number may be any JSON number. Nothing here turns a long one into a Python integer
before its size is known: `1e999999999` is nine characters to type.
"""

from __future__ import annotations

import math
import re
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

__all__ = ["NUMBER", "ceiling", "decimal_of", "double_at_least", "double_at_most", "floor", "forms"]

# As in JSON: no leading zeros, so that 00501 stays text.
NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")

_PARTS = re.compile(r"(.*?)(?:[eE]([+-]?)([0-9]+))?")

# Of digits in an exponent; beyond it a number is as good as 0 or infinite.
_EXPONENT_DIGITS_MAX = 6

# DuckDB's HUGEINT ends at 1.7e38; integers are compared in it up to 38 digits.
_HUGE = 10**38

# Of digits: above it the decimal form of an integer is not written out.
_FORM_DIGITS_MAX = 1000


def decimal_of(spelling: str) -> Decimal:
    """The number as it is spelt; an exponent of more than six digits is cut to six nines."""
    parts = _PARTS.fullmatch(spelling)
    assert parts is not None
    mantissa, sign, digits = parts.groups()
    if digits is None:
        return Decimal(mantissa)
    digits = digits.lstrip("0") or "0"
    if len(digits) > _EXPONENT_DIGITS_MAX:
        digits = "9" * _EXPONENT_DIGITS_MAX
    return Decimal(f"{mantissa}E{sign}{digits}")


def floor(number: Decimal) -> int:
    """The largest integer not above, within ±10^38."""
    return _integral(number, ROUND_FLOOR)


def ceiling(number: Decimal) -> int:
    """The smallest integer not below, within ±10^38."""
    return _integral(number, ROUND_CEILING)


def _integral(number: Decimal, rounding: str) -> int:
    if number and number.adjusted() >= 38:
        return -_HUGE if number < 0 else _HUGE
    return int(number.to_integral_value(rounding)) if number else 0


def _is_integral(number: Decimal) -> bool:
    if not number or number.adjusted() >= 999_999:
        return True
    return number == number.to_integral_value()


def double_at_least(number: Decimal) -> float:
    """The double that stands for `x >= number`.

    A fraction is its nearest double, as the JSON parser made of the same text. An integer is
    not rounded down: 9007199254740993 must not let 9007199254740992.0 pass.
    """
    double = float(number)
    if _is_integral(number) and math.isfinite(double) and Decimal(double) < number:
        return math.nextafter(double, math.inf)
    return double


def double_at_most(number: Decimal) -> float:
    """The double that stands for `x <= number`."""
    return -double_at_least(number.copy_negate())


def forms(spelling: str) -> tuple[list[str], list[float]]:
    """How a JSON number equal to `spelling` is written by DuckDB: texts, and doubles to be
    written by itself.

    An integer is kept digit by digit, whatever its size; everything else is a double, but what
    no double can hold is kept as it was sent.
    """
    number = decimal_of(spelling)
    double = float(number)
    if not number:
        return ["0"], [0.0, -0.0]
    if not _is_integral(number):
        return [], [double]
    texts = [f"{int(number)}"] if number.adjusted() < _FORM_DIGITS_MAX else []
    if math.isinf(double):
        return [*texts, spelling], []
    is_same = Decimal(double) == number or Decimal(repr(double)) == number
    return texts, [double] if is_same else []
