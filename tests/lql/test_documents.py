"""Which paths of a payload a query reads."""

from __future__ import annotations

import pytest

from ingester.lql import EVENTS, LOGS, Schema, parse, paths_of
from ingester.lql.ast import Column, Path


@pytest.mark.parametrize(
    ("schema", "query", "paths"),
    [
        (LOGS, "", set()),
        (LOGS, 'timeout "of a" level:error f:web t:today s:m.x', set()),
        (LOGS, "m.a:1 -(b.c:2 OR m.`d.e`:NULL) ~x", {("a",), ("b", "c"), ("d.e",)}),
        (LOGS, "m.a:1 c:avg(m.b) c:group_by(t::day, m.c, service)", {("a",), ("b",), ("c",)}),
        (LOGS, "c:count(*)", set()),
        # The payload's own level gives way to the stored one.
        (LOGS, "m.a:1 m.level:error", None),
        (LOGS, "c:countd(m.level)", None),
        (EVENTS, "action:x body.level:error", {("level",)}),
        # Bare words search the payload.
        (EVENTS, "m.a:1 word", None),
        (EVENTS, "m.a:1 -(m.b:1 OR ~x)", None),
        (EVENTS, "c:countd(event_message)", None),
    ],
)
def test_paths_are_told_unless_the_payload_is_needed(
    schema: Schema, query: str, paths: set[tuple[str, ...]] | None
) -> None:
    assert paths_of(parse(query, schema=schema), schema) == paths


def test_other_fields_are_read_too() -> None:
    query = parse("m.a:1")
    assert paths_of(query, LOGS, [Path(("b",)), Column("service")]) == {("a",), ("b",)}
    assert paths_of(query, LOGS, [Path(("level",))]) is None
