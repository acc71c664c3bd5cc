"""Routes: which destinations an incident reaches besides those its rule, alert or monitor names.

1. A route lets an incident through when one of its `allow` rules matches (none given: always) and
   none of its `ignore` rules does. A destination is reached when one of its routes lets it through.
2. A rule looks at every value of its field: all affected monitors by name and id, their services
   and tables, all labels by name.
3. A regular expression is searched for, not anchored, and evaluated by whoever calls: Python's own
   engine has no bound on its time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Literal

from msgspec import Meta, Struct

from ingester.delivery.incident import Firing, Incident

__all__ = [
    "Facts",
    "MatchKind",
    "RouteField",
    "RouteRule",
    "RouteRules",
    "firing_facts",
    "incident_facts",
    "lets_through",
]

RouteField = Literal["service", "monitor", "table", "label"]
MatchKind = Literal["exact", "prefix", "suffix", "regex"]
Facts = Mapping[RouteField, frozenset[str]]
# Whether a regular expression is found in a text.
RegexSearch = Callable[[str, str], bool]


class RouteRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one field must look like. Case counts."""

    field: RouteField
    match: MatchKind = "exact"
    value: Annotated[str, Meta(min_length=1, max_length=1024)]


class RouteRules(Struct, frozen=True, kw_only=True):
    """The two lists of a route."""

    allow: Sequence[RouteRule] = ()
    ignore: Sequence[RouteRule] = ()


def incident_facts(incident: Incident) -> Facts:
    affected = incident.affected_monitors
    return {
        "service": _texts(service for one in affected for service in one.services),
        "monitor": _texts(text for one in affected for text in (one.name, one.monitor_id)),
        "table": _texts(one.table for one in affected),
        "label": _texts(label.name for label in incident.labels),
    }


def firing_facts(firing: Firing) -> Facts:
    return {
        "service": _texts(firing.services),
        "monitor": _texts((firing.name, firing.monitor_id)),
        "table": _texts((firing.table,)),
        "label": _texts(label.name for label in firing.labels),
    }


def lets_through(rules: RouteRules, facts: Facts, search: RegexSearch) -> bool:
    if any(_matches(rule, facts, search) for rule in rules.ignore):
        return False
    return not rules.allow or any(_matches(rule, facts, search) for rule in rules.allow)


def _matches(rule: RouteRule, facts: Facts, search: RegexSearch) -> bool:
    return any(_matches_text(rule, text, search) for text in facts[rule.field])


def _matches_text(rule: RouteRule, text: str, search: RegexSearch) -> bool:
    match rule.match:
        case "exact":
            return text == rule.value
        case "prefix":
            return text.startswith(rule.value)
        case "suffix":
            return text.endswith(rule.value)
        case "regex":
            return search(rule.value, text)


def _texts(values: Iterable[str | None]) -> frozenset[str]:
    return frozenset(value for value in values if value)
