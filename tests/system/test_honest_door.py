"""The honest door as a client sees it: the per-line report and what is stored (contract 3, 3.4)."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.client import Answer, chunk_frames, event_line, head_bytes
from tests.system.doors import HONEST, Doors, bearer, error_of, open_doors

_KEYS = ["request_id", "accepted", "rejected", "duplicate", "deduplicated", "errors"]
_BULK = b"".join(b'{"message":"bulk","n":%d}\n' % n for n in range(50_000))


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with open_doors(tmp_path_factory.mktemp("honest")) as doors:
        yield doors


def report(answer: Answer) -> Any:
    """The document, which must agree with the headers."""
    assert answer.headers["content-type"] == "application/json"
    document = json.loads(answer.body)
    assert list(document) == _KEYS
    assert document["request_id"] == answer.request_id
    assert len(document["errors"]) == min(document["rejected"], 100) or document["duplicate"]
    if answer.status == 200:
        assert answer.counts == (document["accepted"], document["rejected"])
    else:
        assert "ingester-accepted" not in answer.headers
    return document


def places(answer: Answer) -> list[tuple[int, int | None, str]]:
    return [(e["line"], e["column"], e["reason"]) for e in report(answer)["errors"]]


def test_good_lines_are_stored_and_bad_ones_reported_and_kept(doors: Doors) -> None:
    answer = doors.lines(b'{"message":"a","n":1}', b"nope", b"", b'{"b":2} 3', b"[1]", b'{"c":3}\r')
    found = report(answer)
    assert (answer.status, found["accepted"], found["rejected"]) == (200, 2, 3)
    assert places(answer) == [
        (2, 2, "invalid_json"),
        (4, 9, "several_values"),
        (5, None, "not_an_object"),
    ]
    assert [e["excerpt"] for e in found["errors"]] == ["nope", '{"b":2} 3', "[1]"]
    assert all(e["detail"] for e in found["errors"])
    assert (found["duplicate"], found["deduplicated"]) == (False, 0)
    rows = doors.rows(
        "SELECT service, environment, level, message, attributes FROM logs"
        f" WHERE id LIKE '{answer.request_id}-%' ORDER BY id"
    )
    assert rows == [
        ("api", "prod", "info", "a", {"message": "a", "n": 1}),
        ("api", "prod", "info", '{"c":3}', {"c": 3}),
    ]
    rejects = doors.rows(
        "SELECT door, source, line_number, reason, field, line, detail <> '' FROM rejects"
        f" WHERE request_id = '{answer.request_id}' ORDER BY line_number"
    )
    assert rejects == [
        ("ingest", "web", 2, "invalid_json", None, "nope", True),
        ("ingest", "web", 4, "several_values", None, '{"b":2} 3', True),
        ("ingest", "web", 5, "not_an_object", None, "[1]", True),
    ]
    assert doors.row(
        "SELECT door, source, accepted, rejected FROM requests"
        f" WHERE request_id = '{answer.request_id}'"
    ) == ("ingest", "web", 2, 3)


def test_one_object_an_array_and_lines_are_the_same_rows(doors: Doors) -> None:
    for body, count in (
        (b'{"a":1}', 1),
        (b'\n {\n"a":1\n}\n', 1),
        (b'[{"a":1},{"a":1}]', 2),
        (b'[\n{"a":1},\n{"a":\n1}\n]', 2),
        (b'{"a":1}\n{"a":1}', 2),
        (b'\xef\xbb\xbf{"a":1}', 1),
        (b"", 0),
        (b" \r\n\n", 0),
        (b"[]", 0),
    ):
        answer = doors.lines(body)
        assert (answer.status, report(answer)["accepted"]) == (200, count), body
        rows = doors.rows(
            f"SELECT attributes->>'a' FROM logs WHERE id LIKE '{answer.request_id}-%'"
        )
        assert rows == [("1",)] * count


def test_elements_of_an_array_are_rejected_by_their_number(doors: Doors) -> None:
    answer = doors.lines(b'[{"a":1}, 2, "x", {"b":"\\ud800"}, {"c":3}]')
    assert places(answer) == [
        (2, None, "not_an_object"),
        (3, None, "not_an_object"),
        (4, 7, "invalid_utf8"),
    ]
    assert report(answer)["accepted"] == 2


def test_errors_are_the_first_hundred_and_all_are_kept(doors: Doors) -> None:
    answer = doors.lines(b'{"ok":1}', *[b"bad %d" % n for n in range(150)])
    found = report(answer)
    assert (found["rejected"], len(found["errors"])) == (150, 100)
    assert found["errors"][99]["line"] == 101
    assert doors.row(f"SELECT count(*) FROM rejects WHERE request_id = '{answer.request_id}'") == (
        150,
    )


def test_when_every_line_is_rejected_the_request_is_refused(doors: Doors) -> None:
    before = doors.counts()
    for body in (b"nope", b"1\n2\n", b"[1]", b"[[1],[2]]", b"nope\n" * 400_000):
        answer = doors.lines(body)
        assert answer.status == 400
        found = report(answer)
        assert (found["accepted"], found["errors"][0]["line"]) == (0, 1)
    assert doors.counts() == before


def test_with_atomic_any_reject_refuses_the_request(doors: Doors) -> None:
    before = doors.counts()
    for path in ("?atomic=true", "?atomic=1&x=y", "?atomic"):
        for body in (b'{"a":1}\nnope\n{"b":2}', _BULK + b"nope\n", _BULK + b"nope\n" + _BULK):
            answer = doors.lines(body, path=HONEST + path)
            assert answer.status == 400
            assert report(answer)["errors"][0]["reason"] == "invalid_json"
            assert report(answer)["accepted"] == 0
    assert doors.counts() == before
    assert doors.lines(b'{"a":1}', path=f"{HONEST}?atomic=true").status == 200
    assert doors.lines(b'{"a":1}\nnope', path=f"{HONEST}?atomic=false").status == 200
    assert "atomic" in error_of(doors.lines(b"{}", path=f"{HONEST}?atomic=maybe"))


def test_a_large_body_is_reported_the_same_way(doors: Doors) -> None:
    body = b"first\n" + _BULK + b"last\n"
    for sent, headers in ((body, {}), (gzip.compress(body), {"Content_Encoding": "gzip"})):
        answer = doors.lines(sent, **headers)
        found = report(answer)
        assert (answer.status, found["accepted"], found["rejected"]) == (200, 50_000, 2)
        assert [e["line"] for e in found["errors"]] == [1, 50_002]
        counts = doors.row(
            "SELECT (SELECT count(DISTINCT id) FROM logs WHERE id LIKE"
            f" '{answer.request_id}-%'), (SELECT count(*) FROM rejects WHERE request_id ="
            f" '{answer.request_id}')"
        )
        assert counts == (50_000, 2)
    array = b"[" + _BULK.rstrip().replace(b"\n", b",") + b",7]"
    answer = doors.lines(array)
    assert places(answer) == [(50_001, None, "not_an_object")]


def test_head_says_whether_the_key_is_good(doors: Doors) -> None:
    answer = doors.connection.request("HEAD", HONEST, headers=bearer(doors.token))
    assert (answer.status, answer.body) == (200, b"")
    assert answer.counts == (0, 0)
    for key in ("nobody", doors.api_key, doors.reader):
        answer = doors.connection.request("HEAD", HONEST, headers=bearer(key))
        assert answer.status == (403 if key == doors.reader else 401)
    for method in ("GET", "PUT", "DELETE", "OPTIONS"):
        answer = doors.connection.request(method, HONEST)
        assert (answer.status, answer.headers["allow"]) == (405, "POST, HEAD")


def test_a_source_is_a_label(doors: Doors) -> None:
    for label in ("a", "A.b-c_9", "x" * 64, "%61"):
        answer = doors.lines(b'{"a":1}', path=f"/ingest/{label}")
        assert answer.status == 200, label
    assert doors.rows("SELECT DISTINCT source FROM requests WHERE source = 'A.b-c_9'")
    for label in ("", "x" * 65, "a/b", "a%20b", "%00", "ä", "a%2Fb"):
        for method in ("POST", "HEAD"):
            answer = doors.connection.request(
                method, f"/ingest/{label}", b"{}", bearer(doors.token)
            )
            assert answer.status == 400, (method, label)
    assert "as is logs or events" in error_of(doors.lines(b"{}", path=f"{HONEST}?as=x"))


def test_a_form_is_one_object_when_it_says_so(doors: Doors) -> None:
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    answer = doors.lines(b"levelname=ERROR&msg=x+y&created=1700000000", **form)
    assert report(answer)["accepted"] == 1
    assert doors.row(
        f"SELECT level, message, time FROM logs WHERE id LIKE '{answer.request_id}-%'"
    ) == ("error", "x y", "2023-11-14T22:13:20.000000Z")
    # curl -d and --data-binary say so of everything.
    answer = doors.lines(b'{"a":1}', b"b=nope", b'{"c":3}', **form)
    assert (report(answer)["accepted"], report(answer)["rejected"]) == (2, 1)
    answer = doors.lines(b"b=nope", b'{"c":3}', **form)
    assert (report(answer)["accepted"], report(answer)["rejected"]) == (1, 1)


def test_as_events_needs_a_token_bound_to_the_source(doors: Doors) -> None:
    path = "/ingest/shop?as=events"
    doors.api("POST", "sources", {"name": "shop"})
    answer = doors.lines(event_line("acme"), path=path)
    assert answer.status == 403
    assert "bound" in error_of(answer)
    key = doors.make_token(source="shop")["token"]
    bad = event_line("acme", accountId=None)
    late = event_line("acme", createdAt="x")
    body = b"\n".join([event_line("acme", 1), bad, late])
    answer = doors.post(path, body, key=key)
    found = report(answer)
    assert (answer.status, found["accepted"]) == (200, 1)
    assert [(e["line"], e["reason"], e["field"]) for e in found["errors"]] == [
        (2, "missing_field", "accountId"),
        (3, "wrong_type", "createdAt"),
    ]
    assert doors.rows("SELECT source, account_id FROM events WHERE source = 'shop'") == [
        ("shop", "acme")
    ]
    assert doors.post("/ingest/other?as=events", body, key=key).status == 403
    assert doors.post("/ingest/other", b"{}", key=key).status == 200, "as logs it may"
    large = b"\n".join([event_line("acme", n) for n in range(12_000)])
    answer = doors.post(path, large, key=key)
    assert report(answer)["accepted"] == 12_000


def test_a_repeat_is_told_and_carries_the_first_counts(doors: Doors) -> None:
    for body in (b'{"a":1}\nnope', b"nope\n" + _BULK):
        key = f"repeat-{len(body)}"
        first = doors.lines(body, Idempotency_Key=key)
        again = doors.lines(body, Idempotency_Key=key)
        assert report(again) == {**report(first), "duplicate": True, "errors": []}
        assert again.request_id == first.request_id
        assert doors.lines(gzip.compress(body), Idempotency_Key=key, Content_Encoding="gzip").counts
        assert doors.lines(body + b"x", Idempotency_Key=key).status == 422
        rows = doors.row(f"SELECT count(*) FROM requests WHERE idempotency_key = '{key}'")
        assert rows == (1,)
    assert doors.lines(b"nope", Idempotency_Key="only-2xx").status == 400
    assert doors.lines(b"{}", Idempotency_Key="only-2xx").status == 200
    # Scope is key, door and credential.
    other = doors.make_token()["token"]
    assert not report(doors.post(HONEST, b"{}", {"Idempotency-Key": "only-2xx"}, key=other))[
        "duplicate"
    ]
    log = doors.post("/api/v1/webhook/event/log", b"[{}]", {"Idempotency-Key": "only-2xx"})
    assert log.status == 200


def test_a_repeat_in_flight_waits_for_the_first(doors: Doors) -> None:
    headers = {**bearer(doors.token), "Idempotency-Key": "flight", "Transfer-Encoding": "chunked"}
    answers: list[Answer] = []

    def repeat() -> None:
        with doors.server.connect() as connection:
            answers.append(connection.post(HONEST, [b'{"a":1}'], headers, chunked=True))

    with doors.server.connect() as first:
        first.send_raw(head_bytes("POST", HONEST, headers))
        first.send_raw(b"".join(chunk_frames([b'{"a":'], last=False)))
        threads = [threading.Thread(target=repeat) for _ in range(2)]
        for thread in threads:
            thread.start()
        # The others have been read: what is sent to the end is the first.
        for _ in range(50):
            text = doors.text("/metrics")
            if "ingester_idempotency_in_flight 1" in text:
                break
        first.send_raw(b"".join(chunk_frames([b"1}"])))
        answers.append(first.read_answer())
        for thread in threads:
            thread.join()
    assert sorted(report(answer)["duplicate"] for answer in answers) == [False, True, True]
    assert len({answer.request_id for answer in answers}) == 1
    assert doors.row("SELECT count(*) FROM requests WHERE idempotency_key = 'flight'") == (1,)


def test_encodings_that_are_broken_or_unknown_store_nothing(doors: Doors) -> None:
    packed = gzip.compress(_BULK)
    before = doors.counts()
    for body in (packed[:-1], packed + b"x", packed[:5000] + b"\0" * 64 + packed[5064:], b"junk"):
        answer = doors.lines(body, Content_Encoding="gzip")
        assert answer.status == 400
        assert error_of(answer)
    answer = doors.lines(b"{}", Content_Encoding="br")
    assert (answer.status, answer.headers["accept-encoding"]) == (415, "gzip, deflate, zstd")
    for body in (gzip.compress(b"{}"), b"\x28\xb5\x2f\xfdrest", packed):
        answer = doors.lines(body)
        assert answer.status == 400
        (error,) = report(answer)["errors"]
        assert (error["line"], error["reason"]) == (1, "wrong_encoding")
        assert "Content-Encoding" in error["detail"]
    assert doors.counts() == before
    halves = _BULK[:70_001], _BULK[70_001:]
    answer = doors.lines(b"".join(map(gzip.compress, halves)), Content_Encoding="x-gzip")
    assert report(answer)["accepted"] == 50_000


def test_repeats_of_an_id_are_left_out_and_counted(tmp_path: Path) -> None:
    with open_doors(tmp_path) as doors:
        doors.api("POST", "sources", {"name": "web", "dedup_field": "n"})
        small = [b'{"n":%d}' % n for n in (1, 2, 1)]

        def counts(answer: Answer) -> tuple[int, int, int, bool]:
            found = report(answer)
            return (
                found["accepted"], found["rejected"], found["deduplicated"], found["duplicate"],
            )  # fmt: skip

        assert counts(doors.lines(*small, b"nope", Idempotency_Key="k")) == (2, 1, 1, False)
        assert counts(doors.lines(*small, b"nope", Idempotency_Key="k")) == (2, 1, 1, True)
        # In the bulk lane; 1 and 2 are there already.
        assert counts(doors.lines(_BULK)) == (49_998, 0, 2, False)
        assert counts(doors.lines(*small, path="/ingest/other")) == (3, 0, 0, False)
        doors.server.kill()
        doors.start_again()
        assert counts(doors.lines(_BULK, b'{"n":50000}')) == (1, 0, 50_000, False)
        assert doors.counts() == (50_004, 0, 1, 0, 4)


def test_everything_is_there_after_a_crash(tmp_path: Path) -> None:
    with open_doors(tmp_path) as doors:
        small = doors.lines(b'{"message":"small"}', b"nope", Idempotency_Key="small")
        large = doors.lines(_BULK, Idempotency_Key="large")
        log = doors.log([{"message": "log"}, {"message": "log"}])
        sent = doors.send({"metricId": "m", "metricName": "M", "value": 1, "metadata": {"a": 1}})
        assert [answer.status for answer in (small, large, log, sent)] == [200] * 4
        doors.server.kill()
        doors.start_again()
        assert doors.counts() == (50_003, 1, 1, 0, 4)
        assert report(doors.lines(b'{"message":"small"}', b"nope", Idempotency_Key="small"))[
            "duplicate"
        ]
        assert report(doors.lines(_BULK, Idempotency_Key="large"))["duplicate"]
        assert doors.counts() == (50_003, 1, 1, 0, 4)
        assert doors.row("SELECT metadata, metric_id FROM metrics") == ({"a": 1}, "m")
        assert doors.server.command("check")["ok"]
