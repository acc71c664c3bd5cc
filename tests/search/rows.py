"""A store with logs, events and metrics of our own making, in parts and in upload files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from ingester.management.dispatch import decode_query
from ingester.search import ROUTES, answer_search
from ingester.store.ledger import AppliedBatch
from ingester.store.rollups import Rollups
from ingester.store.store import Store

__all__ = ["NOW", "Rows", "ask", "at", "event", "log", "metric"]

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)

_TIMES = {"time", "received_at", "created_at"}
_PATHS = {route.pattern: route for route in ROUTES}

Row = dict[str, Any]


def at(text: str) -> datetime:
    """`2026-11-21T10:00:00` as UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def log(time: datetime, message: str = "hello", **fields: Any) -> Row:
    attributes = fields.pop("attributes", {"message": message})
    return {
        "time": time,
        "service": "web",
        "environment": "prod",
        "level": "info",
        "message": message,
        "attributes": attributes if isinstance(attributes, str) else json.dumps(attributes),
        "received_at": time,
        **fields,
    }


def event(time: datetime, action: str = "feature", **fields: Any) -> Row:
    body = fields.pop("body", {"action": action})
    return {
        "created_at": time,
        "received_at": time,
        "source": "shop",
        "account_id": "acme",
        "user_id": "ada",
        "action": action,
        "session_id": "s",
        "body": json.dumps(body),
        **fields,
    }


def metric(time: datetime, value: float, metric_id: str = "m1", **fields: Any) -> Row:
    metadata = fields.pop("metadata", None)
    return {
        "time": time,
        "received_at": time,
        "project_id": "default",
        "metric_id": metric_id,
        "metric_name": "Metric",
        "value": value,
        "unit": None,
        "metadata": None if metadata is None else json.dumps(metadata),
        **fields,
    }


class Rows:
    """Commits rows under request numbers that count up."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.request_number = 0

    def add(self, table: str, rows: Sequence[Row], *, as_file: bool = False) -> list[str]:
        """One commit, as of one request; the ids of its rows."""
        self.request_number += 1
        number = self.request_number
        columns = {name: [_stored(row[name]) for row in rows] for name in rows[0]}
        arrow = pa.table({
            "line_number": pa.array(range(1, len(rows) + 1), pa.int64()),
            **{name: pa.array(values, _kind(name)) for name, values in columns.items()},
        })
        batch_id = self.store.ledger.take_batch_id()
        constants: dict[str, str | int] = {"request_number": number, "batch_id": batch_id}
        with self.store.begin("bulk") as transaction:
            if as_file:
                transaction.write_upload(table, arrow, constants, request_number=number)
            else:
                transaction.prepare(table, arrow.schema)
                transaction.insert(table, arrow, constants)
            transaction.commit([AppliedBatch(batch_id, "bulk", 0, 0, len(rows), number)])
        return [f"{number:016x}-{line}" for line in range(1, len(rows) + 1)]


def ask(
    store: Store,
    path: str,
    names: Mapping[str, str] | None = None,
    *,
    rollups: Rollups | None = None,
    **parameters: str,
) -> dict[str, Any]:
    """What a route answers; `path` is its pattern without `/api/v1`."""
    route = _PATHS[f"/api/v1{path}"]
    query = decode_query(parameters, route.query)
    answer = answer_search(
        store, route, query, names or {}, seconds_max=20, now=NOW, rollups=rollups
    )
    document: dict[str, Any] = json.loads(answer)
    return document


def _stored(value: Any) -> Any:
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value


def _kind(name: str) -> pa.DataType:
    if name in _TIMES:
        return pa.timestamp("us")
    return pa.float64() if name == "value" else pa.string()
