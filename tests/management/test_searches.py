"""Saved searches: kept as typed, shared by all, changed by who made them and by administrators."""

from __future__ import annotations

from ingester.management import Actor
from ingester.store.control import MemberInfo, Session
from tests.management.desk import VIEWER, Desk

SLOW = {
    "name": "slow",
    "query": "m.ms:>500",
    "since": "now-1h",
    "until": "now",
    "columns": ["service", "metadata.ms"],
}


def viewer(name: str) -> Actor:
    member = MemberInfo(
        id="mem_9",
        email=name,
        role="viewer",
        is_active=True,
        created_at=0.0,
        last_seen_at=None,
        invited_until=None,
    )
    session = Session(member=member, digest=b"", expires_at=2e9)
    return Actor(name=name, role="viewer", session=session)


def test_a_search_is_kept_as_it_was_typed(desk: Desk) -> None:
    made = desk.document("POST", "/saved-searches", SLOW)
    assert {name: made[name] for name in SLOW} == SLOW
    assert (made["on"], made["created_by"]) == ("logs", "local")
    changed = desk.document("PATCH", f"/saved-searches/{made['id']}", {"query": "m.ms:>900"})
    assert (changed["query"], changed["name"], changed["since"]) == ("m.ms:>900", "slow", "now-1h")
    assert desk.document("GET", f"/saved-searches/{made['id']}") == changed
    desk.document("POST", "/saved-searches", {"name": "slow", "on": "events"})
    assert len(desk.document("GET", "/saved-searches")["saved_searches"]) == 2
    assert desk.document("GET", "/saved-searches?on=logs")["saved_searches"] == [changed]
    desk.document("DELETE", f"/saved-searches/{made['id']}")
    assert desk.ask("GET", f"/saved-searches/{made['id']}").status == 404


def test_a_name_is_taken_once_and_a_wrong_query_is_refused_with_its_column(desk: Desk) -> None:
    desk.document("POST", "/saved-searches", SLOW)
    other = desk.document("POST", "/saved-searches", SLOW | {"name": "other"})
    assert desk.ask("POST", "/saved-searches", SLOW).status == 409
    assert desk.ask("PATCH", f"/saved-searches/{other['id']}", {"name": "slow"}).status == 409
    desk.document("PATCH", f"/saved-searches/{other['id']}", {"name": "other"})
    refused = desk.ask("POST", "/saved-searches", {"name": "bad", "query": "level:>"})
    assert (refused.status, refused.document["field"]) == (422, "query")
    assert "column 8" in str(refused.document["error"])


def test_viewers_change_their_own_and_administrators_all(desk: Desk) -> None:
    vic, ann = viewer("vic@example.org"), viewer("ann@example.org")
    made = desk.ask("POST", "/saved-searches", SLOW, actor=vic)
    assert made.status == 201
    path = f"/saved-searches/{made.document['id']}"
    assert desk.ask("GET", path, actor=ann).document["created_by"] == "vic@example.org"
    refused = desk.ask("PATCH", path, {"name": "mine"}, actor=ann)
    assert refused.status == 403
    assert "vic@example.org" in str(refused.document["error"])
    assert desk.ask("DELETE", path, actor=ann).status == 403
    assert desk.ask("PATCH", path, {"name": "fast"}, actor=vic).status == 200
    assert desk.ask("DELETE", path).status == 200


def test_a_read_token_changes_nothing(desk: Desk) -> None:
    made = desk.document("POST", "/saved-searches", SLOW)
    path = f"/saved-searches/{made['id']}"
    assert desk.ask("GET", path, actor=VIEWER).status == 200
    for method, where, body in (
        ("POST", "/saved-searches", SLOW | {"name": "x"}),
        ("PATCH", path, {"name": "x"}),
        ("DELETE", path, None),
    ):
        assert desk.ask(method, where, body, actor=VIEWER).status == 403
