"""Requests of the Natero door as wholes: their rows, Idempotency-Key, waiting, the test door."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.system.client import Answer, Connection, chunk_frames, compress, event_line, head_bytes
from tests.system.server import Server, SourceKeys, running

_BULK_ROWS = 6_000


@dataclass
class Door:
    server: Server
    keys: SourceKeys
    connection: Connection

    def post(
        self, body: bytes, headers: dict[str, str] | None = None, *, suffix: str = ""
    ) -> Answer:
        return self.connection.post(self.keys.path + suffix, body, headers)

    def count(self, account: str) -> int:
        self.server.settle(self.keys)
        found = self.server.value(f"SELECT count(*) FROM events WHERE account_id = '{account}'")
        assert isinstance(found, int)
        return found


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("requests")
    environment = {"INGESTER_INTAKE_TEST_HOSTS": "test.example.org"}
    with running(folder, environment) as server:
        keys = server.create_source("requests")
        with server.connect() as connection:
            yield Door(server, keys, connection)
        assert server.stop() == 0
    assert "Traceback" not in server.log_text()


def _lines(account: str, row_count: int, bad_count: int = 0) -> bytes:
    rows = [event_line(account, row, pad="p" * 150) for row in range(row_count)]
    rows += [event_line(account, row, action=None) for row in range(bad_count)]
    return b"\n".join(rows) + b"\n"


@pytest.mark.parametrize("encoding", [None, "gzip", "deflate", "zstd"])
@pytest.mark.parametrize("row_count", [3, _BULK_ROWS])
def test_each_request_has_one_row_with_its_counts(
    door: Door, encoding: str | None, row_count: int
) -> None:
    body = _lines(f"row-{encoding}", row_count, 2)
    packed = compress(body, encoding)
    headers = {"Content-Encoding": encoding} if encoding else {}
    answer = door.post(packed, {**headers, "Idempotency-Key": f"row-{encoding}-{row_count}"})
    assert answer.status == 200
    assert answer.counts == (row_count, 2)
    door.server.settle(door.keys)
    (row,) = door.server.query(
        "SELECT door, source, accepted, rejected, bytes_in, bytes_raw, encoding, "
        "idempotency_key, epoch_us(received_at) AS received_us "
        f"FROM requests WHERE request_id = '{answer.request_id}'"
    )
    assert abs(row.pop("received_us") / 1e6 - time.time()) < 120
    assert row.pop("encoding") in ({encoding} if encoding else {"identity", None, ""})
    assert row == {
        "door": "natero",
        "source": "requests",
        "accepted": row_count,
        "rejected": 2,
        "bytes_in": len(packed),
        "bytes_raw": len(body),
        "idempotency_key": f"row-{encoding}-{row_count}",
    }


def test_request_ids_are_unique_and_on_every_answer(door: Door) -> None:
    answers = [door.post(event_line("ids")) for _ in range(50)]
    answers += [door.connection.post("/v1/ping", b"") for _ in range(5)]
    answers += [door.connection.post("/v1/no/pair", b"") for _ in range(5)]
    answers += [door.connection.request("GET", "/nowhere") for _ in range(5)]
    assert len({answer.request_id for answer in answers}) == len(answers)


@pytest.mark.parametrize("first_rows", [2, _BULK_ROWS])
def test_a_repeat_with_the_same_key_stores_nothing(door: Door, first_rows: int) -> None:
    account = f"repeat-{first_rows}"
    headers = {"Idempotency-Key": account}
    body = _lines(account, first_rows, 1)
    first = door.post(body, headers)
    assert first.counts == (first_rows, 1)
    for _ in range(3):
        again = door.post(body, headers)
        assert (again.status, again.body) == (200, b"")
        assert (again.counts, again.request_id) == (first.counts, first.request_id)
    with door.server.connect() as connection:
        again = connection.post(door.keys.path, body, headers, chunked=True)
        assert (again.counts, again.request_id) == (first.counts, first.request_id)
    assert door.count(account) == first_rows
    rows = door.server.value(
        f"SELECT count(*) FROM requests WHERE request_id = '{first.request_id}'"
    )
    assert rows == 1


@pytest.mark.parametrize(("first_rows", "second_rows"), [(2, 3), (2, _BULK_ROWS), (_BULK_ROWS, 2)])
def test_the_same_key_with_another_body_is_400(
    door: Door, first_rows: int, second_rows: int
) -> None:
    """Also where the two bodies go through different lanes."""
    account = f"other-body-{first_rows}-{second_rows}"
    headers = {"Idempotency-Key": account}
    assert door.post(_lines(account, first_rows), headers).counts == (first_rows, 0)
    refused = door.post(_lines(account, second_rows), headers)
    assert (refused.status, refused.body) == (400, b"")
    assert door.count(account) == first_rows


def test_a_key_belongs_to_its_credential(door: Door) -> None:
    other = door.server.create_source("second")
    headers = {"Idempotency-Key": "shared"}
    first = door.post(_lines("scope", 1), headers)
    second = door.connection.post(other.path, _lines("scope", 2), headers)
    assert (first.counts, second.counts) == ((1, 0), (2, 0))
    assert first.request_id != second.request_id
    assert door.count("scope") == 3


def test_only_an_acknowledged_request_is_remembered(door: Door) -> None:
    headers = {"Idempotency-Key": "after-refusal"}
    gzip_headers = {**headers, "Content-Encoding": "gzip"}
    assert door.post(b"not gzip", gzip_headers).status == 400
    assert door.post(_lines("after-refusal", 2), headers).counts == (2, 0)
    assert door.count("after-refusal") == 2


def test_keys_are_1_to_128_visible_characters(door: Door) -> None:
    body = _lines("key-form", 1)
    for key in ("k", "x" * 128, "!~{}\"'\\;,"):
        assert door.post(body, {"Idempotency-Key": key}).status == 200, key
    for key in ("", "x" * 129, "a b", "caf\u00e9", "a\tb"):
        refused = door.post(body, {"Idempotency-Key": key})
        assert (refused.status, refused.body) == (400, b""), repr(key)
    # DEL is no part of any header value (RFC 9110, 5.5): refused before the door is known.
    assert door.post(body, {"Idempotency-Key": "\x7f"}).status == 400
    assert door.count("key-form") == 3


@pytest.mark.parametrize("row_count", [2, _BULK_ROWS])
def test_a_repeat_in_flight_waits_for_the_first(door: Door, row_count: int) -> None:
    """The first is held open by its own body; the repeat is whole at once."""
    account = f"flight-{row_count}"
    body = _lines(account, row_count)
    headers = {"Idempotency-Key": account, "Content-Length": str(len(body))}
    head = head_bytes("POST", door.keys.path, headers)
    answers: list[Answer] = []

    def repeat() -> None:
        with door.server.connect() as connection:
            answers.append(connection.post(door.keys.path, body, {"Idempotency-Key": account}))

    with door.server.connect() as first:
        first.send_raw(head + body[:-10])
        time.sleep(0.3)  # the first has joined the key
        thread = threading.Thread(target=repeat)
        thread.start()
        time.sleep(0.5)
        assert answers == [], "the repeat was answered before the first"
        first.send_raw(body[-10:])
        answer = first.read_answer()
        thread.join(20.0)
    assert answer.counts == answers[0].counts == (row_count, 0)
    assert answer.request_id == answers[0].request_id
    assert door.count(account) == row_count


def test_a_repeat_takes_over_when_the_first_fails(door: Door) -> None:
    account = "take-over"
    body = _lines(account, 4)
    headers = {"Idempotency-Key": account, "Content-Length": str(len(body))}
    with ThreadPoolExecutor(2) as pool, contextlib.ExitStack() as stack:
        first = stack.enter_context(door.server.connect())
        first.send_raw(head_bytes("POST", door.keys.path, headers) + body[:-10])
        time.sleep(0.3)
        second = stack.enter_context(door.server.connect())
        waiting = pool.submit(second.post, door.keys.path, body, {"Idempotency-Key": account})
        time.sleep(0.3)
        first.close()
        assert waiting.result(20.0).counts == (4, 0)
    assert door.count(account) == 4


def test_concurrent_repeats_store_one(door: Door) -> None:
    body = _lines("storm", 5, 1)
    with ThreadPoolExecutor(12) as pool:

        def post(number: int) -> Answer:
            headers = {"Idempotency-Key": f"storm-{number % 4}"}
            with door.server.connect() as connection:
                return connection.post(door.keys.path, body, headers)

        answers = list(pool.map(post, range(48)))
    assert {answer.counts for answer in answers} == {(5, 1)}
    assert len({answer.request_id for answer in answers}) == 4
    assert door.count("storm") == 20


@pytest.mark.parametrize("row_count", [1, _BULK_ROWS])
def test_a_waiting_answer_means_that_the_rows_are_there(door: Door, row_count: int) -> None:
    for number, (suffix, headers) in enumerate([
        ("?wait=query", {}),
        ("", {"Prefer": "wait=query"}),
        ("?x=1&wait=query", {}),
    ]):
        account = f"wait-{row_count}-{number}"
        answer = door.post(_lines(account, row_count, 1), headers, suffix=suffix)
        assert (answer.status, answer.body) == (200, b"")
        assert answer.counts == (row_count, 1)
        assert answer.headers.get("ingester-queryable", "true") != "false"
        (row,) = door.server.query(
            f"SELECT (SELECT count(*) FROM events WHERE account_id = '{account}') AS events, "
            "(SELECT count(*) FROM rejects "
            f"WHERE request_id = '{answer.request_id}') AS rejects, "
            "(SELECT count(*) FROM requests "
            f"WHERE request_id = '{answer.request_id}') AS requests"
        )
        assert row == {"events": row_count, "rejects": 1, "requests": 1}


def test_rows_are_queryable_without_waiting_soon(door: Door) -> None:
    assert door.post(event_line("soon")).status == 200
    deadline = time.monotonic() + 10.0
    while door.server.value("SELECT count(*) FROM events WHERE account_id = 'soon'") != 1:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_expect_100_continue_is_answered_before_the_body(door: Door) -> None:
    body = _lines("expect", 2)
    headers = {"Expect": "100-continue", "Content-Length": str(len(body))}
    with door.server.connect(10.0) as connection:
        connection.send_raw(head_bytes("POST", door.keys.path, headers))
        assert connection.stream().recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.send_raw(body)
        assert connection.read_answer().counts == (2, 0)
        bad = head_bytes("POST", "/v1/no/pair", headers)
        connection.send_raw(bad)
        assert connection.read_answer().status == 400  # without asking for the body
    assert door.count("expect") == 2


def test_pipelined_requests_are_answered_in_order(door: Door) -> None:
    bodies = [_lines("pipeline", count, 1) for count in (1, 2, 3)]
    with door.server.connect() as connection:
        connection.send_raw(
            b"".join(
                head_bytes("POST", door.keys.path, {"Content-Length": str(len(body))}) + body
                for body in bodies
            )
            + head_bytes("POST", door.keys.path, {"Transfer-Encoding": "chunked"})
            + b"".join(chunk_frames([bodies[0][:9], bodies[0][9:]]))
            + head_bytes("POST", "/v1/ping", {"Content-Length": "0"})
        )
        found = [connection.read_answer() for _ in range(5)]
    assert [answer.counts for answer in found[:4]] == [(1, 1), (2, 1), (3, 1), (1, 1)]
    assert found[4].status == 200
    assert door.count("pipeline") == 7


def test_the_test_door_checks_and_stores_nothing(door: Door) -> None:
    auth_api = door.keys.path.removeprefix("/v1/")
    body = _lines("test-door", 2, 1)
    posts = [
        (f"/test/v1/{auth_api}", {}),
        (f"/test/v1/{auth_api}/", {"Content-Encoding": "identity"}),
        (door.keys.path, {"Host": "test.example.org"}),
        (door.keys.path, {"Host": "TEST.example.org:8080"}),
    ]
    for target, headers in posts:
        answer = door.connection.post(target, body, headers)
        assert (answer.status, answer.body) == (200, b""), target
        assert answer.counts == (2, 1), target
    refusals = [
        door.connection.post("/test/v1/no/pair", body),
        door.connection.request("GET", f"/test/v1/{auth_api}"),
        door.connection.post(f"/test/v1/{auth_api}", b"x", {"Content-Encoding": "gzip"}),
    ]
    for answer in refusals:
        assert (answer.status, answer.body) == (400, b"")
    assert door.connection.post("/test/v1/ping", b"").status == 200
    bulk = door.connection.post(f"/test/v1/{auth_api}", _lines("test-door", _BULK_ROWS))
    assert bulk.counts == (_BULK_ROWS, 0)
    assert door.count("test-door") == 0
    kept = door.server.value(
        "SELECT count(*) FROM rejects WHERE decode(line) LIKE '%\"test-door\"%'"
    )
    assert kept == 0
