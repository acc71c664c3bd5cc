"""What rules, alerts and monitors are told to do, and what is refused before it is kept.

Each is one struct: the body of the API, the table of a file, the JSON of the control store.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from ..errors import InvalidField, QueryError, RequestError
from ..lql import EVENTS, LOGS, Schema, parse
from ..search.asked import field_named
from ..search.subjects import METRICS, SUBJECTS
from .cron import Cron

__all__ = [
    "Alert",
    "EventTarget",
    "FreshnessTarget",
    "LogTarget",
    "MetricTarget",
    "Monitor",
    "RowTarget",
    "Rule",
    "SqlTarget",
    "Target",
    "check_settings",
    "schema_of",
]

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Query = Annotated[str, Meta(max_length=64 * 1024)]
Description = Annotated[str, Meta(max_length=10_000)]
Labels = Annotated[tuple[Name, ...], Meta(max_length=50)]
Seconds = Annotated[int, Meta(ge=1, le=31 * 86_400)]
WindowSeconds = Annotated[int, Meta(ge=10, le=31 * 86_400)]
Count = Annotated[int, Meta(ge=1, le=1440)]
Operator = Literal[">", ">=", "<", "<=", "==", "!="]
RowTable = Literal["logs", "events", "metrics"]
Aggregate = Literal[
    "count", "countd", "avg", "sum", "min", "max", "last", "p50", "p90", "p95", "p99"
]


class _Watch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all three have. Those with the same `incident_group` share an open incident."""

    name: Name
    description: Description = ""
    destinations: Labels = ()
    labels: Labels = ()
    incident_group: Annotated[str, Meta(max_length=256)] = ""
    enabled: bool = True


class Rule(_Watch, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A filter on what arrives. `resolve_after_s` without a match end its incident."""

    lql: Query
    on: Literal["logs", "events"] = "logs"
    resolve_after_s: Seconds = 900


class Alert(_Watch, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A query by the clock; any row fires. `on` is what an LQL query looks at."""

    query: Query
    cron: Annotated[str, Meta(max_length=256)]
    language: Literal["sql", "lql"] = "sql"
    on: Literal["logs", "events"] = "logs"


class MetricTarget(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="metric"
):
    """An aggregate of a metric's points, by their time."""

    metric_id: Name
    project_id: Name = "default"
    aggregate: Aggregate = "avg"
    filter: Query = ""


class LogTarget(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="logs"
):
    """How many logs match, by their time."""

    lql: Query = ""


class EventTarget(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="events"
):
    """How many events match, by `created_at`."""

    lql: Query = ""


class RowTarget(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="rows"
):
    """How many rows of a table arrived."""

    table: RowTable


class FreshnessTarget(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="freshness"
):
    """Seconds from the newest row's arrival to the end of the window."""

    table: RowTable
    lql: Query = ""


class SqlTarget(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="sql"
):
    """A SELECT over `$window_start` and `$window_end`: its column `value`, else its rows."""

    query: Query


Target = MetricTarget | LogTarget | EventTarget | RowTarget | FreshnessTarget | SqlTarget


class Monitor(_Watch, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A value in each window of `window_s`, judged when the window is over and `delay_s` more.

    It fires when m of the last n windows breach (`datapoints`), and recovers when fewer do and,
    with `recovery`, the value is also beyond that. `no_data`: a window without a value counts as
    `ok`, as a breach (`alert`), or is left out (`keep`).
    """

    target: Target
    operator: Operator | None = None
    threshold: float | None = None
    window_s: WindowSeconds = 300
    group_by: Annotated[tuple[Name, ...], Meta(max_length=4)] = ()
    datapoints: tuple[Count, Count] = (1, 1)
    no_data: Literal["ok", "alert", "keep"] = "ok"
    recovery: float | None = None
    delay_s: Annotated[int, Meta(ge=0, le=86_400)] | None = None


WatchT = TypeVar("WatchT", Rule, Alert, Monitor)


def schema_of(on: str) -> Schema:
    return SUBJECTS[on].schema


def check_settings(watch: Rule | Alert | Monitor) -> None:
    """Refuse what could not be evaluated. SQL is looked at by whoever can run it. Raises
    InvalidField, QueryError.
    """
    match watch:
        case Rule():
            _check_lql("lql", watch.lql, LOGS if watch.on == "logs" else EVENTS, "rule")
        case Alert():
            Cron.parse(watch.cron)
            if not watch.query.strip():
                raise InvalidField("query", "query: an alert needs a query")
            if watch.language == "lql":
                _check_filter("query", watch.query, schema_of(watch.on))
        case Monitor():
            _check_monitor(watch)


def _check_monitor(monitor: Monitor) -> None:
    m, n = monitor.datapoints
    if m > n:
        raise InvalidField("datapoints", f"datapoints: {m} of {n} windows can never breach")
    if (monitor.operator is None) != (monitor.threshold is None):
        field = "operator" if monitor.operator is None else "threshold"
        raise InvalidField(field, f"{field}: operator and threshold belong together; name both")
    if monitor.operator is None and monitor.no_data != "alert":
        raise InvalidField(
            "operator", "operator: name one with a threshold, or set no_data to alert"
        )
    for field, number in (("threshold", monitor.threshold), ("recovery", monitor.recovery)):
        if number is not None and number - number != 0:
            raise InvalidField(field, f"{field} must be a finite number")
    _check_recovery(monitor)
    target = monitor.target
    match target:
        case MetricTarget():
            _check_filter("target.filter", target.filter, METRICS)
            _check_groups(monitor, METRICS)
        case LogTarget():
            _check_filter("target.lql", target.lql, LOGS)
            _check_groups(monitor, LOGS)
        case EventTarget():
            _check_filter("target.lql", target.lql, EVENTS)
            _check_groups(monitor, EVENTS)
        case RowTarget():
            _check_groups(monitor, schema_of(target.table))
        case FreshnessTarget():
            _check_filter("target.lql", target.lql, schema_of(target.table))
            _check_groups(monitor, schema_of(target.table))
        case SqlTarget():
            if not target.query.strip():
                raise InvalidField("target.query", "target.query: a SELECT is needed")


def _check_recovery(monitor: Monitor) -> None:
    if monitor.recovery is None:
        return
    if monitor.operator is None or monitor.threshold is None or monitor.operator in {"==", "!="}:
        raise InvalidField("recovery", "recovery goes with >, >=, < or <=")
    is_above = monitor.operator.startswith(">")
    if (is_above and monitor.recovery > monitor.threshold) or (
        not is_above and monitor.recovery < monitor.threshold
    ):
        raise InvalidField(
            "recovery", f"recovery must not be {'above' if is_above else 'below'} the threshold"
        )


def _check_groups(monitor: Monitor, schema: Schema) -> None:
    for name in monitor.group_by:
        field_named("group_by", name, schema)


def _check_filter(field: str, text: str, schema: Schema) -> None:
    """A filter, empty or without time, chart and selection."""
    if text.strip():
        _check_lql(field, text, schema, "rule")


def _check_lql(field: str, text: str, schema: Schema, context: Literal["search", "rule"]) -> None:
    try:
        parse(text, context=context, schema=schema)
    except QueryError as error:
        raise FieldQueryError(field, error.detail, error.column) from None


class FieldQueryError(RequestError):
    """A query in a field that is refused, with its place."""

    status_hint = 422

    def __init__(self, field: str, detail: str, column: int) -> None:
        super().__init__(f"{field}: column {column}: {detail}")
        self.field = field
        self.column = column


def decode_settings(text: str | bytes, kind: type[WatchT]) -> WatchT:
    """What was kept."""
    return msgspec.json.decode(text, type=kind)
