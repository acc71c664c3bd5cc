"""Destinations and routes: where incidents are told, and which of them.

1. A destination's settings lie sealed whole; beside them, in plain text, what may be shown. Bodies
   are made of the latter alone, so that appending to the outbox needs no `secret.key`.
2. Disabling, by a person or by the receiver, makes what was pending dead letters: shown, and sent
   when somebody asks for it, not all at once when the receiver is back.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import get_args

import msgspec
from msgspec import Struct

from ingester.delivery.bodies import DestinationType
from ingester.delivery.routing import Facts, RouteRule
from ingester.delivery.settings import (
    DestinationSettings,
    OldSecret,
    checked,
    merged,
    redacted,
)
from ingester.errors import Conflict, InvalidField, NotFound
from ingester.store.control.file import ControlFile
from ingester.store.control.matchers import check_matchers
from ingester.store.control.outbox import (
    DESTINATION_ID_PREFIX,
    DISABLED,
    instance_id,
    routed_destinations,
)
from ingester.store.control.secret_box import NotRetrievable, SecretBox
from ingester.store.control.sources import check_overlap
from ingester.store.control.tokens import id_number

__all__ = [
    "DestinationInfo",
    "Destinations",
    "RouteInfo",
    "destination_number",
    "disable_destination",
    "opened_settings",
]

ROUTE_ID_PREFIX = "rte_"

_TYPES: tuple[DestinationType, ...] = get_args(DestinationType)
_RULES_MAX = 200
_NAME_MAX = 256

_SELECT = (
    "SELECT destination_id, name, type, settings, created_at, disabled_at, disabled_reason,"
    " failing_since, last_success_at,"
    " (SELECT count(*) FROM deliveries WHERE deliveries.destination_id ="
    " destinations.destination_id AND state = 'pending') FROM destinations"
)


class DestinationInfo(Struct, frozen=True, kw_only=True):
    """A destination as it may be shown; times are epoch seconds."""

    id: str
    name: str
    type: DestinationType
    settings: DestinationSettings
    created_at: float
    disabled_at: float | None
    disabled_reason: str | None
    failing_since: float | None
    last_success_at: float | None
    pending_count: int


class RouteInfo(Struct, frozen=True, kw_only=True):
    """A route and its rules."""

    id: str
    destination: str
    allow: tuple[RouteRule, ...]
    ignore: tuple[RouteRule, ...]
    created_at: float


class Destinations(ControlFile):
    """The part of the control store that keeps destinations and routes."""

    def create_destination(
        self, name: str, type_: str, settings: DestinationSettings, *, actor: str = "local"
    ) -> DestinationInfo:
        kind = _checked_type(type_)
        _check_name(name)
        settings = checked(kind, merged(DestinationSettings(), _given(settings)))
        with self._transaction() as connection:
            _refuse_taken(connection, name, None)
            cursor = connection.execute(
                "INSERT INTO destinations (name, type, settings, created_at) VALUES (?, ?, '', ?)",
                (name, kind, time.time()),
            )
            assert cursor.lastrowid is not None
            self._store_settings(connection, cursor.lastrowid, settings)
            info = _find(connection, cursor.lastrowid)
            self._note(connection, actor, "destination created", info.id, name=name, type=kind)
            return info

    def list_destinations(self) -> list[DestinationInfo]:
        with self._reading() as connection:
            return _infos(connection, "ORDER BY destination_id")

    def destination(self, destination_id: str) -> DestinationInfo:
        with self._reading() as connection:
            return _find(connection, destination_number(destination_id))

    def destination_settings(self, destination_id: str) -> DestinationSettings:
        """With their secrets, to send. Raises NotRetrievable."""
        with self._reading() as connection:
            number = destination_number(destination_id)
            _find(connection, number)
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
            info = _find(connection, number)
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
            return _find(connection, number)

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
            info = _find(connection, number)
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
            return _find(connection, number)

    def delete_destination(self, destination_id: str, *, actor: str = "local") -> None:
        """Its routes and deliveries go with it."""
        number = destination_number(destination_id)
        with self._transaction() as connection:
            info = _find(connection, number)
            connection.execute("DELETE FROM destinations WHERE destination_id = ?", (number,))
            self._note(connection, actor, "destination deleted", info.id, name=info.name)

    def create_route(
        self,
        destination_id: str,
        *,
        allow: Sequence[RouteRule],
        ignore: Sequence[RouteRule],
        actor: str = "local",
    ) -> RouteInfo:
        _check_rules(allow, ignore)
        with self._transaction() as connection:
            try:
                _find(connection, destination_number(destination_id))
            except NotFound as error:
                raise InvalidField("destination", str(error)) from None
            cursor = connection.execute(
                "INSERT INTO routes (destination_id, allow, ignore, created_at)"
                " VALUES (?, ?, ?, ?)",
                (
                    destination_number(destination_id),
                    msgspec.json.encode(allow).decode(),
                    msgspec.json.encode(ignore).decode(),
                    time.time(),
                ),
            )
            assert cursor.lastrowid is not None
            route = _route(connection, cursor.lastrowid)
            self._note(connection, actor, "route created", route.id, destination=destination_id)
            return route

    def list_routes(self) -> list[RouteInfo]:
        with self._reading() as connection:
            return _routes(connection, "ORDER BY route_id")

    def route(self, route_id: str) -> RouteInfo:
        with self._reading() as connection:
            return _route(connection, _route_number(route_id))

    def patch_route(
        self,
        route_id: str,
        *,
        allow: Sequence[RouteRule] | None,
        ignore: Sequence[RouteRule] | None,
        actor: str = "local",
    ) -> RouteInfo:
        """None leaves a list as it is."""
        _check_rules(allow or (), ignore or ())
        number = _route_number(route_id)
        with self._transaction() as connection:
            _route(connection, number)
            for column, rules in (("allow", allow), ("ignore", ignore)):
                if rules is not None:
                    connection.execute(
                        f"UPDATE routes SET {column} = ? WHERE route_id = ?",
                        (msgspec.json.encode(rules).decode(), number),
                    )
            self._note(connection, actor, "route changed", route_id)
            return _route(connection, number)

    def delete_route(self, route_id: str, *, actor: str = "local") -> None:
        with self._transaction() as connection:
            _route(connection, _route_number(route_id))
            connection.execute("DELETE FROM routes WHERE route_id = ?", (_route_number(route_id),))
            self._note(connection, actor, "route deleted", route_id)

    def would_reach(self, facts: Facts) -> list[DestinationInfo]:
        """Dry run: the destinations that a route would add."""
        with self._reading() as connection:
            numbers = routed_destinations(connection, facts)
            return [
                info
                for info in _infos(connection, "ORDER BY destination_id")
                if destination_number(info.id) in numbers
            ]

    def instance_id(self) -> str:
        with self._reading() as connection:
            return instance_id(connection)

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


def destination_number(destination_id: str) -> int:
    return id_number(destination_id, DESTINATION_ID_PREFIX, "destination")


def _route_number(route_id: str) -> int:
    return id_number(route_id, ROUTE_ID_PREFIX, "route")


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


def _refuse_taken(connection: sqlite3.Connection, name: str, number: int | None) -> None:
    taken = connection.execute(
        "SELECT 1 FROM destinations WHERE name = ? AND destination_id IS NOT ?", (name, number)
    ).fetchone()
    if taken:
        raise Conflict(f"a destination named {name!r} exists already")


def _check_rules(allow: Sequence[RouteRule], ignore: Sequence[RouteRule]) -> None:
    for field, rules in (("allow", allow), ("ignore", ignore)):
        if len(rules) > _RULES_MAX:
            raise InvalidField(field, f"{field} has more than {_RULES_MAX} rules")
        check_matchers(field, rules)


def _find(connection: sqlite3.Connection, number: int) -> DestinationInfo:
    found = _infos(connection, "WHERE destination_id = ?", number)
    if not found:
        raise NotFound(f"there is no destination '{DESTINATION_ID_PREFIX}{number}'")
    return found[0]


def _infos(connection: sqlite3.Connection, where: str, *values: object) -> list[DestinationInfo]:
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
            pending_count=row[9],
        )
        for row in connection.execute(f"{_SELECT} {where}", values)
    ]


def _route(connection: sqlite3.Connection, number: int) -> RouteInfo:
    found = _routes(connection, "WHERE route_id = ?", number)
    if not found:
        raise NotFound(f"there is no route '{ROUTE_ID_PREFIX}{number}'")
    return found[0]


def _routes(connection: sqlite3.Connection, where: str, *values: object) -> list[RouteInfo]:
    return [
        RouteInfo(
            id=f"{ROUTE_ID_PREFIX}{row[0]}",
            destination=f"{DESTINATION_ID_PREFIX}{row[1]}",
            allow=msgspec.json.decode(row[2], type=tuple[RouteRule, ...]),
            ignore=msgspec.json.decode(row[3], type=tuple[RouteRule, ...]),
            created_at=row[4],
        )
        for row in connection.execute(
            f"SELECT route_id, destination_id, allow, ignore, created_at FROM routes {where}",
            values,
        )
    ]
