"""Widgets of dashboards: what each shows and out of what; the dashboards that are built in.

A widget says what is asked for and how it is shown; the page asks the public routes. Widgets lie
one behind the other in rows of `COLUMNS` columns, as wide as they say.

1. Text of queries is kept as it was written. LQL and fields are parsed before they are kept; SQL is
   looked at when it is run, in its process.
2. `metrics` stands for every metric that there is: a new one appears by itself.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from ingester.errors import InvalidField, QueryError, RequestError
from ingester.lql import EVENTS, LOGS, Schema
from ingester.management.requests import Name, Text
from ingester.search.asked import field_named, joined
from ingester.search.subjects import METRIC_ROWS

__all__ = [
    "BUILT_IN",
    "COLUMNS",
    "BuiltIn",
    "DashboardSettings",
    "EventSource",
    "EveryMetric",
    "LogSource",
    "MetricSource",
    "SqlSource",
    "Widget",
    "named_widgets",
]

COLUMNS = 12
WIDGETS_MAX = 60

Lql = Annotated[str, Meta(max_length=4_096)]
Sql = Annotated[str, Meta(min_length=1, max_length=64 * 1024)]
FieldName = Annotated[str, Meta(max_length=400)]
Description = Annotated[str, Meta(max_length=2_000)]
TimeText = Annotated[str, Meta(min_length=1, max_length=100)]
Period = Literal["auto", "hour", "day", "week", "month"]
MetricValue = Literal["count", "sum", "min", "max", "avg", "last", "p50", "p90", "p95", "p99"]


class _Source(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="from"):
    pass


class MetricSource(_Source, frozen=True, kw_only=True, tag="metric", forbid_unknown_fields=True):
    """Points of one metric, of every project that has it unless one is named."""

    metric_id: Name
    project: Text = ""
    value: MetricValue = "avg"
    group_by: FieldName = ""
    filter: Lql = ""
    interval: Period = "auto"


class EventSource(_Source, frozen=True, kw_only=True, tag="events", forbid_unknown_fields=True):
    """Events that a query finds. Distinct users, accounts and sessions cannot be added up over
    periods: as a number they are those of the newest one.
    """

    q: Lql = ""
    value: Literal["events", "users", "accounts", "sessions"] = "events"
    group_by: FieldName = ""
    interval: Period = "auto"


class LogSource(_Source, frozen=True, kw_only=True, tag="logs", forbid_unknown_fields=True):
    """Logs that a query finds; counted by level unless a field is named."""

    q: Lql = ""
    group_by: FieldName = ""


class SqlSource(_Source, frozen=True, kw_only=True, tag="sql", forbid_unknown_fields=True):
    """Rows of a SELECT; `$since` and `$until` in it stand for the dashboard's span."""

    sql: Sql


class EveryMetric(_Source, frozen=True, kw_only=True, tag="metrics", forbid_unknown_fields=True):
    """Every metric there is, or those of a project."""

    project: Text = ""
    value: MetricValue = "avg"


Source = MetricSource | EventSource | LogSource | SqlSource | EveryMetric


class Widget(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of them. `width` of `COLUMNS` columns, `height` in rows of the page. `id`, unique in its
    dashboard, is made when it is left out.
    """

    id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{0,32}\Z")] = ""
    title: Text = ""
    kind: Literal["number", "series", "bar", "table", "logs"] = "series"
    source: Source
    style: Literal["line", "area", "bars", "stacked"] = "line"
    unit: Annotated[str, Meta(max_length=32)] = ""
    width: Annotated[int, Meta(ge=2, le=COLUMNS)] = 6
    height: Annotated[int, Meta(ge=1, le=12)] = 3


Widgets = Annotated[tuple[Widget, ...], Meta(max_length=WIDGETS_MAX)]
RefreshSeconds = Annotated[int, Meta(ge=0, le=86_400, description="0: not by itself")]


class DashboardSettings(Struct, frozen=True, kw_only=True):
    """What is kept beside the name."""

    description: Description = ""
    since: TimeText = "now-24h"
    until: TimeText = "now"
    refresh_seconds: RefreshSeconds = 0
    widgets: Widgets = ()


def named_widgets(widgets: tuple[Widget, ...]) -> tuple[Widget, ...]:
    """Each with an id. Raises InvalidField, for what could not be shown too."""
    taken = [widget.id for widget in widgets if widget.id]
    found = []
    number = 0
    for at, widget in enumerate(widgets):
        _check(f"widgets[{at}]", widget)
        if widget.id and taken.count(widget.id) > 1:
            raise InvalidField(f"widgets[{at}].id", f"two widgets have the id {widget.id!r}")
        new = widget.id
        while not new or (not widget.id and new in taken):
            number += 1
            new = f"w{number}"
        found.append(msgspec.structs.replace(widget, id=new))
    return tuple(found)


def _check(place: str, widget: Widget) -> None:
    source = widget.source
    is_list = widget.kind == "logs"
    if is_list and not isinstance(source, LogSource | EventSource):
        raise InvalidField(f"{place}.kind", f"{place}: a list shows logs or events")
    if isinstance(source, EveryMetric) and widget.kind != "series":
        raise InvalidField(f"{place}.kind", f"{place}: every metric is shown as a series")
    match source:
        case MetricSource():
            _check_lql(f"{place}.source.filter", source.filter, METRIC_ROWS.schema)
            _check_field(place, source.group_by, METRIC_ROWS.schema)
        case EventSource():
            _check_lql(f"{place}.source.q", source.q, EVENTS)
            _check_field(place, source.group_by, EVENTS)
        case LogSource():
            _check_lql(f"{place}.source.q", source.q, LOGS)
            _check_field(place, source.group_by, LOGS)
        case _:
            pass


def _check_lql(field: str, text: str, schema: Schema) -> None:
    try:
        joined(schema, text)
    except QueryError as error:
        raise InvalidField(field, f"{field}: {error}") from None
    except RequestError:
        raise InvalidField(
            field, f"{field}: a widget says itself what it shows: leave out c: and s:"
        ) from None


def _check_field(place: str, name: str, schema: Schema) -> None:
    if name:
        try:
            field_named("group_by", name, schema)
        except InvalidField as error:
            raise InvalidField(f"{place}.source.group_by", f"{place}: {error}") from None


class BuiltIn(Struct, frozen=True, kw_only=True):
    """A dashboard that comes with the console. It cannot be changed, but copied."""

    id: str
    name: str
    settings: DashboardSettings


def _number(title: str, value: str, interval: str, q: str = "") -> Widget:
    source = msgspec.convert(
        {"from": "events", "q": q, "value": value, "interval": interval}, EventSource
    )
    return Widget(title=title, kind="number", source=source, width=3, height=1)


_FEATURES = (
    'SELECT feature, module, sum(total) AS uses, sum(users)::BIGINT AS "users × days"\n'
    "FROM features_daily WHERE bucket >= date_trunc('day', $since) AND bucket < $until\n"
    "GROUP BY ALL ORDER BY uses DESC LIMIT 50"
)
_MODULES = (
    "SELECT module, sum(visits)::BIGINT AS visits, sum(time_spent) AS time_spent\n"
    "FROM modules_daily WHERE bucket >= date_trunc('day', $since) AND bucket < $until\n"
    "GROUP BY ALL ORDER BY visits DESC LIMIT 50"
)

BUILT_IN: tuple[BuiltIn, ...] = (
    BuiltIn(
        id="custom-metrics",
        name="Custom metrics",
        settings=DashboardSettings(
            description="Every metric that arrives; a new one appears by itself.",
            since="now-24h",
            widgets=named_widgets((Widget(kind="series", source=EveryMetric(), width=12),)),
        ),
    ),
    BuiltIn(
        id="product-usage",
        name="Product usage",
        settings=DashboardSettings(
            description="Who uses the product, how much, and what of it.",
            since="now-30d",
            widgets=named_widgets((
                _number("Active users, day", "users", "day"),
                _number("Active users, week", "users", "week"),
                _number("Active users, month", "users", "month"),
                _number("Active accounts, month", "accounts", "month"),
                Widget(
                    title="Events by action",
                    source=EventSource(group_by="action"),
                    style="stacked",
                    width=8,
                ),
                Widget(
                    title="Top accounts",
                    kind="bar",
                    source=EventSource(group_by="account_id"),
                    width=4,
                ),
                Widget(
                    title="Active users by day",
                    source=EventSource(value="users", interval="day"),
                    style="area",
                    width=6,
                ),
                Widget(
                    title="Sessions by day",
                    source=EventSource(value="sessions", interval="day"),
                    style="bars",
                    width=6,
                ),
                Widget(
                    title="Features",
                    kind="table",
                    source=SqlSource(sql=_FEATURES),
                    width=6,
                    height=4,
                ),
                Widget(
                    title="Modules",
                    kind="table",
                    source=SqlSource(sql=_MODULES),
                    width=6,
                    height=4,
                ),
            )),
        ),
    ),
)
