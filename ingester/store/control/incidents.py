"""Incidents: opened, joined, recovered and resolved, inside one transaction of the control store.

Invariants:

1. At most one affected entry is open for a rule, an alert, or a group of a monitor: a further
   firing joins it. With an `incident_group` all that share its name join one open incident.
2. Each change of an incident is a revision: `updated_at` rises by at least a millisecond whatever
   the clock does, and what is told of it is appended to the outbox in the same transaction.
3. A resolved incident never changes again but for its labels and owner; a new firing makes a new
   one. It is resolved when the last of its affected entries is.
4. Under a silence nothing is told, but whoever was told that it was opened is told that it is
   resolved. An incident that outlives its silence is told then.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence

import msgspec
from msgspec import Struct, structs

from ingester.delivery.incident import (
    AffectedMonitor,
    AlertRows,
    Connection,
    Data,
    Firing,
    Incident,
    Label,
    Revision,
    RevisionKind,
    RuleEvents,
    incident_url,
)
from ingester.delivery.routing import RouteRule, RouteRules, incident_facts, lets_through
from ingester.store.control.outbox import append_firing, append_revision
from ingester.store.lql_match import regex_found

__all__ = ["Firer", "IncidentBook", "is_silenced", "label_of"]

INCIDENT_ID_PREFIX = "inc_"
AFFECTED_ID_PREFIX = "aff_"
LABEL_ID_PREFIX = "lab_"
_MATCHERS = msgspec.json.Decoder(tuple[RouteRule, ...])
_DETAIL = msgspec.json.Decoder(AffectedMonitor)
_IDS = msgspec.json.Decoder(tuple[str, ...])


class Firer(Struct, frozen=True, kw_only=True):
    """Who fires: a rule, an alert, or a monitor, and what an incident tells of it. `affected` has
    neither id nor times yet; `url` is its page.
    """

    watch_number: int
    affected: AffectedMonitor
    group_key: str = ""
    description: str = ""
    destinations: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    incident_group: str = ""
    url: str = ""


class IncidentBook:
    """What may be done to incidents in one open transaction. `told_count`: messages appended."""

    def __init__(
        self, connection: sqlite3.Connection, *, now_ms: int, console_base: str, actor: str = ""
    ) -> None:
        self._connection = connection
        self._now_ms = now_ms
        self._base = console_base
        self._actor = actor or "ingester"
        self.told_count = 0

    def fire(self, firer: Firer, *, title: str, data: Data, count: int = 1) -> str:
        """The incident's id. The first firing opens or joins, further ones are counted."""
        row = self._connection.execute(
            "SELECT incident_id FROM affected WHERE watch_id = ? AND group_key = ?"
            " AND resolved_at IS NULL",
            (firer.watch_number, firer.group_key),
        ).fetchone()
        number = self._link(firer, title, data) if row is None else int(row[0])
        self._connection.execute(
            "UPDATE affected SET firings = firings + 1, matches = matches + ?, last_fired_at = ?"
            " WHERE watch_id = ? AND group_key = ? AND resolved_at IS NULL",
            (count, self._now_ms, firer.watch_number, firer.group_key),
        )
        if isinstance(data, AlertRows | RuleEvents):
            self._tell_firing(firer, number, data)
        return f"{INCIDENT_ID_PREFIX}{number}"

    def recover(
        self, watch_number: int, group_key: str | None = "", *, data: Data | None = None
    ) -> bool:
        """End what a group (None: every group) of a rule, alert or monitor takes part in. False
        when there was nothing to end.
        """
        rows = self._connection.execute(
            "SELECT affected_id, incident_id, detail FROM affected WHERE watch_id = ?1"
            " AND (?2 IS NULL OR group_key = ?2) AND resolved_at IS NULL",
            (watch_number, group_key),
        ).fetchall()
        for affected_id, incident_id, detail in rows:
            ended = structs.replace(_DETAIL.decode(detail), resolved_at_ms=self._now_ms)
            self._connection.execute(
                "UPDATE affected SET resolved_at = ?, detail = ? WHERE affected_id = ?",
                (self._now_ms, msgspec.json.encode(ended).decode(), affected_id),
            )
            self._after_recovery(incident_id, ended.name, data)
        return bool(rows)

    def resolve(self, incident_number: int) -> None:
        """By hand: everything in it counts as normal until it fires again."""
        for watch_id, group_key in self._connection.execute(
            "SELECT watch_id, group_key FROM affected WHERE incident_id = ?"
            " AND resolved_at IS NULL",
            (incident_number,),
        ).fetchall():
            self.recover(watch_id, group_key)

    def changed(self, incident_number: int, note: str) -> None:
        """Labels or owner were changed."""
        self._revise(incident_number, "changed", note)

    def tell_unsilenced(self) -> None:
        """Tell of open incidents whose silence has ended."""
        for (number,) in self._connection.execute(
            "SELECT incident_id FROM incidents WHERE status = 'opened' AND is_told = 0"
        ).fetchall():
            if not self._is_silenced(self.incident(number)):
                self._revise(number, "opened", "the silence has ended")

    def incident(self, number: int) -> Incident:
        """As it would be told now."""
        row = self._connection.execute(
            "SELECT status, created_at, updated_at, title, description FROM incidents"
            " WHERE incident_id = ?",
            (number,),
        ).fetchone()
        incident_id = f"{INCIDENT_ID_PREFIX}{number}"
        return Incident(
            id=incident_id,
            created_at_ms=row[1],
            updated_at_ms=row[2],
            status=row[0],
            url=incident_url(self._base, incident_id),
            title=row[3],
            description=row[4],
            labels=self._labels(number),
            affected_monitors=tuple(
                _DETAIL.decode(detail)
                for (detail,) in self._connection.execute(
                    "SELECT detail FROM affected WHERE incident_id = ? ORDER BY affected_id",
                    (number,),
                )
            ),
        )

    def _link(self, firer: Firer, title: str, data: Data) -> int:
        row = None
        if firer.incident_group:
            row = self._connection.execute(
                "SELECT incident_id FROM incidents WHERE status = 'opened'"
                " AND incident_group = ? ORDER BY incident_id DESC LIMIT 1",
                (firer.incident_group,),
            ).fetchone()
        if row is None:
            number = self._insert(
                "INSERT INTO incidents (status, created_at, updated_at, title, description,"
                " incident_group, is_told) VALUES ('opened', ?, ?, ?, ?, ?, 0)",
                (self._now_ms, self._now_ms - 1, title, firer.description, firer.incident_group),
            )
        else:
            number = int(row[0])
        affected_id = self._insert(
            "INSERT INTO affected (incident_id, watch_id, group_key, detail, destinations,"
            " linked_at, last_fired_at) VALUES (?, ?, ?, '', ?, ?, ?)",
            (
                number,
                firer.watch_number,
                firer.group_key,
                msgspec.json.encode(firer.destinations).decode(),
                self._now_ms,
                self._now_ms,
            ),
        )
        detail = structs.replace(
            firer.affected, id=f"{AFFECTED_ID_PREFIX}{affected_id}", linked_at_ms=self._now_ms
        )
        self._connection.execute(
            "UPDATE affected SET detail = ? WHERE affected_id = ?",
            (msgspec.json.encode(detail).decode(), affected_id),
        )
        for name in firer.labels:
            self._connection.execute(
                "INSERT INTO incident_labels VALUES (?, ?) ON CONFLICT DO NOTHING",
                (number, label_of(self._connection, name, self._now_ms / 1000)),
            )
        self._revise(number, "opened" if row is None else "joined", detail.name, data)
        return number

    def _after_recovery(self, number: int, name: str, data: Data | None) -> None:
        (open_count,) = self._connection.execute(
            "SELECT count(*) FROM affected WHERE incident_id = ? AND resolved_at IS NULL",
            (number,),
        ).fetchone()
        if open_count:
            self._revise(number, "monitor_resolved", name, data)
            return
        self._connection.execute(
            "UPDATE incidents SET status = 'resolved', resolved_at = ? WHERE incident_id = ?",
            (self._now_ms, number),
        )
        self._revise(number, "resolved", name, data)

    def _revise(self, number: int, kind: RevisionKind, note: str, data: Data | None = None) -> None:
        self._connection.execute(
            "UPDATE incidents SET updated_at = max(?, updated_at + 1) WHERE incident_id = ?",
            (self._now_ms, number),
        )
        incident = self.incident(number)
        (was_told,) = self._connection.execute(
            "SELECT is_told FROM incidents WHERE incident_id = ?", (number,)
        ).fetchone()
        is_silenced = kind != "resolved" and self._is_silenced(incident)
        is_told = not is_silenced and (bool(was_told) or incident.status == "opened")
        if is_told:
            # Who was not told before hears of it as opened, whatever the change is.
            told = kind if was_told else "opened"
            reached = append_revision(
                self._connection,
                Revision(kind=told, incident=incident, data=data),
                destinations=self._destinations(number),
            )
            self.told_count += len(reached)
            self._connection.execute(
                "UPDATE incidents SET is_told = 1 WHERE incident_id = ?", (number,)
            )
        self._connection.execute(
            "INSERT INTO revisions VALUES (?, ?, ?, ?, ?, ?)",
            (number, incident.updated_at_ms, kind, self._actor, note, int(is_told)),
        )

    def _tell_firing(self, firer: Firer, number: int, data: AlertRows | RuleEvents) -> None:
        incident = self.incident(number)
        if self._is_silenced(incident):
            return
        firing = Firing(
            incident_id=incident.id,
            name=firer.affected.name,
            description=firer.description,
            url=firer.url,
            fired_at_ms=self._now_ms,
            data=data,
            monitor_id=firer.affected.monitor_id,
            services=firer.affected.services,
            table=firer.affected.table,
            labels=incident.labels,
        )
        self.told_count += len(
            append_firing(self._connection, firing, destinations=firer.destinations)
        )

    def _destinations(self, number: int) -> set[str]:
        rows = self._connection.execute(
            "SELECT destinations FROM affected WHERE incident_id = ?", (number,)
        )
        return {destination for (text,) in rows for destination in _IDS.decode(text)}

    def _labels(self, number: int) -> tuple[Label, ...]:
        return tuple(
            Label(id=f"{LABEL_ID_PREFIX}{label_id}", name=name)
            for label_id, name in self._connection.execute(
                "SELECT label_id, name FROM labels JOIN incident_labels USING (label_id)"
                " WHERE incident_id = ? ORDER BY label_id",
                (number,),
            )
        )

    def _is_silenced(self, incident: Incident) -> bool:
        return is_silenced(self._connection, incident, self._now_ms / 1000)

    def _insert(self, statement: str, values: Sequence[object]) -> int:
        number = self._connection.execute(statement, values).lastrowid
        assert number is not None
        return number


def is_silenced(
    connection: sqlite3.Connection,
    incident: Incident,
    now_s: float,
    *,
    planned: Collection[RouteRule] = (),
) -> bool:
    """Whether silences in force, and one that is planned, cover every entry of the incident that is
    still affected.
    """
    rows = connection.execute(
        "SELECT matchers FROM silences WHERE starts_at <= ?1 AND ends_at > ?1", (now_s,)
    ).fetchall()
    silences: list[Collection[RouteRule]] = [_MATCHERS.decode(text) for (text,) in rows]
    silences += [planned] if planned else []
    if not silences:
        return False
    affected = [one for one in incident.affected_monitors if one.resolved_at_ms is None]
    return bool(affected) and all(
        any(covers(matchers, incident, one) for matchers in silences) for one in affected
    )


def covers(matchers: Collection[RouteRule], incident: Incident, affected: AffectedMonitor) -> bool:
    """Whether all of a silence's matchers match one affected entry."""
    facts = incident_facts(structs.replace(incident, affected_monitors=(affected,)))
    return all(lets_through(RouteRules(allow=(one,)), facts, regex_found) for one in matchers)


def label_of(connection: sqlite3.Connection, name: str, now_s: float) -> int:
    """The number of a label, made if it is not there."""
    connection.execute(
        "INSERT INTO labels (name, created_at) VALUES (?, ?) ON CONFLICT DO NOTHING", (name, now_s)
    )
    row = connection.execute("SELECT label_id FROM labels WHERE name = ?", (name,)).fetchone()
    return int(row[0])


def feeders(
    connection: sqlite3.Connection,
    *,
    services: Collection[tuple[str, str | None]] = (),
    sources: Collection[str] = (),
    projects: Collection[str] = (),
) -> tuple[Connection, ...]:
    """The tokens, sources and connections that fed rows of these, as an incident tells them.
    `services` with their environment, None for any.
    """
    found: list[Connection] = []
    for service, environment in sorted(services, key=lambda pair: (pair[0], pair[1] or "")):
        found += [
            Connection(id=f"tok_{number}", name=f"{service}/{its}", type="log")
            for number, its in connection.execute(
                "SELECT token_id, environment FROM tokens WHERE service = ?1"
                " AND (?2 IS NULL OR environment = ?2) AND scopes LIKE '%ingest%'"
                " ORDER BY token_id LIMIT 20",
                (service, environment),
            )
        ]
    for source in sorted(sources):
        row = connection.execute("SELECT 1 FROM sources WHERE name = ?", (source,)).fetchone()
        if row is not None:
            found.append(Connection(id=source, name=source, type="event"))
    for project in sorted(projects):
        found += [
            Connection(id=f"con_{number}", name=name, type="metric")
            for number, name in connection.execute(
                "SELECT connection_id, name FROM connections WHERE project_id = ? LIMIT 20",
                (project,),
            )
        ]
    return tuple(found)
