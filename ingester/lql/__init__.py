"""The query language: text to a tree, a tree to SQL with parameters, and back to text.

One semantics for searches and rules: a rule is a search over the arriving batch, so the compiled
SQL is the definition. Nothing here does I/O or imports a database; `matches` alone needs one and
asks the store for it when it is called.

It refuses with a `QueryError` that names the column, what was expected there, and the spelling
that works where there is one. It never raises anything else, whatever the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from ..errors import QueryError
from .ast import Query
from .charts import Statement, chart_statement, selection
from .compiler import Compiled, compile_query, window_of
from .complete import Suggestion, complete
from .documents import paths_of
from .fields import display_name
from .parser import Context, parse
from .printer import quoted, to_text
from .schema import EVENTS, LOGS, Schema

__all__ = [
    "EVENTS",
    "LOGS",
    "Compiled",
    "Context",
    "Query",
    "QueryError",
    "Schema",
    "Statement",
    "Suggestion",
    "chart",
    "chart_statement",
    "check",
    "compile_query",
    "complete",
    "matches",
    "parse",
    "paths_of",
    "quoted",
    "selection",
    "time_window",
    "to_text",
]


def check(query: str, context: Context = "search") -> None:
    """Raise QueryError if `query` is refused as a search or as a rule."""
    parse(query, context=context)


def matches(query: str, log: Mapping[str, object]) -> bool:
    """Whether one log satisfies a query, by its compiled SQL.

    `log` has `message`, `level`, `service`, `environment`, `time` and `attributes`; a key that is
    missing is absent.
    """
    from ..store.lql_match import matches

    return matches(query, log)


def time_window(query: str, now: datetime) -> tuple[datetime | None, datetime | None]:
    """What the `t:` clauses leave of time: `[start, end)`, aware UTC; None is open."""
    window = window_of(parse(query), now if now.tzinfo is not None else now.replace(tzinfo=UTC))
    return window.start, window.end


def chart(query: str) -> dict[str, object] | None:
    """The chart a query asks for: `aggregate`, `path`, `bucket` and `group_by`."""
    found = parse(query).chart
    if found is None:
        return None
    return {
        "aggregate": found.aggregate,
        "path": None if found.field is None else display_name(found.field),
        "bucket": found.bucket,
        "group_by": [display_name(field) for field in found.group_by],
    }
