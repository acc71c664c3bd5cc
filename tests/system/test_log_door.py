"""The log door as a client sees it: any JSON as logs, and what becomes of it (contract 3, 3.2)."""

from __future__ import annotations

import gzip
import json
import logging
import logging.handlers
import time
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import zstandard

from tests.system.client import chunk_frames, compress, head_bytes
from tests.system.doors import LOGS, Doors, bearer, error_of, open_doors

_PADDED = 1_100_000  # more than the small lane takes


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with open_doors(tmp_path_factory.mktemp("logs")) as doors:
        yield doors


def stored(doors: Doors, request_id: str, columns: str = "message") -> list[tuple[Any, ...]]:
    return doors.rows(f"SELECT {columns} FROM logs WHERE id LIKE '{request_id}%' ORDER BY id")


def test_the_sample_of_the_source_is_stored_with_everything(doors: Doors) -> None:
    sample = {
        "message": "Payment succeeded",
        "amount": 2000,
        "currency": "USD",
        "customer_id": "cus_111",
        "metadata": {"source": "stripe"},
        "level": "info",
    }
    answer = doors.log(sample, Content_Type="application/json")
    assert answer.status == 200
    assert answer.body == b'{"success":true,"logsStored":1}'
    assert answer.headers["content-type"] == "application/json"
    assert answer.counts == (1, 0)
    columns = "service, environment, level, message, attributes, time = received_at"
    found = stored(doors, answer.request_id, columns)
    assert found == [("api", "prod", "info", "Payment succeeded", sample, True)]
    columns = "door, source, accepted, rejected, encoding, idempotency_key"
    request = doors.row(f"SELECT {columns} FROM requests WHERE request_id = '{answer.request_id}'")
    assert request == ("logs", "api", 1, 0, "identity", None)


def test_an_array_of_objects_is_one_log_each_and_any_other_value_is_one(doors: Doors) -> None:
    table: list[tuple[bytes, list[str]]] = [
        (b'[{"message":"a"},{"msg":"b"}]', ["a", "b"]),
        (b'[{"message":"a"},1]', ['[{"message":"a"},1]']),
        (b"[]", ["[]"]),
        (b" [ 1 , 2 ] ", ["[1,2]"]),
        (b'"text"', ["text"]),
        (b"1.50", ["1.50"]),
        (b"true", ["true"]),
        (b"null", ["null"]),
        (b"{}", ["{}"]),
        (b'{\r\n "message": "pretty"\r\n}\r\n', ["pretty"]),
        (b'{"message":"l1"}\n\n \r\n{"message":"l3"}\r\n"l4"', ["l1", "l3", "l4"]),
        (b'\xef\xbb\xbf{"message":"behind a mark"}', ["behind a mark"]),
        (b'{"z":1, "a" : "\\u00e9\\/", "z":2}', ['{"z":1,"a":"é/","z":2}']),
    ]
    for body, messages in table:
        answer = doors.log(body)
        assert (answer.status, answer.accepted) == (200, len(messages)), (body, answer)
        assert json.loads(answer.body) == {"success": True, "logsStored": len(messages)}
        assert [row[0] for row in stored(doors, answer.request_id)] == messages, body


_LEVELS: list[tuple[dict[str, Any], str]] = [
    ({"level": "WARN"}, "warning"),
    ({"level": "err"}, "error"),
    ({"level": "Crit"}, "critical"),
    ({"level": "fatal"}, "critical"),
    ({"level": "emerg"}, "emergency"),
    ({"level": "panic"}, "emergency"),
    ({"level": "informational"}, "info"),
    ({"level": "dbg"}, "debug"),
    ({"level": "verbose"}, "trace"),
    ({"level": "notice"}, "notice"),
    ({"level": "ALERT"}, "alert"),
    ({"level": 0}, "emergency"),
    ({"level": 7}, "debug"),
    ({"level": "4"}, "warning"),
    ({"level": 10}, "trace"),
    ({"level": 35}, "info"),
    ({"level": "50"}, "error"),
    ({"level": 60}, "critical"),
    ({"severity": "error"}, "error"),
    ({"level": "debug", "severity": "error"}, "debug"),
    ({"level": "nonsense", "severity": "error"}, "error"),
    ({"level": 8, "error": "x"}, "error"),
    ({"level": True}, "info"),
    ({"Level": "error"}, "error"),
    ({"error": "boom", "info": "x"}, "error"),
    ({"error": None, "warning": 1}, "warning"),
    ({"error": False}, "info"),
    ({"error": 0}, "info"),
    ({"error": ""}, "info"),
    ({"error": []}, "info"),
    ({"error": {}}, "info"),
    ({"exception": {"a": 1}}, "error"),
    ({"fatal": True, "error": True}, "critical"),
    ({"alert": "a", "fatal": 1}, "alert"),
    ({"emergency": 1, "debug": 1}, "emergency"),
    ({"debug": "d"}, "debug"),
    ({"notice": "n"}, "notice"),
    ({"ERROR": "x"}, "error"),
    ({"nested": {"error": "x"}}, "info"),
    ({}, "info"),
]


def test_levels_are_read_or_guessed(doors: Doors) -> None:
    answer = doors.log([{**log, "n": n} for n, (log, _) in enumerate(_LEVELS)])
    assert answer.accepted == len(_LEVELS)
    found = dict(stored(doors, answer.request_id, "CAST(attributes->>'n' AS INT), level"))
    assert found == {n: level for n, (_, level) in enumerate(_LEVELS)}


_MESSAGES: list[tuple[dict[str, Any], str]] = [
    ({"message": "m", "msg": "n"}, "m"),
    ({"message": "", "msg": "n"}, "n"),
    ({"message": None, "msg": "n"}, "n"),
    ({"message": {}, "msg": "n"}, "n"),
    ({"message": {"b": 1, "a": "é"}}, '{"b":1,"a":"é"}'),
    ({"message": 12}, "12"),
    ({"MESSAGE": "upper"}, "upper"),
    ({"a": 1}, '{"a":1}'),
    ({"message": "nul \0 inside"}, "nul \0 inside"),
]


def test_messages_are_read_or_the_whole_payload(doors: Doors) -> None:
    for log, message in _MESSAGES:
        answer = doors.log(json.dumps(log, ensure_ascii=False, separators=(",", ":")).encode())
        assert stored(doors, answer.request_id) == [(message,)], log


def test_times_are_read_within_their_bounds(doors: Doors) -> None:
    epoch_s = 1_700_000_000
    read = "2023-11-14T22:13:20.000000Z"
    table: list[tuple[dict[str, Any], str | None]] = [
        ({"timestamp": epoch_s}, read),
        ({"time": epoch_s * 1000}, read),
        ({"ts": epoch_s * 10**6}, read),
        ({"@timestamp": epoch_s * 10**9}, read),
        ({"date": float(epoch_s)}, read),
        ({"timestamp": "2023-11-14T22:13:20Z"}, read),
        ({"timestamp": "2023-11-15T00:13:20+02:00"}, read),
        ({"timestamp": "yesterday", "time": epoch_s}, read),
        ({"Timestamp": epoch_s}, read),
        ({"timestamp": int(time.time()) + 90_000}, None),
        ({"timestamp": 900_000_000}, None),
        ({"timestamp": None}, None),
        ({}, None),
    ]
    answer = doors.log([{**log, "n": n} for n, (log, _) in enumerate(table)])
    columns = "CAST(attributes->>'n' AS INT), time, time = received_at"
    for n, found, is_arrival in stored(doors, answer.request_id, columns):
        expected = table[n][1]
        assert is_arrival if expected is None else found == expected, (table[n], found)


def test_a_bad_line_refuses_all_and_is_named(doors: Doors) -> None:
    before = doors.counts()
    for body, words in (
        (b'{"a":1}\n{bad', "line 2, column 2"),
        (b'{"a":1} {"b":2}', "line 1, column 9"),
        (b'[{"a":1},\n{"b":}]', "line 2, column 6"),
        (b'{"a":1}\n' * 40_000 + b"[1,]\n" + b'{"a":1}\n' * 120_000, "line 40001, column"),
    ):
        answer = doors.log(body)
        assert answer.status == 400
        assert words in error_of(answer)
        assert "ingester-accepted" not in answer.headers
    assert doors.counts() == before


def test_bodies_of_the_bulk_lane_follow_the_same_rules(doors: Doors) -> None:
    lines = b"".join(b'{"message":"bulk %06d","level":40}\n' % n for n in range(40_000))
    array = b"[" + lines.rstrip().replace(b"\n", b",") + b"]"
    one = json.dumps({"message": "one", "pad": "x" * _PADDED}).encode()
    for body, count in ((lines, 40_000), (array, 40_000), (one, 1)):
        answer = doors.log(body)
        assert json.loads(answer.body) == {"success": True, "logsStored": count}
        assert answer.counts == (count, 0)
        found = doors.row(
            "SELECT count(*), count(DISTINCT id), min(service || environment || level)"
            f" FROM logs WHERE id LIKE '{answer.request_id}%'"
        )
        level = "info" if count == 1 else "warning"
        assert found == (count, count, f"apiprod{level}")


def test_a_line_over_its_limit_is_413_and_a_value_is_not(doors: Doors) -> None:
    wide = b'{"message":"' + b"x" * (1 << 20) + b'"}'
    before = doors.counts()
    answer = doors.log(wide + b"\n" + wide)
    assert answer.status == 413
    assert "split" in error_of(answer)
    assert doors.counts() == before
    assert doors.log(wide).accepted == 1
    assert doors.log(b"[" + wide + b"," + wide + b"]").accepted == 2
    before = doors.counts()
    answer = doors.log(gzip.compress(b'"' + b"x" * (16 << 20) + b'"'), Content_Encoding="gzip")
    assert answer.status == 413
    assert "split" in error_of(answer)
    assert doors.counts() == before


def test_every_encoding_is_decoded_in_any_case(doors: Doors) -> None:
    body = b'{"message":"packed"}\n{"message":"packed too"}'
    half = len(body) // 2
    parts = (body[:half], body[half:])
    packed = {
        "gzip": gzip.compress(body),
        "X-GZip": b"".join(map(gzip.compress, parts)),
        "deflate": zlib.compress(body),
        "DEFLATE": compress(body, "raw-deflate"),
        "zstd": b"".join(zstandard.ZstdCompressor().compress(part) for part in parts),
        "Identity": body,
    }
    for encoding, data in packed.items():
        answer = doors.log(data, Content_Encoding=encoding)
        assert answer.counts == (2, 0), encoding
        found = doors.row(f"SELECT encoding FROM requests WHERE request_id = '{answer.request_id}'")
        assert found == (encoding.lower(),)
    before = doors.counts()
    for encoding, data in packed.items():
        if encoding == "Identity":
            continue
        for broken in (data[:-3], data[: len(data) // 2], data + b"x", b"", b"junk"):
            answer = doors.log(broken, Content_Encoding=encoding)
            assert answer.status == 400, (encoding, broken)
            assert error_of(answer)
    big = gzip.compress(b'{"message":"cut"}\n' * 200_000)
    assert doors.log(big[:-5], Content_Encoding="gzip").status == 400
    for encoding in ("br", "gzip, gzip", "snappy"):
        answer = doors.log(body, Content_Encoding=encoding)
        assert answer.status == 415
        assert answer.headers["accept-encoding"] == "gzip, deflate, zstd"
        assert "gzip" in error_of(answer)
    assert doors.counts() == before


def test_chunked_and_expected_bodies_are_taken(doors: Doors) -> None:
    pieces = [b'{"message":', b'"in chunks"}']
    answer = doors.connection.post(LOGS, pieces, bearer(doors.token), chunked=True)
    assert answer.accepted == 1
    head = head_bytes(
        "POST",
        LOGS,
        {**bearer(doors.token), "Transfer-Encoding": "chunked", "Expect": "100-continue"},
    )
    with doors.server.connect() as connection:
        connection.send_raw(head)
        assert connection.stream().recv(64).startswith(b"HTTP/1.1 100 ")
        connection.send_raw(b"".join(chunk_frames(pieces)))
        assert connection.read_answer().accepted == 1


def test_another_method_is_405_and_another_path_404(doors: Doors) -> None:
    for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"):
        answer = doors.connection.request(method, LOGS)
        assert answer.status == 405
        assert answer.headers["allow"] == "POST"
        if method != "HEAD":
            assert "POST" in error_of(answer)
    for path in (LOGS + "/", LOGS + "s", "/api/v1/webhook"):
        answer = doors.log({}, path)
        assert answer.status == 404
        assert error_of(answer)


def test_a_form_is_a_log_record_and_json_comes_first(doors: Doors) -> None:
    form = "application/x-www-form-urlencoded; charset=utf-8"
    record = b"name=shop&levelname=ERROR&msg=x+%25+%C3%A9&created=1700000000.25&args=%28%29"
    answer = doors.log(record, Content_Type=form)
    (found,) = stored(doors, answer.request_id, "level, message, time, attributes->>'args'")
    assert found == ("error", "x % é", "2023-11-14T22:13:20.250000Z", "()")
    answer = doors.log(b'{"message":"curl -d"}', Content_Type=form)
    assert stored(doors, answer.request_id) == [("curl -d",)]
    before = doors.counts()
    assert doors.log(b'{"message":', Content_Type=form).status == 400
    assert doors.log(record).status == 400, "a form that does not say so"
    assert doors.counts() == before


def test_the_http_handler_of_python_lands_sensibly(doors: Doors) -> None:
    made_connections = []

    class Handler(logging.handlers.HTTPHandler):
        def getConnection(self, host: str, secure: bool) -> Any:
            made = super().getConnection(host, secure)
            made_connections.append(made)
            put = made.putheader

            def putheader(name: str, *values: Any) -> None:
                if name == "Host":
                    put("Authorization", f"Bearer {doors.token}")
                put(name, *values)

            made.putheader = putheader  # type: ignore[method-assign]
            return made

    host = urlsplit(doors.server.ready["intake"]).netloc
    logger = logging.Logger("handler-shop")
    logger.addHandler(Handler(host, LOGS, method="POST"))
    logger.error("sold out: %s", "tea")
    for made in made_connections:
        made.close()  # the handler leaves that to the collector
    found = doors.row(
        "SELECT level, message, attributes->>'name', abs(epoch(time) - epoch(received_at)) < 60,"
        " time <> received_at FROM logs WHERE attributes->>'name' = 'handler-shop'"
    )
    assert found == ("error", "sold out: %s", "handler-shop", True, True)


def test_what_other_clients_send_lands_sensibly(doors: Doors) -> None:
    winston = [
        {"level": "warn", "message": "one", "timestamp": "2023-11-14T22:13:20.000Z"},
        {"level": "error", "message": "two"},
    ]
    syslog_ng = {"PRIORITY": "err", "MESSAGE": "three", "HOST": "h", "DATE": "Nov 14 22:13:20"}
    pino = {"level": 50, "time": 1_700_000_000_000, "pid": 1, "msg": "four"}
    fluent_bit = [{"date": 1_700_000_000.5, "log": "five", "level": "notice"}]
    found = []
    for sent in (winston, syslog_ng, pino, fluent_bit):
        answer = doors.log(sent)
        found += stored(doors, answer.request_id, "level, message")
    assert found[:4] == [
        ("warning", "one"),
        ("error", "two"),
        ("error", "three"),
        ("error", "four"),
    ]
    level, message = found[4]
    assert level == "notice"
    assert json.loads(message) == fluent_bit[0]


def test_rows_can_be_queried_when_a_waiting_request_is_answered(doors: Doors) -> None:
    for path, headers in ((f"{LOGS}?wait=query", {}), (LOGS, {"Prefer": "x, wait=query"})):
        answer = doors.log({"message": "waited"}, path, **headers)
        assert answer.headers["ingester-queryable"] == "true"
        found = doors.rows_now(f"SELECT 1 FROM logs WHERE id LIKE '{answer.request_id}%'")
        assert found == [(1,)]
    assert "ingester-queryable" not in doors.log({}).headers
