"""The search service of a process: threads, live tails, and the fields that completion knows."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import TypeVar

import msgspec
import trio
from msgspec import Struct

from ..errors import Overloaded
from ..flow import Doorbell
from ..lql import complete
from ..store.database import StoreBroken
from ..store.rollups import Rollups
from ..store.store import Store
from . import answers
from .export import ExportPage, ExportStream, export_page, parse_export
from .fields import fields
from .reading import MetricWarning, Reading, Stop
from .requests import CompleteQuery, ExportQuery, RangeQuery, TailQuery
from .routes import SearchRoute
from .stream import TailStream
from .subjects import SUBJECTS
from .tail import Look, Position, look, parse_position, parse_tail
from .threads import SearchThreads

__all__ = ["Searches", "answer_search"]

_T = TypeVar("_T")

_SEARCHES_MAX = 2
# Histograms, fields and series go over whole ranges: rows never wait for a second one.
_OVERVIEWS_MAX = 1
_WAITING_MAX = 16
_TAILS_MAX = 16
_TAIL_RETRY_AFTER_S = 10
_RETRY_AFTER_S = 2
_TAIL_SECONDS_MAX = 10.0

# Fields and values that completion suggests are as old as this at most.
_KNOWN_SECONDS_MAX = 60.0


class Searches:
    """Asked by the console, inside of `running`."""

    def __init__(
        self,
        store: Store,
        *,
        seconds_max: Callable[[], float],
        rollups: Rollups | None = None,
        metric_warning: MetricWarning | None = None,
    ) -> None:
        self._store = store
        self._rollups = rollups
        self._metric_warning = metric_warning
        self._seconds_max = seconds_max
        self._threads = SearchThreads("search", threads_max=_SEARCHES_MAX, waiting_max=_WAITING_MAX)
        self._overviews = trio.CapacityLimiter(_OVERVIEWS_MAX)
        # Apart, so that no long search holds up a tail.
        self._tail_threads = SearchThreads("tail", threads_max=1, waiting_max=_TAILS_MAX)
        self._tails: set[Doorbell] = set()
        self._stop = trio.Event()
        self._known: dict[str, tuple[float, answers.Fields]] = {}

    @asynccontextmanager
    async def running(self, stop: trio.Event) -> AsyncIterator[None]:
        """While searches may be asked for. Live tails end when `stop` is set."""
        self._stop = stop
        token = trio.lowlevel.current_trio_token()

        def ring() -> None:
            if self._tails:
                with suppress(trio.RunFinishedError):
                    token.run_sync_soon(self._ring_all, idempotent=True)

        self._store.listen(ring)
        try:
            yield
        finally:
            self._store.unlisten(ring)
            self._threads.close()
            self._tail_threads.close()

    def statistics(self) -> dict[str, object]:
        """A snapshot: searches, and the looks of live tails."""
        return {
            **self._threads.statistics(),
            "tails": len(self._tails),
            "tail_looks": self._tail_threads.statistics(),
        }

    def _ring_all(self) -> None:
        for bell in self._tails:
            bell.ring()

    async def answer(self, route: SearchRoute, query: Struct, names: Mapping[str, str]) -> bytes:
        """The JSON document of a route. Raises RequestError (QueryError, 404, 408, 422),
        Overloaded, StoreBusy.
        """
        if route.name == "complete":
            assert isinstance(query, CompleteQuery)
            return msgspec.json.encode(await self._complete(route.table, query))

        def read(stop: Stop) -> bytes:
            return answer_search(
                self._store,
                route,
                query,
                names,
                seconds_max=self._seconds_max(),
                stop=stop,
                rollups=self._rollups,
                metric_warning=self._metric_warning,
            )

        if not route.is_overview:
            return await self._run(read)
        self._refuse_crowd()
        async with self._overviews:
            return await self._run(read)

    async def export(self, route: SearchRoute, query: ExportQuery) -> ExportStream:
        """A file to be sent. One export takes one of the searches' threads at most, and the turns
        of overviews, so that rows never wait for two. Raises as `answer`.
        """
        subject = SUBJECTS[route.table]
        parse_export(query.q, subject)
        self._refuse_crowd()

        async def more(cursor: str | None) -> ExportPage:
            def read(stop: Stop) -> ExportPage:
                with Reading.open(
                    self._store, seconds_max=self._seconds_max(), stop=stop
                ) as reading:
                    return export_page(reading, subject, query, cursor)

            async with self._overviews:
                return await self._run(read)

        return ExportStream(await more(None), more)

    def _refuse_crowd(self) -> None:
        if self._overviews.statistics().tasks_waiting >= _WAITING_MAX:
            raise Overloaded("too many searches wait; try again shortly", _RETRY_AFTER_S)

    def tail(
        self,
        route: SearchRoute,
        query: TailQuery,
        last_event_id: str | None,
        *,
        is_allowed: Callable[[], Awaitable[bool]],
    ) -> TailStream:
        """A stream to be sent, as long as who reads it `is_allowed` to. Raises QueryError,
        RequestError; Overloaded when there are many.
        """
        if len(self._tails) >= _TAILS_MAX:
            raise Overloaded(f"{_TAILS_MAX} live tails are open; close one", _TAIL_RETRY_AFTER_S)
        subject = SUBJECTS[route.table]
        asked = parse_tail(query.q, subject)
        last = last_event_id or query.last_event_id
        position = None if last is None else parse_position(last)

        async def look_again(position: Position | None, rows_max: int) -> Look:
            def read(stop: Stop) -> Look:
                with Reading.open(self._store, seconds_max=_TAIL_SECONDS_MAX, stop=stop) as reading:
                    return look(reading, subject, asked, position, rows_max=rows_max)

            return await self._run(read, self._tail_threads)

        return TailStream(
            look_again, position, places=self._tails, stop=self._stop, is_allowed=is_allowed
        )

    async def _complete(self, table: str, query: CompleteQuery) -> answers.Suggestions:
        known = await self._fields(table)
        values = {field.name: [top.value for top in field.values] for field in known.fields}
        cursor = len(query.q) if query.cursor is None else query.cursor
        found = complete(query.q, cursor, values, schema=SUBJECTS[table].schema)
        return answers.Suggestions(
            suggestions=[
                answers.Suggestion(text=each.text, kind=each.kind, start=each.start, end=each.end)
                for each in found
            ]
        )

    async def _fields(self, table: str) -> answers.Fields:
        at, known = self._known.get(table, (float("-inf"), None))
        if known is None or time.monotonic() - at > _KNOWN_SECONDS_MAX:

            def read(stop: Stop) -> answers.Fields:
                with Reading.open(
                    self._store, seconds_max=self._seconds_max(), stop=stop
                ) as reading:
                    return fields(reading, SUBJECTS[table], RangeQuery())

            known = await self._run(read)
            self._known[table] = time.monotonic(), known
        return known

    async def _run(self, read: Callable[[Stop], _T], threads: SearchThreads | None = None) -> _T:
        """Read the store; one that is found broken is opened again for the next who asks."""
        try:
            return await (threads or self._threads).run(read)
        except StoreBroken as error:
            await trio.to_thread.run_sync(self._store.recover, error.generation)
            raise


def answer_search(
    store: Store,
    route: SearchRoute,
    query: Struct,
    names: Mapping[str, str],
    *,
    seconds_max: float,
    stop: Stop | None = None,
    now: datetime | None = None,
    rollups: Rollups | None = None,
    metric_warning: MetricWarning | None = None,
) -> bytes:
    """Blocking: what a route answers, encoded."""
    assert route.function is not None
    with Reading.open(store, seconds_max=seconds_max, stop=stop, now=now) as reading:
        reading.rollups = rollups
        if metric_warning is not None:
            reading.metric_warning = metric_warning
        return msgspec.json.encode(route.function(reading, query, dict(names)))
