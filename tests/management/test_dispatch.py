"""Management routes: who may ask, what is validated, what is answered, and no key in any list."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from ingester.management import ROUTES, Actor
from ingester.management.calls import LOCAL_ADMIN, NOBODY
from ingester.management.dispatch import find_route
from ingester.store.control import ControlStore, RefusedRequest, UsageChange, members
from tests.management.desk import VIEWER, Desk
from tests.management.fake_desk import FakeDesk


@pytest.fixture
def desk(control: ControlStore) -> Desk:
    return Desk(control, rejects=FakeDesk(control, 3))


def path_of(pattern: str) -> str:
    return pattern.replace("{name}", "shop").replace("{id}", "tok_1")


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.pattern}")
def test_every_route_is_found_typed_and_closed_to_strangers(desk: Desk, route: Any) -> None:
    path = path_of(route.pattern)
    assert find_route(route.method, path)[0] is route
    assert route.summary.endswith(".")
    for kind in (route.request, route.query, route.answer):
        assert msgspec.json.schema(kind)
    answer = desk.management.handle(route.method, path, {}, b"{}", NOBODY)
    viewer = desk.management.handle(route.method, path, {}, b"{}", VIEWER)
    if route.role == "anyone":
        assert answer.status == 422
    else:
        assert answer.status == 401
        assert (viewer.status == 403) == (route.role == "admin")


def test_a_viewer_sees_no_keys_members_or_audit(desk: Desk) -> None:
    for path in ("/tokens", "/connections", "/sources", "/members", "/audit", "/refused"):
        assert desk.ask("GET", path, actor=VIEWER).status == 403
    assert desk.ask("GET", "/projects", actor=VIEWER).status == 200


def test_a_stranger_learns_nothing_from_validation(desk: Desk) -> None:
    assert desk.ask("POST", "/tokens", {"colour": 1}, actor=NOBODY).status == 401
    assert desk.ask("GET", "/tokens/tok_1", actor=NOBODY).status == 401


def test_the_contracts_documents(desk: Desk) -> None:
    source = desk.ask("POST", "/sources", {"name": "shop"})
    assert source.status == 201
    assert source.is_change
    assert {"source", "auth_key", "api_key", "url"} <= set(source.document)
    token = desk.document("POST", "/tokens", {"service": "web", "environment": "prod"})
    assert (token["id"], token["scope"]) == ("tok_1", "ingest")
    assert token["token"].startswith("ingl_")
    assert token["url"] == "https://in.example/api/v1/webhook/event/log"
    connection = desk.document("POST", "/connections", {"name": "cron", "project_id": "acme"})
    assert connection["webhook_url"] == "https://in.example/api/webhooks/custom"
    assert connection["api_key"].startswith("ingm_")
    assert (connection["id"], connection["project_id"]) == ("con_1", "acme")
    assert {project["id"] for project in desk.document("GET", "/projects")["projects"]} == {
        "default",
        "acme",
    }
    admin = desk.document("POST", "/tokens", {"scope": "admin"})
    assert (admin["scopes"], admin["url"], admin["copyable"]) == (["admin"], None, False)


def test_no_list_or_single_answer_shows_a_key(desk: Desk) -> None:
    pair = desk.document("POST", "/sources", {"name": "shop"})
    token = desk.document("POST", "/tokens", {"service": "web", "environment": "prod"})
    connection = desk.document("POST", "/connections", {"name": "cron"})
    invited = desk.document("POST", "/members", {"email": "a@example.org"})
    secrets = [
        pair["auth_key"],
        pair["api_key"],
        token["token"],
        connection["api_key"],
        invited["link"].partition("=")[2],
    ]
    shown = ""
    for path in (
        "/sources",
        "/sources/shop",
        "/sources/shop/usage",
        "/tokens",
        "/tokens/tok_1",
        "/tokens/tok_1/usage",
        "/connections",
        "/connections/con_1",
        "/connections/con_1/usage",
        "/members",
        "/audit",
        "/refused",
    ):
        shown += json.dumps(desk.document("GET", path))
    assert not any(secret in shown for secret in secrets)
    assert token["token"][-4:] in shown
    assert "ingl_\\u2026" in shown


def test_rotate_revoke_reveal_and_delete(desk: Desk) -> None:
    for base, make, key in (
        ("/tokens/tok_1", ("/tokens", {"service": "s", "environment": "e"}), "token"),
        ("/connections/con_1", ("/connections", {"name": "c"}), "api_key"),
        ("/sources/shop", ("/sources", {"name": "shop"}), "api_key"),
    ):
        made = desk.document("POST", *make)
        rotated = desk.document("POST", f"{base}/rotate", {"overlap_seconds": 60})
        assert rotated[key] != made[key]
        assert desk.document("POST", f"{base}/reveal")[key] == rotated[key]
        assert desk.document("POST", f"{base}/revoke")["revoked"] == 2
        refused = desk.ask("POST", f"{base}/reveal")
        assert refused.status == 409
        assert "rotate" in refused.document["error"]  # type: ignore[operator]
        assert desk.document("DELETE", base)["deleted"]
        assert desk.ask("DELETE", base).status == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("POST", "/tokens", {"service": "s"}, 422, "environment"),
        ("POST", "/tokens", {"scope": "root"}, 422, "scope"),
        ("POST", "/tokens", {"scopes": ["read", 5]}, 422, "scopes[1]"),
        ("POST", "/tokens", {"colour": 1}, 422, "colour"),
        (
            "POST",
            "/tokens",
            {"scope": "read", "expires_at": "2020-01-01T00:00:00Z"},
            422,
            "expires_at",
        ),
        (
            "POST",
            "/tokens",
            {"scope": "read", "expires_at": "2099-01-01T00:00:00"},
            422,
            "expires_at",
        ),
        ("POST", "/connections", {"name": ""}, 422, "name"),
        ("POST", "/connections", {"name": "c", "tier": "gold"}, 422, "tier"),
        ("POST", "/connections", {"name": "c", "project_id": "a b"}, 422, "project_id"),
        ("POST", "/sources", {"name": "s", "map": {"colour": "/a"}}, 422, "map.colour"),
        ("POST", "/sources", {"name": "s", "map": {"account_id": 5}}, 422, "map"),
        ("POST", "/sources", {"name": "a/b"}, 422, "name"),
        ("POST", "/sources", {"name": "s", "dedup_hours": 0}, 422, "dedup_hours"),
        ("POST", "/projects", {"id": "default"}, 409, None),
        ("POST", "/members", {"email": "nobody"}, 422, "email"),
        ("POST", "/members", {"email": "a@b.c", "role": "root"}, 422, "role"),
        ("PATCH", "/members/mem_9", {"role": "admin"}, 404, None),
        ("POST", "/session/password", {"old_password": "a", "new_password": "b"}, 409, None),
        ("GET", "/audit?limit=0", None, 422, "limit"),
        ("GET", "/audit?colour=1", None, 422, "colour"),
        ("GET", "/nothing", None, 404, None),
        ("GET", "/tokens/", None, 200, None),
        ("PUT", "/tokens", None, 405, None),
        ("POST", "/tokens/tok_1", {}, 405, None),
        ("GET", "/tokens/%20", None, 404, None),
    ],
)
def test_a_refusal_has_status_sentence_and_field(
    desk: Desk, method: str, path: str, body: object, status: int, field: str | None
) -> None:
    answer = desk.ask(method, path, body)
    assert (answer.status, answer.document.get("field")) == (status, field)
    if status >= 400:
        assert str(answer.document["error"])
        assert not answer.is_change
    if status == 405:
        assert answer.allow


def test_what_a_name_may_hold_is_told_in_words(desk: Desk) -> None:
    told = desk.ask("POST", "/sources", {"name": "a/b"}).document["error"]
    assert told == "name: 1 to 64 letters, digits, dots, dashes or underscores are taken"


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b'"x"', b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(desk: Desk, body: bytes) -> None:
    answer = desk.management.handle("POST", "/api/v1/tokens", {}, body, LOCAL_ADMIN)
    assert answer.status in {400, 422}


def test_settings_of_sources_and_connections_are_patched(desk: Desk) -> None:
    desk.document("POST", "/sources", {"name": "shop", "dedup_field": "id"})
    patched = desk.document("PATCH", "/sources/shop", {"requests_per_hour": 5})
    assert (patched["requests_per_hour"], patched["dedup_field"]) == (5, "id")
    assert desk.document("PATCH", "/sources/shop", {"dedup_field": None})["dedup_field"] is None
    desk.document("POST", "/connections", {"name": "c", "tier": "free"})
    assert desk.document("PATCH", "/connections/con_1", {"tier": "pro"})["limit"] == 1000


def test_a_token_that_opens_no_door_has_no_quota(desk: Desk) -> None:
    named = {"service": "s", "environment": "e"}
    for scope, status in (("read", 422), ("admin", 422), ("ingest", 201)):
        body = {"scope": scope, "requests_per_hour": 5, **(named if status == 201 else {})}
        assert desk.ask("POST", "/tokens", body).status == status
    assert desk.ask("POST", "/tokens", {"scope": "read"}).status == 201


def test_usage_shows_hours_quota_last_use_and_refusals(desk: Desk) -> None:
    import time

    desk.document("POST", "/connections", {"name": "c", "tier": "free"})
    now = time.time()
    hour = int(now) // 3600
    change = UsageChange(
        credential="con_1",
        requests=7,
        accepted=70,
        rejected=2,
        refused=1,
        last_used_at=now,
        last_address="192.0.2.9",
    )
    refused = RefusedRequest(
        credential="con_1", time=now, status=400, reason="why", address="192.0.2.9", path="/p"
    )
    desk.control.store_usage(hour, [change], [refused])
    desk.control.store_hour_counts(hour, {"con_1": 7})
    usage = desk.document("GET", "/connections/con_1/usage?hours=2")
    assert usage["hours"][-1]["accepted"] == 70
    assert (usage["quota_used"], usage["quota_left"]) == (7, 93)
    assert usage["last_address"] == "192.0.2.9"
    assert usage["refused"][0]["reason"] == "why"
    assert desk.document("GET", "/connections")["connections"][0]["last_address"] == "192.0.2.9"
    assert len(desk.document("GET", "/refused?credential=con_1")["refused"]) == 1
    assert desk.document("GET", "/refused?credential=tok_1")["refused"] == []


def test_an_invitation_leads_to_a_session_and_the_setup_to_an_admin(desk: Desk) -> None:
    setup = desk.control.ensure_admin()
    assert setup is not None
    body = {"token": setup.token, "email": "ada@example.org", "password": "a long password"}
    answer = desk.ask("POST", "/setup", body, actor=NOBODY)
    assert answer.status == 200
    assert answer.session_secret
    assert answer.session_secret not in json.dumps(answer.document)
    assert desk.ask("POST", "/setup", body, actor=NOBODY).status == 401
    session = desk.control.session(answer.session_secret)
    ada = Actor(name="ada@example.org", role="admin", session=session)
    invited = desk.ask("POST", "/members", {"email": "bob@example.org"}, actor=ada)
    link = str(invited.document["link"])
    assert link.startswith("https://c.example/invite?token=")
    joined = desk.ask(
        "POST",
        "/invites/accept",
        {"token": link.partition("=")[2], "password": "another password"},
        actor=NOBODY,
    )
    assert joined.document["role"] == "viewer"
    assert desk.ask("GET", "/session", actor=ada).document["email"] == "ada@example.org"
    assert desk.ask("DELETE", "/session", actor=ada).session_secret == ""
    assert desk.control.session(answer.session_secret) is None
    actors = [entry["actor"] for entry in desk.document("GET", "/audit")["entries"]]
    assert "ada@example.org" in actors


NASTY = ["", "\x00", "\ud800", "a\x00b", "🦆" * 300, "' OR 1=1 --", "x" * 5000, -1, 2**63, 2**400]
NASTY += [1e400, None, True, [], {}, ["a"] * 100, {"a": {"b": "c"}}, {"\ud800": "/a"}, "2026-13-01"]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.pattern}")
def test_no_value_of_any_field_is_a_fault(
    desk: Desk, route: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "_SCRYPT_N", 2)
    desk.document("POST", "/sources", {"name": "shop"})
    desk.document("POST", "/tokens", {"service": "s", "environment": "e"})
    good = {"name": "n", "id": "i", "email": "a@b.c", "token": "t", "password": "long enough"}
    fields = {field.name for field in msgspec.structs.fields(route.request)}
    for field in fields:
        for value in NASTY:
            body = {key: text for key, text in good.items() if key in fields} | {field: value}
            data = json.dumps(body).encode()
            path = path_of(route.pattern)
            answer = desk.management.handle(route.method, path, {}, data, LOCAL_ADMIN)
            assert answer.status < 500
            assert json.dumps(dict(answer.document))
    for field in msgspec.structs.fields(route.query):
        for value in ("", "-1", "x", "\ud800", "\x00", str(2**63), str(2**400), "1e5"):
            path = path_of(route.pattern)
            answer = desk.management.handle(
                route.method, path, {field.name: value}, b"", LOCAL_ADMIN
            )
            assert answer.status < 500
    for segment in ("%00", "%ff", "%ED%A0%80", "..", "🦆", "x" * 5000, "\udcff", "tok_" + "9" * 18):
        path = route.pattern.replace("{name}", segment).replace("{id}", segment)
        answer = desk.management.handle(route.method, path, {}, b"{}", LOCAL_ADMIN)
        assert answer.status < 500
        assert msgspec.json.encode(answer.document)
