"""Routes: allow and ignore, four kinds of match on four fields."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ingester.delivery.incident import Label
from ingester.delivery.routing import (
    RouteRule,
    RouteRules,
    firing_facts,
    incident_facts,
    lets_through,
)
from tests.delivery.incidents import affected, firing, incident

FACTS = incident_facts(
    incident(
        labels=(Label(id="1", name="sev1"),),
        affected_monitors=(
            affected(name="Orders", monitor_id="mon_1", services=("web", "api"), table=None),
            affected(name="Rows", monitor_id="mon_2", table="shop.orders_raw"),
        ),
    )
)


def rule(field: Any, match: Any, value: str) -> RouteRule:
    return RouteRule(field=field, match=match, value=value)


def passes(allow: tuple[RouteRule, ...] = (), ignore: tuple[RouteRule, ...] = ()) -> bool:
    def search(pattern: str, text: str) -> bool:
        return re.search(pattern, text) is not None

    return lets_through(RouteRules(allow=allow, ignore=ignore), FACTS, search)


@pytest.mark.parametrize(
    ("field", "match", "value", "is_matched"),
    [
        ("service", "exact", "api", True),
        ("service", "exact", "ap", False),
        ("service", "exact", "API", False),
        ("service", "prefix", "we", True),
        ("monitor", "exact", "mon_2", True),
        ("monitor", "suffix", "ders", True),
        ("table", "suffix", "_raw", True),
        ("table", "prefix", "orders", False),
        ("label", "regex", "^sev[12]$", True),
        ("label", "regex", "^sev[34]$", False),
        ("table", "regex", "orders", True),
    ],
)
def test_a_rule_looks_at_every_value_of_its_field(
    field: str, match: str, value: str, is_matched: bool
) -> None:
    one = rule(field, match, value)
    assert passes(allow=(one,)) is is_matched
    assert passes(ignore=(one,)) is not is_matched


def test_one_allow_rule_suffices_and_one_ignore_rule_too() -> None:
    web, db = rule("service", "exact", "web"), rule("service", "exact", "db")
    sev1 = rule("label", "exact", "sev1")
    assert passes()
    assert passes(allow=(db, web))
    assert not passes(allow=(db,))
    assert not passes(allow=(web,), ignore=(db, sev1))


def test_facts_of_a_firing_are_those_of_what_fired() -> None:
    assert firing_facts(firing()) == {
        "service": {"web"},
        "monitor": {"Too slow", "alr_1"},
        "table": {"logs"},
        "label": {"urgent"},
    }
