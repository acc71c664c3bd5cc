"""The outbox: what is to be told, to whom, frozen in the transaction that made it true.

`append_revision` and `append_firing` are called inside an open transaction of the control store,
by whoever changes an incident: either the change and what is told of it are both there or neither.

Invariants:

1. A message is a body; it is never changed. Destinations of one format share it, each retry sends
   it again. Appending the same revision or firing again adds nothing.
2. `opened` goes to the destinations that the rule, alert or monitor names and to those that a route
   adds; every later revision also to whoever was told of the incident before; `resolved` to those
   only.
3. Of revisions that wait for an incident.io destination, those between the first and the last are
   superseded: its limit is 120 events a minute. `opened` and `resolved` never are.
4. For a destination that is disabled the delivery is there and `dead` at once: it is shown, and
   `resend` brings it back.
5. After the transaction whoever appended rings the delivery actor's doorbell (`Process.outbox`);
   losing that costs a second, as the actor also looks by itself.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Mapping

import msgspec
from msgspec import Struct

from ingester.delivery.bodies import (
    DestinationType,
    Format,
    KeyMode,
    firing_event_id,
    maybe_firing_body,
    maybe_revision_body,
    revision_event_id,
)
from ingester.delivery.incident import Firing, Revision
from ingester.delivery.routing import (
    Facts,
    RouteRule,
    RouteRules,
    firing_facts,
    incident_facts,
    lets_through,
)
from ingester.delivery.rows import rows_array
from ingester.store.lql_match import regex_found

__all__ = [
    "DESTINATION_ID_PREFIX",
    "append_firing",
    "append_message",
    "append_revision",
    "routed_destinations",
]

DESTINATION_ID_PREFIX = "dst_"

DISABLED = "the destination is disabled"

_RULES = msgspec.json.Decoder(tuple[RouteRule, ...])


class _FormatSettings(Struct, frozen=True):
    """What of a destination's settings its bodies depend on."""

    key_mode: KeyMode = "incident"
    metadata: dict[str, object] = {}


class _Recipient(Struct, frozen=True):
    number: int
    format: Format
    is_enabled: bool


def append_revision(
    connection: sqlite3.Connection, revision: Revision, *, destinations: Collection[str] = ()
) -> tuple[str, ...]:
    """Append a revision for the destinations it goes to; their ids. `destinations` are those that
    its rule, alert or monitor names; one that was deleted since is left out.
    """
    incident = revision.incident
    told = _told_before(connection, incident.id)
    numbers = set(told)
    if revision.kind != "resolved":
        numbers |= _numbers(destinations)
        numbers |= routed_destinations(connection, incident_facts(incident))
    rows = _last_rows(connection, revision)
    bodies: dict[str, bytes | None] = {}
    instance = instance_id(connection)
    reached = []
    for recipient in _recipients(connection, numbers):
        name = recipient.format.name
        if name not in bodies:
            bodies[name] = maybe_revision_body(
                revision, rows, recipient.format, instance_id=instance
            )
        body = bodies[name]
        if body is None:
            continue
        if recipient.format.type == "incident_io":
            _supersede(connection, recipient.number, incident.id)
        append_message(
            connection,
            recipient.number,
            event_id=revision_event_id(incident),
            format_name=name,
            incident_id=incident.id,
            kind=revision.kind,
            body=body,
            is_enabled=recipient.is_enabled,
        )
        reached.append(f"{DESTINATION_ID_PREFIX}{recipient.number}")
    return tuple(reached)


def append_firing(
    connection: sqlite3.Connection, firing: Firing, *, destinations: Collection[str] = ()
) -> tuple[str, ...]:
    """Append one alert run with rows, or one batch of a rule, for the destinations that take each
    by itself; their ids. To be called for every one of them, besides `append_revision`.
    """
    numbers = _numbers(destinations) | routed_destinations(connection, firing_facts(firing))
    bodies: dict[str, bytes | None] = {}
    reached = []
    for recipient in _recipients(connection, numbers):
        name = recipient.format.name
        if name not in bodies:
            bodies[name] = maybe_firing_body(firing, recipient.format)
        body = bodies[name]
        if body is None:
            continue
        event_id = firing_event_id(firing)
        append_message(
            connection,
            recipient.number,
            event_id=event_id,
            format_name=name,
            # Firings have no order among each other: each is a conversation of its own.
            incident_id=f"{firing.incident_id}/{event_id}",
            kind="fired",
            body=body,
            is_enabled=recipient.is_enabled,
        )
        reached.append(f"{DESTINATION_ID_PREFIX}{recipient.number}")
    return tuple(reached)


def append_message(
    connection: sqlite3.Connection,
    destination_number: int,
    *,
    event_id: str,
    format_name: str,
    incident_id: str,
    kind: str,
    body: bytes,
    is_enabled: bool = True,
) -> None:
    """One frozen body for one destination."""
    now_s = time.time()
    connection.execute(
        "INSERT INTO messages (event_id, format, incident_id, kind, body, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (event_id, format_name, incident_id, kind, body, now_s),
    )
    connection.execute(
        # What waits behind an earlier one is looked at when that one is.
        "INSERT INTO deliveries (message_id, destination_id, incident_id, kind, state, next_at,"
        " created_at, finished_at, error) SELECT message_id, ?1, incident_id, kind, ?2,"
        " coalesce((SELECT next_at FROM deliveries AS earlier INDEXED BY deliveries_in_order WHERE"
        " earlier.destination_id = ?1 AND earlier.incident_id = messages.incident_id"
        " AND earlier.state = 'pending' ORDER BY delivery_id DESC LIMIT 1), 0), ?3, ?4, ?5"
        " FROM messages"
        " WHERE event_id = ?6 AND format = ?7 ON CONFLICT DO NOTHING",
        (
            destination_number,
            "pending" if is_enabled else "dead",
            now_s,
            None if is_enabled else now_s,
            None if is_enabled else DISABLED,
            event_id,
            format_name,
        ),
    )


def routed_destinations(connection: sqlite3.Connection, facts: Facts) -> set[int]:
    """Destinations that one of their routes lets these facts through to."""
    return {
        number
        for number, allow, ignore in connection.execute(
            "SELECT destination_id, allow, ignore FROM routes"
        )
        if lets_through(
            RouteRules(allow=_RULES.decode(allow), ignore=_RULES.decode(ignore)),
            facts,
            regex_found,
        )
    }


def instance_id(connection: sqlite3.Connection) -> str:
    """This installation's own id, made with the file."""
    (found,) = connection.execute("SELECT instance_id FROM instance").fetchone()
    return str(found)


def format_of(type_: DestinationType, settings: str) -> Format:
    read = msgspec.json.decode(settings, type=_FormatSettings)
    return Format(type=type_, key_mode=read.key_mode, metadata=read.metadata)


def _supersede(connection: sqlite3.Connection, number: int, incident_id: str) -> None:
    """What waits between the first revision and this one is left out. One that is on its way at
    this moment may arrive all the same.
    """
    connection.execute(
        "UPDATE deliveries INDEXED BY deliveries_in_order SET state = 'superseded', finished_at = ?"
        " WHERE destination_id = ? AND incident_id = ? AND state = 'pending'"
        " AND kind IN ('joined', 'monitor_resolved', 'changed')",
        (time.time(), number, incident_id),
    )


def _recipients(connection: sqlite3.Connection, numbers: Collection[int]) -> list[_Recipient]:
    rows: Mapping[int, _Recipient] = {
        number: _Recipient(number, format_of(type_, settings), disabled_at is None)
        for number, type_, settings, disabled_at in connection.execute(
            "SELECT destination_id, type, settings, disabled_at FROM destinations"
        )
    }
    return [rows[number] for number in sorted(numbers) if number in rows]


def _told_before(connection: sqlite3.Connection, incident_id: str) -> set[int]:
    return {
        number
        for (number,) in connection.execute(
            "SELECT DISTINCT destination_id FROM deliveries WHERE incident_id = ?", (incident_id,)
        )
    }


def _last_rows(connection: sqlite3.Connection, revision: Revision) -> bytes | None:
    """The rows that this revision shows; kept for the next one until the incident is resolved."""
    incident_id = revision.incident.id
    row = connection.execute(
        "SELECT rows FROM incident_rows WHERE incident_id = ?", (incident_id,)
    ).fetchone()
    rows: bytes | None = None if row is None else row[0]
    if revision.data is not None:
        rows = rows_array(revision.data)
        connection.execute(
            "INSERT INTO incident_rows VALUES (?, ?)"
            " ON CONFLICT DO UPDATE SET rows = excluded.rows",
            (incident_id, rows),
        )
    if revision.kind == "resolved":
        connection.execute("DELETE FROM incident_rows WHERE incident_id = ?", (incident_id,))
    return rows


def _numbers(destination_ids: Collection[str]) -> set[int]:
    """The numbers in `dst_7`; what is no id is left out."""
    texts = (one.removeprefix(DESTINATION_ID_PREFIX) for one in destination_ids)
    return {int(text) for text in texts if text.isascii() and text.isdigit() and len(text) <= 18}
