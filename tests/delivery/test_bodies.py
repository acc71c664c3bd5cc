"""Bodies: the documented keys and types, nothing else, and the same bytes for one format."""

from __future__ import annotations

import base64
import json
from typing import Any, Literal

import msgspec
import pytest
from msgspec import Struct

from ingester.delivery.bodies import (
    Format,
    firing_event_id,
    maybe_firing_body,
    maybe_revision_body,
    revision_event_id,
)
from ingester.delivery.incident import AlertRows, RuleEvent, RuleEvents
from ingester.delivery.notice import disabled_body, sample_body
from ingester.delivery.rows import ROWS_BYTES_MAX, rows_array
from tests.delivery.incidents import CREATED_MS, affected, firing, incident, revision, values

WEBHOOK = Format(type="webhook")
GENERIC = Format(type="generic")
INCIDENT_IO = Format(type="incident_io", metadata={"priority": "high", "data": "overridden"})
LOGFLARE = Format(type="incident_io", key_mode="logflare", metadata={"service": "logflare"})


class Named(Struct, forbid_unknown_fields=True):
    name: str
    value: str


class Label(Struct, forbid_unknown_fields=True):
    id: str
    name: str


class Connection(Struct, forbid_unknown_fields=True):
    id: str
    name: str | None
    type: str


class Monitor(Struct, forbid_unknown_fields=True, rename="camel"):
    id: str
    type: str
    name: str
    entity_type: str
    absolute_path: str


class Affected(Struct, forbid_unknown_fields=True, rename="camel"):
    id: str
    monitor: Monitor
    linked_at: str
    resolved_at: str | None
    group: list[Named] | None
    connections: list[Connection] | None = None  # the documented example leaves it out


class Incident(Struct, forbid_unknown_fields=True, rename="camel"):
    """Metaplane's documented schema."""

    id: str
    created_at: str
    updated_at: str
    idempotency_id: str
    status: Literal["resolved", "opened"]
    acknowledged: bool
    acknowledged_at: str | None
    incident_url: str
    labels: list[Label]
    affected_monitors: list[Affected]


class AlertEvent(Struct, forbid_unknown_fields=True):
    """incident.io's HTTP alert event, version 2; the key is required for newly made sources."""

    title: str
    status: Literal["firing", "resolved"]
    deduplication_key: str
    description: str | None = None
    source_url: str | None = None
    metadata: dict[str, Any] | None = None


METAPLANE_EXAMPLE = """{
"id": "26345",
"createdAt": "2024-05-03T13:43:56.243Z",
"updatedAt": "2024-05-03T13:43:56.243Z",
"idempotencyId": "MjYzNDUtMjAyNC0wNS0wM1QxMzo0Mzo1Ni4yNDNa",
"status": "opened",
"acknowledged": false,
"acknowledgedAt": null,
"incidentUrl": "https://app.metaplane.dev/incident/26345",
"labels": [],
"affectedMonitors": [
{
"id": "26312",
"linkedAt": "2024-05-03T13:43:56.315Z",
"resolvedAt": null,
"monitor": {
"id": "018f3eb0-d994-7a34-a956-92a30a439157",
"type": "ROW_COUNT",
"name": "Row count grouped by customer_id",
"entityType": "table",
"absolutePath": "METAPLANE_DB.TEST_SCHEMA.orders"
},
"group": [
{
"name": "customer_id",
"value": "1"
}
]
}
]
}"""


def body_of(wanted: Format, **changes: Any) -> bytes | None:
    changed = revision(**changes)
    rows = None if changed.data is None else rows_array(changed.data)
    return maybe_revision_body(changed, rows, wanted, instance_id="in1")


def event_of(body: bytes | None) -> AlertEvent:
    assert body is not None
    return msgspec.json.decode(body, type=AlertEvent)


def test_the_documented_example_is_what_we_send_plus_connections() -> None:
    sent = body_of(WEBHOOK)
    assert sent is not None
    example = json.loads(METAPLANE_EXAMPLE)
    assert msgspec.json.decode(METAPLANE_EXAMPLE, type=Incident)
    assert msgspec.json.decode(sent, type=Incident)
    ours = json.loads(sent)
    for one in ours["affectedMonitors"]:
        assert one.pop("connections") == [{"id": "con_1", "name": "cron", "type": "metric"}]
    assert ours == example


def test_the_idempotency_id_is_the_incident_and_its_revision() -> None:
    one = incident("inc_7", step=1)
    decoded = base64.b64decode(revision_event_id(one), validate=True).decode()
    assert decoded == "inc_7-2024-05-03T13:43:56.244Z"


def test_every_key_is_there_also_without_group_and_connections() -> None:
    bare = affected(group=None, connections=(), resolved_at_ms=CREATED_MS + 1000)
    body = body_of(WEBHOOK, kind="resolved", affected_monitors=(bare,))
    assert body is not None
    read = json.loads(body)
    assert list(read) == [
        "id", "createdAt", "updatedAt", "idempotencyId", "status", "acknowledged",
        "acknowledgedAt", "incidentUrl", "labels", "affectedMonitors",
    ]  # fmt: skip
    assert read["status"] == "resolved"
    [one] = read["affectedMonitors"]
    assert (one["group"], one["connections"]) == (None, [])
    assert one["resolvedAt"] == "2024-05-03T13:43:57.243Z"


def test_incident_io_keeps_one_key_for_the_life_of_an_incident() -> None:
    opened = event_of(body_of(INCIDENT_IO))
    resolved = event_of(body_of(INCIDENT_IO, kind="resolved", step=9, data=values()))
    assert opened.deduplication_key == resolved.deduplication_key == "in1-26345"
    assert (opened.status, resolved.status) == ("firing", "resolved")
    assert opened.source_url == "https://app.metaplane.dev/incident/26345"
    assert opened.metadata is not None
    assert opened.metadata["priority"] == "high"
    [window] = opened.metadata["data"]
    assert list(window) == [
        "monitor", "value", "threshold", "group", "window_start", "window_end",
    ]  # fmt: skip


def test_in_logflare_mode_each_firing_is_an_event_that_never_resolves() -> None:
    first = event_of(maybe_firing_body(firing(), LOGFLARE))
    same_minute = event_of(maybe_firing_body(firing(step=2_000), LOGFLARE))
    next_minute = event_of(maybe_firing_body(firing(step=60_000), LOGFLARE))
    an_hour_later = event_of(maybe_firing_body(firing(step=3_600_000), LOGFLARE))
    other_rows = event_of(maybe_firing_body(firing(rows=(b'{"n":3}',)), LOGFLARE))
    assert first.deduplication_key == same_minute.deduplication_key
    keys = {one.deduplication_key for one in (first, next_minute, an_hour_later, other_rows)}
    assert len(keys) == 4
    assert (first.title, first.description) == ("Too slow", "p99 over a second")
    assert first.metadata == {"service": "logflare", "data": [{"n": 1}, {"n": 2}]}
    of_rule = event_of(maybe_firing_body(firing(is_alert=False), LOGFLARE))
    assert (of_rule.title, of_rule.description) == ("1 event detected", ""), "every key, always"
    assert body_of(LOGFLARE, kind="resolved") is None


def test_generic_bodies_are_logflares() -> None:
    assert maybe_firing_body(firing(), GENERIC) == b'{"result":[{"n":1},{"n":2}]}'
    of_rule = maybe_firing_body(firing(is_alert=False), GENERIC)
    assert of_rule is not None
    assert json.loads(of_rule)[0]["event_message"] == "boom"
    assert body_of(GENERIC) == body_of(WEBHOOK)
    of_alert = affected(type="ALERT", group=None)
    assert body_of(GENERIC, affected_monitors=(of_alert,)) is None
    assert maybe_firing_body(firing(), WEBHOOK) is None
    assert maybe_firing_body(firing(), INCIDENT_IO) is None


@pytest.mark.parametrize(
    ("sent", "row"),
    [
        (
            b'{"a": 1.0, "level":"warn"}',
            b'{"a": 1.0, "level":"warn","event_message":"m","timestamp":'
            b'"2024-05-03T13:43:56.243Z","service":"s","environment":"e"}',
        ),
        (
            b"{ }",
            b'{"event_message":"m","timestamp":"2024-05-03T13:43:56.243Z","level":"error",'
            b'"service":"s","environment":"e"}',
        ),
        (
            b'"just text"',
            b'{"event_message":"m","timestamp":"2024-05-03T13:43:56.243Z","level":"error",'
            b'"service":"s","environment":"e"}',
        ),
        (
            b'{"event_message":null,"timestamp":1,"level":2,"service":3,"environment":4}\n',
            b'{"event_message":null,"timestamp":1,"level":2,"service":3,"environment":4}',
        ),
        (
            b'{"big": 12345678901234567890123, "x": 1e400}',
            b'{"big": 12345678901234567890123, "x": 1e400,"event_message":"m","timestamp":'
            b'"2024-05-03T13:43:56.243Z","level":"error","service":"s","environment":"e"}',
        ),
    ],
)
def test_an_event_goes_as_it_was_sent_with_what_it_lacks(sent: bytes, row: bytes) -> None:
    event = RuleEvent(
        body=sent,
        event_message="m",
        timestamp_ms=CREATED_MS,
        level="error",
        service="s",
        environment="e",
    )
    assert rows_array(RuleEvents(events=(event,), count=1)) == b"[" + row + b"]"


def test_an_event_that_is_no_log_gets_no_service_or_level() -> None:
    event = RuleEvent(body=b'{"action":"x"}', event_message="x", timestamp_ms=CREATED_MS)
    [row] = json.loads(rows_array(RuleEvents(events=(event,), count=1)))
    assert set(row) == {"action", "event_message", "timestamp"}


def test_rows_are_capped_in_number_and_bytes_and_never_empty() -> None:
    many = AlertRows(rows=(b"{}",) * 1500)
    assert len(json.loads(rows_array(many))) == 1000
    large = b'{"a":"' + b"x" * (ROWS_BYTES_MAX // 2) + b'"}'
    assert len(json.loads(rows_array(AlertRows(rows=(large,) * 5)))) == 1
    larger = b'{"a":"' + b"x" * ROWS_BYTES_MAX + b'"}'
    assert len(json.loads(rows_array(AlertRows(rows=(larger, b"{}"))))) == 1


def test_two_firings_have_two_ids_and_one_firing_has_one() -> None:
    assert firing_event_id(firing()) == firing_event_id(firing())
    assert firing_event_id(firing()) != firing_event_id(firing(step=1))


def test_formats_with_equal_bytes_have_equal_names() -> None:
    same = Format(type="incident_io", metadata={"data": "overridden", "priority": "high"})
    assert same.name == INCIDENT_IO.name
    assert len({one.name for one in (WEBHOOK, GENERIC, INCIDENT_IO, LOGFLARE)}) == 4


@pytest.mark.parametrize("wanted", [WEBHOOK, GENERIC, INCIDENT_IO, LOGFLARE], ids=lambda w: w.name)
def test_notices_and_samples_have_the_form_of_the_real_thing(wanted: Format) -> None:
    notice = disabled_body(
        wanted, number=3, name="ops", reason="410", at_ms=CREATED_MS,
        console_base="https://c.example", instance_id="in1",
    )  # fmt: skip
    sample = sample_body(
        wanted.type, number=5, name="ops", at_ms=CREATED_MS, console_base="https://c.example",
        metadata=dict(wanted.metadata), instance_id="in1",
    )  # fmt: skip
    if wanted.type == "incident_io":
        assert event_of(notice).status == "firing"
        assert event_of(sample).status == "resolved"
        return
    assert msgspec.json.decode(notice, type=Incident).status == "opened"
    read = msgspec.json.decode(sample, type=Incident)
    assert (read.id, read.status) == ("sample-5", "opened")
    [one] = read.affected_monitors
    assert one.group
    assert one.connections
