"""Dashboards as they are kept: a name, settings as JSON, a revision.

Two who edit one do not overwrite each other: a change names the revision that it was made from, and
is refused when there is a newer one.
"""

from __future__ import annotations

import sqlite3
import time
from datetime import UTC, datetime

from msgspec import Struct

from ingester.errors import Conflict, NotFound
from ingester.store.control.file import ControlFile
from ingester.store.control.tokens import id_number

__all__ = ["DashboardInfo", "Dashboards"]

_PREFIX = "dsh_"
_SELECT = (
    "SELECT dashboard_id, name, settings, revision, created_at, updated_at, updated_by"
    " FROM dashboards"
)


class DashboardInfo(Struct, frozen=True, kw_only=True):
    """One of them; times are epoch seconds."""

    number: int
    name: str
    settings: str
    revision: int
    created_at: float
    updated_at: float
    updated_by: str

    @property
    def id(self) -> str:
        return f"{_PREFIX}{self.number}"


class Dashboards(ControlFile):
    """The part of the control store that keeps dashboards."""

    def list_dashboards(self) -> list[DashboardInfo]:
        with self._reading() as connection:
            return _infos(connection, "ORDER BY name COLLATE NOCASE, dashboard_id")

    def dashboard(self, dashboard_id: str) -> DashboardInfo:
        """Raises NotFound."""
        with self._reading() as connection:
            return _find(connection, dashboard_id)

    def create_dashboard(self, name: str, settings: bytes, *, actor: str) -> DashboardInfo:
        """Raises Conflict."""
        with self._transaction() as connection:
            _refuse_taken(connection, name, 0)
            now_s = time.time()
            number = connection.execute(
                "INSERT INTO dashboards (name, settings, created_at, updated_at, updated_by)"
                " VALUES (?, ?, ?, ?, ?)",
                (name, settings.decode(), now_s, now_s, actor),
            ).lastrowid
            info = _infos(connection, "WHERE dashboard_id = ?", number)[0]
            self._note(connection, actor, "dashboard created", info.id, name=name)
            return info

    def change_dashboard(
        self, dashboard_id: str, name: str, settings: bytes, *, revision: int, actor: str
    ) -> DashboardInfo:
        """Raises NotFound; Conflict for another revision than the newest, and for a taken name."""
        with self._transaction() as connection:
            info = _find(connection, dashboard_id)
            if info.revision != revision:
                at = datetime.fromtimestamp(info.updated_at, UTC).strftime("%Y-%m-%d %H:%M:%S")
                raise Conflict(
                    f"dashboard '{info.name}' was changed by {info.updated_by} at {at} UTC and is"
                    f" at revision {info.revision} now, yours is {revision}"
                )
            _refuse_taken(connection, name, info.number)
            connection.execute(
                "UPDATE dashboards SET name = ?, settings = ?, revision = revision + 1,"
                " updated_at = ?, updated_by = ? WHERE dashboard_id = ?",
                (name, settings.decode(), time.time(), actor, info.number),
            )
            self._note(connection, actor, "dashboard changed", dashboard_id, name=name)
            return _find(connection, dashboard_id)

    def delete_dashboard(self, dashboard_id: str, *, actor: str) -> None:
        """Raises NotFound."""
        with self._transaction() as connection:
            info = _find(connection, dashboard_id)
            connection.execute("DELETE FROM dashboards WHERE dashboard_id = ?", (info.number,))
            self._note(connection, actor, "dashboard deleted", dashboard_id, name=info.name)


def _find(connection: sqlite3.Connection, dashboard_id: str) -> DashboardInfo:
    number = id_number(dashboard_id, _PREFIX, "dashboard")
    found = _infos(connection, "WHERE dashboard_id = ?", number)
    if not found:
        raise NotFound(f"there is no dashboard '{dashboard_id}'")
    return found[0]


def _refuse_taken(connection: sqlite3.Connection, name: str, number: int) -> None:
    row = connection.execute(
        "SELECT 1 FROM dashboards WHERE name = ? AND dashboard_id <> ?", (name, number)
    ).fetchone()
    if row is not None:
        raise Conflict(f"there is a dashboard named {name!r} already")


def _infos(connection: sqlite3.Connection, where: str, *values: object) -> list[DashboardInfo]:
    return [
        DashboardInfo(
            number=row[0],
            name=row[1],
            settings=row[2],
            revision=row[3],
            created_at=row[4],
            updated_at=row[5],
            updated_by=row[6],
        )
        for row in connection.execute(f"{_SELECT} {where}", values)
    ]
