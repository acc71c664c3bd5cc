"""Event sources: settings by name, and their key pairs."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from ingester.errors import Conflict, InvalidField, NotFound
from ingester.messages import Source
from ingester.protocol.dedup import DedupField
from ingester.store.control.file import ControlFile
from ingester.store.control.keys import (
    TAIL_LENGTH,
    KeyInfo,
    check_label,
    end_keys,
    keys_by_owner,
    new_key,
    pair_digest,
    revoke_keys,
)
from ingester.store.control.secret_box import NotRetrievable

__all__ = ["SourceExists", "SourceInfo", "SourceKeys", "Sources", "check_source_map"]

_COUNT_MAX = 2**53
# Ten years: an overlap or a window longer than that is a mistake in units.
_SECONDS_MAX = 10 * 366 * 86_400
_DEDUP_HOURS_MAX = 24 * 366

_COLUMNS = "source_id, name, lenient_session, requests_per_hour, dedup_field, dedup_hours, map"

_MAP_COLUMNS = ("account_id", "user_id", "action", "session_id", "created_at")
_TIME_UNITS = ("s", "ms", "us", "ns", "rfc3339")
_MAP_TEXT_MAX = 1024


class SourceExists(Conflict):
    """The name is taken."""


class SourceKeys(Struct, frozen=True, kw_only=True):
    """A source with a pair just made or opened: the only value that holds keys."""

    source: Source
    auth_key: str
    api_key: str

    def __repr__(self) -> str:
        return f"SourceKeys({self.source.name!r}, …{self.api_key[-TAIL_LENGTH:]})"


class SourceInfo(Struct, frozen=True, kw_only=True):
    """A source and its pairs, oldest first."""

    source: Source
    copyable: bool
    created_at: float
    keys: tuple[KeyInfo, ...]


def check_source_map(mapping: Mapping[str, str]) -> None:
    """InvalidField when a map is not one: column → JSON pointer (RFC 6901) or `=constant`."""
    for column, place in mapping.items():
        if len(place) > _MAP_TEXT_MAX:
            raise InvalidField(
                f"map.{column}", f"map.{column} has more than {_MAP_TEXT_MAX} characters"
            )
        if column == "time_unit":
            if place not in _TIME_UNITS:
                raise InvalidField(
                    "map.time_unit", f"map.time_unit must be one of {', '.join(_TIME_UNITS)}"
                )
        elif column not in _MAP_COLUMNS:
            raise InvalidField(
                f"map.{column[:80]}",
                f"map has no column {column[:80]!r}; it has {', '.join(_MAP_COLUMNS)}"
                " and time_unit",
            )
        elif not place.startswith(("/", "=")) or place == "=":
            raise InvalidField(
                f"map.{column}",
                f"map.{column} must be a JSON pointer like /org/id, or =constant, got {place!r}",
            )
        elif column == "created_at" and place.startswith("="):
            raise InvalidField(
                "map.created_at",
                "map.created_at must be a JSON pointer: a time cannot be a constant",
            )
        elif _has_stray_tilde(place):
            raise InvalidField(
                f"map.{column}",
                f"map.{column}: in a JSON pointer ~ is written ~0 and / is written ~1",
            )


class Sources(ControlFile):
    """The part of the control store that keeps sources."""

    def create_source(
        self,
        name: str,
        *,
        lenient_session: bool = False,
        requests_per_hour: int = 0,
        dedup_field: str | None = None,
        dedup_hours: int = 24,
        map: Mapping[str, str] | None = None,
        copyable: bool = True,
        actor: str = "local",
    ) -> SourceKeys:
        """A new source with its first pair."""
        check_label(name, "source name", field="name")
        wanted = {
            "lenient_session": lenient_session,
            "requests_per_hour": requests_per_hour,
            "dedup_field": dedup_field,
            "dedup_hours": dedup_hours,
            "map": map,
            "copyable": copyable,
        }
        values = _checked(wanted)
        now_s = time.time()
        with self._transaction() as connection:
            if connection.execute("SELECT 1 FROM sources WHERE name = ?", (name,)).fetchone():
                raise SourceExists(f"a source named {name!r} exists already; rotate gives new keys")
            connection.execute(
                f"INSERT INTO sources (name, created_at, {', '.join(values)})"
                f" VALUES (?, ?, {', '.join('?' * len(values))})",
                (name, now_s, *values.values()),
            )
            source = _find(connection, name)
            self._note(connection, actor, "source created", name)
            return self._issue_pair(connection, source, now_s, copyable=copyable)

    def list_sources(self) -> list[SourceInfo]:
        """Every source by name."""
        with self._reading() as connection:
            return _infos(connection, "ORDER BY name")

    def source(self, name: str) -> SourceInfo:
        with self._reading() as connection:
            found = _infos(connection, "WHERE name = ?", name)
        if not found:
            raise _unknown(name)
        return found[0]

    def patch_source(
        self, name: str, changes: Mapping[str, object], *, actor: str = "local"
    ) -> SourceInfo:
        """Change settings; `changes` names columns of a source, except its name."""
        values = _checked(changes)
        with self._transaction() as connection:
            source = _find(connection, name)
            if values:
                connection.execute(
                    f"UPDATE sources SET {', '.join(f'{column} = ?' for column in values)}"
                    " WHERE source_id = ?",
                    (*values.values(), source.source_id),
                )
                if not values.get("copyable", True):
                    connection.execute(
                        "UPDATE source_keys SET sealed = NULL WHERE source_id = ?",
                        (source.source_id,),
                    )
                self._note(connection, actor, "source changed", name, **changes)
            return _infos(connection, "WHERE name = ?", name)[0]

    def delete_source(self, name: str, *, actor: str = "local") -> None:
        """The source, its settings and its pairs are gone; its data stays under its name."""
        with self._transaction() as connection:
            source_id = _find(connection, name).source_id
            connection.execute("DELETE FROM source_keys WHERE source_id = ?", (source_id,))
            connection.execute("DELETE FROM sources WHERE source_id = ?", (source_id,))
            self._note(connection, actor, "source deleted", name)

    def rotate_source(self, name: str, *, overlap_seconds: int, actor: str = "local") -> SourceKeys:
        """A new pair; the pairs in use end after the overlap (0: now)."""
        check_overlap(overlap_seconds)
        with self._transaction() as connection:
            source = _find(connection, name)
            now_s = time.time()
            end_keys(connection, "source_keys.source_id", source.source_id, now_s + overlap_seconds)
            self._note(connection, actor, "source rotated", name, overlap_seconds=overlap_seconds)
            copyable = _is_copyable(connection, source.source_id)
            return self._issue_pair(connection, source, now_s, copyable=copyable)

    def revoke_source(self, name: str, *, actor: str = "local") -> int:
        """End every pair of the source now; returns how many were still valid. Data stays."""
        with self._transaction() as connection:
            source = _find(connection, name)
            count = revoke_keys(connection, "source_keys.source_id", source.source_id, time.time())
            self._note(connection, actor, "source revoked", name, keys=count)
            return count

    def reveal_source(self, name: str, *, actor: str = "local") -> SourceKeys:
        """The newest pair again. Raises NotRetrievable."""
        with self._transaction() as connection:
            source = _find(connection, name)
            plain = self._newest_plain(
                connection,
                "source_keys.source_id",
                source.source_id,
                copyable=_is_copyable(connection, source.source_id),
            )
            self._note(connection, actor, "source revealed", name)
        try:
            auth_key, api_key = msgspec.json.decode(plain, type=tuple[str, str])
        except msgspec.DecodeError:
            raise NotRetrievable(
                "the stored pair cannot be read; rotate to get a new one"
            ) from None
        return SourceKeys(source=source, auth_key=auth_key, api_key=api_key)

    def _issue_pair(
        self, connection: sqlite3.Connection, source: Source, now_s: float, *, copyable: bool
    ) -> SourceKeys:
        auth_key, api_key = new_key(), new_key()
        digest = pair_digest(auth_key, api_key)
        plain = msgspec.json.encode([auth_key, api_key]).decode()
        connection.execute(
            "INSERT INTO source_keys (source_id, digest, tail, created_at, sealed)"
            " VALUES (?, ?, ?, ?, ?)",
            (
                source.source_id,
                digest,
                api_key[-TAIL_LENGTH:],
                now_s,
                self._sealed(plain, digest, copyable=copyable),
            ),
        )
        return SourceKeys(source=source, auth_key=auth_key, api_key=api_key)


def check_overlap(overlap_seconds: int) -> None:
    if not 0 <= overlap_seconds <= _SECONDS_MAX:
        raise InvalidField(
            "overlap_seconds",
            "overlap_seconds must be a whole number from 0 (the old key ends now) to"
            f" {_SECONDS_MAX}",
        )


def sources_by_name(connection: sqlite3.Connection) -> dict[str, Source]:
    rows = connection.execute(f"SELECT {_COLUMNS} FROM sources")
    return {source.name: source for source in map(source_of_row, rows)}


def source_of_row(row: Sequence[object]) -> Source:
    source_id, name, lenient_session, requests_per_hour, dedup_field, dedup_hours, mapping = row
    return msgspec.convert(
        {
            "source_id": source_id,
            "name": name,
            "lenient_session": bool(lenient_session),
            "requests_per_hour": requests_per_hour,
            "dedup_field": dedup_field,
            "dedup_hours": dedup_hours,
            "map": None if mapping is None else msgspec.json.decode(str(mapping)),
        },
        Source,
    )


def _infos(connection: sqlite3.Connection, where: str, *values: object) -> list[SourceInfo]:
    keys = keys_by_owner(connection, "source_keys.source_id")
    return [
        SourceInfo(
            source=source_of_row(row[:7]),
            copyable=bool(row[7]),
            created_at=row[8],
            keys=tuple(keys.get(row[0], ())),
        )
        for row in connection.execute(
            f"SELECT {_COLUMNS}, copyable, created_at FROM sources {where}", values
        )
    ]


def _checked(changes: Mapping[str, object]) -> dict[str, object]:
    """Settings as column values, or InvalidField."""
    values: dict[str, object] = {}
    for name, value in changes.items():
        if name in {"lenient_session", "copyable"}:
            values[name] = int(bool(value))
        elif name == "requests_per_hour":
            if not isinstance(value, int) or not 0 <= value <= _COUNT_MAX:
                raise InvalidField(
                    name, "requests_per_hour must be a whole number from 0 (no quota)"
                )
            values[name] = value
        elif name == "dedup_hours":
            if not isinstance(value, int) or not 1 <= value <= _DEDUP_HOURS_MAX:
                raise InvalidField(
                    name, f"dedup_hours must be a whole number from 1 to {_DEDUP_HOURS_MAX}"
                )
            values[name] = value
        elif name == "dedup_field":
            if value is not None and (not isinstance(value, str) or not 1 <= len(value) <= 256):
                raise InvalidField(
                    name, "dedup_field must be the name of a field, 1 to 256 characters"
                )
            if value is not None:
                _check_dedup_field(value)
            values[name] = value
        elif name == "map":
            mapping = msgspec.convert(value, dict[str, str] | None)
            check_source_map(mapping or {})
            values[name] = msgspec.json.encode(mapping).decode() if mapping else None
        else:
            raise AssertionError(f"no setting of a source: {name}")
    return values


def _check_dedup_field(value: str) -> None:
    try:
        DedupField(value)
    except ValueError as error:
        raise InvalidField("dedup_field", f"dedup_field: {error}") from None


def _has_stray_tilde(place: str) -> bool:
    """RFC 6901: `~` only as `~0` and `~1`."""
    if not place.startswith("/"):
        return False
    return "~" in place.replace("~0", "").replace("~1", "")


def _is_copyable(connection: sqlite3.Connection, source_id: int) -> bool:
    (copyable,) = connection.execute(
        "SELECT copyable FROM sources WHERE source_id = ?", (source_id,)
    ).fetchone()
    return bool(copyable)


def _find(connection: sqlite3.Connection, name: str) -> Source:
    row = connection.execute(f"SELECT {_COLUMNS} FROM sources WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise _unknown(name)
    return source_of_row(row)


def _unknown(name: str) -> NotFound:
    return NotFound(f"there is no source named {name!r}")
