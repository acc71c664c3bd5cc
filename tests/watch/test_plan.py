"""The plan of many rules finds what the compiled SQL of each of them finds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingester.lql import EVENTS, LOGS, Query, Schema, matches, parse, to_text
from ingester.lql.ast import Node
from ingester.lql.compiler import condition_of
from ingester.store.rule_rows import RuleRows
from ingester.watch.plan import Plan
from tests.lql import strategies

Row = dict[str, Any]


@pytest.fixture(scope="module")
def log_sql() -> Iterator[RuleRows]:
    with RuleRows("logs", "attributes") as rule_rows:
        yield rule_rows


def table(logs: Sequence[Row]) -> pa.Table:
    columns = {
        name: pa.array([log.get(name) for log in logs], pa.string())
        for name in ("service", "environment", "level", "message")
    }
    texts = [json.dumps(log.get("attributes")) for log in logs]
    return pa.table({**columns, "attributes": pa.array(texts, pa.string())})


def found(plan: Plan, rows: pa.Table, rows_max: int = 1000) -> dict[int, list[int]]:
    matched = plan.matches(rows, rows_max=rows_max)
    assert all(match.count >= len(match.rows) for match in matched)
    return {match.rule: match.rows.tolist() for match in matched}


def rules_of(*texts: str, schema: Schema = LOGS) -> list[Query]:
    return [parse(text, context="rule", schema=schema) for text in texts]


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(strategies.logs, min_size=1, max_size=8),
    st.lists(strategies.nodes, min_size=1, max_size=6),
)
def test_a_plan_finds_what_the_sql_of_each_rule_finds(
    log_sql: RuleRows, logs: list[Row], nodes: list[Node]
) -> None:
    rows = table(logs)
    plan = Plan([Query(where=node) for node in nodes], LOGS, log_sql)
    which = log_sql.which(rows, [condition_of(node, LOGS) for node in nodes])
    assert found(plan, rows) == {n: one.tolist() for n, one in enumerate(which) if len(one)}


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(strategies.logs, min_size=1, max_size=3),
    st.lists(strategies.nodes, min_size=1, max_size=3),
)
def test_a_plan_agrees_with_matches(log_sql: RuleRows, logs: list[Row], nodes: list[Node]) -> None:
    queries = [Query(where=node) for node in nodes]
    plan = Plan(queries, LOGS, log_sql)
    one_by_one = {
        (n, row)
        for n, query in enumerate(queries)
        for row, log in enumerate(logs)
        if matches(to_text(query), log)
    }
    at_once = {(rule, row) for rule, rows in found(plan, table(logs)).items() for row in rows}
    assert at_once == one_by_one


LOG = {"service": "web", "environment": "prod", "level": "error", "message": "disk is full"}


@pytest.mark.parametrize(
    ("rule", "log", "is_match"),
    [
        ("service:web", LOG, True),
        ("service:api", LOG, False),
        ("level:>=error -environment:dev", LOG, True),
        ("service:web full", LOG, True),
        ("service:api full", LOG, False),
        ("disk full", LOG, True),
        ("disk empty", LOG, False),
        ('"isk is ful"', LOG, True),
        ("full OR service:x", LOG, True),
        ("~fu[l]+", LOG, True),
        ("m.code:500", {**LOG, "attributes": {"code": 500.0}}, True),
        ("m.code:500", {**LOG, "attributes": {"code": "500"}}, True),
        ("m.code:500", {**LOG, "attributes": {"code": [1, 500]}}, True),
        ("m.a.b:x", {**LOG, "attributes": {"a.b": "x"}}, True),
        ("m.a.b:x", {**LOG, "attributes": {"a": [{"b": "y"}, {"b": "x"}]}}, True),
        ("m.a.b:x", {**LOG, "attributes": {"a": {"b": "y"}, "a.b": "x"}}, False),
        ("m.a:x m.b:y full", {**LOG, "attributes": {"a": "x", "b": ["y"]}}, True),
        ("m.a:x m.b:y full", {**LOG, "attributes": {"a": ["x"], "b": "z"}}, False),
        ("m.code:>499 service:web", {**LOG, "attributes": {"code": 500}}, True),
        ("é€😀x", {**LOG, "message": "ab é€😀x"}, True),
    ],
)
def test_a_rule_alone(log_sql: RuleRows, rule: str, log: Row, is_match: bool) -> None:
    plan = Plan(rules_of(rule), LOGS, log_sql)
    assert bool(found(plan, table([log]))) is is_match
    assert matches(rule, log) is is_match


def test_events_are_searched_by_payload_and_columns() -> None:
    body = json.dumps({"action": "signup", "plan": {"name": "pro"}})
    rows = pa.table({
        "source": pa.array(["shop", "shop"]),
        "action": pa.array(["signup", "login"]),
        "account_id": pa.array(["acme", "acme"]),
        "user_id": pa.array(["ada", "bob"]),
        "session_id": pa.array(["s", "s"]),
        "body": pa.array([body, "{}"]),
    })
    rules = rules_of(
        *("action:signup", "account_id:acme", "user_id:bob", "m.plan.name:pro", "signup"),
        *("user_id:bob action:signup", "source:shop user_id:~^a"),
        schema=EVENTS,
    )
    with RuleRows("events", "body") as rule_rows:
        plan = Plan(rules, EVENTS, rule_rows)
        assert set(plan.columns) <= set(rows.column_names)
        assert found(plan, rows) == {0: [0], 1: [0, 1], 2: [1], 3: [0], 4: [0], 6: [0]}


def test_counts_are_exact_when_rows_are_capped(log_sql: RuleRows) -> None:
    rows = table([{**LOG, "service": "ab"[n % 2]} for n in range(100)])
    plan = Plan(rules_of("level:error", "full", "service:b", "~full"), LOGS, log_sql)
    matched = plan.matches(rows, rows_max=7)
    assert [(match.count, len(match.rows)) for match in matched] == [
        *((100, 7), (100, 7), (50, 7), (100, 7))
    ]
    assert matched[2].rows.tolist() == [1, 3, 5, 7, 9, 11, 13]


def test_no_rule_and_no_row_find_nothing(log_sql: RuleRows) -> None:
    assert Plan([], LOGS, log_sql).matches(table([LOG]), rows_max=1) == []
    assert Plan(rules_of("full"), LOGS, log_sql).matches(table([]), rows_max=1) == []
