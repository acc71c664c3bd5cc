"""Alerts: which windows are due, the query of a window, and what comes of its rows.

Windows tile by schedule: each begins where the one before ended, whenever it is run. A window is
passed only when it was run: one that fails is run again, `_TRIES_MAX` times a minute apart.

1. An LQL alert looks at what was committed since its last run: a row is in exactly one window,
   whatever its own time says and whatever the clock does. It looks ahead every `_AHEAD_S` and keeps
   what it finds, so that a long window is not read at once, nor after its rows are gone; sealing
   need not wait for it, as the ledger of sealed parts is kept.
2. A SQL alert has `$window_start` and `$window_end` as timestamps.
3. Windows that lie in a gap of time are one with the window that the gap ends in: nothing could
   arrive in them, and a query that fires on absence must not.
4. When the clock was set back, windows are run again as it passes them; one that finds the rows
   that it has found before fires no more.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import cast

import msgspec
from msgspec import Struct, structs

from ..delivery.incident import FIRING_ROWS_MAX, AffectedMonitor, AlertRows
from ..delivery.rows import rows_array
from ..lql import compile_query, parse
from ..search.fetch import documents
from ..search.keys import Key
from ..search.reading import Reading, Stop
from ..search.subjects import SUBJECTS
from ..search.tail import matching_behind
from ..store.control import ControlStore
from ..store.control.incidents import Firer
from ..store.control.watches import AlertRun, WatchInfo
from ..store.relations import relation
from ..store.store import Store
from .clock import Clock, Timeline
from .cron import Cron
from .pages import watch_url
from .settings import Alert
from .tables import table_of

__all__ = [
    "AlertBook",
    "AlertState",
    "AlertWindow",
    "Outcome",
    "bound_query",
    "due_window",
    "rows_between",
]

_TRIES_MAX = 5
_RETRY_S = 60.0
_READ_SECONDS_MAX = 60.0
_AHEAD_S = 300.0
_HELD = msgspec.json.Decoder(list[msgspec.Raw])
# More windows than that, neither run nor in a gap, are run as one.
_WINDOWS_MAX = 1_000

# Texts, identifiers and comments of SQL, in which a name is no parameter; then the parameters.
_SQL_PIECES = re.compile(
    r"""('(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/|\$([A-Za-z_]*)\$.*?\$\2\$)"""
    r"|\$window_(start|end)\b",
    re.DOTALL,
)


class Ahead(Struct, frozen=True):
    """What an LQL alert has found before its window is over, by the settings of `version`: `count`
    rows in commits up to `commit_number`. The rows lie beside the state.
    """

    commit_number: int
    count: int
    version: int


class AlertState(Struct, frozen=True, omit_defaults=True):
    """Where an alert stands: its windows up to `through` (epoch seconds) were run, with commits up
    to `commit_number`. `tries` of the window behind have failed.
    """

    through: float
    commit_number: int
    tries: int = 0
    ahead: Ahead | None = None


class AlertWindow(Struct, frozen=True):
    """From the scheduled run before, excluded, to this one."""

    start: datetime
    end: datetime


class Outcome(Struct, frozen=True, kw_only=True):
    """What a run has found: rows as JSON objects and their exact number, or an error."""

    rows: tuple[bytes, ...] = ()
    count: int = 0
    error: str | None = None
    attempts: int = 1
    commit_number: int | None = None

    @property
    def digest(self) -> str:
        return hashlib.sha256(b"\n".join(self.rows)).hexdigest()[:32]


def bound_query(sql: str, window: AlertWindow) -> str:
    """The query with the window's ends in place of its parameters."""
    ends = {"start": window.start, "end": window.end}

    def spelled(found: re.Match[str]) -> str:
        if found[1] is not None:
            return found[1]
        return f"TIMESTAMP '{ends[found[3]]:%Y-%m-%d %H:%M:%S.%f}'"

    return _SQL_PIECES.sub(spelled, sql)


def due_window(
    cron: Cron, through: datetime, now: datetime, *, delay_s: float, timeline: Timeline
) -> AlertWindow | None:
    """The first window behind `through` that is over; None when none is."""
    ready = now.timestamp() - delay_s
    start, end = through, cron.next(through)
    for gap in timeline.gaps:
        if gap.start <= start.timestamp() and end.timestamp() <= gap.end:
            # All windows within the gap, with the one that it ends in.
            end = cron.next(datetime.fromtimestamp(gap.end, UTC))
    if end.timestamp() > ready:
        return None
    missed = _count_windows(cron, end, ready)
    if missed > _WINDOWS_MAX:
        end = cron.previous(datetime.fromtimestamp(ready, UTC))
    return AlertWindow(start, end)


def _count_windows(cron: Cron, end: datetime, ready: float) -> int:
    count = 0
    while count <= _WINDOWS_MAX and (end := cron.next(end)).timestamp() <= ready:
        count += 1
    return count


class AlertBook:
    """What blocks of running alerts; used by one thread at a time."""

    def __init__(
        self,
        store: Store,
        control: ControlStore,
        timeline: Timeline,
        *,
        console_base: Callable[[], str],
        clock: Clock,
        delay_s: Callable[[], float],
    ) -> None:
        self._store = store
        self._control = control
        self._timeline = timeline
        self._console_base = console_base
        self._clock = clock
        self._delay_s = delay_s
        self._not_before: dict[int, float] = {}
        self._ahead_at: dict[int, float] = {}

    def due(
        self, info: WatchInfo, alert: Alert, *, went_back_to: float | None
    ) -> tuple[AlertState, AlertWindow] | None:
        """The window that is to be run now."""
        cron = Cron.parse(alert.cron)
        now = datetime.fromtimestamp(self._clock.wall(), UTC)
        text = self._control.watch_state(info.number)
        if text is None:
            state = AlertState(cron.previous(now).timestamp(), self._store.ledger.commit_number)
            self._save(info, state)
        else:
            state = msgspec.json.decode(text, type=AlertState)
        if went_back_to is not None and state.through > went_back_to:
            state = structs.replace(state, through=cron.previous(now).timestamp())
            self._save(info, state)
        if self._clock.monotonic() < self._not_before.get(info.number, 0.0):
            return None
        through = datetime.fromtimestamp(state.through, UTC)
        window = due_window(cron, through, now, delay_s=self._delay_s(), timeline=self._timeline)
        return None if window is None else (state, window)

    def lql_rows(self, info: WatchInfo, alert: Alert, state: AlertState, *, stop: Stop) -> Outcome:
        """What was committed since the last run and matches."""
        ahead = _valid_ahead(info, state)
        subject = SUBJECTS[alert.on]
        query = parse(alert.query, context="rule", schema=subject.schema)
        begin = state.commit_number if ahead is None else ahead.commit_number
        with Reading.open(self._store, seconds_max=_READ_SECONDS_MAX, stop=stop) as reading:
            keys, count = matching_behind(reading, subject, query, begin, limit=FIRING_ROWS_MAX)
            found = _outcome(reading, alert.on, keys, count)
        if ahead is None or not ahead.count:
            return found
        held = [bytes(row) for row in _HELD.decode(self._control.alert_rows(info.number))]
        return structs.replace(
            found,
            rows=(*held, *found.rows)[:FIRING_ROWS_MAX],
            count=ahead.count + found.count,
        )

    def look_ahead(self, info: WatchInfo, alert: Alert, *, stop: Stop) -> None:
        """Take in what of an LQL alert's window has come by now, once in a while."""
        now = self._clock.monotonic()
        if alert.language != "lql" or now < self._ahead_at.setdefault(info.number, now + _AHEAD_S):
            return
        self._ahead_at[info.number] = now + _AHEAD_S
        text = self._control.watch_state(info.number)
        if text is None:
            return
        state = msgspec.json.decode(text, type=AlertState)
        found = self.lql_rows(info, alert, state, stop=stop)
        assert found.commit_number is not None
        ahead = Ahead(found.commit_number, found.count, info.version)
        with self._control.watching(
            now_s=self._clock.wall(), console_base=self._console_base()
        ) as transaction:
            if transaction.is_current(info) and transaction.state(info.number) == text:
                after = structs.replace(state, ahead=ahead)
                transaction.save_state(info.number, msgspec.json.encode(after))
                transaction.save_alert_rows(info.number, rows_array(AlertRows(rows=found.rows)))

    def settle(
        self, info: WatchInfo, alert: Alert, state: AlertState, window: AlertWindow, ran: Outcome
    ) -> int:
        """Store a run and what comes of it; messages appended."""
        is_given_up = ran.error is not None and state.tries + 1 >= _TRIES_MAX
        if ran.error is None or is_given_up:
            number = state.commit_number if ran.commit_number is None else ran.commit_number
            after = AlertState(window.end.timestamp(), number)
            self._not_before.pop(info.number, None)
        else:
            after = structs.replace(state, tries=state.tries + 1)
            self._not_before[info.number] = self._clock.monotonic() + _RETRY_S
        with self._control.watching(
            now_s=self._clock.wall(), console_base=self._console_base()
        ) as transaction:
            if not transaction.is_current(info):
                return 0
            run = AlertRun(
                window_start=window.start.timestamp(),
                window_end=window.end.timestamp(),
                ran_at=self._clock.wall(),
                attempts=ran.attempts,
                row_count=None if ran.error is not None else ran.count,
                digest=ran.digest if ran.rows else None,
                error=f"{ran.error} (given up)" if is_given_up else ran.error,
            )
            is_repeat = bool(ran.rows) and transaction.has_run(
                info.number, run.window_end, ran.digest
            )
            if ran.rows and not is_repeat:
                title = f"{alert.name}: {ran.count} row{'' if ran.count == 1 else 's'}"
                data = AlertRows(rows=ran.rows)
                transaction.book.fire(
                    self._firer(info, alert), title=title, data=data, count=ran.count
                )
            elif ran.error is None and not ran.rows:
                transaction.book.recover(info.number, None)
            transaction.add_run(info.number, run)
            if after.ahead is None:
                transaction.save_alert_rows(info.number, None)
            transaction.save_state(info.number, msgspec.json.encode(after))
            return transaction.book.told_count

    def end(self, info: WatchInfo) -> None:
        """Of one that is off: what it has open is resolved; it begins anew when it is on again."""
        with self._control.watching(
            now_s=self._clock.wall(), console_base=self._console_base()
        ) as transaction:
            transaction.book.recover(info.number, None)
            transaction.connection.execute(
                "DELETE FROM watch_states WHERE watch_id = ?", (info.number,)
            )
            transaction.save_alert_rows(info.number, None)

    def _save(self, info: WatchInfo, state: AlertState) -> None:
        with self._control.watching(
            now_s=self._clock.wall(), console_base=self._console_base()
        ) as transaction:
            if transaction.is_current(info):
                transaction.save_state(info.number, msgspec.json.encode(state))

    def _firer(self, info: WatchInfo, alert: Alert) -> Firer:
        table = alert.on if alert.language == "lql" else table_of(alert.query)
        return Firer(
            watch_number=info.number,
            affected=AffectedMonitor(
                id="",
                monitor_id=info.id,
                type="ALERT",
                name=alert.name,
                entity_type="table",
                absolute_path=table or "sql",
                linked_at_ms=0,
                table=table,
            ),
            description=alert.description,
            destinations=alert.destinations,
            labels=alert.labels,
            incident_group=alert.incident_group,
            url=watch_url(self._console_base(), info),
        )


def _valid_ahead(info: WatchInfo, state: AlertState) -> Ahead | None:
    """What was found by other settings is found anew."""
    ahead = state.ahead
    return None if ahead is None or ahead.version != info.version else ahead


def rows_between(reading: Reading, alert: Alert, window: AlertWindow) -> Outcome:
    """What arrived within a window and matches; for a test, which has no cursor."""
    subject = SUBJECTS[alert.on]
    query = parse(alert.query, context="rule", schema=subject.schema)
    low, high = (each.replace(tzinfo=None) for each in (window.start, window.end))
    files = reading.snapshot.files_within(subject.table, "received_at", low, high)
    rows = relation(reading.snapshot, subject.table, subject.columns, files)
    compiled = compile_query(query, now=reading.now, schema=subject.schema)
    matching = (
        f"FROM ({rows}) AS {subject.schema.relation} WHERE received_at >= ? AND received_at < ? "
        f"AND ({compiled.where_sql})"
    )
    params = [low, high, *compiled.params]
    keys = [
        Key(*row)  # type: ignore[arg-type]
        for row in reading.rows(
            f"SELECT {subject.schema.time}, request_number, line_number, arm_number, file_name, "
            f"place {matching} ORDER BY request_number, line_number LIMIT {FIRING_ROWS_MAX}",
            params,
        )
    ]
    ((count,),) = reading.rows(f"SELECT count(received_at) {matching}", params)
    return _outcome(reading, alert.on, keys, cast(int, count))


def _outcome(reading: Reading, table: str, keys: Sequence[Key], count: int) -> Outcome:
    rows = documents(reading, SUBJECTS[table], keys)
    return Outcome(
        rows=tuple(msgspec.json.encode(row) for row in rows),
        count=count,
        commit_number=reading.snapshot.commit_number,
    )
