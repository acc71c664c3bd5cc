"""What a searchable table looks like to the language: which bare names are columns, where the
attributes are, and what bare words search.

The compiler knows no table by itself; everything it needs to know of one is in a `Schema`. The
SQL expressions here are ours and trusted; nothing of a query ever becomes part of one.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

__all__ = ["EVENTS", "LOGS", "Schema"]

_TIME_NAMES = frozenset({"t", "timestamp", "time"})
_ATTRIBUTE_NAMES = frozenset({"m", "metadata"})


class Schema(Struct, frozen=True):
    """`columns` maps the bare names of a query to SQL expressions, text each of them.

    `message_name` is the one that bare words search; `level_name` the one that is ordered by
    severity, if there is any; `attribute_names` what may stand before a path; `source_name` the
    one that `f:` asks for; `every_column` what `s:*` stands for. `pulled`: columns with the JSON
    text of what stands at a path, '' where it leads nowhere, NULL where the payload must be asked.
    """

    relation: str
    columns: Mapping[str, str]
    message_name: str
    source_name: str
    attributes: str
    time: str
    every_column: tuple[str, ...]
    time_names: frozenset[str] = _TIME_NAMES
    attribute_names: frozenset[str] = _ATTRIBUTE_NAMES
    level_name: str | None = None
    pulled: Mapping[tuple[str, ...], str] = {}


LOGS = Schema(
    relation="logs",
    columns={
        "event_message": "message",
        "message": "message",
        "level": "level",
        "service": "service",
        "environment": "environment",
    },
    message_name="event_message",
    source_name="service",
    attributes="attributes",
    time="time",
    every_column=(
        "id",
        "time",
        "received_at",
        "service",
        "environment",
        "level",
        "message",
        "attributes",
        "batch_id",
    ),
    level_name="level",
)

# An event has no message: bare words search its payload as it was sent.
EVENTS = Schema(
    relation="events",
    columns={
        "event_message": "body::VARCHAR",
        "account_id": "account_id",
        "user_id": "user_id",
        "action": "action",
        "session_id": "session_id",
        "source": "source",
    },
    message_name="event_message",
    source_name="source",
    attributes="body",
    time="created_at",
    every_column=(
        "id",
        "received_at",
        "source",
        "account_id",
        "user_id",
        "created_at",
        "action",
        "session_id",
        "body",
        "batch_id",
    ),
    time_names=_TIME_NAMES | {"created_at"},
    attribute_names=_ATTRIBUTE_NAMES | {"body"},
)
