"""Deliveries: what is due, what became of it, and what can be sent again.

1. Per destination and incident only the oldest pending delivery is ever due, and none while
   another is held: `opened` before `resolved`, whatever fails in between.
2. An attempt's entry in the log, the delivery's state and what follows for its destination (failing
   since, disabled, the notice of that) are one transaction.
3. What has been delivered stays delivered: recording an attempt twice does no harm.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct

from ingester.delivery.bodies import DestinationType
from ingester.delivery.notice import disabled_body, disabled_event_id, disabled_incident_id
from ingester.delivery.schedule import Delivered, Final, Gone, Outcome, Retry
from ingester.delivery.settings import DestinationSettings
from ingester.store.control.destinations import disable_destination, opened_settings
from ingester.store.control.file import ControlFile
from ingester.store.control.outbox import append_message, format_of, instance_id
from ingester.store.control.secret_box import NotRetrievable

__all__ = ["Attempted", "Deliveries", "Due", "DueDelivery", "TargetRow"]

_ANSWER_CHARACTERS_MAX = 1000

# Of bodies that one look brings for one destination; the last one may pass it.
_BYTES_MAX = 4 * 1024 * 1024


class DueDelivery(Struct, frozen=True, kw_only=True):
    """One body that is to be sent now."""

    delivery_id: int
    destination_number: int
    incident_id: str
    event_id: str
    attempt: int
    body: bytes

    def __repr__(self) -> str:
        return f"DueDelivery({self.delivery_id}, attempt {self.attempt}, {len(self.body)} bytes)"


class TargetRow(Struct, frozen=True, kw_only=True):
    """An enabled destination. `settings` None: unchanged since `version`, or not readable."""

    number: int
    name: str
    type: DestinationType
    version: bytes
    settings: DestinationSettings | None
    problem: str | None = None


class Due(Struct, frozen=True, kw_only=True):
    """Every enabled destination, and what is due for them."""

    targets: Sequence[TargetRow]
    deliveries: Sequence[DueDelivery]


class Attempted(Struct, frozen=True, kw_only=True):
    """An attempt and what follows from it."""

    delivery: DueDelivery
    time_s: float
    status: int | None
    latency_ms: float
    error: str | None
    answer: str
    outcome: Outcome


class Deliveries(ControlFile):
    """The part of the control store that the delivery actor works on."""

    def due(
        self,
        now_s: float,
        *,
        known: Mapping[int, bytes],
        held: Mapping[int, Collection[int]],
        room: Mapping[int, int],
        room_default: int,
    ) -> Due:
        """Enabled destinations, and for each so many deliveries as there is room for, without those
        that are held already. `known`: versions of settings that need no reading again.
        """
        with self._reading() as connection:
            targets = self._targets(connection, known)
            deliveries: list[DueDelivery] = []
            for target in targets:
                wanted = room.get(target.number, room_default)
                if wanted > 0 and target.problem is None:
                    taken = held.get(target.number, ())
                    deliveries += _due(connection, target.number, now_s, taken, wanted)
        return Due(targets=targets, deliveries=deliveries)

    def record_attempts(
        self,
        attempts: Sequence[Attempted],
        *,
        now_s: float,
        disable_after_s: float,
        console_base: str = "",
    ) -> list[str]:
        """Write down what became of attempts; the names of destinations that this disables."""
        disabled = []
        with self._transaction() as connection:
            for one in attempts:
                reason = _record(connection, one, now_s, disable_after_s)
                if reason is not None:
                    number = one.delivery.destination_number
                    name = _maybe_disable(connection, number, reason, now_s, console_base)
                    disabled += [] if name is None else [name]
            succeeded = {
                one.delivery.destination_number
                for one in attempts
                if isinstance(one.outcome, Delivered)
            }
            connection.executemany(
                "UPDATE destinations SET failing_since = NULL, last_success_at = ?"
                " WHERE destination_id = ?",
                [(now_s, number) for number in succeeded],
            )
        return disabled

    def bound_waits(self, now_s: float, seconds_max: float) -> None:
        """After a start: a clock that was set back must not let deliveries wait for days."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE deliveries SET next_at = ?1 WHERE state = 'pending' AND next_at > ?1",
                (now_s + seconds_max,),
            )

    def prune_messages(self, before_s: float, *, limit: int = 1000) -> int:
        """Remove old messages that nobody waits for, with their deliveries and attempts. Those of
        an incident that is still open stay: they tell whom its end must reach.
        """
        with self._transaction() as connection:
            return connection.execute(
                "DELETE FROM messages WHERE message_id IN (SELECT message_id FROM messages"
                " WHERE created_at < ? AND (kind IN ('fired', 'notice') OR EXISTS (SELECT 1 FROM"
                " messages AS last WHERE last.incident_id = messages.incident_id"
                " AND last.kind = 'resolved'))"
                " AND NOT EXISTS (SELECT 1 FROM deliveries WHERE"
                " deliveries.message_id = messages.message_id AND state = 'pending')"
                " ORDER BY created_at LIMIT ?)",
                (before_s, limit),
            ).rowcount

    def delivery_counts(self) -> dict[str, int]:
        """Deliveries that are not done, by state."""
        with self._reading() as connection:
            (pending,) = connection.execute(
                "SELECT count(*) FROM deliveries WHERE state = 'pending'"
            ).fetchone()
            (dead,) = connection.execute(
                "SELECT count(*) FROM deliveries WHERE state = 'dead'"
            ).fetchone()
        return {"pending": pending, "dead": dead}

    def _targets(
        self, connection: sqlite3.Connection, known: Mapping[int, bytes]
    ) -> list[TargetRow]:
        targets = []
        for number, name, type_, sealed in connection.execute(
            "SELECT destination_id, name, type, sealed FROM destinations"
            " WHERE disabled_at IS NULL AND sealed IS NOT NULL ORDER BY destination_id"
        ):
            settings, problem = None, None
            if known.get(number) != sealed:
                try:
                    settings = opened_settings(self._box, number, sealed)
                except NotRetrievable as error:
                    problem = str(error)
            targets.append(
                TargetRow(
                    number=number,
                    name=name,
                    type=type_,
                    version=sealed,
                    settings=settings,
                    problem=problem,
                )
            )
        return targets


def _due(
    connection: sqlite3.Connection,
    number: int,
    now_s: float,
    held: Collection[int],
    wanted: int,
) -> list[DueDelivery]:
    found = connection.execute(
        "SELECT delivery_id, message_id, incident_id, attempt_count FROM deliveries AS d"
        " INDEXED BY deliveries_due WHERE destination_id = ?1 AND state = 'pending'"
        " AND next_at <= ?2"
        " AND NOT EXISTS (SELECT 1 FROM deliveries AS earlier INDEXED BY deliveries_in_order"
        " WHERE earlier.destination_id = ?1"
        " AND earlier.incident_id = d.incident_id AND earlier.state = 'pending'"
        " AND earlier.delivery_id < d.delivery_id)"
        " ORDER BY next_at, delivery_id LIMIT ?3",
        (number, now_s, wanted + len(held)),
    ).fetchall()
    # What was superseded while it is held is pending no more, and may still be on its way: a lane
    # that waits for its pace would send it behind `resolved`.
    marks = ",".join("?" * len(held))
    busy = {
        incident_id
        for (incident_id,) in connection.execute(
            f"SELECT incident_id FROM deliveries WHERE delivery_id IN ({marks})", tuple(held)
        )
    }
    deliveries: list[DueDelivery] = []
    byte_count = 0
    for delivery_id, message_id, incident_id, attempt_count in found:
        if incident_id in busy:
            continue
        if len(deliveries) == wanted or byte_count >= _BYTES_MAX:
            break
        event_id, body = connection.execute(
            "SELECT event_id, body FROM messages WHERE message_id = ?", (message_id,)
        ).fetchone()
        byte_count += len(body)
        deliveries.append(
            DueDelivery(
                delivery_id=delivery_id,
                destination_number=number,
                incident_id=incident_id,
                event_id=event_id,
                attempt=attempt_count + 1,
                body=body,
            )
        )
    return deliveries


def _record(
    connection: sqlite3.Connection, one: Attempted, now_s: float, disable_after_s: float
) -> str | None:
    """One attempt; the reason when its destination is to be disabled."""
    delivery = one.delivery
    # A destination that was deleted meanwhile took its deliveries along.
    connection.execute(
        "INSERT INTO attempts (delivery_id, time, status, latency_ms, error, answer)"
        " SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE EXISTS (SELECT 1 FROM deliveries"
        " WHERE delivery_id = ?1)",
        (
            delivery.delivery_id,
            one.time_s,
            one.status,
            one.latency_ms,
            one.error,
            one.answer[:_ANSWER_CHARACTERS_MAX],
        ),
    )
    outcome = one.outcome
    error = None if isinstance(outcome, Delivered) else one.error or f"answered {one.status}"
    if isinstance(outcome, Final):
        error = f"{error}; {outcome.reason}"
    if isinstance(outcome, Retry):
        state, next_at = "pending", now_s + outcome.after_s
    else:
        state, next_at = "delivered" if isinstance(outcome, Delivered) else "dead", 0.0
    is_done = state != "pending"
    connection.execute(
        "UPDATE deliveries SET state = ?, attempt_count = attempt_count + 1, next_at = ?,"
        " finished_at = ?, status = ?, error = ?"
        " WHERE delivery_id = ? AND (state = 'pending' OR ?)",
        (
            state,
            next_at,
            now_s if is_done else None,
            one.status,
            error,
            delivery.delivery_id,
            isinstance(outcome, Delivered),
        ),
    )
    # Those behind it wait as long as it does.
    connection.execute(
        "UPDATE deliveries INDEXED BY deliveries_in_order SET next_at = ?1"
        " WHERE destination_id = ?2 AND incident_id = ?3"
        " AND state = 'pending' AND next_at <> ?1",
        (next_at, delivery.destination_number, delivery.incident_id),
    )
    if isinstance(outcome, Gone):
        return "the receiver answered 410 Gone"
    if isinstance(outcome, Delivered):
        return None
    return _maybe_lasting_failure(connection, one, now_s, disable_after_s)


def _maybe_lasting_failure(
    connection: sqlite3.Connection, one: Attempted, now_s: float, disable_after_s: float
) -> str | None:
    number = one.delivery.destination_number
    connection.execute(
        "UPDATE destinations SET failing_since = ? WHERE destination_id = ?"
        " AND failing_since IS NULL",
        (now_s, number),
    )
    row = connection.execute(
        "SELECT failing_since FROM destinations WHERE destination_id = ?", (number,)
    ).fetchone()
    if row is None or now_s - row[0] < disable_after_s:
        return None
    hours = (now_s - row[0]) / 3600
    return f"every attempt has failed for {hours:.0f} hours, the last one: {_why(one)}"


def _why(one: Attempted) -> str:
    return one.error or f"answered {one.status}"


def _maybe_disable(
    connection: sqlite3.Connection, number: int, reason: str, now_s: float, console_base: str
) -> str | None:
    """Disable a destination and tell another one; its name, None when it is disabled already."""
    row = connection.execute(
        "SELECT name, disabled_at FROM destinations WHERE destination_id = ?", (number,)
    ).fetchone()
    if row is None or row[1] is not None:
        return None
    name = str(row[0])
    disable_destination(connection, number, reason, now_s)
    other = connection.execute(
        "SELECT destination_id, type, settings FROM destinations WHERE disabled_at IS NULL"
        " ORDER BY failing_since IS NOT NULL, coalesce(last_success_at, 0) DESC, destination_id"
        " LIMIT 1"
    ).fetchone()
    if other is not None:
        other_number, type_, settings = other
        wanted = format_of(type_, settings)
        now_ms = int(time.time() * 1000)
        append_message(
            connection,
            other_number,
            event_id=disabled_event_id(number, now_ms),
            format_name=wanted.name,
            incident_id=disabled_incident_id(number, now_ms),
            kind="notice",
            body=disabled_body(
                wanted,
                number=number,
                name=name,
                reason=reason,
                at_ms=now_ms,
                console_base=console_base,
                instance_id=instance_id(connection),
            ),
        )
    return name
