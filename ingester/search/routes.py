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
from .page import context, page
from .reading import Reading
from .subjects import EVENT_ROWS, LOG_ROWS, Subject

__all__ = ["ROUTES", "SearchRoute"]

_API = "/api/v1"

# Reading, the decoded query, the variable parts of the path.
Answerer = Callable[[Reading, Any, dict[str, str]], Struct]


class SearchRoute(Struct, frozen=True, kw_only=True):
    """One GET route that a viewer may ask. `{name}` in the pattern is one path segment.

    `function` None: the console answers it by other means (`complete`, `tail`).
    """

    pattern: str
    summary: str
    answer: type[Struct]
    query: type[Struct]
    function: Answerer | None
    name: Literal["read", "complete", "tail"] = "read"
    table: str = ""
    method: Literal["GET"] = "GET"
    role: Literal["viewer"] = "viewer"
    status: int = 200


def _of_rows(subject: Subject, what: str) -> tuple[SearchRoute, ...]:
    """The routes that logs and events share. Fixed names stand before ids."""
    base = f"{_API}/{subject.table}"

    def one(
        path: str,
        summary: str,
        answer: type[Struct],
        query: type[Struct],
        function: Callable[[Reading, Any, dict[str, str]], Struct],
    ) -> SearchRoute:
        return SearchRoute(
            pattern=base + path,
            summary=summary,
            answer=answer,
            query=query,
            function=function,
            table=subject.table,
        )

    return (
        one(
            "",
            f"Search {what}, newest first.",
            answers.Page,
            requests.RowsQuery,
            lambda reading, query, _: page(reading, subject, query),
        ),
        one(
            "/histogram",
            f"Count {what} by period and {subject.group}.",
            answers.Histogram,
            requests.RangeQuery,
            lambda reading, query, _: histogram(reading, subject, query),
        ),
        one(
            "/fields",
            f"Names and usual values in the newest {what}.",
            answers.Fields,
            requests.RangeQuery,
            lambda reading, query, _: fields(reading, subject, query),
        ),
        SearchRoute(
            pattern=f"{base}/complete",
            summary="What could be typed next in a query.",
            answer=answers.Suggestions,
            query=requests.CompleteQuery,
            function=None,
            name="complete",
            table=subject.table,
        ),
        SearchRoute(
            pattern=f"{base}/tail",
            summary=f"Follow {what} as they are stored (text/event-stream).",
            answer=answers.LogRow if subject is LOG_ROWS else answers.EventRow,
            query=requests.TailQuery,
            function=None,
            name="tail",
            table=subject.table,
        ),
        one(
            "/{id}",
            "One row by its id, with the lines around it.",
            answers.Context,
            requests.ContextQuery,
            lambda reading, query, names: context(reading, subject, names["id"], query),
        ),
    )


ROUTES: tuple[SearchRoute, ...] = (
    *_of_rows(LOG_ROWS, "logs"),
    *_of_rows(EVENT_ROWS, "events"),
)
