"""Deliveries as people see them: listed with their attempts, and sent again.

Sending again makes a delivery pending as if it were new: the same bytes under the same id, with a
schedule of its own. Its attempts so far stay in the log.
"""

from __future__ import annotations

import sqlite3
from typing import Literal

from msgspec import Struct

from ingester.errors import Conflict, NotFound
from ingester.store.control.destinations import destination_number
from ingester.store.control.file import ControlFile
from ingester.store.control.outbox import DESTINATION_ID_PREFIX
from ingester.store.control.tokens import id_number

__all__ = ["AttemptInfo", "DeliveryInfo", "DeliveryList", "DeliveryState", "Resent"]

DELIVERY_ID_PREFIX = "dlv_"

DeliveryState = Literal["pending", "delivered", "dead", "superseded"]

_SELECT = (
    "SELECT delivery_id, deliveries.incident_id, event_id, deliveries.kind, destination_id,"
    " destinations.name, state, attempt_count, deliveries.created_at, next_at, finished_at, status,"
    " error FROM deliveries JOIN messages USING (message_id)"
    " JOIN destinations USING (destination_id)"
)
_AGAIN = (
    "UPDATE deliveries SET state = 'pending', attempt_count = 0, next_at = 0, finished_at = NULL"
)


class DeliveryInfo(Struct, frozen=True, kw_only=True):
    """A delivery; times are epoch seconds. `next_at` None: nothing is planned."""

    id: str
    incident_id: str
    event_id: str
    kind: str
    destination: str
    destination_name: str
    state: DeliveryState
    attempt_count: int
    created_at: float
    next_at: float | None
    finished_at: float | None
    status: int | None
    error: str | None


class AttemptInfo(Struct, frozen=True, kw_only=True):
    """One attempt. `answer`: the first thousand characters."""

    time: float
    status: int | None
    latency_ms: float
    error: str | None
    answer: str


class Resent(Struct, frozen=True, kw_only=True):
    """How many are sent again, and how many are not because their destination is disabled."""

    resent: int
    disabled: int


class DeliveryList(ControlFile):
    """The part of the control store that shows deliveries."""

    def list_deliveries(
        self,
        *,
        limit: int,
        before: str | None = None,
        state: DeliveryState | None = None,
        destination: str | None = None,
        incident: str | None = None,
        since_s: float | None = None,
    ) -> list[DeliveryInfo]:
        """Newest first, behind the id `before`."""
        conditions: dict[str, object] = {
            "delivery_id < ?": 2**62 if before is None else _number(before),
            "state = ?": state,
            "destination_id = ?": None if destination is None else destination_number(destination),
            "(deliveries.incident_id = ? OR deliveries.incident_id GLOB ?)": incident,
            "deliveries.created_at >= ?": since_s,
        }
        given = {text: value for text, value in conditions.items() if value is not None}
        values = [value for text, value in given.items() for value in _values(text, value)]
        with self._reading() as connection:
            return _infos(
                connection,
                f"WHERE {' AND '.join(given)} ORDER BY delivery_id DESC LIMIT ?",
                *values,
                limit,
            )

    def delivery(self, delivery_id: str) -> tuple[DeliveryInfo, list[AttemptInfo], bytes]:
        """One delivery, its attempts (oldest first) and its body."""
        number = _number(delivery_id)
        with self._reading() as connection:
            info = _find(connection, number)
            attempts = [
                AttemptInfo(
                    time=row[0], status=row[1], latency_ms=row[2], error=row[3], answer=row[4] or ""
                )
                for row in connection.execute(
                    "SELECT time, status, latency_ms, error, answer FROM attempts"
                    " WHERE delivery_id = ? ORDER BY attempt_id",
                    (number,),
                )
            ]
            (body,) = connection.execute(
                "SELECT body FROM messages JOIN deliveries USING (message_id)"
                " WHERE delivery_id = ?",
                (number,),
            ).fetchone()
            return info, attempts, body

    def resend_delivery(self, delivery_id: str, *, actor: str = "local") -> DeliveryInfo:
        """Send one again, or at once if it waits. Raises Conflict when its destination is
        disabled.
        """
        number = _number(delivery_id)
        with self._transaction() as connection:
            info = _find(connection, number)
            if not _is_enabled(connection, info.destination):
                raise Conflict(
                    f"destination {info.destination} is disabled; enable it first"
                    f" (ingester destination set {info.destination} --enable)"
                )
            if info.state == "pending":
                # Before it may stand an older one of its incident: that goes first.
                connection.execute(
                    "UPDATE deliveries SET next_at = 0 WHERE state = 'pending'"
                    " AND destination_id = ? AND incident_id = ?",
                    (destination_number(info.destination), info.incident_id),
                )
            else:
                connection.execute(f"{_AGAIN} WHERE delivery_id = ?", (number,))
            self._note(connection, actor, "delivery sent again", delivery_id)
            return _find(connection, number)

    def resend_failed(
        self, since_s: float, *, destination: str | None = None, actor: str = "local"
    ) -> Resent:
        """Send all again that were given up since then, and at once those that wait for their next
        attempt; oldest first.
        """
        number = None if destination is None else destination_number(destination)
        chosen = (
            "WHERE (?1 IS NULL OR destination_id = ?1) AND (state = 'dead' AND finished_at >= ?2"
            " OR state = 'pending' AND attempt_count > 0)"
        )
        is_enabled = (
            "destination_id IN (SELECT destination_id FROM destinations WHERE disabled_at IS NULL)"
        )
        with self._transaction() as connection:
            (disabled,) = connection.execute(
                f"SELECT count(*) FROM deliveries {chosen} AND NOT {is_enabled}", (number, since_s)
            ).fetchone()
            resent = connection.execute(
                f"{_AGAIN} {chosen} AND {is_enabled}", (number, since_s)
            ).rowcount
            # Those behind them wait no longer either.
            connection.execute(
                "UPDATE deliveries SET next_at = 0 WHERE state = 'pending' AND next_at > 0"
                " AND (?1 IS NULL OR destination_id = ?1)",
                (number,),
            )
            self._note(connection, actor, "failed deliveries sent again", "", count=resent)
        return Resent(resent=resent, disabled=disabled)


def _values(text: str, value: object) -> tuple[object, ...]:
    if "GLOB" not in text:
        return (value,)
    # Firings of an alert or rule stand under "<incident>/<event>".
    escaped = "".join(f"[{one}]" if one in "*?[" else one for one in str(value))
    return (value, f"{escaped}/*")


def _number(delivery_id: str) -> int:
    return id_number(delivery_id, DELIVERY_ID_PREFIX, "delivery")


def _is_enabled(connection: sqlite3.Connection, destination_id: str) -> bool:
    (disabled_at,) = connection.execute(
        "SELECT disabled_at FROM destinations WHERE destination_id = ?",
        (destination_number(destination_id),),
    ).fetchone()
    return disabled_at is None


def _find(connection: sqlite3.Connection, number: int) -> DeliveryInfo:
    found = _infos(connection, "WHERE delivery_id = ?", number)
    if not found:
        raise NotFound(f"there is no delivery '{DELIVERY_ID_PREFIX}{number}'")
    return found[0]


def _infos(connection: sqlite3.Connection, where: str, *values: object) -> list[DeliveryInfo]:
    return [
        DeliveryInfo(
            id=f"{DELIVERY_ID_PREFIX}{row[0]}",
            incident_id=row[1].partition("/")[0],
            event_id=row[2],
            kind=row[3],
            destination=f"{DESTINATION_ID_PREFIX}{row[4]}",
            destination_name=row[5],
            state=row[6],
            attempt_count=row[7],
            created_at=row[8],
            next_at=max(row[9], row[8]) if row[6] == "pending" else None,
            finished_at=row[10],
            status=row[11],
            error=row[12],
        )
        for row in connection.execute(f"{_SELECT} {where}", values)
    ]
