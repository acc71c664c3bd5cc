"""A page of rows, the lines around a row, a chart: what `/logs` and `/events` answer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

from msgspec import UNSET, structs

from ..errors import NotFound
from ..lql import Query, chart_statement, parse
from ..lql.ast import Node
from ..lql.times import Window
from ..store.relations import relation
from . import answers
from .asked import equals, narrowed
from .documents import cell
from .fetch import Document, documents, selected
from .keys import Key, cursor_text, key_of_id, parse_cursor
from .reading import Reading
from .requests import ContextQuery, RowsQuery
from .subjects import Subject
from .tail import end_of
from .times import DEFAULT_SPAN, bounded, maybe_spelled, window_for
from .walk import Direction, asked_of, count_rows, walk

__all__ = ["context", "cost_of", "found_key", "page"]

CHART_ROWS_MAX = 10_000

# How far the lines around a row are looked for: a service that is silent for longer has none.
_CONTEXT_SPAN = timedelta(days=7)


def page(
    reading: Reading,
    subject: Subject,
    request: RowsQuery,
    *,
    only: Sequence[Node] = (),
    span: timedelta = DEFAULT_SPAN,
) -> answers.Page:
    """The rows that `request` finds and that satisfy `only`. Raises QueryError, InvalidField."""
    query = narrowed(parse(request.q, schema=subject.schema), only)
    cursor = None if request.cursor is None else parse_cursor(request.cursor)
    if cursor is not None:
        reading.now = cursor.now
    within = window_for(query, since=request.since, until=request.until, now=reading.now, span=span)
    if query.chart is not None:
        return _chart_page(reading, subject, query, within)
    position = UNSET if cursor is not None else str(end_of(reading))
    after = None if cursor is None else cursor.key
    # One more tells whether there is a next page.
    found = walk(reading, subject, query, within, limit=request.limit + 1, after=after)
    reading.rows_scanned = count_rows(reading, subject, found.looked_at)
    keys = found.keys[: request.limit]
    rows: list[Document] = []
    if query.select:
        names, values = selected(reading, subject, query, keys)
        shown = len(values)
    else:
        rows = documents(reading, subject, keys)
        shown = len(rows)
    answer = answers.Page(
        rows=rows,
        cursor=cursor_text(reading.now, keys[shown - 1]) if shown < len(found.keys) else None,
        position=position,
        since=maybe_spelled(within.start),
        until=maybe_spelled(within.end),
        cost=cost_of(reading),
    )
    if not query.select:
        return answer
    return structs.replace(answer, select=answers.Chart(names=names, rows=values))


def _chart_page(reading: Reading, subject: Subject, query: Query, span: Window) -> answers.Page:
    schema, rows_asked = asked_of(reading, subject, query, span)
    statement = chart_statement(
        bounded(query, span), now=reading.now, schema=schema, relation=rows_asked
    )
    rows = reading.rows(f"{statement.sql} LIMIT {CHART_ROWS_MAX + 1}", statement.params)
    reading.rows_scanned = count_rows(reading, subject, span)
    return answers.Page(
        rows=[],
        cursor=None,
        since=maybe_spelled(span.start),
        until=maybe_spelled(span.end),
        cost=cost_of(reading),
        chart=answers.Chart(
            names=list(statement.names),
            rows=[[cell(value) for value in row] for row in rows[:CHART_ROWS_MAX]],
            truncated=len(rows) > CHART_ROWS_MAX,
        ),
    )


def context(
    reading: Reading, subject: Subject, row_id: str, request: ContextQuery
) -> answers.Context:
    """A row by its id and its neighbours. Raises NotFound."""
    key, shared = found_key(reading, subject, row_id)
    items = [equals(name, value) for name, value in zip(subject.context, shared, strict=True)]
    query = narrowed(Query(), items)
    at = key.time.replace(tzinfo=UTC)

    def around(direction: Direction, limit: int) -> list[Document]:
        if not limit:
            return []
        span = _near(at, direction)
        found = walk(reading, subject, query, span, limit=limit, direction=direction, after=key)
        return documents(reading, subject, found.keys)

    return answers.Context(
        row=documents(reading, subject, [key], is_whole=True)[0],
        before=around("back", request.before)[::-1],
        after=around("forth", request.after),
    )


def cost_of(reading: Reading) -> answers.Cost:
    return answers.Cost(
        rows_scanned=reading.rows_scanned,
        files=reading.files_read,
        ms=round(reading.elapsed_ms, 1),
    )


def found_key(reading: Reading, subject: Subject, row_id: str) -> tuple[Key, list[str | None]]:
    request_number, line_number = key_of_id(row_id)
    files = reading.snapshot.files_within(
        subject.table, "request_number", request_number, request_number
    )
    rows = relation(reading.snapshot, subject.table, subject.columns, files)
    found = reading.rows(
        f"SELECT {subject.schema.time}, request_number, line_number, arm_number, file_name, place, "
        f"{', '.join(subject.context)} FROM ({rows}) "
        "WHERE request_number = ? AND line_number = ? LIMIT 1",
        [request_number, line_number],
    )
    if not found:
        raise NotFound("there is no row with this id")
    return Key(*found[0][:6]), cast(list[str | None], list(found[0][6:]))  # type: ignore[arg-type]


def _near(at: datetime, direction: Direction) -> Window:
    try:
        return (
            Window(at - _CONTEXT_SPAN, None)
            if direction == "back"
            else Window(at, at + _CONTEXT_SPAN)
        )
    except OverflowError:
        return Window(None, None) if direction == "back" else Window(at, None)
