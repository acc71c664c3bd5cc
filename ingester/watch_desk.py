"""Desks of watching: what the management routes ask of stored data, in a server or without one.

Used in worker threads; a query of SQL goes back to the event loop, where the processes are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

import trio

from .config import Config
from .errors import InvalidField
from .sandbox.messages import Format, QueryRefused
from .sandbox.queries import Answer, Queries
from .sandbox.watch_queries import check_query, run_query, sql_values
from .search.reading import Reading
from .store.database import StoreBroken
from .store.increments import Increments
from .store.store import Store
from .watch.alerts import AlertWindow, Outcome, bound_query, rows_between
from .watch.backtest import Backtest, backtest
from .watch.judge import Values
from .watch.settings import Alert, FieldQueryError, Monitor, SqlTarget
from .watch.values import monitor_values

__all__ = ["OfflineWatchDesk", "ProcessWatchDesk"]

T = TypeVar("T")


class _Desk:
    """Implements `management.calls.WatchDesk`."""

    def __init__(self, config: Callable[[], Config]) -> None:
        self._config = config

    def _opened(self) -> AbstractContextManager[tuple[Store, Queries]]:
        raise NotImplementedError

    def _await(self, function: Callable[[], Awaitable[T]]) -> T:
        raise NotImplementedError

    def check_sql(self, field: str, sql: str, window: AlertWindow) -> None:
        """Raises FieldQueryError, InvalidField, Overloaded, StoreBusy."""
        with self._opened() as (_, queries):
            try:
                self._await(lambda: check_query(queries, sql, window))
            except QueryRefused as error:
                if error.column is None:
                    raise InvalidField(field, f"{field}: {error}") from None
                raise FieldQueryError(field, str(error), error.column) from None

    def run_alert(self, alert: Alert, window: AlertWindow) -> Outcome:
        """What a run over a window finds now."""
        with self._opened() as (store, queries):
            if alert.language == "sql":
                return self._await(lambda: run_query(queries, bound_query(alert.query, window)))
            with self._reading(store) as reading:
                return rows_between(reading, alert, window)

    def backtest(self, monitor: Monitor, first: int, last: int) -> Backtest:
        """What a monitor would have done. Raises QueryRefused, SearchTookTooLong."""
        groups_max = self._config().watch.groups_max

        def read(begin: int, end: int) -> Mapping[int, Values]:
            if isinstance(monitor.target, SqlTarget):
                return self._await(lambda: sql_values(queries, monitor, begin, end))
            with self._reading(store) as reading:
                return monitor_values(reading, monitor, begin, end, groups_max=groups_max)

        with self._opened() as (store, queries):
            return backtest(monitor, first, last, read, groups_max=groups_max)

    @contextmanager
    def _reading(self, store: Store) -> Iterator[Reading]:
        try:
            with Reading.open(store, seconds_max=self._config().store.query_seconds_max) as found:
                yield found
        except StoreBroken as error:
            store.recover(error.generation)
            raise


class ProcessWatchDesk(_Desk):
    """Of a running server."""

    def __init__(self, config: Callable[[], Config], store: Store, queries: Queries) -> None:
        super().__init__(config)
        self._parts = store, queries

    def _opened(self) -> AbstractContextManager[tuple[Store, Queries]]:
        return nullcontext(self._parts)

    def _await(self, function: Callable[[], Awaitable[T]]) -> T:
        return trio.from_thread.run(function)


class OfflineWatchDesk(_Desk):
    """Of a stopped folder whose lock is held; the store is opened for each question."""

    def __init__(self, config: Config) -> None:
        super().__init__(lambda: config)
        self._data_dir = Path(config.store.data_dir)

    @contextmanager
    def _opened(self) -> Iterator[tuple[Store, Queries]]:
        config = self._config().store
        store = Store(self._data_dir, config)
        store.open()
        try:
            increments = Increments(store, self._data_dir / "export")
            increments.open()

            def recover(error: StoreBroken) -> None:
                store.recover(error.generation)

            try:
                yield store, _Lazy(increments, self._config, recover)  # type: ignore[misc]
            finally:
                increments.close()
        finally:
            store.close()

    def _await(self, function: Callable[[], Awaitable[T]]) -> T:
        return trio.run(function)


class _Lazy:
    """`Queries` that are made where there is an event loop."""

    def __init__(
        self,
        increments: Increments,
        config: Callable[[], Config],
        recover: Callable[[StoreBroken], None],
    ) -> None:
        self._increments = increments
        self._config = config
        self._recover = recover

    async def ask(self, sql: str, format_name: Format = "json") -> Answer:
        queries = Queries(self._increments, lambda: self._config().store, on_broken=self._recover)
        return await queries.ask(sql, format_name)
