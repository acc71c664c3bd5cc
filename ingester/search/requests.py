"""What the routes take in their query strings. An unknown parameter is an error that names it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

__all__ = [
    "AccountsQuery",
    "CompleteQuery",
    "ContextQuery",
    "ExportQuery",
    "Interval",
    "MetricSeriesQuery",
    "MetricsQuery",
    "PeopleQuery",
    "RangeQuery",
    "RowsQuery",
    "SeriesQuery",
    "TailQuery",
    "UsersQuery",
]

Interval = Literal["hour", "day", "week", "month"]

_Text = Annotated[str, Meta(max_length=4_096)]
_Time = Annotated[
    str,
    Meta(
        max_length=100,
        description="RFC 3339, a Unix time, now, now-1h, today, yesterday, this@day, last@5m",
    ),
]
_Lql = Annotated[str, Meta(max_length=4_096, description="a query in LQL")]

_Id = Annotated[str, Meta(max_length=256)]
_PersonId = Annotated[str, Meta(max_length=1_024)]


class RangeQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question about a span of time; by default the last two days, unless `q` has a `t:`."""

    q: _Lql = ""
    since: _Time | None = None
    until: _Time | None = None


class RowsQuery(RangeQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The newest rows; `cursor` is what the page before has given."""

    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100
    cursor: Annotated[str, Meta(max_length=400)] | None = None


class ExportQuery(RangeQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All rows of a search as a file. In CSV a text that a spreadsheet would take for a formula
    has an apostrophe in front.
    """

    format: Literal["ndjson", "csv"] = "ndjson"


class ContextQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many lines around a row."""

    before: Annotated[int, Meta(ge=0, le=500)] = 10
    after: Annotated[int, Meta(ge=0, le=500)] = 10


class CompleteQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A query as far as it is typed; `cursor` counts characters and is at its end by default."""

    q: _Text = ""
    cursor: Annotated[int, Meta(ge=0)] | None = None


class TailQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to follow. `last_event_id` stands for the header where a client cannot set one."""

    q: _Lql = ""
    last_event_id: Annotated[str, Meta(max_length=100)] | None = None


class SeriesQuery(RangeQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """By period, and by a field such as `action` or `metadata.plan`. `filter` is LQL as `q` is:
    what both find. By default the last 2 days by hour, 30 days by day, 26 weeks, 12 months.
    """

    interval: Interval = "day"
    group_by: Annotated[str, Meta(max_length=400)] | None = None
    filter: _Lql = ""


class MetricSeriesQuery(SeriesQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Points of one metric, of every project that has it unless one is named."""

    project: _Id | None = None
    percentiles: Annotated[
        str, Meta(max_length=100, description="such as 50,95,99.9; from rows, while they are kept")
    ] = ""


class PeopleQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who was seen last within a span, in the order of source and ids; `search` is a part of an id
    or of what is known, in any case; `cursor` is what the page before has given.
    """

    source: _Id | None = None
    search: Annotated[str, Meta(max_length=256)] = ""
    seen_since: _Time | None = None
    seen_until: _Time | None = None
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100
    cursor: Annotated[str, Meta(max_length=6_000)] | None = None


class AccountsQuery(PeopleQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Accounts, or one of them."""

    account_id: _PersonId | None = None


class UsersQuery(AccountsQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Users, those of an account, or one of them."""

    user_id: _PersonId | None = None


class MetricsQuery(RowsQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The newest points, by default of the last 30 days."""

    project: _Id | None = None
    metric_id: _Id | None = None
