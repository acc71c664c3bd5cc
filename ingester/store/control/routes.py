"""Routes: which incidents reach a destination besides those that name it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from ingester.delivery.routing import Facts, RouteRule
from ingester.errors import InvalidField, NotFound
from ingester.store.control.destinations import (
    DestinationInfo,
    destination_infos,
    destination_number,
    find_destination,
)
from ingester.store.control.file import ControlFile
from ingester.store.control.matchers import check_matchers
from ingester.store.control.outbox import DESTINATION_ID_PREFIX, routed_destinations
from ingester.store.control.tokens import id_number

__all__ = ["RouteInfo", "Routes"]

ROUTE_ID_PREFIX = "rte_"

_RULES_MAX = 200


class RouteInfo(Struct, frozen=True, kw_only=True):
    """A route and its rules."""

    id: str
    destination: str
    allow: tuple[RouteRule, ...]
    ignore: tuple[RouteRule, ...]
    created_at: float


class Routes(ControlFile):
    """The part of the control store that keeps routes."""

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
                find_destination(connection, destination_number(destination_id))
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
                for info in destination_infos(connection, "ORDER BY destination_id")
                if destination_number(info.id) in numbers
            ]


def _route_number(route_id: str) -> int:
    return id_number(route_id, ROUTE_ID_PREFIX, "route")


def _check_rules(allow: Sequence[RouteRule], ignore: Sequence[RouteRule]) -> None:
    for field, rules in (("allow", allow), ("ignore", ignore)):
        if len(rules) > _RULES_MAX:
            raise InvalidField(field, f"{field} has more than {_RULES_MAX} rules")
        check_matchers(field, rules)


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
