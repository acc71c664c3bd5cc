"""The route table of searches, in the form of the management's: the console registers it and
`openapi.json` is made from it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from msgspec import Struct

from . import answers, requests
from .fields import fields
from .histogram import histogram
from .metric_list import metrics
from .page import context, page
from .people import accounts, users
from .reading import Reading
from .series import event_series, metric_series
from .subjects import EVENT_ROWS, LOG_ROWS, Subject

__all__ = ["ROUTES", "SearchRoute"]

_API = "/api/v1"

# Reading, the decoded query, the variable parts of the path.
Answerer = Callable[[Reading, Any, dict[str, str]], Struct]


class SearchRoute(Struct, frozen=True, kw_only=True):
    """One GET route that a viewer may ask. `{name}` in the pattern is one path segment.

    `answer` describes what is encoded; of a tail one event, of an export one line. `function` None:
    the console answers by other means (`complete`, `tail`, `export`). `is_overview`: it goes
    over a whole range.
    """

    pattern: str
    summary: str
    answer: type[Struct]
    query: type[Struct]
    function: Answerer | None
    name: Literal["read", "complete", "tail", "export"] = "read"
    table: str = ""
    is_overview: bool = False
    operation: str
    method: Literal["GET"] = "GET"
    role: Literal["viewer"] = "viewer"
    status: int = 200


def _of_rows(subject: Subject, what: str) -> tuple[SearchRoute, ...]:
    """The routes that logs and events share. Fixed names stand before ids."""
    base = f"{_API}/{subject.table}"
    is_logs = subject is LOG_ROWS

    def one(
        path: str,
        operation: str,
        summary: str,
        answer: type[Struct],
        query: type[Struct],
        function: Callable[[Reading, Any, dict[str, str]], Struct],
    ) -> SearchRoute:
        return SearchRoute(
            pattern=base + path,
            operation=f"{operation}_{subject.table}",
            summary=summary,
            answer=answer,
            query=query,
            function=function,
            table=subject.table,
            is_overview=operation in {"histogram_of", "fields_of"},
        )

    return (
        one(
            "",
            "search",
            f"Search {what}, newest first.",
            answers.LogPage if is_logs else answers.EventPage,
            requests.RowsQuery,
            lambda reading, query, _: page(reading, subject, query),
        ),
        one(
            "/histogram",
            "histogram_of",
            f"Count {what} by period and {subject.group}.",
            answers.Histogram,
            requests.RangeQuery,
            lambda reading, query, _: histogram(reading, subject, query),
        ),
        one(
            "/fields",
            "fields_of",
            f"Names and usual values in the newest {what}.",
            answers.Fields,
            requests.RangeQuery,
            lambda reading, query, _: fields(reading, subject, query),
        ),
        SearchRoute(
            pattern=f"{base}/complete",
            operation=f"complete_{subject.table}",
            summary="What could be typed next in a query.",
            answer=answers.Suggestions,
            query=requests.CompleteQuery,
            function=None,
            name="complete",
            table=subject.table,
        ),
        SearchRoute(
            pattern=f"{base}/tail",
            operation=f"tail_{subject.table}",
            summary=f"Follow {what} as they are stored (text/event-stream).",
            answer=answers.LogRow if is_logs else answers.EventRow,
            query=requests.TailQuery,
            function=None,
            name="tail",
            table=subject.table,
        ),
        SearchRoute(
            pattern=f"{base}/export",
            operation=f"export_{subject.table}",
            summary=f"All {what} that a query finds, newest first, as a file.",
            answer=answers.LogRow if is_logs else answers.EventRow,
            query=requests.ExportQuery,
            function=None,
            name="export",
            table=subject.table,
        ),
        one(
            "/{id}",
            "context_of",
            "One row by its id, with the lines around it.",
            answers.LogContext if is_logs else answers.EventContext,
            requests.ContextQuery,
            lambda reading, query, names: context(reading, subject, names["id"], query),
        ),
    )


_SERIES = (
    SearchRoute(
        pattern=f"{_API}/events/timeseries",
        operation="event_timeseries",
        summary="Events, users, accounts and sessions by hour, day, week or month.",
        answer=answers.EventSeries,
        query=requests.SeriesQuery,
        function=lambda reading, query, _: event_series(reading, query),
        is_overview=True,
        table="events",
    ),
    SearchRoute(
        pattern=f"{_API}/metrics",
        operation="search_metrics",
        summary="Which metrics there are, and their points, newest first.",
        answer=answers.MetricPage,
        query=requests.MetricsQuery,
        function=lambda reading, query, _: metrics(reading, query),
        table="metrics",
    ),
    SearchRoute(
        pattern=f"{_API}/metrics/{{metricId}}/timeseries",
        operation="metric_timeseries",
        summary="One metric by hour, day, week or month.",
        answer=answers.MetricSeries,
        query=requests.MetricSeriesQuery,
        function=lambda reading, query, names: metric_series(reading, names["metricId"], query),
        is_overview=True,
        table="metrics",
    ),
)

_PEOPLE = (
    SearchRoute(
        pattern=f"{_API}/users",
        operation="list_users",
        summary="Users of accounts, with what is known of them and when they were seen.",
        answer=answers.UserPage,
        query=requests.UsersQuery,
        function=lambda reading, query, _: users(reading, query),
        table="events",
    ),
    SearchRoute(
        pattern=f"{_API}/accounts",
        operation="list_accounts",
        summary="Accounts of sources, with what is known of them and when they were seen.",
        answer=answers.AccountPage,
        query=requests.AccountsQuery,
        function=lambda reading, query, _: accounts(reading, query),
        table="events",
    ),
)

ROUTES: tuple[SearchRoute, ...] = (
    *_of_rows(LOG_ROWS, "logs"),
    *_SERIES,
    *_PEOPLE,
    *_of_rows(EVENT_ROWS, "events"),
)
