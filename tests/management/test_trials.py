"""A dry run says what the honest door would, and stores nothing."""

from __future__ import annotations

import json

import pytest

from ingester.management import Actor, Answer, Links, Management
from ingester.management.calls import LOCAL_ADMIN
from ingester.store.control import ControlStore

GOOD = {
    "accountId": "acme",
    "userId": "ada",
    "createdAt": 1_790_000_000_000,
    "action": "login",
    "sessionId": "s1",
}
MAP = {
    "account_id": "/org/id",
    "user_id": "/who",
    "action": "=push",
    "session_id": "=none",
    "created_at": "/at",
    "time_unit": "s",
}


@pytest.fixture
def management(control: ControlStore) -> Management:
    control.create_source("shop")
    return Management(control, Links(intake=str, console=str))


def tried(management: Management, actor: Actor = LOCAL_ADMIN, **body: object) -> Answer:
    data = json.dumps(body).encode()
    return management.handle("POST", "/api/v1/sources/shop/try", {}, data, actor)


def test_lines_are_read_as_the_source_reads_them(management: Management) -> None:
    lines = [json.dumps(GOOD), "", '{"accountId": "a"}', "nope"]
    answer = tried(management, text="\n".join(lines))
    assert (answer.status, answer.is_change) == (200, False)
    assert answer.document["accepted"] == 1
    assert answer.document["rejected"] == 2
    assert answer.document["events"] == [
        {
            "line": 1,
            "account_id": "acme",
            "user_id": "ada",
            "created_at": "2026-09-21T14:13:20.000Z",
            "action": "login",
            "session_id": "s1",
        }
    ]
    first, second = answer.document["rejects"]
    assert (first["line"], first["reason"], first["field"]) == (3, "missing_field", "userId")
    assert (second["line"], second["reason"]) == (4, "invalid_json")
    assert second["column"] > 0


def test_another_map_is_tried_without_being_kept(management: Management) -> None:
    text = json.dumps([{"org": {"id": 7}, "who": "ada", "at": 1_790_000_000}])
    answer = tried(management, text=text, map=MAP)
    [event] = answer.document["events"]
    assert (event["account_id"], event["action"]) == ("7", "push")
    assert event["created_at"] == "2026-09-21T14:13:20.000Z"
    assert tried(management, text=text).document["rejected"] == 1
    kept = management.handle("GET", "/api/v1/sources/shop", {}, b"", LOCAL_ADMIN)
    assert kept.document["map"] is None


def test_leniency_is_tried_too(management: Management) -> None:
    text = json.dumps({**GOOD, "sessionId": ""})
    assert tried(management, text=text).document["rejected"] == 1
    answer = tried(management, text=text, lenient_session=True)
    assert answer.document["events"][0]["session_id"] is None


@pytest.mark.parametrize(
    ("mapping", "field"),
    [
        ({"colour": "/x"}, "map.colour"),
        ({"account_id": "x"}, "map.account_id"),
        ({"created_at": "=1"}, "map.created_at"),
        ({"time_unit": "h"}, "map.time_unit"),
    ],
)
def test_what_is_no_map_is_refused_at_its_field(
    management: Management, mapping: dict[str, str], field: str
) -> None:
    answer = tried(management, text="{}", map=mapping)
    assert (answer.status, answer.document["field"]) == (422, field)


def test_it_is_for_administrators_and_bounded(management: Management) -> None:
    viewer = Actor(name="tok_1", role="viewer")
    assert tried(management, viewer, text="{}").status == 403
    assert tried(management, text="x" * 65_537).status == 422
    answer = tried(management, text="nope\n" * 5_000)
    assert answer.document["rejected"] == 5_000
    assert len(answer.document["rejects"]) == 100


def test_an_unknown_source_is_named(management: Management) -> None:
    answer = management.handle("POST", "/api/v1/sources/none/try", {}, b'{"text":""}', LOCAL_ADMIN)
    assert answer.status == 404
