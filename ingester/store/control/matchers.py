"""Matchers of routes and silences: refused before they are stored.

A pattern that cannot be read would fail later, in the transaction that changes an incident.
"""

from __future__ import annotations

from collections.abc import Sequence

from ingester.delivery.routing import RouteRule
from ingester.errors import InvalidField
from ingester.lql.regex import BadPattern, check_pattern

__all__ = ["check_matchers"]


def check_matchers(field: str, matchers: Sequence[RouteRule]) -> None:
    """Raises InvalidField that names the place below `field`."""
    for index, matcher in enumerate(matchers):
        if matcher.match != "regex":
            continue
        try:
            check_pattern(matcher.value)
        except BadPattern as error:
            place = f"{field}[{index}].value"
            raise InvalidField(place, f"{place} is no regular expression: {error}") from None
