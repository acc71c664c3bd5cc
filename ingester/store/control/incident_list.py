"""Incidents, labels and silences as they are shown and changed by people."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence

import msgspec
from msgspec import UNSET, Struct, UnsetType

from ingester.delivery.incident import Incident
from ingester.delivery.routing import RouteRule
from ingester.errors import Conflict, InvalidField, NotFound
from ingester.store.control.file import ControlFile
from ingester.store.control.incidents import (
    INCIDENT_ID_PREFIX,
    LABEL_ID_PREFIX,
    IncidentBook,
    is_silenced,
    label_of,
)
from ingester.store.control.matchers import check_matchers
from ingester.store.control.tokens import id_number

__all__ = ["IncidentInfo", "IncidentList", "LabelInfo", "RevisionInfo", "SilenceInfo"]

SILENCE_ID_PREFIX = "sil_"
_RULES = msgspec.json.Decoder(tuple[RouteRule, ...])
# Incidents that a silence in the making is tried on.
_PREVIEW_MAX = 1_000


class AffectedCount(Struct, frozen=True, kw_only=True):
    """How often one affected entry has fired."""

    id: str
    firings: int
    matches: int
    last_fired_ms: int


class IncidentInfo(Struct, frozen=True, kw_only=True):
    """An incident, and what is not told of it."""

    incident: Incident
    owner: str | None
    resolved_at_ms: int | None
    is_told: bool
    is_silenced: bool
    counts: tuple[AffectedCount, ...]


class RevisionInfo(Struct, frozen=True, kw_only=True):
    """One change of an incident."""

    updated_at_ms: int
    kind: str
    actor: str
    note: str
    is_told: bool


class LabelInfo(Struct, frozen=True, kw_only=True):
    """A label, and on how many incidents it is."""

    id: str
    name: str
    incidents: int


class SilenceInfo(Struct, frozen=True, kw_only=True):
    """Of what nothing is told from when until when; times are epoch seconds."""

    id: str
    matchers: tuple[RouteRule, ...]
    reason: str
    created_by: str
    created_at: float
    starts_at: float
    ends_at: float


class IncidentList(ControlFile):
    """The part of the control store that shows incidents and what people do to them."""

    def list_incidents(
        self, *, status: str | None = None, limit: int = 100, before: int | None = None
    ) -> list[IncidentInfo]:
        """Newest first."""
        with self._reading() as connection:
            numbers = connection.execute(
                "SELECT incident_id FROM incidents WHERE (?1 IS NULL OR status = ?1)"
                " AND incident_id < ?2 ORDER BY incident_id DESC LIMIT ?3",
                (status, 2**62 if before is None else before, limit),
            ).fetchall()
            return [_info(connection, number) for (number,) in numbers]

    def incident(self, incident_id: str) -> IncidentInfo:
        with self._reading() as connection:
            return _info(connection, _number(connection, incident_id))

    def incident_history(self, incident_id: str) -> list[RevisionInfo]:
        """Oldest first."""
        with self._reading() as connection:
            return [
                RevisionInfo(
                    updated_at_ms=row[0],
                    kind=row[1],
                    actor=row[2],
                    note=row[3],
                    is_told=bool(row[4]),
                )
                for row in connection.execute(
                    "SELECT updated_at, kind, actor, note, is_told FROM revisions"
                    " WHERE incident_id = ? ORDER BY updated_at",
                    (_number(connection, incident_id),),
                )
            ]

    def patch_incident(
        self,
        incident_id: str,
        *,
        labels: Sequence[str] | UnsetType = UNSET,
        owner: str | UnsetType | None = UNSET,
        is_resolved: bool = False,
        console_base: str,
        actor: str,
    ) -> IncidentInfo:
        """Labels (all of them, by name), owner, or the end of it by hand."""
        with self._transaction() as connection:
            number = _number(connection, incident_id)
            now_s = time.time()
            book = IncidentBook(
                connection, now_ms=int(now_s * 1000), console_base=console_base, actor=actor
            )
            notes = []
            before = _info(connection, number)
            if labels is not UNSET:
                names = list(dict.fromkeys(labels))
                if set(names) != {label.name for label in before.incident.labels}:
                    _set_labels(connection, number, names, now_s)
                    notes.append(f"labels: {', '.join(names) or 'none'}")
            if owner is not UNSET and owner != before.owner:
                connection.execute(
                    "UPDATE incidents SET owner = ? WHERE incident_id = ?", (owner, number)
                )
                notes.append(f"owner: {owner or 'none'}")
            if notes:
                book.changed(number, "; ".join(notes))
            if is_resolved:
                book.resolve(number)
            return _info(connection, number)

    def list_labels(self) -> list[LabelInfo]:
        with self._reading() as connection:
            return _labels(connection, "")

    def label(self, label_id: str) -> LabelInfo:
        with self._reading() as connection:
            return _label(connection, label_id)

    def create_label(self, name: str, *, actor: str) -> LabelInfo:
        with self._transaction() as connection:
            row = connection.execute("SELECT 1 FROM labels WHERE name = ?", (name,)).fetchone()
            if row is not None:
                raise Conflict(f"there is a label named {name!r} already")
            number = label_of(connection, name, time.time())
            self._note(connection, actor, "label created", name)
            return _label(connection, f"{LABEL_ID_PREFIX}{number}")

    def rename_label(self, label_id: str, name: str, *, actor: str) -> LabelInfo:
        with self._transaction() as connection:
            found = _label(connection, label_id)
            row = connection.execute("SELECT 1 FROM labels WHERE name = ?", (name,)).fetchone()
            if row is not None and name != found.name:
                raise Conflict(f"there is a label named {name!r} already")
            connection.execute(
                "UPDATE labels SET name = ? WHERE label_id = ?",
                (name, id_number(label_id, LABEL_ID_PREFIX, "label")),
            )
            self._note(connection, actor, "label renamed", found.name, name=name)
            return _label(connection, label_id)

    def delete_label(self, label_id: str, *, actor: str) -> None:
        with self._transaction() as connection:
            found = _label(connection, label_id)
            number = id_number(label_id, LABEL_ID_PREFIX, "label")
            connection.execute("DELETE FROM incident_labels WHERE label_id = ?", (number,))
            connection.execute("DELETE FROM labels WHERE label_id = ?", (number,))
            self._note(connection, actor, "label deleted", found.name)

    def list_silences(self, *, with_ended: bool = False) -> list[SilenceInfo]:
        """Newest first."""
        with self._reading() as connection:
            since = 0.0 if with_ended else time.time()
            return _silences(connection, "WHERE ends_at > ? ORDER BY silence_id DESC", since)

    def silence(self, silence_id: str) -> SilenceInfo:
        with self._reading() as connection:
            return _silence(connection, silence_id)

    def create_silence(
        self,
        matchers: Sequence[RouteRule],
        *,
        reason: str,
        starts_at: float,
        ends_at: float,
        actor: str,
    ) -> SilenceInfo:
        check_matchers("matchers", matchers)
        if ends_at <= max(starts_at, time.time()):
            raise InvalidField("ends_at", "ends_at must be in the future, and behind starts_at")
        with self._transaction() as connection:
            number = connection.execute(
                "INSERT INTO silences (matchers, reason, created_by, created_at, starts_at,"
                " ends_at) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    msgspec.json.encode(matchers).decode(),
                    reason,
                    actor,
                    time.time(),
                    starts_at,
                    ends_at,
                ),
            ).lastrowid
            silence_id = f"{SILENCE_ID_PREFIX}{number}"
            self._note(connection, actor, "silence created", silence_id, reason=reason)
            return _silence(connection, silence_id)

    def end_silence(
        self, silence_id: str, ends_at: float | None = None, *, actor: str
    ) -> SilenceInfo:
        """Let it end at another time; None: now."""
        with self._transaction() as connection:
            found = _silence(connection, silence_id)
            end = time.time() if ends_at is None else ends_at
            if end <= found.starts_at:
                raise InvalidField("ends_at", "ends_at must be behind starts_at")
            connection.execute(
                "UPDATE silences SET ends_at = ? WHERE silence_id = ?",
                (end, id_number(silence_id, SILENCE_ID_PREFIX, "silence")),
            )
            self._note(connection, actor, "silence changed", silence_id, ends_at=end)
            return _silence(connection, silence_id)

    def delete_silence(self, silence_id: str, *, actor: str) -> None:
        with self._transaction() as connection:
            _silence(connection, silence_id)
            connection.execute(
                "DELETE FROM silences WHERE silence_id = ?",
                (id_number(silence_id, SILENCE_ID_PREFIX, "silence"),),
            )
            self._note(connection, actor, "silence deleted", silence_id)

    def preview_silence(self, matchers: Sequence[RouteRule]) -> list[IncidentInfo]:
        """Open incidents that it would keep from being told now, with the silences in force.
        Raises InvalidField.
        """
        check_matchers("matchers", matchers)
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT incident_id FROM incidents WHERE status = 'opened'"
                f" ORDER BY incident_id DESC LIMIT {_PREVIEW_MAX}"
            ).fetchall()
            infos = (_info(connection, number) for (number,) in rows)
            now_s = time.time()
            return [
                info
                for info in infos
                if not is_silenced(connection, info.incident, now_s)
                and is_silenced(connection, info.incident, now_s, planned=matchers)
            ]


def _info(connection: sqlite3.Connection, number: int) -> IncidentInfo:
    owner, resolved_at, is_told = connection.execute(
        "SELECT owner, resolved_at, is_told FROM incidents WHERE incident_id = ?", (number,)
    ).fetchone()
    incident = IncidentBook(connection, now_ms=0, console_base="").incident(number)
    return IncidentInfo(
        incident=incident,
        owner=owner,
        resolved_at_ms=resolved_at,
        is_told=bool(is_told),
        is_silenced=is_silenced(connection, incident, time.time()),
        counts=tuple(
            AffectedCount(id=f"aff_{row[0]}", firings=row[1], matches=row[2], last_fired_ms=row[3])
            for row in connection.execute(
                "SELECT affected_id, firings, matches, last_fired_at FROM affected"
                " WHERE incident_id = ? ORDER BY affected_id",
                (number,),
            )
        ),
    )


def _number(connection: sqlite3.Connection, incident_id: str) -> int:
    number = id_number(incident_id, INCIDENT_ID_PREFIX, "incident")
    row = connection.execute("SELECT 1 FROM incidents WHERE incident_id = ?", (number,)).fetchone()
    if row is None:
        raise NotFound(f"there is no incident '{incident_id}'")
    return number


def _set_labels(
    connection: sqlite3.Connection, number: int, names: Sequence[str], now_s: float
) -> None:
    connection.execute("DELETE FROM incident_labels WHERE incident_id = ?", (number,))
    for name in names:
        connection.execute(
            "INSERT INTO incident_labels VALUES (?, ?)",
            (number, label_of(connection, name, now_s)),
        )


def _label(connection: sqlite3.Connection, label_id: str) -> LabelInfo:
    number = id_number(label_id, LABEL_ID_PREFIX, "label")
    found = _labels(connection, "WHERE label_id = ?", number)
    if not found:
        raise NotFound(f"there is no label '{label_id}'")
    return found[0]


def _labels(connection: sqlite3.Connection, where: str, *values: object) -> list[LabelInfo]:
    return [
        LabelInfo(id=f"{LABEL_ID_PREFIX}{row[0]}", name=row[1], incidents=row[2])
        for row in connection.execute(
            "SELECT label_id, name, (SELECT count(*) FROM incident_labels AS il"
            f" WHERE il.label_id = labels.label_id) FROM labels {where} ORDER BY label_id",
            values,
        )
    ]


def _silence(connection: sqlite3.Connection, silence_id: str) -> SilenceInfo:
    number = id_number(silence_id, SILENCE_ID_PREFIX, "silence")
    found = _silences(connection, "WHERE silence_id = ?", number)
    if not found:
        raise NotFound(f"there is no silence '{silence_id}'")
    return found[0]


def _silences(connection: sqlite3.Connection, where: str, *values: object) -> list[SilenceInfo]:
    return [
        SilenceInfo(
            id=f"{SILENCE_ID_PREFIX}{row[0]}",
            matchers=_RULES.decode(row[1]),
            reason=row[2],
            created_by=row[3],
            created_at=row[4],
            starts_at=row[5],
            ends_at=row[6],
        )
        for row in connection.execute(
            "SELECT silence_id, matchers, reason, created_by, created_at, starts_at, ends_at"
            f" FROM silences {where}",
            values,
        )
    ]
