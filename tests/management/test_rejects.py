"""Routes of rejects: who may ask, what is validated, pages, and what is told of a replay."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from ingester.management import Actor, Links, Management
from ingester.management.calls import LOCAL_ADMIN, NOBODY
from ingester.store.control import ControlStore
from tests.management.desk import VIEWER, Desk
from tests.management.fake_desk import FakeDesk, stored


class Office(Desk):
    def __init__(self, control: ControlStore) -> None:
        self.desk = FakeDesk(control, 5)
        super().__init__(control, rejects=self.desk)

    def get(self, path: str, actor: Actor = VIEWER) -> Any:
        answer = self.ask("GET", path, actor=actor)
        assert answer.status == 200, answer.document
        return answer.document

    def replay(self, **body: object) -> Any:
        answer = self.ask("POST", "/rejects/replay", body)
        assert answer.status == 200, answer.document
        assert not answer.is_change
        return answer.document


@pytest.fixture
def office(control: ControlStore) -> Office:
    return Office(control)


def ids(*numbers: int) -> list[str]:
    return [f"{number:016x}-1" for number in numbers]


def shown(document: Any) -> list[str]:
    return [reject["id"] for reject in document["rejects"]]


def test_readers_list_and_only_administrators_replay(office: Office) -> None:
    for path in ("/rejects", "/rejects/counts", f"/rejects/{ids(1)[0]}"):
        assert office.ask("GET", path, actor=VIEWER).status == 200
        assert office.ask("GET", path, actor=NOBODY).status == 401
    body = {"ids": ids(1)}
    assert office.ask("POST", "/rejects/replay", body, actor=VIEWER).status == 403
    assert office.ask("POST", "/rejects/replay", body, actor=NOBODY).status == 401
    assert office.ask("GET", f"/rejects/{ids(9)[0]}").status == 404
    assert office.ask("GET", "/rejects/nonsense").status == 404
    assert office.ask("GET", "/rejects/replay").status == 404


def test_pages_follow_each_other(office: Office) -> None:
    first = office.get("/rejects?limit=2")
    second = office.get(f"/rejects?limit=2&cursor={first['cursor']}")
    third = office.get(f"/rejects?limit=2&cursor={second['cursor']}")
    assert [*shown(first), *shown(second), *shown(third)] == ids(5, 4, 3, 2, 1)
    assert third["cursor"] is None


def test_replayed_ones_can_be_left_out_of_a_list(office: Office) -> None:
    office.desk.mark([2, 4, 5])
    assert shown(office.get("/rejects?replayed=false&limit=2")) == ids(3, 1)
    assert shown(office.get("/rejects?replayed=true")) == ids(5, 4, 2)
    page = office.get("/rejects?replayed=true&limit=1")
    assert (shown(page), page["cursor"]) == (ids(5), ids(5)[0])
    (reject,) = page["rejects"]
    assert reject["replay"]["state"] == "replayed"
    assert reject["replay"]["request_id"] == f"{500:016x}"
    counts = office.get("/rejects/counts")
    assert (counts["rejects"], counts["replayed"]) == (5, 3)


@pytest.mark.parametrize("line", [b"\xff\x00", "ü\u0000".encode(), b"x" * 70_000])
def test_a_line_is_shown_as_it_was_sent(office: Office, line: bytes) -> None:
    office.desk.rejects = [stored(1, line)]
    reject = office.get(f"/rejects/{ids(1)[0]}")
    text = reject["line"].encode()
    assert (base64.b64decode(text) if reject["line_encoding"] == "base64" else text) == line
    assert reject["is_cut"] == (len(line) >= 65_536)
    assert len(reject["excerpt"]) <= 200


def test_filters_reach_the_desk(office: Office) -> None:
    query = "source=shop&reason=too_long&since=2026-01-01T00:00:00Z&request_id=00000000000000ff"
    office.get(f"/rejects?{query}")
    (wanted,) = office.desk.filters
    assert (wanted.source, wanted.reason, wanted.request_number) == ("shop", "too_long", 255)
    assert wanted.since is not None
    assert wanted.since.year == 2026
    assert wanted.until is None


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=1001", "cursor=7", "reason=bad", "since=yesterday", "colour=red"),
        *("since=2026-01-01T00:00:00", "request_id=xyz", "replayed=perhaps"),
        *("cursor=ffffffffffffffff-1", "reason=null", "replayed=null"),
    ],
)
def test_what_a_list_cannot_take_is_422(office: Office, query: str) -> None:
    answer = office.ask("GET", f"/rejects?{query}")
    assert answer.status == 422
    assert answer.document["field"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ids": []},
        {"ids": ["7"]},
        {"ids": ids(1), "filter": {}},
        {"ids": ids(1), "edits": {ids(2)[0]: "{}"}},
        {"filter": {}, "edits": {ids(1)[0]: "{}"}},
        {"filter": {"colour": "red"}},
        {"ids": ids(*range(1001))},
        {"ids": ids(1), "edits": {ids(1)[0]: 7}},
    ],
)
def test_what_a_replay_cannot_take_is_422(office: Office, body: object) -> None:
    answer = office.ask("POST", "/rejects/replay", body)
    assert answer.status == 422
    assert answer.document["field"]


def test_half_of_a_surrogate_pair_in_an_edit_is_refused(office: Office) -> None:
    body = b'{"edits": {"%s": "\\ud800"}}' % ids(1)[0].encode()
    answer = office.management.handle("POST", "/api/v1/rejects/replay", {}, body, LOCAL_ADMIN)
    assert answer.status == 400


def test_ids_are_replayed_once_each_and_unknown_ones_named(office: Office) -> None:
    told = office.replay(ids=[*ids(2, 9, 2)], edits={ids(2)[0]: "ü"})
    assert [(row["id"], row["outcome"]) for row in told["results"]] == [
        (ids(2)[0], "replayed"),
        (ids(9)[0], "unknown"),
    ]
    assert (told["replayed"], told["refused"], told["other"]) == (1, 0, 1)
    assert office.desk.edits == {ids(2)[0]: "ü".encode()}
    told = office.replay(edits={ids(3)[0]: "{}"})
    assert [row["id"] for row in told["results"]] == ids(3)


def test_a_filter_goes_from_the_oldest_on_and_skips_what_is_done(office: Office) -> None:
    office.desk.mark([2])
    dry = office.replay(filter={"source": "shop"}, dry_run=True, limit=3)
    assert [row["outcome"] for row in dry["results"]] == ["accepted"] * 2
    assert dry["replayed"] == 2
    first = office.replay(filter={}, limit=3)
    assert [row["id"] for row in first["results"]] == ids(1, 3)
    last = office.replay(filter={}, limit=3, cursor=first["cursor"])
    assert [row["id"] for row in last["results"]] == ids(4, 5)
    assert last["cursor"] is None
    assert office.replay(filter={})["results"] == []


def test_where_nothing_can_be_replayed_it_is_said(office: Office) -> None:
    office.desk.can_replay = False
    assert office.ask("POST", "/rejects/replay", {"ids": ids(1)}).status == 503
    links = Links(intake=str, console=str)
    bare = Management(office.desk.control, links)
    assert bare.handle("GET", "/api/v1/rejects", {}, b"", LOCAL_ADMIN).status == 503
