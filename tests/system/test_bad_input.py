"""Bad input on every door it applies to, as one table: status, words of the sentence, rows stored.

"One row" is what a fault leaves behind where it is none: a payload that only looks odd is stored as
sent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import pytest

from tests.system.doors import HONEST, LOGS, METRICS, Doors, bearer, error_of, open_doors

_DEEP = b"[" * 100_000 + b"]" * 100_000
_WIDE = b"x" * ((1 << 20) + 1)
_DIGITS = b"7" * 400


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with open_doors(tmp_path_factory.mktemp("bad")) as doors:
        yield doors


class Case(NamedTuple):
    """What is sent, and what must come of it. `rows`, `rejects`: how many are stored."""

    name: str
    path: str
    body: bytes
    status: int
    words: str = ""
    rows: int = 0
    rejects: int = 0
    headers: tuple[tuple[str, str], ...] = ()


def _metrics(text: bytes, project: bytes = b'"default"') -> bytes:
    return b'{"projectId":%b,"metrics":[%b]}' % (project, text)


def _metric(value: bytes = b"1", more: bytes = b"", ident: bytes = b'"m"') -> bytes:
    return b'{"metricId":%b,"metricName":"M","value":%b%b}' % (ident, value, more)


def _value(text: bytes) -> bytes:
    return _metrics(_metric(text))


_NUMBER = "metrics[0].value must be a number, got"
_FINITE = "metrics[0].value must be a finite number"
_BROTLI = (("Content-Encoding", "br"),)

_LOG_CASES = [
    Case("empty", LOGS, b"", 400, "the body is empty"),
    Case("blank", LOGS, b" \r\n", 400, "the body is empty"),
    Case("no JSON", LOGS, b"hello", 400, "line 1, column 1"),
    Case("single quotes", LOGS, b"{'a':1}", 400, "line 1, column 2"),
    Case("cut", LOGS, b'{"a":', 400, "ends inside"),
    Case("NaN", LOGS, b'{"a":NaN}', 400, "line 1, column 6"),
    Case("1e400", LOGS, b'{"a":1e400}', 200, rows=1),
    Case("deep", LOGS, _DEEP, 400, "more than 128 levels"),
    Case("deep in an object", LOGS, b'{"a":%b}' % _DEEP, 400, "more than 128 levels"),
    Case("128 deep", LOGS, b"[" * 128 + b"]" * 128, 200, rows=1),
    Case("no UTF-8", LOGS, b'{"a":"\xff"}', 400, "is not UTF-8"),
    Case("half a pair", LOGS, b'{"a":"\\ud83d"}', 400, "surrogate"),
    Case("a pair", LOGS, b'{"a":"\\ud83d\\ude00"}', 200, rows=1),
    Case("NUL", LOGS, b'{"a":"\x00"}', 400, "line 1, column"),
    Case("NUL as escape", LOGS, b'{"a":"\\u0000","message":"\\u0000"}', 200, rows=1),
    Case("400 digits", LOGS, b'{"a":%b}' % _DIGITS, 200, rows=1),
    Case("400 digits alone", LOGS, _DIGITS, 200, rows=1),
    Case("400 digits as level", LOGS, b'{"level":%b,"time":%b}' % (_DIGITS, _DIGITS), 200, rows=1),
    Case("duplicate keys", LOGS, b'{"message":"a","message":"b"}', 200, rows=1),
    Case("wide line", LOGS, b'{"a":1}\n"%b"\n' % _WIDE, 413, "split"),
    Case("wide value", LOGS, b'"%b"' % _WIDE, 200, rows=1),
    Case("encoding", LOGS, b"{}", 415, "Content-Encoding", headers=_BROTLI),
    Case("gzip unsaid", LOGS, b"\x1f\x8b\x08\x00rest", 400, "Content-Encoding: gzip"),
    Case("zstd unsaid", LOGS, b"\x28\xb5\x2f\xfdrest", 400, "Content-Encoding: zstd"),
]

_METRIC_CASES = [
    Case("empty", METRICS, b"", 400, "the body is empty"),
    Case("no JSON", METRICS, b"hello", 400, "not valid JSON"),
    Case("form", METRICS, b"projectId=default&value=1", 400, "not valid JSON"),
    Case("array", METRICS, b"[]", 400, "must be an object, got an array"),
    Case("string", METRICS, _value(b'"42"'), 400, f"{_NUMBER} a string"),
    Case("boolean", METRICS, _value(b"true"), 400, f"{_NUMBER} a boolean"),
    Case("object", METRICS, _value(b"{}"), 400, f"{_NUMBER} an object"),
    Case("null", METRICS, _value(b"null"), 400, "metrics[0].value is missing"),
    Case("NaN", METRICS, _value(b"NaN"), 400, "not valid JSON"),
    Case("Infinity", METRICS, _value(b"-Infinity"), 400, "not valid JSON"),
    Case("1e400", METRICS, _value(b"1e400"), 400, _FINITE),
    Case("-1e400", METRICS, _value(b"-1e400"), 400, _FINITE),
    Case("400 digits", METRICS, _value(_DIGITS), 400, _FINITE),
    Case("1e308", METRICS, _value(b"1e308"), 200, rows=1),
    Case("none", METRICS, _metrics(b""), 400, "1 to 100 metrics, got 0"),
    Case("101", METRICS, _metrics(b",".join([_metric()] * 101)), 400, "got 101"),
    Case("project", METRICS, _metrics(_metric(), b'"other"'), 400, "projectId is not"),
    Case("no project", METRICS, _metrics(_metric(), b"null"), 400, "projectId is missing"),
    Case("project number", METRICS, _metrics(_metric(), b"1"), 400, "projectId must be a string"),
    Case("no field", METRICS, _metrics(b'{"metricId":"a"}'), 400, "metricName is missing"),
    Case("deep", METRICS, _DEEP, 400, "too many levels"),
    Case("deep metrics", METRICS, _metrics(_DEEP), 400, "too many levels"),
    Case("deep value", METRICS, _value(b"[" * 500 + b"]" * 500), 400, f"{_NUMBER} an array"),
    Case(
        "deep metadata",
        METRICS,
        _metrics(_metric(more=b',"metadata":{"a":%b}' % (b"[" * 200 + b"]" * 200))),
        400,
        "metrics[0].metadata: more than 128 levels",
    ),
    Case("no UTF-8", METRICS, _metrics(_metric(ident=b'"\xff"')), 400, "is not UTF-8"),
    Case("half a pair", METRICS, _metrics(_metric(ident=b'"\\ud83d"')), 400, "surrogate"),
    Case("NUL", METRICS, _metrics(_metric(ident=b'"\x00"')), 400, "not valid JSON"),
    Case("NUL as escape", METRICS, _metrics(_metric(ident=b'"a\\u0000b"')), 200, rows=1),
    Case("duplicate keys", METRICS, _metrics(_metric(more=b',"value":2')), 200, rows=1),
    Case("wide text", METRICS, _metrics(_metric(ident=b'"%b"' % _WIDE)), 400, "1048577 characters"),
    Case("wide unknown", METRICS, _metrics(_metric(more=b',"x":"%b"' % _WIDE)), 200, rows=1),
    Case("encoding", METRICS, _value(b"1"), 415, "Content-Encoding", headers=_BROTLI),
    Case("gzip unsaid", METRICS, b"\x1f\x8b\x08\x00rest", 400, "Content-Encoding: gzip"),
    Case("two values", METRICS, _value(b"1") * 2, 400, "not valid JSON: a second value"),
]

_GOOD = b'{"good":1}\n'
_HONEST_CASES = [
    Case("empty", HONEST, b"", 200),
    Case("no JSON", HONEST, b"hello", 400, "invalid_json"),
    Case("no JSON beside", HONEST, _GOOD + b"hello", 200, "invalid_json", 1, 1),
    Case("no object", HONEST, _GOOD + b"12", 200, "not_an_object", 1, 1),
    Case("deep", HONEST, _GOOD + _DEEP, 200, "too_deep", 1, 1),
    Case("deep array", HONEST, _DEEP, 400, "too_deep"),
    Case("deep object", HONEST, _GOOD + b'{"a":%b}' % _DEEP, 200, "too_deep", 1, 1),
    Case("no UTF-8", HONEST, _GOOD + b'{"a":"\xff"}', 200, "invalid_utf8", 1, 1),
    Case("half a pair", HONEST, _GOOD + b'{"a":"\\udc00"}', 200, "invalid_utf8", 1, 1),
    Case("NUL", HONEST, _GOOD + b'{"a":"\x00"}', 200, "invalid_json", 1, 1),
    Case("NUL between", HONEST, _GOOD + b"\x00", 200, "invalid_json", 1, 1),
    Case("NUL as escape", HONEST, b'{"a":"\\u0000"}', 200, rows=1),
    Case("400 digits", HONEST, b'{"a":%b}' % _DIGITS, 200, rows=1),
    Case("1e400", HONEST, b'{"a":-1e400}', 200, rows=1),
    Case("duplicate keys", HONEST, b'{"a":1,"a":2}', 200, rows=1),
    Case("wide", HONEST, _GOOD + b'{"a":"%b"}\n' % _WIDE + _GOOD, 200, "too_long", 2, 1),
    Case("encoding", HONEST, b"{}", 415, "Content-Encoding", headers=_BROTLI),
    Case("gzip unsaid", HONEST, b"\x1f\x8b\x08\x00rest", 400, "wrong_encoding"),
]


@pytest.mark.parametrize(
    "cases", [_LOG_CASES, _METRIC_CASES, _HONEST_CASES], ids=["logs", "metrics", "honest"]
)
def test_bad_bodies_have_their_status_sentence_and_rows(doors: Doors, cases: list[Case]) -> None:
    before = doors.counts()
    ids: dict[str, str] = {}
    for case in cases:
        # The second time over a head that is known: the way of the usual small request.
        for _ in range(2):
            answer = doors.post(case.path, case.body, dict(case.headers))
            assert answer.status == case.status, (case.name, answer)
            if case.status == 200:
                assert answer.counts == (case.rows, case.rejects), case.name
                ids[answer.request_id] = case.name
            elif case.path != HONEST or case.status == 415:
                assert case.words in error_of(answer), case.name
            if case.path == HONEST and case.status != 415 and case.words:
                (error,) = json.loads(answer.body)["errors"]
                assert (error["reason"], bool(error["detail"])) == (case.words, True), case.name
    after = doors.counts()
    stored = sum(2 * case.rows for case in cases)
    rejected = sum(2 * case.rejects for case in cases)
    place = 1 if cases is _METRIC_CASES else 0
    assert after[place] - before[place] == stored
    assert after[2] - before[2] == rejected
    assert after[4] - before[4] == len(ids)
    # What was accepted can be read as JSON, and every byte of a reject is there.
    doors.rows("SELECT attributes->>'a', attributes, message, level FROM logs")
    doors.rows("SELECT metadata, metric_id, value FROM metrics")
    if cases is _HONEST_CASES:
        lengths = doors.rows("SELECT octet_length(line) FROM rejects WHERE reason = 'too_long'")
        assert lengths == [(64 * 1024,)] * 2
        found = doors.rows("SELECT hex(line) FROM rejects WHERE reason = 'invalid_utf8'")
        assert ("7B2261223A22FF227D",) in found


@pytest.mark.parametrize("path", [LOGS, METRICS, HONEST])
def test_a_bad_key_is_401_with_what_was_expected(doors: Doors, path: str) -> None:
    good = doors.api_key if path == METRICS else doors.token
    foreign = doors.token if path == METRICS else doors.api_key
    before = doors.counts()
    headers: list[tuple[list[tuple[str, str]], str]] = [
        ([], "there is no Authorization header"),
        ([("Authorization", good)], "another scheme than Bearer"),
        ([("Authorization", f"Basic {good}")], "another scheme than Bearer"),
        ([("Authorization", "Bearer")], "no key behind Bearer"),
        ([("Authorization", "Bearer ")], "no key behind Bearer"),
        ([("Authorization", f"Bearer {good} {good}")], "one word"),
        ([("Authorization", "Bearer " + "x" * 600)], "at most 512"),
        ([("Authorization", "Bearer k\xe9y")], "visible ASCII"),
        ([("Authorization", f"Bearer {good}"), ("AUTHORIZATION", f"Bearer {good}")], "more than"),
        ([("Authorization", f"Bearer {good[:-1]}")], "unknown, was revoked, or has expired"),
        ([("Authorization", f"Bearer {foreign}")], "this key is for another door; here"),
    ]
    for lines, words in headers:
        # Each further attempt with a key nobody has waits longer.
        for body in (b"",) if words.startswith("unknown") else (b"", b"not JSON", b"{}"):
            answer = doors.connection.post(path, body, dict(lines))
            assert answer.status == 401, lines
            assert answer.headers["www-authenticate"] == "Bearer"
            sentence = error_of(answer)
            assert words in sentence, (lines, sentence)
            assert good not in sentence
    reader = doors.post(path, b"{}", key=doors.reader)
    assert reader.status == (401 if path == METRICS else 403)
    if path != METRICS:
        assert "lacks the scope ingest" in error_of(reader)
        assert "insufficient_scope" in reader.headers["www-authenticate"]
    assert doors.counts() == before
    for spelled in (f"bearer {good}", f"BEARER   {good}  ", f"\tBearer\t{good}"):
        answer = doors.connection.post(path, b"x", {"Authorization": spelled})
        assert answer.status == 400, "the key is good, the body is not"


def test_a_key_that_ended_is_401_at_once_and_one_that_overlaps_is_not(doors: Doors) -> None:
    ends = time.time() + 1.5
    soon = datetime.fromtimestamp(ends, UTC).isoformat()
    headers = bearer(doors.make_token(expires_at=soon)["token"])
    with doors.server.connect() as connection:
        assert connection.post(LOGS, b"{}", headers).status == 200
        # The same head, over and over: the way of the usual small request must not remember it.
        statuses = []
        while time.time() < ends + 0.1:
            statuses.append(connection.post(LOGS, b"{}", headers).status)
            time.sleep(0.02)
        assert (statuses[0], statuses[-1]) == (200, 401)
        assert statuses == sorted(statuses)
        made = doors.make_token()
        old = bearer(made["token"])
        assert [connection.post(LOGS, b"{}", old).status for _ in range(2)] == [200, 200]
        turn = f"tokens/{made['id']}/rotate"
        new = bearer(doors.api("POST", turn, {"overlap_seconds": 3600})["token"])
        assert [connection.post(LOGS, b"{}", key).status for key in (old, new)] == [200, 200]
        doors.api("POST", f"tokens/{made['id']}/revoke")
        assert [connection.post(LOGS, b"{}", key).status for key in (old, new)] == [401, 401]
    metric = doors.make_connection("turned")
    turned = doors.api("POST", f"connections/{metric['id']}/rotate", {"overlap_seconds": 0})
    body = _value(b"1")
    assert doors.post(METRICS, body, key=metric["api_key"]).status == 401
    assert doors.post(METRICS, body, key=turned["api_key"]).status == 200
    rows = doors.rows("SELECT DISTINCT project_id FROM metrics")
    assert rows == [("default",)], "the project and its rows stay"


@pytest.mark.parametrize("path", [LOGS, METRICS, HONEST])
def test_a_malformed_idempotency_key_is_400(doors: Doors, path: str) -> None:
    body = _value(b"1") if path == METRICS else b"{}"
    before = doors.counts()
    for key in ("", "x" * 129, "two words", "\xe9"):
        answer = doors.post(path, body, {"Idempotency-Key": key})
        assert answer.status == 400, key
        assert "Idempotency-Key has 1 to 128 visible ASCII" in error_of(answer)
    assert doors.counts() == before
    for key in ("!", "~" * 128):
        answers = [doors.post(path, body, {"Idempotency-Key": key}) for _ in range(2)]
        assert [answer.status for answer in answers] == [200, 200]
        assert answers[0].request_id == answers[1].request_id
    assert doors.post(path, body + b" ", {"Idempotency-Key": "!"}).status == 422
    assert doors.counts()[4] == before[4] + 2
