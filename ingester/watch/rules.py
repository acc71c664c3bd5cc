"""The rule engine: rules over each committed batch, once, whatever ends the process.

A round reads what was committed behind the cursor, evaluates it, and writes what came of it with
the new cursor in one transaction of the control store. A crash before that leaves the old cursor,
and the same rows come to the same matches; one behind it finds the batch passed.

1. A rule that was changed while a group was evaluated makes the group be evaluated again.
2. Matches are counted exactly; `rows_max` rows of each rule and group are named, fewer when many
   rules match.
3. An incident of a rule ends when it has not matched for `resolve_after_s` of time that passed for
   us: the clock being set does not end it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from msgspec import Struct, structs

from ..delivery.incident import (
    FIRING_EVENTS_MAX,
    AffectedMonitor,
    RuleEvent,
    RuleEvents,
)
from ..errors import QueryError
from ..lql import parse
from ..search.reading import Reading, Stop
from ..search.subjects import SUBJECTS
from ..search.tail import end_of
from ..store.control import ControlStore
from ..store.control.incidents import Firer, feeders
from ..store.control.watches import WatchInfo, WatchTransaction
from ..store.rule_rows import RuleRows
from ..store.store import Store
from .batches import BatchGroup, evaluated_before, groups_behind, read_events, read_group
from .clock import Clock
from .pages import watch_url
from .plan import Plan
from .settings import Rule, decode_settings

__all__ = ["READER", "Round", "RuleEngine"]

READER = "rules"
# Of one group, over all rules: rows that are read again whole.
_ROWS_NAMED_MAX = 20_000
_ROUND_SECONDS_MAX = 60.0
# A round ends behind the group that passes this; the rules may have changed meanwhile.
_ROUND_MS = 5_000
# A cursor that stands still for nobody need not be synced at every commit.
_IDLE_SAVE_S = 5.0


class Round(Struct, frozen=True, kw_only=True):
    """What one round has done. `is_behind`: there is more to do at once."""

    groups: int = 0
    rows: int = 0
    matches: int = 0
    told: int = 0
    is_behind: bool = False


class _Found(Struct, frozen=True):
    """A rule with its matches in one group."""

    info: WatchInfo
    rule: Rule
    count: int
    events: tuple[RuleEvent, ...]
    fed: frozenset[str]


class _RuleSet(Struct):
    """The rules over one relation, and their plan."""

    infos: list[WatchInfo]
    rules: list[Rule]
    plan: Plan


class RuleEngine:
    """Blocking; used by one thread at a time."""

    def __init__(
        self,
        store: Store,
        control: ControlStore,
        *,
        console_base: Callable[[], str],
        clock: Clock | None = None,
        rows_max: int = FIRING_EVENTS_MAX,
    ) -> None:
        self._store = store
        self._control = control
        self._console_base = console_base
        self._clock = clock or Clock()
        self._rows_max = rows_max
        self._sql = {
            table: RuleRows(table, SUBJECTS[table].schema.attributes)
            for table in ("logs", "events")
        }
        self._sets: dict[str, _RuleSet] = {}
        self._changes_seen = -1
        self._cursor: int | None = None
        self._saved: int | None = None
        self._saved_at = 0.0
        # What goes with the cursor for a repair: the newest journal record, and a time.
        self._seq = self._began_ms = 0
        # By rule: when it last matched, in monotonic time.
        self._matched_at: dict[int, float] = {}
        self.faulty: dict[int, str] = {}

    def close(self) -> None:
        for each in self._sql.values():
            each.close()

    def round(self, stop: Stop | None = None) -> Round:
        """Evaluate what was committed since. Raises StoreBusy, StoreBroken as the store."""
        self._read_rules()
        done = Round()
        with Reading.open(self._store, seconds_max=_ROUND_SECONDS_MAX, stop=stop) as reading:
            cursor = self._start(reading)
            for group in groups_behind(reading, cursor):
                one = self._group(reading, group)
                if one is None:  # rules have changed
                    return structs.replace(done, is_behind=True)
                done = Round(
                    groups=done.groups + 1,
                    rows=done.rows + one.rows,
                    matches=done.matches + one.matches,
                    told=done.told + one.told,
                )
                if reading.elapsed_ms > _ROUND_MS:
                    return structs.replace(done, is_behind=True)
        # Also when nothing comes any more: parts stay until this cursor is written down.
        if self._clock.monotonic() - self._saved_at >= _IDLE_SAVE_S:
            self.save()
        elif not self._sets and self._cursor is not None:
            self._store.cursors.move(READER, self._cursor)  # nobody misses what is behind it
        return done

    def save(self) -> None:
        """Write down a cursor that was moved in memory only."""
        if self._cursor is not None and self._cursor != self._saved:
            with self._transaction() as transaction:
                transaction.move_cursor(READER, self._cursor)
                transaction.note_evaluated(self._seq, self._began_ms)
            self._note_saved()

    def resolve_quiet(self) -> int:
        """End incidents of rules that have not matched for long; messages appended."""
        now, told = self._clock.monotonic(), 0
        open_rules = self._control.open_watches("rule")
        rules = {
            info.number: rule
            for each in self._sets.values()
            for info, rule in zip(each.infos, each.rules, strict=True)
        }
        for number, fired_ms in open_rules.items():
            if number not in self._matched_at:
                ago = max(0.0, self._clock.wall() - fired_ms / 1000)
                self._matched_at[number] = now - ago
            rule = rules.get(number)
            limit = 0 if rule is None else rule.resolve_after_s
            if now - self._matched_at[number] < limit:
                continue
            with self._transaction() as transaction:
                transaction.book.recover(number, None)
                told += transaction.book.told_count
            self._matched_at.pop(number)
        return told

    def _start(self, reading: Reading) -> int:
        """The cursor; what was there before rules were is behind it."""
        if self._cursor is None:
            with self._transaction() as transaction:
                saved = transaction.cursor(READER)
                if saved is None:
                    saved = end_of(reading).commit_number
                    transaction.move_cursor(READER, saved)
                self._seq, self._began_ms = evaluated_before(reading, saved)
                transaction.note_evaluated(self._seq, self._began_ms)
            self._cursor = saved
            self._note_saved()
            self._store.cursors.move(READER, saved)
        return self._cursor

    def _read_rules(self) -> None:
        changes = self._control.watch_changes
        if changes == self._changes_seen:
            return
        self.save()
        by_table: dict[str, list[tuple[WatchInfo, Rule]]] = {}
        for info in self._control.list_watches("rule"):
            rule = decode_settings(info.settings, Rule)
            if rule.enabled:
                by_table.setdefault(rule.on, []).append((info, rule))
        self._sets, self.faulty = {}, {}
        for table, listed in by_table.items():
            self._sets[table] = self._rule_set(table, listed)
        self._changes_seen = changes

    def _rule_set(self, table: str, listed: Sequence[tuple[WatchInfo, Rule]]) -> _RuleSet:
        schema = SUBJECTS[table].schema
        infos, rules, queries = [], [], []
        for info, rule in listed:
            try:
                query = parse(rule.lql, context="rule", schema=schema)
            except QueryError as error:  # kept by another release
                self.faulty[info.number] = str(error)
                continue
            infos.append(info)
            rules.append(rule)
            queries.append(query)
        return _RuleSet(infos, rules, Plan(queries, schema, self._sql[table]))

    def _group(self, reading: Reading, group: BatchGroup) -> Round | None:
        """One group and its transaction; None when a rule has changed meanwhile."""
        rows = 0
        found: list[_Found] = []
        if group.batch_ids:
            for table, rules in self._sets.items():
                count, some = self._evaluate(reading, table, rules, group)
                rows += count
                found += some
        self._seq, self._began_ms = max(self._seq, group.seq), group.began_ms
        is_due = self._clock.monotonic() - self._saved_at >= _IDLE_SAVE_S
        told = 0
        if found or is_due:
            with self._transaction() as transaction:
                if not all(transaction.is_current(one.info) for one in found):
                    self._changes_seen = -1
                    return None
                for one in found:
                    self._fire(transaction, one)
                transaction.move_cursor(READER, group.commit_number)
                transaction.note_evaluated(self._seq, self._began_ms)
                told = transaction.book.told_count
        self._cursor = group.commit_number
        if found or is_due:
            self._note_saved()
        now = self._clock.monotonic()
        for one in found:
            self._matched_at[one.info.number] = now
        return Round(groups=1, rows=rows, matches=sum(one.count for one in found), told=told)

    def _evaluate(
        self, reading: Reading, table: str, rules: _RuleSet, group: BatchGroup
    ) -> tuple[int, list[_Found]]:
        subject = SUBJECTS[table]
        batch = read_group(reading, subject, group, rules.plan.columns)
        matches = rules.plan.matches(batch, rows_max=self._rows_max)
        if not matches:
            return batch.num_rows, []
        share = max(1, min(self._rows_max, _ROWS_NAMED_MAX // len(matches)))
        numbers = batch.column("request_number").to_numpy()
        lines = batch.column("line_number").to_numpy()
        keys = [
            [(int(numbers[row]), int(lines[row])) for row in match.rows[:share]]
            for match in matches
        ]
        events = read_events(
            reading, subject, group, sorted({key for each in keys for key in each})
        )
        found = []
        for match, named in zip(matches, keys, strict=True):
            read = [events[key] for key in named if key in events]
            found.append(
                _Found(
                    rules.infos[match.rule],
                    rules.rules[match.rule],
                    match.count,
                    tuple(event for event, _ in read),
                    frozenset(fed for _, fed in read),
                )
            )
        return batch.num_rows, found

    def _fire(self, transaction: WatchTransaction, found: _Found) -> None:
        rule, base = found.rule, self._console_base()
        firer = Firer(
            watch_number=found.info.number,
            affected=_affected(transaction, found),
            description=rule.description,
            destinations=rule.destinations,
            labels=rule.labels,
            incident_group=rule.incident_group,
            url=watch_url(base, found.info),
        )
        data = RuleEvents(events=found.events, count=found.count)
        transaction.book.fire(firer, title=rule.name, data=data, count=found.count)

    def _transaction(self) -> AbstractContextManager[WatchTransaction]:
        return self._control.watching(now_s=self._clock.wall(), console_base=self._console_base())

    def _note_saved(self) -> None:
        assert self._cursor is not None
        self._saved, self._saved_at = self._cursor, self._clock.monotonic()
        self._store.cursors.move(READER, self._cursor)


def _affected(transaction: WatchTransaction, found: _Found) -> AffectedMonitor:
    """What an incident tells of a rule, by the rows that matched first."""
    first = min(found.fed, default="")
    if found.rule.on == "logs":
        pairs = {tuple(fed.split("/", 1)) for fed in found.fed}
        connections = feeders(
            transaction.connection, services={(service, env) for env, service in pairs}
        )
        services = tuple(sorted({service for _, service in pairs if service}))
        environment, _, service = first.partition("/")
        path = f"logs.{environment}.{service}"
    else:
        connections = feeders(transaction.connection, sources=found.fed)
        services, path = (), f"events.{first}"
    return AffectedMonitor(
        id="",
        monitor_id=found.info.id,
        type="RULE",
        name=found.rule.name,
        entity_type="service" if services else "table",
        absolute_path=path,
        linked_at_ms=0,
        connections=connections,
        services=services,
        table=found.rule.on,
    )
