"""Destinations: where incidents are told.

1. A destination's settings lie sealed whole; beside them, in plain text, what may be shown. Bodies
   are made of the latter alone, so that appending to the outbox needs no `secret.key`.
2. Disabling, by a person or by the receiver, makes what was pending dead letters: shown, and sent
   when somebody asks for it, not all at once when the receiver is back.
3. One that a file declares is changed there only, and goes when the file no longer has it; enabling
   and disabling stay a matter of the moment.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import get_args

import msgspec
from msgspec import Struct

from ingester.delivery.bodies import DestinationType
from ingester.delivery.settings import (
    DestinationSettings,
    OldSecret,
    checked,
    merged,
    redacted,
)
from ingester.errors import Conflict, InvalidField, NotFound
from ingester.store.control.file import ControlFile
from ingester.store.control.outbox import (
    DESTINATION_ID_PREFIX,
    DISABLED,
    instance_id,
)
from ingester.store.control.secret_box import NotRetrievable, SecretBox
from ingester.store.control.sources import check_overlap
from ingester.store.control.tokens import id_number

__all__ = [
    "DeclaredDestination",
    "DestinationInfo",
    "Destinations",
    "checked_destination",
    "destination_infos",
    "destination_number",
    "disable_destination",
    "find_destination",
    "opened_settings",
]

_TYPES: tuple[DestinationType, ...] = get_args(DestinationType)
_NAME_MAX = 256
# How long a signing secret that a file no longer has signs beside the new one.
_OVERLAP_S = 86_400

_SELECT = (
    "SELECT destination_id, name, type, settings, created_at, disabled_at, disabled_reason,"
    " failing_since, last_success_at, file,"
    " (SELECT count(*) FROM deliveries WHERE deliveries.destination_id ="
    " destinations.destination_id AND state = 'pending') FROM destinations"
)


class DeclaredDestination(Struct, frozen=True, kw_only=True):
    """One that a file declares; `settings` are checked, and have no secret to keep."""

    name: str
    type: DestinationType
    settings: DestinationSettings
    file: str

    def __repr__(self) -> str:
        return f"DeclaredDestination({self.name})"


class DestinationInfo(Struct, frozen=True, kw_only=True):
    """A destination as it may be shown; times are epoch seconds. `file`: the one it is declared
    in, None for one made here.
    """

    id: str
    name: str
    type: DestinationType
    settings: DestinationSettings
    created_at: float
    disabled_at: float | None
    disabled_reason: str | None
    failing_since: float | None
    last_success_at: float | None
    file: str | None
    pending_count: int


class Destinations(ControlFile):
    """The part of the control store that keeps destinations."""

    def create_destination(
        self, name: str, type_: str, settings: DestinationSettings, *, actor: str = "local"
    ) -> DestinationInfo:
        kind, settings = checked_destination(name, type_, settings)
        with self._transaction() as connection:
            _refuse_taken(connection, name, None)
            return self._insert(connection, name, kind, settings, file=None, actor=actor)

    def declare_destinations(self, declared: Sequence[DeclaredDestination]) -> int:
        """Hold these and none that was declared before; how many were changed. Raises Conflict."""
        changed = 0
        with self._transaction() as connection:
            before = {
                info.name: info for info in destination_infos(connection, "WHERE file IS NOT NULL")
            }
            for one in declared:
                info = before.pop(one.name, None) or _maybe_named(connection, one.name)
                if info is None:
                    self._insert(
                        connection, one.name, one.type, one.settings, file=one.file, actor="files"
                    )
                    changed += 1
                else:
                    changed += self._declare(connection, info, one)
            for info in before.values():
                _remove(connection, info)
                self._note(connection, "files", "destination deleted", info.id, name=info.name)
                changed += 1
        return changed

    def list_destinations(self) -> list[DestinationInfo]:
        with self._reading() as connection:
            return destination_infos(connection, "ORDER BY destination_id")

    def destination(self, destination_id: str) -> DestinationInfo:
        with self._reading() as connection:
            return find_destination(connection, destination_number(destination_id))

    def destination_settings(self, destination_id: str) -> DestinationSettings:
        """With their secrets, to send. Raises NotRetrievable."""
        with self._reading() as connection:
            number = destination_number(destination_id)
            find_destination(connection, number)
            return self._settings(connection, number)

    def patch_destination(
        self, destination_id: str, changes: Mapping[str, object], *, actor: str = "local"
    ) -> DestinationInfo:
        """`changes`: `name`, `enabled`, and fields of the settings; `type` as it is."""
        number = destination_number(destination_id)
        sent = dict(changes)
        name, enabled = sent.pop("name", None), sent.pop("enabled", None)
        type_ = sent.pop("type", None)
        with self._transaction() as connection:
            info = find_destination(connection, number)
            if sent or name not in (None, info.name):
                _refuse_declared(info)
            if type_ not in (None, info.type):
                raise InvalidField("type", "the type of a destination cannot be changed")
            if isinstance(name, str):
                _check_name(name)
                _refuse_taken(connection, name, number)
                connection.execute(
                    "UPDATE destinations SET name = ? WHERE destination_id = ?", (name, number)
                )
            if sent:
                settings = merged(self._settings(connection, number), sent)
                self._store_settings(connection, number, checked(info.type, settings))
            if enabled is True:
                connection.execute(
                    "UPDATE destinations SET disabled_at = NULL, disabled_reason = NULL,"
                    " failing_since = NULL WHERE destination_id = ?",
                    (number,),
                )
            elif enabled is False and info.disabled_at is None:
                disable_destination(connection, number, f"disabled by {actor}", time.time())
            self._note(connection, actor, "destination changed", info.id, fields=sorted(changes))
            return find_destination(connection, number)

    def rotate_destination_secret(
        self,
        destination_id: str,
        secret: str,
        *,
        overlap_seconds: int,
        actor: str = "local",
    ) -> DestinationInfo:
        """A new signing secret; the one before signs beside it until the overlap is over."""
        check_overlap(overlap_seconds)
        number = destination_number(destination_id)
        now_s = time.time()
        with self._transaction() as connection:
            info = find_destination(connection, number)
            _refuse_declared(info)
            stored = self._settings(connection, number)
            kept = [old for old in stored.old_secrets if old.until_s > now_s]
            if stored.secret is not None and overlap_seconds:
                kept.insert(0, OldSecret(secret=stored.secret, until_s=now_s + overlap_seconds))
            # Two sign at a time: receivers look at few signatures, and one overlap is enough.
            settings = msgspec.structs.replace(stored, secret=secret, old_secrets=tuple(kept[:1]))
            self._store_settings(connection, number, checked(info.type, settings))
            self._note(
                connection, actor, "destination secret rotated", info.id,
                overlap_seconds=overlap_seconds,
            )  # fmt: skip
            return find_destination(connection, number)

    def delete_destination(self, destination_id: str, *, actor: str = "local") -> None:
        """Its routes and deliveries go with it."""
        number = destination_number(destination_id)
        with self._transaction() as connection:
            info = find_destination(connection, number)
            _refuse_declared(info)
            _remove(connection, info)
            self._note(connection, actor, "destination deleted", info.id, name=info.name)

    def instance_id(self) -> str:
        with self._reading() as connection:
            return instance_id(connection)

    def _insert(
        self,
        connection: sqlite3.Connection,
        name: str,
        kind: DestinationType,
        settings: DestinationSettings,
        *,
        file: str | None,
        actor: str,
    ) -> DestinationInfo:
        number = connection.execute(
            "INSERT INTO destinations (name, type, settings, file, created_at)"
            " VALUES (?, ?, '', ?, ?)",
            (name, kind, file, time.time()),
        ).lastrowid
        assert number is not None
        self._store_settings(connection, number, settings)
        info = find_destination(connection, number)
        self._note(connection, actor, "destination created", info.id, name=name, type=kind)
        return info

    def _declare(
        self, connection: sqlite3.Connection, info: DestinationInfo, one: DeclaredDestination
    ) -> bool:
        """Let one that is there be as a file declares it; whether that is a change."""
        number = destination_number(info.id)
        stored = self._settings(connection, number)
        is_same = one.type == info.type and one.settings == msgspec.structs.replace(
            stored, old_secrets=()
        )
        if info.file is None and not is_same:
            raise Conflict(
                f"there is a destination {one.name!r} already that no file declares, with other"
                " settings"
            )
        if one.type != info.type:
            raise Conflict(
                f"destination {one.name!r} is of type {info.type}, which cannot be changed: give"
                " the new one another name"
            )
        if not is_same:
            kept = [old for old in stored.old_secrets if old.until_s > time.time()]
            if stored.secret is not None and one.settings.secret != stored.secret:
                kept = [OldSecret(secret=stored.secret, until_s=time.time() + _OVERLAP_S)]
            settings = msgspec.structs.replace(one.settings, old_secrets=tuple(kept))
            self._store_settings(connection, number, settings)
        if is_same and info.file == one.file:
            return False
        connection.execute(
            "UPDATE destinations SET file = ? WHERE destination_id = ?", (one.file, number)
        )
        self._note(connection, "files", "destination changed", info.id, file=one.file)
        return True

    def _settings(self, connection: sqlite3.Connection, number: int) -> DestinationSettings:
        (sealed,) = connection.execute(
            "SELECT sealed FROM destinations WHERE destination_id = ?", (number,)
        ).fetchone()
        return opened_settings(self._box, number, sealed)

    def _store_settings(
        self, connection: sqlite3.Connection, number: int, settings: DestinationSettings
    ) -> None:
        plain = msgspec.json.encode(settings).decode()
        sealed = self._box.seal(plain, context=_context(number))
        if sealed is None:
            raise Conflict("secret.key cannot be used, so secrets cannot be stored; put it back")
        connection.execute(
            "UPDATE destinations SET settings = ?, sealed = ? WHERE destination_id = ?",
            (msgspec.json.encode(redacted(settings)).decode(), sealed, number),
        )


def opened_settings(box: SecretBox, number: int, sealed: bytes) -> DestinationSettings:
    """Raises NotRetrievable."""
    try:
        plain = box.open(sealed, context=_context(number))
    except NotRetrievable:
        raise NotRetrievable(
            f"the settings of destination {DESTINATION_ID_PREFIX}{number} cannot be read:"
            " secret.key is missing from the data folder or is another one; put it back, or"
            " delete the destination and make it again"
        ) from None
    return msgspec.json.decode(plain, type=DestinationSettings)


def disable_destination(
    connection: sqlite3.Connection, number: int, reason: str, now_s: float
) -> None:
    connection.execute(
        "UPDATE destinations SET disabled_at = ?, disabled_reason = ? WHERE destination_id = ?",
        (now_s, reason, number),
    )
    connection.execute(
        "UPDATE deliveries SET state = 'dead', finished_at = ?, error = coalesce(error || '; ', '')"
        " || ? WHERE destination_id = ? AND state = 'pending'",
        (now_s, DISABLED, number),
    )


def checked_destination(
    name: str, type_: str, settings: DestinationSettings
) -> tuple[DestinationType, DestinationSettings]:
    """What may be stored of a new one. Raises InvalidField."""
    kind = _checked_type(type_)
    _check_name(name)
    return kind, checked(kind, merged(DestinationSettings(), _given(settings)))


def destination_number(destination_id: str) -> int:
    return id_number(destination_id, DESTINATION_ID_PREFIX, "destination")


def _context(number: int) -> bytes:
    return f"destination:{number}".encode()


def _given(settings: DestinationSettings) -> dict[str, object]:
    fields: dict[str, object] = msgspec.structs.asdict(settings)
    return {name: value for name, value in fields.items() if value is not None}


def _checked_type(text: str) -> DestinationType:
    for known in _TYPES:
        if text == known:
            return known
    raise InvalidField("type", f"type must be one of {', '.join(_TYPES)}")


def _check_name(name: str) -> None:
    if not name or len(name) > _NAME_MAX or not name.isprintable() or name != name.strip():
        raise InvalidField("name", f"name must be 1 to {_NAME_MAX} printable characters")


def _refuse_declared(info: DestinationInfo) -> None:
    if info.file is not None:
        raise Conflict(
            f"destination '{info.name}' is declared in {info.file}: change it there and reload"
        )


def _remove(connection: sqlite3.Connection, info: DestinationInfo) -> None:
    connection.execute(
        "DELETE FROM destinations WHERE destination_id = ?", (destination_number(info.id),)
    )


def _maybe_named(connection: sqlite3.Connection, name: str) -> DestinationInfo | None:
    found = destination_infos(connection, "WHERE name = ?", name)
    return found[0] if found else None


def _refuse_taken(connection: sqlite3.Connection, name: str, number: int | None) -> None:
    taken = connection.execute(
        "SELECT 1 FROM destinations WHERE name = ? AND destination_id IS NOT ?", (name, number)
    ).fetchone()
    if taken:
        raise Conflict(f"a destination named {name!r} exists already")


def find_destination(connection: sqlite3.Connection, number: int) -> DestinationInfo:
    found = destination_infos(connection, "WHERE destination_id = ?", number)
    if not found:
        raise NotFound(f"there is no destination '{DESTINATION_ID_PREFIX}{number}'")
    return found[0]


def destination_infos(
    connection: sqlite3.Connection, where: str, *values: object
) -> list[DestinationInfo]:
    return [
        DestinationInfo(
            id=f"{DESTINATION_ID_PREFIX}{row[0]}",
            name=row[1],
            type=row[2],
            settings=msgspec.json.decode(row[3], type=DestinationSettings),
            created_at=row[4],
            disabled_at=row[5],
            disabled_reason=row[6],
            failing_since=row[7],
            last_success_at=row[8],
            file=row[9],
            pending_count=row[10],
        )
        for row in connection.execute(f"{_SELECT} {where}", values)
    ]
