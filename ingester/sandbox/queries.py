"""Queries: who may ask now, from which files, until when.

1. At most `RUNNING_MAX` query processes run, `WAITING_MAX` more may wait up to `WAIT_SECONDS_MAX`;
   whoever comes then is told to come again (Overloaded).
2. A query has `seconds_max` of our waiting for it, the export of new rows included; then its
   process is killed. What the client takes to read the answer does not count, but is bounded by
   `CLIENT_SECONDS_MAX` for each piece.
3. Every process is killed when its answer is closed, by whatever end.
4. Up to 16 MiB the outcome is known before the first byte is given out: errors up to there have a
   status, later ones (QueryCut) end the answer in the middle.

An export is a query with `EXPORT_LIMITS` and a place of its own: one at a time.

`run` keeps one process ready, started before it is needed; without it a query starts its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

import msgspec
import structlog
import trio
from msgspec import Struct, structs

from ..config import StoreConfig
from ..errors import IngesterError, Overloaded, StoreBusy
from ..store.database import StoreBroken
from ..store.increments import ExportLate, Holding, Increments
from .messages import (
    CONTENT_TYPES,
    Failure,
    Format,
    QueryCut,
    QueryRefused,
    QueryRequest,
    QueryTimeout,
)
from .process import QueryProcess
from .pruning import FileSpan

__all__ = ["EXPORT_LIMITS", "Answer", "AskLimits", "Queries", "QueryCounters"]

_log = structlog.get_logger()

RUNNING_MAX = 2
WAITING_MAX = 4
WAIT_SECONDS_MAX = 10.0
CLIENT_SECONDS_MAX = 60.0
# Far above what anybody writes; the parser takes a few hundred bytes for one of it.
SQL_BYTES_MAX = 512 * 1024

_RETRY_AFTER_S = 2
_EXPORT_RETRY_AFTER_S = 30
_WATCH_EVERY_S = 5.0
_SPARE_FAILED_WAIT_S = 5.0
# Most queries are over by then. A start beside one would take its processor: 0.2 s of it.
_SPARE_AFTER_S = 0.25


class AskLimits(Struct, frozen=True, kw_only=True):
    """Bounds that differ from those of an ordinary query."""

    seconds_max: float
    rows_max: int
    result_bytes_max: int
    is_for_spreadsheets: bool = False


# It is streamed, so only its time needs a bound.
EXPORT_LIMITS = AskLimits(seconds_max=8 * 3600.0, rows_max=1 << 62, result_bytes_max=1 << 62)


class _Crashed(QueryRefused):
    """Its process ended by a limit or a fault."""


class QueryCounters(Struct):
    """What became of queries since the start."""

    done: int = 0
    refused: int = 0
    timed_out: int = 0
    turned_away: int = 0
    crashed: int = 0
    cut: int = 0


class Queries:
    """Shared by the console's routes."""

    def __init__(
        self,
        increments: Increments,
        config: Callable[[], StoreConfig],
        *,
        on_broken: Callable[[StoreBroken], None],
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        self._increments = increments
        self._config = config
        self._on_broken = on_broken
        self._has_room = has_room
        self._places = trio.CapacityLimiter(RUNNING_MAX)
        self._export_place = trio.CapacityLimiter(1)
        self._exports = trio.CapacityLimiter(1)
        self._spare: QueryProcess | None = None
        self._spare_is_wanted = trio.Event()
        self._open: set[Answer] = set()
        self._is_stopping = False
        self.counters = QueryCounters()

    async def run(self) -> None:
        """Keep one process ready and end answers that nobody reads. Ends by cancellation."""
        self._is_stopping = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch)
                while True:
                    self._spare_is_wanted = trio.Event()
                    if self._spare is None or not self._spare.is_alive:
                        await self._drop_spare()
                        try:
                            self._spare = await QueryProcess.start()
                        except OSError as error:
                            _log.warning("no query process can be started", reason=str(error))
                            await trio.sleep(_SPARE_FAILED_WAIT_S)
                            continue
                        self._spare.be_nice()  # nobody waits for it
                    await self._spare_is_wanted.wait()
                    await trio.sleep(_SPARE_AFTER_S)
        finally:
            with trio.CancelScope(shield=True):
                self._is_stopping = True
                await self._drop_spare()
                for answer in tuple(self._open):
                    await answer.aclose()

    async def ask(
        self, sql: str, format_name: Format = "json", *, limits: AskLimits | None = None
    ) -> Answer:
        """The answer, begun. Close it. Raises QueryRefused, QueryTimeout, Overloaded, StoreBusy.

        With `limits` it is an export.
        """
        if len(sql.encode("utf-8", "replace")) > SQL_BYTES_MAX:
            raise QueryRefused(f"a query has at most {SQL_BYTES_MAX // 1024} KiB")
        seconds_max = self._config().query_seconds_max if limits is None else limits.seconds_max
        answer = Answer(self, format_name, seconds_max, limits)
        await self._take_place(answer)
        try:
            self._open.add(answer)
            await answer._begin(sql)
        except BaseException as error:
            await answer.aclose()
            self._count(error)
            raise
        return answer

    def statistics(self) -> dict[str, object]:
        places = self._places.statistics()
        return {
            "running": places.borrowed_tokens,
            "waiting": places.tasks_waiting,
            "queries_total": {"by_outcome": msgspec.to_builtins(self.counters)},
            **self._increments.statistics(),
        }

    async def _take_place(self, answer: Answer) -> None:
        if self._is_stopping:
            raise Overloaded("the server is stopping", retry_after_s=_RETRY_AFTER_S)
        if answer._limits is not None:
            try:
                self._export_place.acquire_on_behalf_of_nowait(answer)
            except trio.WouldBlock:
                raise Overloaded(
                    "an export is running already; try again when it is done",
                    retry_after_s=_EXPORT_RETRY_AFTER_S,
                ) from None
            return
        with trio.move_on_after(WAIT_SECONDS_MAX) as waiting:
            if self._places.statistics().tasks_waiting < WAITING_MAX:
                await self._places.acquire_on_behalf_of(answer)
                return
            waiting.cancel()
            await trio.lowlevel.checkpoint()
        self.counters.turned_away += 1
        raise Overloaded(
            f"{RUNNING_MAX} queries are running already; try again shortly",
            retry_after_s=_RETRY_AFTER_S,
        )

    async def _take_process(self) -> QueryProcess:
        spare, self._spare = self._spare, None
        self._spare_is_wanted.set()
        if spare is not None:
            if spare.is_alive:
                return spare
            await spare.aclose()
        return await QueryProcess.start()

    async def _drop_spare(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            await spare.aclose()

    async def _hold(self, gives_up_at: float, sql: str) -> Holding:
        try:
            return await trio.to_thread.run_sync(
                lambda: self._increments.hold(
                    gives_up_at=gives_up_at, has_room=self._has_room, sql=sql
                ),
                limiter=self._exports,
            )
        except StoreBroken as error:
            await trio.to_thread.run_sync(self._on_broken, error)
            raise

    async def _watch(self) -> None:
        while True:
            await trio.sleep(_WATCH_EVERY_S)
            for answer in tuple(self._open):
                if answer._idle_seconds() > CLIENT_SECONDS_MAX:
                    await answer.aclose()

    def _closed(self, answer: Answer) -> None:
        self._open.discard(answer)
        places = self._places if answer._limits is None else self._export_place
        places.release_on_behalf_of(answer)

    def _count(self, error: BaseException) -> None:
        if isinstance(error, QueryTimeout):
            self.counters.timed_out += 1
        elif isinstance(error, _Crashed):
            self.counters.crashed += 1
        elif isinstance(error, QueryRefused):
            self.counters.refused += 1
        elif isinstance(error, QueryCut):
            self.counters.cut += 1


class Answer:
    """The bytes of one result. `receive` until b"", then or before `aclose`; or `async with`."""

    def __init__(
        self,
        queries: Queries,
        format_name: Format,
        seconds_max: float,
        limits: AskLimits | None = None,
    ) -> None:
        self._queries = queries
        self._limits = limits
        self._format = format_name
        self._seconds_max = seconds_max
        self._seconds_left = seconds_max
        self._process: QueryProcess | None = None
        self._holding: Holding | None = None
        self._first: bytes | None = None
        self._is_closed = False
        self._is_complete = False
        self._given_at = math.inf
        self.content_type = CONTENT_TYPES[format_name]

    async def __aenter__(self) -> Answer:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def receive(self) -> bytes:
        """The next piece, b"" after the last. Raises QueryCut."""
        try:
            if self._first is not None:
                data, self._first = self._first, None
            else:
                data = await self._next_piece()
            self._given_at = trio.current_time()
            return data
        except BaseException as error:
            self._queries._count(error)
            raise

    async def aclose(self) -> None:
        """End it; nothing of the process is left. May be called again."""
        if self._is_closed:
            return
        self._is_closed = True
        with trio.CancelScope(shield=True):
            if self._process is not None:
                await self._process.aclose()
            self._queries._closed(self)
            if self._holding is not None:
                await trio.to_thread.run_sync(self._queries._increments.release, self._holding)

    async def _begin(self, sql: str) -> None:
        """Up to the first bytes of the result."""
        config = self._queries._config()
        with self._timed() as scope:
            gives_up_at = time.monotonic() + self._seconds_left
            with suppress(ExportLate):
                self._holding = await self._queries._hold(gives_up_at, sql)
                self._process = await self._queries._take_process()
                request = QueryRequest(
                    sql=sql,
                    format=self._format,
                    files=self._holding.files,
                    spans=_spans(self._holding),
                    cpu_seconds_max=math.ceil(self._seconds_max) + 5,
                    memory_bytes_max=config.query_memory_bytes_max,
                )
                if self._limits is not None:
                    request = structs.replace(
                        request,
                        rows_max=self._limits.rows_max,
                        result_bytes_max=self._limits.result_bytes_max,
                        is_for_spreadsheets=self._limits.is_for_spreadsheets,
                    )
                with suppress(trio.BrokenResourceError):  # it died: the pipe's end tells it
                    await self._process.ask(request)
                self._first = await self._first_piece()
        if scope.cancelled_caught or self._first is None:
            raise self._timeout()

    async def _first_piece(self) -> bytes:
        assert self._process is not None
        try:
            kind, body = await self._process.receive_frame()
        except QueryCut as error:
            raise _Crashed(
                "the query ended its process: it needs more memory or time than it may have, or"
                " met a fault of DuckDB's; nothing else was harmed"
            ) from error
        if kind == b"E":
            raise _refusal(body)
        assert kind == b"H", kind
        return await self._next_piece()

    async def _next_piece(self) -> bytes:
        """Bytes of the result, b"" at its end. Raises QueryCut."""
        if self._is_complete:
            return b""
        assert self._process is not None
        with self._timed() as scope:
            kind, body = await self._process.receive_frame()
        if scope.cancelled_caught:
            raise QueryCut(str(self._timeout()))
        if kind == b"E":
            raise QueryCut(str(_refusal(body)))
        if kind == b"Z":
            self._is_complete = True
            self._queries.counters.done += 1
            return b""
        return body

    def _timed(self) -> _Timed:
        return _Timed(self)

    def _timeout(self) -> QueryTimeout:
        return QueryTimeout(f"the query took longer than {self._seconds_max:g} s")

    def _idle_seconds(self) -> float:
        return trio.current_time() - self._given_at


class _Timed:
    """A cancel scope of what is left of the answer's time, which is taken from it."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def __enter__(self) -> trio.CancelScope:
        self._began_at = trio.current_time()
        self._answer._given_at = math.inf
        self._scope = trio.move_on_after(max(0.0, self._answer._seconds_left))
        return self._scope.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        self._answer._seconds_left -= trio.current_time() - self._began_at
        return self._scope.__exit__(kind, error, trace)


def _spans(holding: Holding) -> dict[str, FileSpan]:
    """Of its sealed files, by path."""
    return {
        path: FileSpan(
            file.time_low_us, file.time_high_us, file.received_low_us, file.received_high_us
        )
        for path, file in holding.sealed.items()
    }


def _refusal(body: bytes) -> IngesterError:
    failure = msgspec.json.decode(body, type=Failure)
    if failure.is_fault:
        _log.error("a query process failed", reason=failure.sentence)
        return StoreBusy("the query process failed; try again")
    return QueryRefused(failure.sentence, failure.column)
