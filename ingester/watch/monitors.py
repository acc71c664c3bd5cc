"""The monitor engine: buckets judged when they are over, again when rows come late, each once.

1. An open bucket is never judged: one is over when its end and the delay behind it have passed.
2. What was judged is kept for `late_s`; rows that arrive for it make it and all behind it be
   judged again, and only what comes out differently changes an incident.
3. A bucket in which nothing could arrive (the server was down, the clock jumped) is not judged; one
   that the clock passes a second time is judged again, as under 2.
4. Verdicts, incidents and where a monitor stands are one transaction.
5. What cannot be judged now (a query that fails) is shown with the monitor, and tried again
   `_RETRY_S` later; no bucket is left out for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import msgspec
from msgspec import Struct, structs

from ..delivery.incident import (
    AffectedMonitor,
    Connection,
    GroupValue,
    MonitorType,
    MonitorValues,
    MonitorWindow,
)
from ..lql import parse
from ..lql.ast import Column, Filter, Text
from ..search.reading import Reading, SearchTookTooLong, Stop
from ..search.subjects import SUBJECTS
from ..store.control import ControlStore
from ..store.control.incidents import Firer, feeders
from ..store.control.watches import WatchInfo, WatchTransaction
from ..store.store import Store
from .anchors import conjuncts
from .clock import Clock, Timeline
from .judge import Bucket, Point, Values, judge
from .pages import watch_url
from .settings import (
    EventTarget,
    FreshnessTarget,
    LogTarget,
    MetricTarget,
    Monitor,
    RowTarget,
    SqlTarget,
)
from .tables import table_of
from .values import bucket_of, late_bucket, monitor_values, window_of

__all__ = ["Due", "MonitorEngine", "MonitorState", "affected_of"]

_READ_SECONDS_MAX = 60.0
# Buckets judged in one round; of more that are due the others come in the next.
_BUCKETS_MAX = 500
# Late rows are looked for this often; of SQL, where each bucket judged again is a query of 0.35
# CPU-s, less often, and the less the more buckets that were.
_LATE_EVERY_S = 10.0
_SQL_LATE_EVERY_S = 60.0
_SQL_LATE_EVERY_S_PER_BUCKET = 6.0
# A look for late rows that took too long is not repeated soon: it must not keep from judging.
_LATE_FAILED_S = 600.0
_RETRY_S = 60.0
_BUCKET = msgspec.json.Decoder(Bucket)


class MonitorState(Struct, frozen=True):
    """Where a monitor stands. `next_bucket` is judged next; rows of commits up to
    `commit_number` were looked at; `version` of the settings that this is about; `error`: why the
    next bucket is not judged yet.
    """

    next_bucket: int
    commit_number: int
    version: int
    error: str | None = None


_STATE = msgspec.json.Decoder(MonitorState)


class Due(Struct, frozen=True):
    """Buckets of a monitor that are to be judged, both included; some of them again. `closed` is
    the last one that is over.
    """

    info: WatchInfo
    monitor: Monitor
    state: MonitorState
    first: int
    last: int
    closed: int
    commit_number: int


class MonitorEngine:
    """Blocking; used by one thread at a time."""

    def __init__(
        self,
        store: Store,
        control: ControlStore,
        timeline: Timeline,
        *,
        console_base: Callable[[], str],
        clock: Clock,
        delay_s: float,
        late_s: float,
        groups_max: int,
    ) -> None:
        self._store = store
        self._control = control
        self._timeline = timeline
        self._console_base = console_base
        self._clock = clock
        self._delay_s = delay_s
        self._late_s = late_s
        self._groups_max = groups_max
        self._late_look_at: dict[int, float] = {}
        # By number and version of the settings.
        self._not_before: dict[tuple[int, int], float] = {}

    def due(
        self, info: WatchInfo, monitor: Monitor, *, went_back_to: float | None, stop: Stop
    ) -> Due | None:
        """What of a monitor is to be judged now."""
        now = self._clock.wall()
        retry_at = self._not_before.get((info.number, info.version), 0.0)
        if went_back_to is None and self._clock.monotonic() < retry_at:
            return None
        delay = self._delay_s if monitor.delay_s is None else monitor.delay_s
        closed = bucket_of(monitor, now - delay) - 1
        state = self._state(info, monitor, closed)
        first = state.next_bucket
        if went_back_to is not None:
            first = min(first, bucket_of(monitor, went_back_to))
        # What the clock passes again is judged again when it is over again.
        moved = structs.replace(state, next_bucket=first)
        commit_number = state.commit_number
        if self._is_late_due(info, monitor) and first <= closed + 1:
            try:
                first, commit_number = self._with_late(monitor, moved, stop)
            except SearchTookTooLong:
                self._late_look_at[info.number] = self._clock.monotonic() + _LATE_FAILED_S
            if isinstance(monitor.target, SqlTarget):
                wait_s = (moved.next_bucket - first) * _SQL_LATE_EVERY_S_PER_BUCKET
                self._late_look_at[info.number] += wait_s
        last = min(closed, first + _BUCKETS_MAX - 1)
        if first > last and moved == state and commit_number == state.commit_number:
            return None
        return Due(info, monitor, moved, first, last, closed, commit_number)

    def _with_late(self, monitor: Monitor, state: MonitorState, stop: Stop) -> tuple[int, int]:
        """The first bucket to be judged, and the commit up to which rows were looked at."""
        first = state.next_bucket
        kept = first - max(1, int(self._late_s // monitor.window_s))
        with Reading.open(self._store, seconds_max=_READ_SECONDS_MAX, stop=stop) as reading:
            commit_number = reading.snapshot.commit_number
            if commit_number <= state.commit_number:
                return first, state.commit_number
            late = late_bucket(
                reading, monitor, after_commit=state.commit_number, first=kept, last=first - 1
            )
            return first if late is None else late, commit_number

    def read(self, due: Due, stop: Stop) -> dict[int, Values]:
        """The values of the buckets that are due, from stored rows."""
        if due.first > due.last:
            return {}
        with Reading.open(self._store, seconds_max=_READ_SECONDS_MAX, stop=stop) as reading:
            return monitor_values(
                reading, due.monitor, due.first, due.last, groups_max=self._groups_max
            )

    def write(self, due: Due, values: Mapping[int, Values]) -> tuple[int, int]:
        """Judge, and store what comes of it; buckets judged and messages appended."""
        info, monitor = due.info, due.monitor
        with self._transaction() as transaction:
            if not transaction.is_current(info):
                return 0, 0
            kept = {
                bucket: _BUCKET.decode(points)
                for bucket, points in transaction.buckets(info.number, 0).items()
            }
            before = kept.get(due.first - 1) or _last_before(kept, due.first)
            judged: list[tuple[int, Bucket]] = []
            for bucket in range(due.first, due.last + 1):
                found = values.get(bucket, Values())
                before = judge(
                    monitor,
                    before,
                    found,
                    groups_max=self._groups_max,
                    is_unknown=self._is_unknown(monitor, bucket, found),
                )
                judged.append((bucket, before))
                transaction.save_bucket(info.number, bucket, msgspec.json.encode(before))
            self._act(transaction, due, kept, judged)
            next_bucket = due.state.next_bucket
            if due.first <= due.last:
                # Of more than one round takes the others are judged, perhaps again, in the next.
                next_bucket = due.last + 1
            state = MonitorState(next_bucket, due.commit_number, info.version)
            transaction.save_state(info.number, msgspec.json.encode(state))
            keeps = max(int(self._late_s // monitor.window_s), 1) + monitor.datapoints[1] + 1
            transaction.drop_buckets(info.number, before=next_bucket - keeps)
            return due.last + 1 - due.first, transaction.book.told_count

    def fail(self, info: WatchInfo, error: str) -> None:
        """It cannot be judged now."""
        self._not_before[info.number, info.version] = self._clock.monotonic() + _RETRY_S
        with self._transaction() as transaction:
            text = transaction.state(info.number)
            if text is not None and transaction.is_current(info):
                state = structs.replace(_STATE.decode(text), error=error)
                transaction.save_state(info.number, msgspec.json.encode(state))

    def end(self, info: WatchInfo) -> None:
        """Of one that is off: what it has open is resolved."""
        with self._transaction() as transaction:
            if transaction.book.recover(info.number, None) or transaction.state(info.number):
                transaction.connection.execute(
                    "DELETE FROM watch_states WHERE watch_id = ?", (info.number,)
                )

    def _state(self, info: WatchInfo, monitor: Monitor, closed: int) -> MonitorState:
        """The stored state; a monitor that is new or was changed begins anew."""
        text = self._control.watch_state(info.number)
        if text is not None:
            state = _STATE.decode(text)
            if state.version == info.version:
                return state
        state = MonitorState(closed + 1, self._store.ledger.commit_number, info.version)
        with self._transaction() as transaction:
            if transaction.is_current(info):
                transaction.book.recover(info.number, None)
                transaction.drop_buckets(info.number, before=2**62)
                transaction.save_state(info.number, msgspec.json.encode(state))
        return state

    def _is_late_due(self, info: WatchInfo, monitor: Monitor) -> bool:
        now = self._clock.monotonic()
        if now < self._late_look_at.get(info.number, 0.0):
            return False
        is_sql = isinstance(monitor.target, SqlTarget)
        self._late_look_at[info.number] = now + (_SQL_LATE_EVERY_S if is_sql else _LATE_EVERY_S)
        return True

    def _is_unknown(self, monitor: Monitor, bucket: int, values: Values) -> bool:
        if any(value for value in values.by_group.values()):
            return False
        start, end = window_of(monitor, bucket)
        return self._timeline.touches_gap(start.timestamp(), end.timestamp())

    def _act(
        self,
        transaction: WatchTransaction,
        due: Due,
        kept: Mapping[int, Bucket],
        judged: Sequence[tuple[int, Bucket]],
    ) -> None:
        """Change incidents where a verdict is new, or another than that in `kept`. A bucket judged
        again ends nothing that fires by the newest verdict.
        """
        # When the clock was set back there are verdicts on what is not over now: they do not count.
        newest = max((bucket for bucket in kept if bucket <= due.closed), default=due.first - 1)
        at_newest = dict(judged).get(newest) or kept.get(newest) or Bucket()
        fired: set[str] = set()
        for bucket, after in judged:
            is_last = bucket == due.last and bucket >= newest
            for key, point in after.groups.items():
                was = kept[bucket].groups.get(key) if bucket in kept else None
                is_same = was is not None and was.is_firing == point.is_firing
                if is_same and (point.is_firing or not (is_last or key in fired)):
                    continue
                if point.is_firing:
                    self._fire(transaction, due, bucket, key, point)
                    fired.add(key)
                elif bucket >= newest or not _is_firing(at_newest, key):
                    data = MonitorValues(windows=(_window(due.monitor, bucket, key, point),))
                    transaction.book.recover(due.info.number, key, data=data)
                    fired.discard(key)

    def _fire(
        self, transaction: WatchTransaction, due: Due, bucket: int, key: str, point: Point
    ) -> None:
        info, monitor = due.info, due.monitor
        firer = Firer(
            watch_number=info.number,
            group_key=key,
            affected=affected_of(transaction, info, monitor, key, point),
            description=monitor.description,
            destinations=monitor.destinations,
            labels=monitor.labels,
            incident_group=monitor.incident_group,
            url=watch_url(self._console_base(), info),
        )
        data = MonitorValues(windows=(_window(monitor, bucket, key, point),))
        transaction.book.fire(firer, title=_title(monitor, key, point), data=data)

    def _transaction(self) -> AbstractContextManager[WatchTransaction]:
        return self._control.watching(now_s=self._clock.wall(), console_base=self._console_base())


def _is_firing(bucket: Bucket, key: str) -> bool:
    point = bucket.groups.get(key)
    return point is not None and point.is_firing


def _last_before(kept: Mapping[int, Bucket], bucket: int) -> Bucket:
    earlier = [number for number in kept if number < bucket]
    return kept[max(earlier)] if earlier else Bucket()


def group_of(monitor: Monitor, key: str) -> tuple[GroupValue, ...] | None:
    if not monitor.group_by:
        return None
    values = msgspec.json.decode(key, type=list[str])
    return tuple(
        GroupValue(name=name, value=value)
        for name, value in zip(monitor.group_by, values, strict=True)
    )


def _window(monitor: Monitor, bucket: int, key: str, point: Point) -> MonitorWindow:
    start, end = window_of(monitor, bucket)
    return MonitorWindow(
        monitor=monitor.name,
        value=point.value,
        threshold=monitor.threshold,
        window_start_ms=int(start.timestamp() * 1000),
        window_end_ms=int(end.timestamp() * 1000),
        group=group_of(monitor, key),
    )


def _title(monitor: Monitor, key: str, point: Point) -> str:
    group = ", ".join(f"{one.name}={one.value}" for one in group_of(monitor, key) or ())
    name = f"{monitor.name} ({group})" if group else monitor.name
    if point.value is None or monitor.threshold is None:
        return f"{name}: no data"
    return f"{name}: {point.value:g} {monitor.operator} {monitor.threshold:g}"


def affected_of(
    transaction: WatchTransaction, info: WatchInfo, monitor: Monitor, key: str, point: Point
) -> AffectedMonitor:
    """What an incident tells of a monitor's group."""
    target = monitor.target
    connection = transaction.connection
    named = {one.name: one.value for one in group_of(monitor, key) or ()}
    services: tuple[str, ...] = ()
    feeding: tuple[Connection, ...] = ()
    kind: MonitorType = "ROW_COUNT"
    table: str | None = None
    match target:
        case MetricTarget():
            kind, path, table = (
                "METRIC",
                f"metrics.{target.project_id}.{target.metric_id}",
                "metrics",
            )
            feeding = feeders(connection, projects=[target.project_id])
        case LogTarget():
            equal = {**_equalities(target.lql, "logs"), **named}
            service, environment = equal.get("service"), equal.get("environment")
            kind, path, table = "LOG_COUNT", "logs", "logs"
            if service is not None:
                services, path = (service,), f"logs.{environment or '*'}.{service}"
                feeding = feeders(connection, services=[(service, environment)])
        case EventTarget():
            source = {**_equalities(target.lql, "events"), **named}.get("source")
            kind, path, table = "EVENT_COUNT", "events", "events"
            if source is not None:
                path, feeding = f"events.{source}", feeders(connection, sources=[source])
        case RowTarget() | FreshnessTarget():
            kind = "ROW_COUNT" if isinstance(target, RowTarget) else "FRESHNESS"
            path = table = target.table
        case SqlTarget():
            table = table_of(target.query)
            path = table or "sql"
    return AffectedMonitor(
        id="",
        monitor_id=info.id,
        type="NO_DATA" if point.value is None else kind,
        name=monitor.name,
        entity_type="metric" if kind == "METRIC" else "service" if services else "table",
        absolute_path=path,
        linked_at_ms=0,
        group=group_of(monitor, key),
        connections=feeding,
        services=services,
        table=table,
    )


def _equalities(lql: str, table: str) -> dict[str, str]:
    """Columns that every row of a query has this value in."""
    if not lql.strip():
        return {}
    query = parse(lql, context="rule", schema=SUBJECTS[table].schema)
    return {
        node.field.name: node.value.text
        for node in conjuncts(query.where)
        if isinstance(node, Filter)
        and node.operator == "="
        and isinstance(node.field, Column)
        and isinstance(node.value, Text)
    }
