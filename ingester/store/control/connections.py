"""Connections and projects: who may send metrics, under which project, and how many.

A project is a name that metrics are stored under; many connections may share one. What was sent
stays when a connection is rotated, revoked or deleted.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from typing import Literal

import msgspec
from msgspec import Struct

from ingester.errors import Conflict, InvalidField, NotFound
from ingester.messages import Credential
from ingester.store.control.file import ControlFile
from ingester.store.control.keys import (
    TAIL_LENGTH,
    KeyInfo,
    KeyOwner,
    check_label,
    end_keys,
    key_digest,
    keys_by_owner,
    new_bearer_key,
    revoke_keys,
)
from ingester.store.control.sources import check_overlap
from ingester.store.control.tokens import id_number

__all__ = [
    "DEFAULT_PROJECT",
    "TIERS",
    "ConnectionInfo",
    "ConnectionKey",
    "Connections",
    "ProjectInfo",
    "Tier",
]

DEFAULT_PROJECT = "default"

Tier = Literal["free", "pro", "scale", "unlimited"]
# Requests an hour, 0: no limit (contract 3.3, after the source's own tiers).
TIERS: dict[Tier, int] = {"free": 100, "pro": 1_000, "scale": 10_000, "unlimited": 0}

CONNECTION_ID_PREFIX = "con_"

_OWNER: KeyOwner = "bearer_keys.connection_id"
_NAME_MAX = 256
_COUNT_MAX = 2**53

_SELECT = (
    "SELECT connection_id, name, project_id, tier, requests_per_hour, copyable, created_at"
    " FROM connections"
)


class ProjectInfo(Struct, frozen=True, kw_only=True):
    """A project and how many connections use it."""

    id: str
    name: str
    created_at: float
    connections: int


class ConnectionInfo(Struct, frozen=True, kw_only=True):
    """A connection and its keys, oldest first. `requests_per_hour` None: as its tier says."""

    id: str
    name: str
    project_id: str
    tier: Tier
    requests_per_hour: int | None
    copyable: bool
    created_at: float
    keys: tuple[KeyInfo, ...]

    @property
    def limit(self) -> int:
        """Requests an hour that count, 0 for none."""
        return TIERS[self.tier] if self.requests_per_hour is None else self.requests_per_hour


class ConnectionKey(Struct, frozen=True, kw_only=True):
    """A connection with its key just made or opened."""

    connection: ConnectionInfo
    key: str

    def __repr__(self) -> str:
        return f"ConnectionKey({self.connection.id}, …{self.key[-TAIL_LENGTH:]})"


class Connections(ControlFile):
    """The part of the control store that keeps projects and connections."""

    def create_project(
        self, project_id: str, *, name: str = "", actor: str = "local"
    ) -> ProjectInfo:
        check_label(project_id, "project id", field="id")
        _check_name(name or project_id)
        with self._transaction() as connection:
            if _has_project(connection, project_id):
                raise Conflict(f"a project {project_id!r} exists already")
            self._make_project(connection, project_id, name, actor)
            return _project(connection, project_id)

    def list_projects(self) -> list[ProjectInfo]:
        """Every project by id."""
        with self._reading() as connection:
            return _projects(connection, "ORDER BY project_id")

    def project(self, project_id: str) -> ProjectInfo:
        with self._reading() as connection:
            return _project(connection, project_id)

    def delete_project(self, project_id: str, *, actor: str = "local") -> None:
        """Refused while connections use it. Its metrics stay."""
        with self._transaction() as connection:
            count = _project(connection, project_id).connections
            if count:
                raise Conflict(
                    f"{count} connection{'s use' if count > 1 else ' uses'} the project"
                    f" {project_id!r}; delete {'them' if count > 1 else 'it'} first"
                )
            if project_id == DEFAULT_PROJECT:
                raise Conflict("the project 'default' is where new connections go; it stays")
            connection.execute("DELETE FROM projects WHERE project_id = ?", (project_id,))
            self._note(connection, actor, "project deleted", project_id)

    def create_connection(
        self,
        name: str,
        *,
        project_id: str = DEFAULT_PROJECT,
        tier: Tier = "unlimited",
        requests_per_hour: int | None = None,
        copyable: bool = True,
        actor: str = "local",
    ) -> ConnectionKey:
        """A new connection with its first key. A project that is not there yet is made."""
        _check_name(name)
        check_label(project_id, "project id", field="project_id")
        _check_limit(requests_per_hour)
        now_s = time.time()
        with self._transaction() as connection:
            if connection.execute("SELECT 1 FROM connections WHERE name = ?", (name,)).fetchone():
                raise Conflict(
                    f"a connection named {name!r} exists already; rotate gives a new key"
                )
            if not _has_project(connection, project_id):
                self._make_project(connection, project_id, "", actor)
            cursor = connection.execute(
                "INSERT INTO connections (name, project_id, tier, requests_per_hour, copyable,"
                " created_at) VALUES (?, ?, ?, ?, ?, ?)",
                (name, project_id, tier, requests_per_hour, int(copyable), now_s),
            )
            assert cursor.lastrowid is not None
            info = _find(connection, cursor.lastrowid)
            self._note(
                connection,
                actor,
                "connection created",
                info.id,
                name=name,
                project_id=project_id,
                tier=tier,
            )
            return self._issue_connection_key(connection, info, now_s)

    def list_connections(self) -> list[ConnectionInfo]:
        """Every connection by name."""
        with self._reading() as connection:
            return _infos(connection, "ORDER BY name")

    def connection(self, connection_id: str) -> ConnectionInfo:
        with self._reading() as connection:
            return _find(connection, _number(connection_id))

    def patch_connection(
        self, connection_id: str, changes: Mapping[str, object], *, actor: str = "local"
    ) -> ConnectionInfo:
        """Change `tier`, or `requests_per_hour` (None: as the tier says)."""
        assert changes.keys() <= {"tier", "requests_per_hour"}
        number = _number(connection_id)
        with self._transaction() as connection:
            info = msgspec.structs.replace(_find(connection, number), **changes)
            _check_limit(info.requests_per_hour)
            connection.execute(
                "UPDATE connections SET tier = ?, requests_per_hour = ? WHERE connection_id = ?",
                (info.tier, info.requests_per_hour, number),
            )
            self._note(connection, actor, "connection changed", info.id, **changes)
            return info

    def rotate_connection(
        self, connection_id: str, *, overlap_seconds: int, actor: str = "local"
    ) -> ConnectionKey:
        """A new key; those in use end after the overlap. Project and history stay."""
        check_overlap(overlap_seconds)
        number = _number(connection_id)
        with self._transaction() as connection:
            info = _find(connection, number)
            now_s = time.time()
            end_keys(connection, _OWNER, number, now_s + overlap_seconds)
            self._note(
                connection, actor, "connection rotated", info.id, overlap_seconds=overlap_seconds
            )
            return self._issue_connection_key(connection, info, now_s)

    def revoke_connection(self, connection_id: str, *, actor: str = "local") -> int:
        number = _number(connection_id)
        with self._transaction() as connection:
            info = _find(connection, number)
            count = revoke_keys(connection, _OWNER, number, time.time())
            self._note(connection, actor, "connection revoked", info.id, keys=count)
            return count

    def delete_connection(self, connection_id: str, *, actor: str = "local") -> None:
        number = _number(connection_id)
        with self._transaction() as connection:
            info = _find(connection, number)
            connection.execute("DELETE FROM connections WHERE connection_id = ?", (number,))
            self._note(connection, actor, "connection deleted", info.id, name=info.name)

    def reveal_connection(self, connection_id: str, *, actor: str = "local") -> ConnectionKey:
        """The newest key again. Raises NotRetrievable."""
        number = _number(connection_id)
        with self._transaction() as connection:
            info = _find(connection, number)
            key = self._newest_plain(connection, _OWNER, number, copyable=info.copyable)
            self._note(connection, actor, "connection revealed", info.id)
            return ConnectionKey(connection=info, key=key)

    def _make_project(
        self, connection: sqlite3.Connection, project_id: str, name: str, actor: str
    ) -> None:
        connection.execute(
            "INSERT INTO projects VALUES (?, ?, ?)", (project_id, name or project_id, time.time())
        )
        self._note(connection, actor, "project created", project_id)

    def _issue_connection_key(
        self, connection: sqlite3.Connection, info: ConnectionInfo, now_s: float
    ) -> ConnectionKey:
        key = new_bearer_key("ingm_")
        digest = key_digest(key)
        connection.execute(
            "INSERT INTO bearer_keys (connection_id, digest, tail, sealed, created_at)"
            " VALUES (?, ?, ?, ?, ?)",
            (
                _number(info.id),
                digest,
                key[-TAIL_LENGTH:],
                self._sealed(key, digest, copyable=info.copyable),
                now_s,
            ),
        )
        return ConnectionKey(connection=_find(connection, _number(info.id)), key=key)


def connection_credentials(
    connection: sqlite3.Connection, now_s: float
) -> dict[bytes, tuple[Credential, float | None]]:
    """Valid keys of connections: digest → (whose, valid until)."""
    infos = {_number(info.id): info for info in _infos(connection, "")}
    table = {}
    for digest, number, until in connection.execute(
        "SELECT digest, connection_id, expires_at FROM bearer_keys WHERE connection_id IS NOT NULL"
        " AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?)",
        (now_s,),
    ):
        info = infos[number]
        credential = Credential(
            kind="connection",
            id=info.id,
            scopes=frozenset({"ingest"}),
            project_id=info.project_id,
            requests_per_hour=info.limit,
            expires_at=until,
        )
        table[digest] = credential, until
    return table


def _number(connection_id: str) -> int:
    return id_number(connection_id, CONNECTION_ID_PREFIX, "connection")


def _check_name(name: str) -> None:
    if not 1 <= len(name) <= _NAME_MAX or not (name.isprintable() and name == name.strip()):
        raise InvalidField("name", f"name must be 1 to {_NAME_MAX} printable characters")


def _check_limit(requests_per_hour: int | None) -> None:
    if requests_per_hour is not None and not 0 <= requests_per_hour <= _COUNT_MAX:
        raise InvalidField(
            "requests_per_hour", "requests_per_hour must be a whole number from 0 (no quota)"
        )


def _has_project(connection: sqlite3.Connection, project_id: str) -> bool:
    row = connection.execute("SELECT 1 FROM projects WHERE project_id = ?", (project_id,))
    return row.fetchone() is not None


def _project(connection: sqlite3.Connection, project_id: str) -> ProjectInfo:
    found = _projects(connection, "WHERE project_id = ?", project_id)
    if not found:
        raise NotFound(f"there is no project {project_id[:80]!r}")
    return found[0]


def _projects(connection: sqlite3.Connection, where: str, *values: object) -> list[ProjectInfo]:
    return [
        ProjectInfo(id=row[0], name=row[1], created_at=row[2], connections=row[3])
        for row in connection.execute(
            "SELECT project_id, name, created_at, (SELECT count(*) FROM connections"
            f" WHERE connections.project_id = projects.project_id) FROM projects {where}",
            values,
        )
    ]


def _find(connection: sqlite3.Connection, number: int) -> ConnectionInfo:
    found = _infos(connection, "WHERE connection_id = ?", number)
    if not found:
        raise NotFound(f"there is no connection '{CONNECTION_ID_PREFIX}{number}'")
    return found[0]


def _infos(connection: sqlite3.Connection, where: str, *values: object) -> list[ConnectionInfo]:
    keys = keys_by_owner(connection, _OWNER)
    return [
        ConnectionInfo(
            id=f"{CONNECTION_ID_PREFIX}{row[0]}",
            name=row[1],
            project_id=row[2],
            tier=row[3],
            requests_per_hour=row[4],
            copyable=bool(row[5]),
            created_at=row[6],
            keys=tuple(keys.get(row[0], ())),
        )
        for row in connection.execute(f"{_SELECT} {where}", values)
    ]
