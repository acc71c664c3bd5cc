"""The Natero door as a client sees it: routes, status codes, empty bodies, and which lines count.

Contract sections 3, 3.1 and 3.5; only HTTP and `query` are used.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from ingester.messages import REJECT_REASONS
from tests.system.client import Answer, Connection, event_line
from tests.system.server import Server, SourceKeys, running

_CREATED_AT_END = 253_402_300_800_000
_RESERVED = ("logs", "metrics", "traces", "batch", "track", "identify", "datasets", "ingest")


@dataclass
class Door:
    server: Server
    keys: SourceKeys
    connection: Connection

    def post(self, body: bytes, path: str = "") -> Answer:
        return self.connection.post(path or self.keys.path, body)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with running(tmp_path_factory.mktemp("door")) as server:
        keys = server.create_source("door")
        with server.connect() as connection:
            yield Door(server, keys, connection)
        assert server.stop() == 0
    log = server.log_text()
    assert "Traceback" not in log
    # "A key is never written to any log."
    assert keys.auth_key not in log
    assert keys.api_key not in log


def _check_natero(answer: Answer, status: int, place: object) -> None:
    """A status, no body, and a request id."""
    assert (answer.status, answer.body) == (status, b""), place
    assert re.fullmatch(r"[!-~]{8,}", answer.request_id), place


def test_ping_answers_post_only(door: Door) -> None:
    for target in ("/v1/ping", "/v1/ping?a=b"):
        _check_natero(door.connection.post(target, b""), 200, target)
    _check_natero(door.connection.post("/v1/ping", b"a body is ignored"), 200, "body")
    for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"):
        _check_natero(door.connection.request(method, "/v1/ping"), 400, method)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "PURGE"])
def test_another_method_is_400(door: Door, method: str) -> None:
    body = None if method in {"GET", "HEAD"} else event_line("method")
    _check_natero(door.connection.request(method, door.keys.path, body), 400, method)


def test_paths_below_v1_that_are_no_pair_are_400(door: Door) -> None:
    auth, api = door.keys.auth_key, door.keys.api_key
    other = door.server.create_source("other")
    targets = [
        "/v1/",
        f"/v1/{auth}",
        f"/v1/{auth}/",
        f"/v1//{api}",
        f"/v1/{auth}//{api}",
        f"/v1/{auth}/{api}/more",
        f"/v1/{auth}/{api}//",
        "/v1/unknown/pair",
        f"/v1/{auth}/unknown",
        f"/v1/unknown/{api}",
        f"/v1/{api}/{auth}",  # swapped
        f"/v1/{auth}/{other.api_key}",  # halves of two pairs
        f"/v1/{auth.upper()}x/{api}",
        f"/v1/{auth}/{api}%00",
        f"/v1/ping/{api}",
        *(f"/v1/{word}/{api}" for word in _RESERVED),
        *(f"/v1/{word}" for word in _RESERVED),
    ]

    def post(target: str) -> Answer:
        with door.server.connect() as connection:
            return connection.post(target, event_line("path"))

    # At once: the server answers wrong keys slower and slower, up to 2 s each.
    with ThreadPoolExecutor(len(targets)) as pool:
        for target, answer in zip(targets, pool.map(post, targets), strict=True):
            _check_natero(answer, 400, target)
    door.server.settle(door.keys)
    assert door.server.value("SELECT count(*) AS n FROM events WHERE account_id = 'path'") == 0


def test_a_trailing_slash_and_a_query_string_change_nothing(door: Door) -> None:
    for suffix in ("/", "?", "?a=1&b=/v1/x/y", "/?x", "?wait=no"):
        answer = door.post(event_line("slash"), door.keys.path + suffix)
        assert answer.counts == (1, 0), suffix
    door.server.settle(door.keys)
    assert door.server.value("SELECT count(*) AS n FROM events WHERE account_id = 'slash'") == 5


def test_paths_outside_are_404_with_a_sentence(door: Door) -> None:
    for target in ("/", "/v2/a/b", "/index.html", "/metrics", "/openapi.json", "/api/v1/query"):
        answer = door.connection.request("GET", target)
        assert answer.status == 404, target
        assert answer.headers["content-type"].startswith("application/json"), target
        assert re.fullmatch(rb'\{"error": ?".+"\}', answer.body), (target, answer.body)
        assert answer.request_id


def test_health_routes_answer_get_and_name_their_methods(door: Door) -> None:
    for target in ("/healthz", "/readyz"):
        assert door.connection.request("GET", target).status == 200
        refused = door.connection.request("DELETE", target)
        assert refused.status == 405
        assert "GET" in refused.headers["allow"]


def test_an_empty_body_is_an_empty_batch(door: Door) -> None:
    for body in (b"", b"\n", b"\r\n\r\n", b"\xef\xbb\xbf"):
        answer = door.post(body)
        _check_natero(answer, 200, body)
        assert answer.counts == (0, 0)


def _line(**changes: object) -> bytes:
    return event_line("ACCOUNT", 0, **changes)


def _raw(**changes: bytes) -> bytes:
    """An event whose values are raw JSON text; a name may be given another spelling."""
    values = {
        "accountId": b'"ACCOUNT"',
        "userId": b'"u"',
        "action": b'"a"',
        "sessionId": b'"s"',
        "createdAt": b"1",
    }
    values.update(changes)
    return b"{" + b",".join(b'"%b":%b' % (k.encode(), v) for k, v in values.items()) + b"}"


_SNAKE = b'{"account_id":"ACCOUNT","user_id":"u","action":"a","session_id":"s","created_at":5}'

_ACTIONS: dict[str, dict[str, object]] = {
    "identifyUser": {"details": {"email": "a@example.org"}},
    "identify_account": {"details": {"plan": None}},
    "sessionSync": {"activeDuration": 12.5},
    "moduleEnd": {"module": "m", "timeSpent": 3},
    "feature": {"feature": "f", "module": "m", "total": 2, "product": "p"},
    "page_view_end": {},
    "sessionIdle": {},
    "anything else": {"details": "no object"},
}

_VALID: dict[str, bytes] = {
    "plain": _line(),
    "1,024 characters": _line(userId="x" * 1024),
    "1,024 characters of two bytes": _line(userId="é" * 1024),
    "1,024 characters beyond the BMP, escaped": _line(userId="\U0001f600" * 1024),
    "1,024 characters beyond the BMP, as UTF-8": _raw(
        userId=b'"' + ("\U0001f600" * 1024).encode() + b'"'
    ),
    "createdAt 0": _raw(createdAt=b"0"),
    "createdAt -0": _raw(createdAt=b"-0"),
    "createdAt 0.9": _raw(createdAt=b"0.9"),
    "createdAt 1.5": _raw(createdAt=b"1.5"),
    "createdAt 1e12": _raw(createdAt=b"1e12"),
    "createdAt in seconds": _raw(createdAt=b"1700000000"),
    "createdAt far future": _raw(createdAt=b"4102444800000"),
    "createdAt last": _raw(createdAt=b"253402300799999"),
    "createdAt last with a fraction": _raw(createdAt=b"253402300799999.5"),
    "snake_case": _SNAKE,
    "camelCase wins, first": _SNAKE[:-1] + b',"accountId":"ACCOUNT-camel"}',
    "camelCase wins, last": b'{"accountId":"ACCOUNT-camel",' + _SNAKE[1:],
    "camelCase wins over a wrong type": _raw(account_id=b"5"),
    "mixed spellings": _SNAKE.replace(b"user_id", b"userId").replace(b"created_at", b"createdAt"),
    "last duplicate wins": _raw()[:-1] + b',"accountId":"ACCOUNT-last"}',
    "last duplicate wins over a wrong type": b'{"accountId":5,' + _raw()[1:],
    "an escaped name": _raw().replace(b'"accountId"', rb'"account\u0049d"'),
    "blanks around": b"  \t " + _raw() + b" \t",
    "blanks inside": _raw().replace(b":", b" : ").replace(b",", b"\t, "),
    "100 levels": _raw(x=b"[" * 99 + b"]" * 99),
    "big numbers elsewhere": _raw(x=b"123456789012345678901234567890", y=b"-1.5e-300"),
    "NUL escaped elsewhere": _raw(x=rb'"\u0000"'),
    "non-ASCII": _raw(userId='"żółć 漢字 🙂"'.encode()),
    **{f"action {name}": _line(action=name, **more) for name, more in _ACTIONS.items()},
}

# name: (line, reasons it may have, field or None)
_INVALID: dict[str, tuple[bytes, set[str], str | None]] = {
    **{
        f"{name} missing": (_line(**{name: None}), {"missing_field"}, name)
        for name in ("accountId", "userId", "action", "sessionId", "createdAt")
    },
    **{
        f"{name} empty": (_line(**{name: ""}), {"missing_field", "out_of_range"}, name)
        for name in ("accountId", "userId", "action", "sessionId")
    },
    **{
        f"{name} of 1,025 characters": (_line(**{name: "é" * 1025}), {"too_long"}, name)
        for name in ("accountId", "userId", "action", "sessionId")
    },
    **{
        f"{name} {value.decode()}": (_raw(**{name: value}), {"wrong_type"}, name)
        for name in ("accountId", "userId", "action", "sessionId")
        for value in (b"5", b"true", b"{}", b'["a"]', b"1e400")
    },
    **{
        f"{name} null": (_raw(**{name: b"null"}), {"wrong_type", "missing_field"}, name)
        for name in ("accountId", "userId", "action", "sessionId", "createdAt")
    },
    **{
        f"createdAt {value.decode()}": (_raw(createdAt=value), {"wrong_type"}, "createdAt")
        for value in (b'"1"', b'"2024-01-01"', b"true", b"[]", b"{}")
    },
    **{
        f"createdAt {value.decode()}": (_raw(createdAt=value), {"out_of_range"}, "createdAt")
        for value in (
            b"-1",
            b"-0.5",
            b"253402300800000",
            b"1e15",
            b"1e400",
            b"-1e400",
            b"1" + b"0" * 5000,
        )
    },
    "createdAt NaN": (_raw(createdAt=b"NaN"), {"invalid_json"}, None),
    "createdAt Infinity": (_raw(createdAt=b"Infinity"), {"invalid_json"}, None),
    "camelCase wins, and is wrong": (_SNAKE[:-1] + b',"userId":5}', {"wrong_type"}, "userId"),
    "last duplicate wins, and is wrong": (_raw()[:-1] + b',"userId":5}', {"wrong_type"}, "userId"),
    "other case": (_raw().replace(b"accountId", b"AccountId"), {"missing_field"}, "accountId"),
    "an array": (b"[" + _raw() + b"]", {"not_an_object"}, None),
    "an empty array": (b"[]", {"not_an_object"}, None),
    "a string": (b'"text"', {"not_an_object"}, None),
    "a number": (b"12", {"not_an_object"}, None),
    "null": (b"null", {"not_an_object"}, None),
    "two values": (_raw() + _raw(), {"several_values"}, None),
    "two values with a blank": (_raw() + b" " + _raw(), {"several_values"}, None),
    "two kinds of values": (_raw() + b"[]", {"several_values"}, None),
    "a comma at the end": (_raw() + b",", {"invalid_json", "several_values"}, None),
    "cut": (_raw()[:-1], {"invalid_json"}, None),
    "single quotes": (_raw().replace(b'"', b"'"), {"invalid_json"}, None),
    "a bare word": (b"hello", {"invalid_json"}, None),
    "a raw tab in a string": (_raw(x=b'"\t"'), {"invalid_json"}, None),
    "a raw NUL": (_raw(x=b'"\0"'), {"invalid_json"}, None),
    "a bad escape": (_raw(x=rb'"\x41"'), {"invalid_json"}, None),
    "a trailing comma": (_raw()[:-1] + b",}", {"invalid_json"}, None),
    "a leading zero": (_raw(x=b"01"), {"invalid_json"}, None),
    "bad UTF-8 in a value": (_raw(x=b'"\xff"'), {"invalid_utf8"}, None),
    "overlong UTF-8": (_raw(x=b'"\xc0\xaf"'), {"invalid_utf8"}, None),
    "a surrogate as UTF-8": (_raw(x=b'"\xed\xa0\x80"'), {"invalid_utf8"}, None),
    "bad UTF-8 in an account": (_raw(accountId=b'"\xff"'), {"invalid_utf8"}, None),
    "half a surrogate pair": (_raw(x=rb'"\ud800"'), {"invalid_utf8", "invalid_json"}, None),
    "200 levels": (_raw(x=b"[" * 200 + b"]" * 200), {"too_deep"}, None),
    "100,000 levels": (_raw(x=b'[{"":' * 50_000), {"too_deep", "invalid_json"}, None),
}


@pytest.fixture(scope="module", params=["alone", "together", "bulk"])
def outcome(door: Door, request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    """Every line above, sent on its own, all in one small body, and all in one bulk body.

    The outcome of each name: `event` and `reject` rows, None where there is none.
    """
    lane = str(request.param)
    keys = door.server.create_source(f"validity-{lane}")
    lines = [(name, line) for name, line in _VALID.items()]
    lines += [(name, line) for name, (line, _, _) in _INVALID.items()]
    named = [(name, line.replace(b"ACCOUNT", b"n%d" % n)) for n, (name, line) in enumerate(lines)]
    if lane == "bulk":
        named = [("", event_line("filler", n, pad="f" * 400)) for n in range(3000)] + named
    places: dict[tuple[str, int], str] = {}
    if lane == "alone":
        for name, line in named:
            answer = door.post(line + b"\n", keys.path)
            _check_natero(answer, 200, name)
            assert answer.accepted + answer.rejected == 1, name
            places[answer.request_id, 1] = name
    else:
        answer = door.post(b"\n".join(line for _, line in named), keys.path)
        _check_natero(answer, 200, lane)
        assert answer.counts == (len(named) - len(_INVALID), len(_INVALID))
        places = {(answer.request_id, n + 1): name for n, (name, _) in enumerate(named)}
    door.server.settle(door.keys)
    found: dict[str, dict[str, Any]] = {
        name: {"line": line, "event": None, "reject": None, "account": f"n{number}"}
        for number, (name, line) in enumerate(pair for pair in named if pair[0])
    }
    accounts = {row["account"]: row for row in found.values()}
    for event in door.server.query(
        "SELECT id, source, account_id, user_id, action, session_id, "
        "epoch_us(created_at) AS created_us, hex(encode(body::VARCHAR)) AS body, batch_id, "
        "epoch_us(received_at) AS received_us "
        f"FROM events WHERE source = '{keys.name}' AND account_id <> 'filler'"
    ):
        row = accounts[event["account_id"].split("-")[0]]
        assert row["event"] is None, f"stored twice: {event}"
        row["event"] = event
    for reject in door.server.query(
        "SELECT id, door, source, request_id, line_number, reason, field, detail, "
        f"hex(line) AS line, batch_id FROM rejects WHERE source = '{keys.name}'"
    ):
        row = found[places[reject["request_id"], reject["line_number"]]]
        assert row["reject"] is None, f"refused twice: {reject}"
        row["reject"] = reject
    return found


def test_valid_lines_are_stored_as_sent(outcome: dict[str, dict[str, Any]]) -> None:
    for name in _VALID:
        row = outcome[name]
        assert row["reject"] is None, (name, row["reject"])
        event = row["event"]
        assert event is not None, name
        assert bytes.fromhex(event["body"]) == row["line"].strip(), name
        assert event["batch_id"] is not None, name
        assert abs(event["received_us"] / 1e6 - time.time()) < 120, name
    ids = [row["event"]["id"] for row in outcome.values() if row["event"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("name", "column", "expected"),
    [
        ("camelCase wins, first", "account_id", "-camel"),
        ("camelCase wins, last", "account_id", "-camel"),
        ("last duplicate wins", "account_id", "-last"),
        ("1,024 characters beyond the BMP, escaped", "user_id", "\U0001f600" * 1024),
        ("1,024 characters beyond the BMP, as UTF-8", "user_id", "\U0001f600" * 1024),
        ("non-ASCII", "user_id", "żółć 漢字 🙂"),
        ("snake_case", "session_id", "s"),
        ("snake_case", "created_us", 5_000),
        ("createdAt 0", "created_us", 0),
        ("createdAt 0.9", "created_us", 0),
        ("createdAt 1.5", "created_us", 1_000),
        ("createdAt 1e12", "created_us", 10**15),
        ("createdAt last", "created_us", (_CREATED_AT_END - 1) * 1000),
        ("createdAt last with a fraction", "created_us", (_CREATED_AT_END - 1) * 1000),
        ("createdAt far future", "created_us", 4_102_444_800_000_000),
        ("action feature", "action", "feature"),
        ("action identify_account", "action", "identify_account"),
    ],
)
def test_columns_hold_the_values(
    outcome: dict[str, dict[str, Any]], name: str, column: str, expected: object
) -> None:
    row = outcome[name]
    if column == "account_id":
        expected = f"{row['account']}{expected}"
    assert row["event"][column] == expected


def test_invalid_lines_are_kept_with_their_reason(outcome: dict[str, dict[str, Any]]) -> None:
    for name, (_, reasons, field) in _INVALID.items():
        row = outcome[name]
        assert row["event"] is None, f"stored, though {name}"
        reject = row["reject"]
        assert reject is not None, name
        assert reject["reason"] in REJECT_REASONS, name
        assert reject["reason"] in reasons, (name, reject)
        assert reject["field"] == field, (name, reject)
        assert reject["door"] == "natero", name
        assert reject["detail"], name
        assert bytes.fromhex(reject["line"]) == row["line"][: 64 * 1024].strip(), name
        assert reject["batch_id"] is not None, name
    ids = [row["reject"]["id"] for row in outcome.values() if row["reject"]]
    assert len(set(ids)) == len(ids)


def test_a_value_over_several_lines_is_refused_line_by_line(door: Door) -> None:
    """Also where the lines and the values are equally many."""
    whole = event_line("spread", 0, pad={"a": 1})
    parted = whole.replace(b",", b",\n")
    answer = door.post(parted)
    assert answer.counts == (0, parted.count(b"\n") + 1)
    two_on_one = whole + whole
    body = b"\n".join([two_on_one, whole[:40], whole[40:]])
    assert door.post(body).counts == (0, 3)
    filler = b"\n".join(event_line("spread-filler", n, pad="s" * 200) for n in range(6000))
    for part in (parted, body):
        answer = door.post(filler + b"\n" + part + b"\n" + filler)
        assert answer.counts == (12_000, part.count(b"\n") + 1)
    door.server.settle(door.keys)
    assert door.server.value("SELECT count(*) AS n FROM events WHERE account_id = 'spread'") == 0
