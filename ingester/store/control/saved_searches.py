"""Saved searches: a query under a name, with the span and the columns that it was looked at with.

All of them are everybody's to see. What a query means is the business of `lql/`; here it is text.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from ingester.errors import Conflict, Forbidden, NotFound
from ingester.store.control.file import ControlFile
from ingester.store.control.tokens import id_number

__all__ = ["SavedSearchInfo", "SavedSearches", "Searched"]

Searched = Literal["logs", "events"]

_PREFIX = "sav_"
# A list that is read by people; also what one member can make of the file.
_SEARCHES_MAX = 1_000
_SELECT = (
    "SELECT search_id, searched, name, query, since, until, columns, created_by, created_at,"
    " updated_at FROM saved_searches"
)


class SavedSearchInfo(Struct, frozen=True, kw_only=True):
    """One of them. `since` and `until` as they were typed, "" where none was."""

    id: str
    searched: Searched
    name: str
    query: str
    since: str
    until: str
    columns: tuple[str, ...]
    created_by: str
    created_at: float
    updated_at: float


class SavedSearches(ControlFile):
    """The part of the control store that keeps searches. Who made one may change it; so may, with
    `is_admin`, an administrator.
    """

    def list_searches(self, searched: Searched | None = None) -> list[SavedSearchInfo]:
        """By name."""
        with self._reading() as connection:
            rows = connection.execute(
                f"{_SELECT} WHERE ?1 IS NULL OR searched = ?1 ORDER BY name, search_id", (searched,)
            ).fetchall()
        return [_info(row) for row in rows]

    def saved_search(self, search_id: str) -> SavedSearchInfo:
        with self._reading() as connection:
            return _found(connection, search_id)

    def create_search(
        self,
        *,
        searched: Searched,
        name: str,
        query: str,
        since: str,
        until: str,
        columns: Sequence[str],
        actor: str,
    ) -> SavedSearchInfo:
        """Raises Conflict for a name that is taken, and when there are too many."""
        with self._transaction() as connection:
            ((count,),) = connection.execute("SELECT count(*) FROM saved_searches").fetchall()
            if count >= _SEARCHES_MAX:
                raise Conflict(f"{_SEARCHES_MAX} searches are saved, which is the most; delete one")
            _refuse_taken(connection, searched, name)
            now_s = time.time()
            number = connection.execute(
                "INSERT INTO saved_searches (searched, name, query, since, until, columns,"
                " created_by, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (searched, name, query, since, until, _list_text(columns), actor, now_s, now_s),
            ).lastrowid
            self._note(connection, actor, "search saved", name, on=searched)
            return _found(connection, f"{_PREFIX}{number}")

    def change_search(
        self,
        search_id: str,
        *,
        name: str | None = None,
        query: str | None = None,
        since: str | None = None,
        until: str | None = None,
        columns: Sequence[str] | None = None,
        actor: str,
        is_admin: bool,
    ) -> SavedSearchInfo:
        """What is None stays. Raises NotFound, Forbidden, Conflict."""
        with self._transaction() as connection:
            found = _found(connection, search_id)
            _refuse_other(found, actor, is_admin=is_admin)
            if name is not None and name != found.name:
                _refuse_taken(connection, found.searched, name)
            connection.execute(
                "UPDATE saved_searches SET name = coalesce(?, name), query = coalesce(?, query),"
                " since = coalesce(?, since), until = coalesce(?, until),"
                " columns = coalesce(?, columns), updated_at = ? WHERE search_id = ?",
                (
                    name,
                    query,
                    since,
                    until,
                    None if columns is None else _list_text(columns),
                    time.time(),
                    id_number(search_id, _PREFIX, "saved search"),
                ),
            )
            self._note(connection, actor, "saved search changed", found.name)
            return _found(connection, search_id)

    def delete_search(self, search_id: str, *, actor: str, is_admin: bool) -> None:
        """Raises NotFound, Forbidden."""
        with self._transaction() as connection:
            found = _found(connection, search_id)
            _refuse_other(found, actor, is_admin=is_admin)
            connection.execute(
                "DELETE FROM saved_searches WHERE search_id = ?",
                (id_number(search_id, _PREFIX, "saved search"),),
            )
            self._note(connection, actor, "saved search deleted", found.name)


def _refuse_taken(connection: sqlite3.Connection, searched: Searched, name: str) -> None:
    if connection.execute(
        "SELECT 1 FROM saved_searches WHERE searched = ? AND name = ?", (searched, name)
    ).fetchone():
        raise Conflict(f"there is a saved search named {name!r} already")


def _refuse_other(found: SavedSearchInfo, actor: str, *, is_admin: bool) -> None:
    if not is_admin and found.created_by != actor:
        raise Forbidden(f"this search was saved by {found.created_by}, who may change it")


def _found(connection: sqlite3.Connection, search_id: str) -> SavedSearchInfo:
    number = id_number(search_id, _PREFIX, "saved search")
    row = connection.execute(f"{_SELECT} WHERE search_id = ?", (number,)).fetchone()
    if row is None:
        raise NotFound(f"there is no saved search {search_id}")
    return _info(row)


def _info(row: tuple[object, ...]) -> SavedSearchInfo:
    number, searched, name, query, since, until, columns, created_by, created_at, updated_at = row
    return SavedSearchInfo(
        id=f"{_PREFIX}{number}",
        searched=searched,  # type: ignore[arg-type]
        name=str(name),
        query=str(query),
        since=str(since),
        until=str(until),
        columns=msgspec.json.decode(str(columns), type=tuple[str, ...]),
        created_by=str(created_by),
        created_at=created_at,  # type: ignore[arg-type]
        updated_at=updated_at,  # type: ignore[arg-type]
    )


def _list_text(columns: Sequence[str]) -> str:
    return msgspec.json.encode(list(columns)).decode()
