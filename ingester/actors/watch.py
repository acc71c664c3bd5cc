"""Watch actor: rules behind each commit, alerts and monitors by the clock, the ends of quiet rules.

One task a kind, so that a slow alert never holds up a rule. What blocks runs in threads of its own
that are niced: taking data comes first. Each look begins with what the control store says, so a
bell that was lost costs a second.

1. A round that failed changed nothing; it is done again after a wait, and shown.
2. Ends by cancellation; a transaction under way is waited for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import structlog
import trio
from msgspec import Struct, structs

from ..config import WatchConfig
from ..errors import Overloaded, RequestError, StoreError, StoreFailed
from ..flow import Doorbell
from ..sandbox.queries import Queries
from ..sandbox.watch_queries import run_query, sql_values
from ..search.threads import SearchThreads
from ..store.control import ControlStore, WatchInfo
from ..store.database import StoreBroken
from ..store.store import Store
from ..watch.alerts import AlertBook, AlertState, AlertWindow, Outcome, bound_query
from ..watch.clock import Clock, Timeline
from ..watch.monitors import MonitorEngine
from ..watch.rules import RuleEngine
from ..watch.settings import Alert, Monitor, SqlTarget, decode_settings

__all__ = ["WatchCounters", "WatchParts", "run_alerts", "run_monitors", "run_rules"]

_log = structlog.get_logger()

_LOOK_S = 1.0
_FAILED_WAIT_S = 2.0
_ALIVE = "alive"
_ALIVE_S = 10.0
_SQL_BUCKETS = 5


class WatchCounters(Struct):
    """What watching has done since the start."""

    rule_groups: int = 0
    rule_rows: int = 0
    rule_matches: int = 0
    rule_failures: int = 0
    alert_runs: int = 0
    alert_failures: int = 0
    monitor_buckets: int = 0
    monitor_failures: int = 0
    messages: int = 0

    def statistics(self) -> dict[str, int]:
        return {f"{name}_total": getattr(self, name) for name in self.__struct_fields__}


class WatchParts(Struct, frozen=True, kw_only=True):
    """What alerts and monitors are run with."""

    store: Store
    control: ControlStore
    queries: Queries
    sql_turn: trio.CapacityLimiter
    console_base: Callable[[], str]
    config: Callable[[], WatchConfig]
    outbox: Doorbell
    counters: WatchCounters
    clock: Clock


async def run_alerts(parts: WatchParts) -> None:
    """Run alerts when their windows are over, one at a time."""
    timeline = Timeline(parts.clock, await _alive_at(parts))
    book = AlertBook(
        parts.store,
        parts.control,
        timeline,
        console_base=parts.console_base,
        clock=parts.clock,
        delay_s=lambda: parts.config().delay_seconds,
    )
    threads = SearchThreads("alerts", threads_max=1, waiting_max=1)
    try:
        while True:
            look = partial(_alert_round, book, timeline, threads, parts)
            await _guarded("alerts", look, parts.store, parts.counters)
            await trio.sleep(_LOOK_S)
    finally:
        threads.close()


async def _alert_round(
    book: AlertBook, timeline: Timeline, threads: SearchThreads, parts: WatchParts
) -> None:
    timeline.look()
    went_back_to = timeline.went_back_to
    told = 0
    for info in await trio.to_thread.run_sync(parts.control.list_watches, "alert"):
        alert = decode_settings(info.settings, Alert)
        if not alert.enabled:
            await trio.to_thread.run_sync(book.end, info)
            continue
        while (
            due := await trio.to_thread.run_sync(
                partial(book.due, info, alert, went_back_to=went_back_to)
            )
        ) is not None:
            ran = await _run_alert(book, threads, parts, info, alert, *due)
            if ran.error is not None:
                ran = structs.replace(
                    await _run_alert(book, threads, parts, info, alert, *due), attempts=2
                )
            parts.counters.alert_runs += 1
            parts.counters.alert_failures += ran.error is not None
            settle = partial(book.settle, info, alert, *due, ran)
            told += await trio.to_thread.run_sync(settle)
            if ran.error is not None:
                _log.warning("alert failed", alert=alert.name, reason=ran.error)
                break
        await _look_ahead(book, threads, info, alert)
    timeline.take_back()  # a round that failed has not told all of them
    _ring(parts, told + await trio.to_thread.run_sync(_tell_unsilenced, parts))


async def _run_alert(
    book: AlertBook,
    threads: SearchThreads,
    parts: WatchParts,
    info: WatchInfo,
    alert: Alert,
    state: AlertState,
    window: AlertWindow,
) -> Outcome:
    if alert.language == "sql":
        async with parts.sql_turn:
            return await run_query(parts.queries, bound_query(alert.query, window))
    try:
        return await threads.run(lambda stop: book.lql_rows(info, alert, state, stop=stop))
    except RequestError as error:
        return Outcome(error=str(error))


async def _look_ahead(
    book: AlertBook, threads: SearchThreads, info: WatchInfo, alert: Alert
) -> None:
    try:
        await threads.run(lambda stop: book.look_ahead(info, alert, stop=stop))
    except RequestError as error:
        # The run at the window's end reads it all, and shows what is wrong.
        _log.warning("alert not looked at before its run", alert=alert.name, reason=str(error))


async def run_monitors(parts: WatchParts) -> None:
    """Judge the buckets of monitors when they are over."""
    timeline = Timeline(parts.clock, await _alive_at(parts))
    threads = SearchThreads("monitors", threads_max=1, waiting_max=1)
    config = parts.config()
    engine = MonitorEngine(
        parts.store,
        parts.control,
        timeline,
        console_base=parts.console_base,
        clock=parts.clock,
        delay_s=config.delay_seconds,
        late_s=config.late_seconds_max,
        groups_max=config.groups_max,
    )
    # Not at once: alerts may still have to read when watching was alive before.
    saved_at = trio.current_time()
    try:
        while True:
            look = partial(_monitor_round, engine, timeline, threads, parts)
            await _guarded("monitors", look, parts.store, parts.counters)
            if trio.current_time() - saved_at >= _ALIVE_S:
                await trio.to_thread.run_sync(_save_alive, parts)
                saved_at = trio.current_time()
            await trio.sleep(_LOOK_S)
    finally:
        threads.close()


async def _monitor_round(
    engine: MonitorEngine, timeline: Timeline, threads: SearchThreads, parts: WatchParts
) -> None:
    timeline.look()
    went_back_to = timeline.went_back_to
    total = 0
    for info in await trio.to_thread.run_sync(parts.control.list_watches, "monitor"):
        monitor = decode_settings(info.settings, Monitor)
        if not monitor.enabled:
            await trio.to_thread.run_sync(engine.end, info)
            continue
        try:
            total += await _judge(engine, threads, parts, info, monitor, went_back_to)
        except RequestError as error:
            parts.counters.monitor_failures += 1
            _log.warning("monitor failed", monitor=monitor.name, reason=str(error))
            await trio.to_thread.run_sync(engine.fail, info, str(error))
    timeline.take_back()
    _ring(parts, total)


async def _judge(
    engine: MonitorEngine,
    threads: SearchThreads,
    parts: WatchParts,
    info: WatchInfo,
    monitor: Monitor,
    went_back_to: float | None,
) -> int:
    """Messages appended."""
    due = await threads.run(
        lambda stop: engine.due(info, monitor, went_back_to=went_back_to, stop=stop)
    )
    if due is None:
        return 0
    if isinstance(monitor.target, SqlTarget):
        async with parts.sql_turn:
            # One query a bucket: a few at a time, so that others have their turn.
            due = structs.replace(due, last=min(due.last, due.first + _SQL_BUCKETS - 1))
            values = await sql_values(parts.queries, monitor, due.first, due.last)
    else:
        values = await threads.run(lambda stop: engine.read(due, stop))
    judged, told = await threads.run(lambda _: engine.write(due, values))
    parts.counters.monitor_buckets += judged
    return told


async def _alive_at(parts: WatchParts) -> float | None:
    """When watching was last alive."""

    def read() -> int | None:
        with parts.control.watching(now_s=0, console_base="") as transaction:
            return transaction.cursor(_ALIVE)

    found = await trio.to_thread.run_sync(read)
    return None if found is None else found / 1000


def _save_alive(parts: WatchParts) -> None:
    with parts.control.watching(now_s=0, console_base="") as transaction:
        transaction.move_cursor(_ALIVE, int(parts.clock.wall() * 1000))


def _tell_unsilenced(parts: WatchParts) -> int:
    """Tell of incidents that outlive their silence; messages appended."""
    if not parts.control.has_untold():
        return 0
    with parts.control.watching(
        now_s=parts.clock.wall(), console_base=parts.console_base()
    ) as transaction:
        transaction.book.tell_unsilenced()
        return transaction.book.told_count


def _ring(parts: WatchParts, told: int) -> None:
    parts.counters.messages += told
    if told:
        parts.outbox.ring()


async def run_rules(
    make_engine: Callable[[], RuleEngine],
    *,
    store: Store,
    outbox: Doorbell,
    counters: WatchCounters,
) -> None:
    """Evaluate what is committed, as it is; rings `outbox` when something is to be told."""
    bell = Doorbell()
    token = trio.lowlevel.current_trio_token()

    def ring() -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(bell.ring, idempotent=True)

    threads = SearchThreads("rules", threads_max=1, waiting_max=1)
    engine = make_engine()
    rounds = _Rounds(engine, counters)
    store.listen(ring)
    try:
        while True:
            await _guarded("rules", partial(rounds.run, threads, outbox), store, counters)
            with trio.move_on_after(0 if rounds.is_behind else _LOOK_S):
                await bell.wait()
    finally:
        store.unlisten(ring)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_end, engine)
        threads.close()


class _Rounds:
    """Rounds of the rule engine, and between them the ends of quiet rules."""

    def __init__(self, engine: RuleEngine, counters: WatchCounters) -> None:
        self._engine = engine
        self._counters = counters
        self._resolved_at = -_LOOK_S
        self.is_behind = False

    async def run(self, threads: SearchThreads, outbox: Doorbell) -> None:
        self.is_behind = False
        done = await threads.run(self._engine.round)
        self.is_behind = done.is_behind
        self._counters.rule_groups += done.groups
        self._counters.rule_rows += done.rows
        self._counters.rule_matches += done.matches
        told = done.told
        # What lies behind a backlog may be a match.
        if not done.is_behind and trio.current_time() - self._resolved_at >= _LOOK_S:
            told += await threads.run(lambda _: self._engine.resolve_quiet())
            self._resolved_at = trio.current_time()
        self._counters.messages += told
        if told:
            outbox.ring()


def _end(engine: RuleEngine) -> None:
    try:
        engine.save()
    except StoreError as error:
        _log.warning("rule cursor not stored, the last batches are looked at again", reason=error)
    engine.close()


async def _guarded(
    kind: str,
    look: Callable[[], Awaitable[None]],
    store: Store,
    counters: WatchCounters,
) -> None:
    """One look; what the store cannot do now is tried again later."""
    try:
        await look()
    except StoreFailed:
        raise
    except (StoreError, Overloaded, RequestError) as error:
        name = f"{kind.rstrip('s')}_failures"
        setattr(counters, name, getattr(counters, name) + 1)
        _log.warning("watching put off", kind=kind, reason=str(error))
        if isinstance(error, StoreBroken):
            await trio.to_thread.run_sync(store.recover, error.generation)
        await trio.sleep(_FAILED_WAIT_S)
