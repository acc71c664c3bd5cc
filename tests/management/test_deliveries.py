"""Routes of destinations, routing and deliveries: refused by field, nothing secret in an answer."""

from __future__ import annotations

import json

import pytest

from ingester.delivery.exchange import Exchange, Target
from ingester.delivery.signing import new_secret
from ingester.store.control import ControlStore
from ingester.store.control.outbox import append_revision
from tests.delivery.incidents import revision
from tests.management.desk import VIEWER, Desk

HOOK = {"name": "ops", "type": "webhook", "url": "https://user:passw0rd@example.org/hook"}
PAGER = {
    "name": "pager",
    "type": "incident_io",
    "api_token": "hidden-token",
    "alert_source_config_id": "01ABC",
}


class FakeDelivery:
    """Writes down what is sent, and answers."""

    def __init__(self) -> None:
        self.sent: list[tuple[Target, str, bytes]] = []
        self.rung = 0

    def send(self, target: Target, event_id: str, body: bytes) -> Exchange:
        self.sent.append((target, event_id, body))
        return Exchange(
            status=500,
            headers={},
            answer=b"no\xff",
            latency_ms=1.25,
            sent_headers=[("Authorization", "REDACTED")],
        )

    def ring(self) -> None:
        self.rung += 1


class DeliveryDesk(Desk):
    def __init__(self, control: ControlStore) -> None:
        self.delivery = FakeDelivery()
        super().__init__(control, delivery=self.delivery)


@pytest.fixture
def desk(control: ControlStore) -> DeliveryDesk:
    return DeliveryDesk(control)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "x", "type": "incident_io"}, "api_token"),
        ({"name": "x", "type": "incident_io", "api_token": ""}, "api_token"),
        ({"name": "x", "type": "incident_io", "api_token": "k"}, "alert_source_config_id"),
        ({"name": "x", "type": "incident_io", "alert_source_config_id": "1"}, "api_token"),
        ({"name": "x", "type": "webhook"}, "url"),
        ({"name": "x", "type": "pager"}, "type"),
        ({"type": "webhook", "url": "https://example.org"}, "name"),
        ({**HOOK, "secret": "short"}, "secret"),
        ({**HOOK, "key_mode": "incident"}, "key_mode"),
        ({**HOOK, "colour": 1}, "colour"),
        ({**PAGER, "metadata": "priority=high"}, "metadata"),
        ({**PAGER, "key_mode": "other"}, "key_mode"),
    ],
)
def test_what_cannot_be_is_422_with_its_field(
    desk: DeliveryDesk, body: dict[str, object], field: str
) -> None:
    assert desk.refused("POST", "/destinations", body) == (422, field)


def test_no_answer_shows_a_secret_and_what_is_shown_may_come_back(desk: DeliveryDesk) -> None:
    secret = new_secret()
    hook = {**HOOK, "secret": secret, "headers": {"X-Api-Key": "hidden-key", "X-Team": "data"}}
    made = desk.document("POST", "/destinations", hook)
    pager = desk.document("POST", "/destinations", PAGER)
    before = [desk.control.destination_settings(one["id"]) for one in (made, pager)]
    for one in (made, pager):
        settings = {
            name: one[name]
            for name in (
                "name", "type", "enabled", "url", "headers", "secret", "gzip", "api_token",
                "alert_source_config_id", "metadata", "base_url", "key_mode",
            )
        }  # fmt: skip
        assert desk.document("PATCH", f"/destinations/{one['id']}", settings) == one
    assert [desk.control.destination_settings(one["id"]) for one in (made, pager)] == before
    told = json.dumps([
        made,
        pager,
        desk.document("GET", "/destinations"),
        desk.document("GET", "/audit"),
        desk.document("POST", f"/destinations/{made['id']}/verify"),
    ])
    for hidden in (secret, "passw0rd", "hidden-key", "hidden-token"):
        assert hidden not in told


def test_the_type_cannot_be_changed(desk: DeliveryDesk) -> None:
    made = desk.document("POST", "/destinations", HOOK)
    path = f"/destinations/{made['id']}"
    assert desk.refused("PATCH", path, {"type": "generic"}) == (422, "type")
    assert desk.refused("PATCH", path, {"api_token": "k"}) == (422, "api_token")


def test_verify_sends_a_sample_and_tells_what_came_back(desk: DeliveryDesk) -> None:
    made = desk.document("POST", "/destinations", HOOK)
    told = desk.document("POST", f"/destinations/{made['id']}/verify")
    [(target, event_id, body)] = desk.delivery.sent
    assert target.settings.url == HOOK["url"]
    sample = json.loads(body)
    assert (sample["id"], sample["idempotencyId"]) == (told["id"], event_id)
    assert told["request"] == {
        "method": "POST",
        "url": "https://example.org/hook",
        "headers": {"Authorization": "REDACTED"},
        "body": body.decode(),
    }
    assert (told["ok"], told["status"], told["latency_ms"]) == (False, 500, 1.2)
    assert told["body"] == "no\ufffd"
    assert desk.control.list_deliveries(limit=10) == []


def test_a_new_secret_is_shown_once_and_the_old_one_ends(desk: DeliveryDesk) -> None:
    made = desk.document("POST", "/destinations", {**HOOK, "secret": new_secret()})
    path = f"/destinations/{made['id']}"
    rotated = desk.document("POST", f"{path}/rotate", {"overlap_seconds": 60})
    assert rotated["secret"].startswith("whsec_")
    assert rotated["old_until"]
    assert desk.document("GET", path)["secret"] == "REDACTED"
    assert desk.refused("POST", f"{path}/rotate", {"secret": "short"}) == (422, "secret")


def test_routes_are_made_changed_and_tried(desk: DeliveryDesk) -> None:
    made = desk.document("POST", "/destinations", HOOK)
    rules = {"allow": [{"field": "service", "match": "prefix", "value": "web"}]}
    route = desk.document("POST", "/routes", {"destination": made["id"], **rules})
    assert desk.document("GET", f"/routes/{route['id']}") == route
    for service, count in (("web-1", 1), ("db", 0)):
        test = desk.document("POST", "/routes/test", {"services": [service]})
        assert len(test["destinations"]) == count
    ignore = [{"field": "label", "match": "regex", "value": "^mu"}]
    desk.document("PATCH", f"/routes/{route['id']}", {"ignore": ignore})
    muted = {"services": ["web-1"], "labels": ["muted"]}
    assert desk.document("POST", "/routes/test", muted)["destinations"] == []
    wrong = {"destination": made["id"], "allow": [{"field": "colour", "value": "x"}]}
    assert desk.refused("POST", "/routes", wrong)[0] == 422
    bad = {"destination": made["id"], "allow": [{"field": "label", "match": "regex", "value": "("}]}
    assert desk.refused("POST", "/routes", bad) == (422, "allow[0].value")
    assert desk.refused("POST", "/routes", {"destination": "dst_9"}) == (422, "destination")


def test_deliveries_are_paged_and_sent_again(desk: DeliveryDesk) -> None:
    made = desk.document("POST", "/destinations", HOOK)
    with desk.control._transaction() as connection:
        for number in range(3):
            append_revision(connection, revision(f"inc_{number}"), destinations=[made["id"]])
    first = desk.document("GET", "/deliveries?limit=2")
    assert [one["incident_id"] for one in first["deliveries"]] == ["inc_2", "inc_1"]
    rest = desk.document("GET", f"/deliveries?limit=2&cursor={first['cursor']}")
    assert [one["incident_id"] for one in rest["deliveries"]] == ["inc_0"]
    assert rest["cursor"] is None
    one = rest["deliveries"][0]
    detail = desk.document("GET", f"/deliveries/{one['id']}")
    assert (detail["delivery"], detail["attempt_log"]) == (one, [])
    rung = desk.delivery.rung
    assert desk.document("POST", f"/deliveries/{one['id']}/resend")["state"] == "pending"
    assert desk.delivery.rung == rung + 1
    desk.document("PATCH", f"/destinations/{made['id']}", {"enabled": False})
    assert desk.refused("POST", f"/deliveries/{one['id']}/resend")[0] == 409
    since = {"failed_since": "2026-01-01T00:00:00Z"}
    assert desk.document("POST", "/deliveries/resend", since) == {"resent": 0, "disabled": 3}
    assert desk.refused("POST", "/deliveries/resend", {"failed_since": "9999-01-01T00:00:00Z"}) == (
        422,
        "failed_since",
    )


def test_a_viewer_reads_and_changes_nothing(desk: DeliveryDesk) -> None:
    made = desk.document("POST", "/destinations", HOOK)
    for path in ("/destinations", f"/destinations/{made['id']}", "/routes", "/deliveries"):
        assert desk.ask("GET", path, actor=VIEWER).status == 200
    assert desk.ask("POST", "/routes/test", {}, actor=VIEWER).status == 200
    for method, path in (
        ("POST", "/destinations"),
        ("PATCH", f"/destinations/{made['id']}"),
        ("POST", f"/destinations/{made['id']}/verify"),
        ("POST", "/deliveries/resend"),
    ):
        assert desk.ask(method, path, {}, actor=VIEWER).status == 403
