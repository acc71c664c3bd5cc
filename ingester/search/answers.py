"""What the routes answer, as types: these are encoded, and described in `openapi.json`."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

__all__ = [
    "Account",
    "AccountPage",
    "Chart",
    "Context",
    "Cost",
    "EventContext",
    "EventPage",
    "EventPoint",
    "EventRow",
    "EventSeries",
    "Field",
    "Fields",
    "Histogram",
    "HistogramBucket",
    "LogContext",
    "LogPage",
    "LogRow",
    "MetricPage",
    "MetricPoint",
    "MetricRow",
    "MetricSeries",
    "MetricSummary",
    "Page",
    "Suggestions",
    "TopValue",
    "User",
    "UserPage",
]


class LogRow(Struct, frozen=True, kw_only=True):
    """A log. `cut`: a text too long for a list was left out; ask for the row by its id."""

    id: str
    time: str
    received_at: str
    service: str | None
    environment: str | None
    level: str
    message: str | None
    attributes: Any
    batch_id: int
    cut: bool | UnsetType = UNSET


class EventRow(Struct, frozen=True, kw_only=True):
    """An event; `body` as it was sent."""

    id: str
    received_at: str
    source: str
    account_id: str
    user_id: str
    created_at: str
    action: str
    session_id: str
    body: Any
    batch_id: int
    cut: bool | UnsetType = UNSET


class MetricRow(Struct, frozen=True, kw_only=True):
    """A point of a metric."""

    id: str
    time: str
    received_at: str
    project_id: str
    metric_id: str
    metric_name: str
    value: float
    unit: str | None
    metadata: Any
    batch_id: int
    cut: bool | UnsetType = UNSET


class Cost(Struct, frozen=True, kw_only=True):
    """What a search took: rows in the span that was looked at, parts and files read, time."""

    rows_scanned: int
    files: int
    ms: float


class Chart(Struct, frozen=True, kw_only=True):
    """The `c:` clauses, or the `s:` clauses, as a table. `truncated`: there is more."""

    names: list[str]
    rows: list[list[Any]]
    truncated: bool = False


class Page(Struct, frozen=True, kw_only=True):
    """Newest first. `cursor` asks for the next page; null: there is none. A query with `s:`
    clauses answers `select`, one with `c:` clauses `chart`, in the place of the rows. `position`,
    of a first page: the `last_event_id` of a live tail that goes on behind it; a row that was
    committed while the page was read may be in both.
    """

    rows: list[dict[str, Any]]
    cursor: str | None
    position: str | UnsetType = UNSET
    since: str | None
    until: str | None
    cost: Cost
    select: Chart | UnsetType = UNSET
    chart: Chart | UnsetType = UNSET


class Context(Struct, frozen=True, kw_only=True):
    """A row and its neighbours in time, oldest first in both lists."""

    row: dict[str, Any]
    before: list[dict[str, Any]]
    after: list[dict[str, Any]]


class LogPage(Page, frozen=True, kw_only=True):
    """A page of logs."""

    rows: list[LogRow]  # type: ignore[assignment]


class EventPage(Page, frozen=True, kw_only=True):
    """A page of events."""

    rows: list[EventRow]  # type: ignore[assignment]


class MetricSummary(Struct, frozen=True, kw_only=True):
    """A metric of a project, as its points of the range tell; name, unit and value are the last."""

    project_id: str
    metric_id: str
    metric_name: str
    unit: str | None
    count: int
    first_time: str
    last_time: str
    last: float
    warning: str | UnsetType = UNSET


class MetricPage(Page, frozen=True, kw_only=True):
    """Points, newest first; of a first page also which `metrics` there are in the range."""

    rows: list[MetricRow]  # type: ignore[assignment]
    metrics: list[MetricSummary] | UnsetType = UNSET
    metrics_truncated: bool | UnsetType = UNSET


class LogContext(Context, frozen=True, kw_only=True):
    """A log and those around it."""

    row: LogRow  # type: ignore[assignment]
    before: list[LogRow]  # type: ignore[assignment]
    after: list[LogRow]  # type: ignore[assignment]


class EventContext(Context, frozen=True, kw_only=True):
    """An event and those around it."""

    row: EventRow  # type: ignore[assignment]
    before: list[EventRow]  # type: ignore[assignment]
    after: list[EventRow]  # type: ignore[assignment]


class HistogramBucket(Struct, frozen=True, kw_only=True):
    time: str
    count: int
    groups: dict[str, int]


class Histogram(Struct, frozen=True, kw_only=True):
    """Counts by period. Periods without rows are left out; `(other)` gathers rare groups."""

    bucket_seconds: int
    group: str
    since: str | None
    until: str | None
    buckets: list[HistogramBucket]
    count: int
    answered_from: Literal["rollups", "rows"]
    cost: Cost


class TopValue(Struct, frozen=True, kw_only=True):
    value: Any
    count: int


class Field(Struct, frozen=True, kw_only=True):
    """`name` as a query writes it; `share` of the sampled rows that have it."""

    name: str
    types: list[str]
    share: float
    values: list[TopValue]


class Fields(Struct, frozen=True, kw_only=True):
    """From the newest `sampled` rows that the query finds; at most `sample_max` are looked at."""

    sampled: int
    sample_max: int
    fields: list[Field]


class Suggestion(Struct, frozen=True, kw_only=True):
    """Put `text` in the place of the characters from `start` to `end`."""

    text: str
    kind: str
    start: int
    end: int


class Suggestions(Struct, frozen=True, kw_only=True):
    suggestions: list[Suggestion]


class EventPoint(Struct, frozen=True, kw_only=True):
    """Events of a period, and how many different users, accounts and sessions they are of."""

    bucket: str
    group: str | UnsetType | None = UNSET
    events: int
    users: int
    accounts: int
    sessions: int


class MetricPoint(Struct, frozen=True, kw_only=True):
    """A metric in a period. null: too large for a number. `percentiles`, where asked for, are told
    of rows; null: not all rows of the period are there any more.
    """

    bucket: str
    group: str | UnsetType | None = UNSET
    count: int
    sum: float | None
    min: float
    max: float
    avg: float | None
    last: float
    percentiles: dict[str, float] | UnsetType | None = UNSET


class _Series(Struct, frozen=True, kw_only=True):
    """One point a period, and group, oldest first; periods without rows are left out. `group` null
    has no such field; `(other)` gathers rare groups. `truncated`: older points are left out.
    All that was stored by `complete_up_to` is counted, later rows perhaps not yet.
    """

    interval: str
    group_by: str | None
    since: str | None
    until: str | None
    truncated: bool
    answered_from: Literal["rollups", "rows"]
    complete_up_to: str
    cost: Cost


class EventSeries(_Series, frozen=True, kw_only=True):
    """Events by period."""

    points: list[EventPoint]


class MetricSeries(_Series, frozen=True, kw_only=True):
    """A metric by period; its name and unit as sent last."""

    metric_id: str
    metric_name: str | None
    unit: str | None
    points: list[MetricPoint]


class Account(Struct, frozen=True, kw_only=True):
    """An account of a source. `details`: what `identifyAccount` said last of each key."""

    source: str
    account_id: str
    first_seen: str
    last_seen: str
    details: Any


class User(Struct, frozen=True, kw_only=True):
    """A user of an account. `details`: what `identifyUser` said last of each key."""

    source: str
    account_id: str
    user_id: str
    first_seen: str
    last_seen: str
    details: Any


class AccountPage(Struct, frozen=True, kw_only=True):
    """By source and id. `cursor` asks for the next page; null: there is none."""

    accounts: list[Account]
    cursor: str | None
    complete_up_to: str
    cost: Cost


class UserPage(Struct, frozen=True, kw_only=True):
    """By source, account and id. `cursor` asks for the next page; null: there is none."""

    users: list[User]
    cursor: str | None
    complete_up_to: str
    cost: Cost
