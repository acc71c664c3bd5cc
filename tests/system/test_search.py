"""Search and live tail of a running server, over its sockets."""

from __future__ import annotations

import http.client
import json
import random
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from tests.system.doors import Doors, bearer, open_doors
from tests.system.server import wait_until

TAIL = "/api/v1/logs/tail"


@dataclass
class Stream:
    """A live tail as a client reads it."""

    answer: http.client.HTTPResponse
    last_id: str | None = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Documents; of a notice with its kind as `event`."""
        fields: dict[str, str] = {}
        while line := self.answer.readline():
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                fields[name] = value
                continue
            self.last_id = fields.get("id", self.last_id)
            if "data" in fields:
                event = {"event": fields["event"]} if "event" in fields else {}
                yield {**json.loads(fields["data"]), **event}
            fields.clear()

    def take(self, count: int) -> list[dict[str, Any]]:
        found = []
        for document in self:
            found.append(document)
            if len(found) == count:
                break
        return found


def connect(doors: Doors, receive_bytes: int = 0) -> http.client.HTTPConnection:
    parts = urlsplit(doors.server.ready["console"])
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
    if receive_bytes:
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        made.settimeout(20)
        made.connect((parts.hostname, parts.port))
        connection.sock = made
    return connection


@contextmanager
def tail(
    doors: Doors, last_id: str | None = None, *, receive_bytes: int = 0, **query: str
) -> Iterator[Stream]:
    headers = bearer(doors.reader)
    if last_id is not None:
        headers["Last-Event-ID"] = last_id
    connection = connect(doors, receive_bytes)
    try:
        connection.request("GET", f"{TAIL}?{urlencode(query)}", headers=headers)
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert answer.headers["Cache-Control"] == "no-store"
        yield Stream(answer, last_id)
    finally:
        connection.close()


def get(doors: Doors, path: str, **query: str) -> tuple[int, Any]:
    """Status and document of a route, asked by a reader."""
    connection = connect(doors)
    target = f"/api/v1{path}?{urlencode(query)}".rstrip("?")
    try:
        connection.request("GET", target, headers=bearer(doors.reader))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def numbers(documents: list[dict[str, Any]]) -> list[int]:
    return [int(document["message"].split()[1]) for document in documents]


def searching(doors: Doors) -> Mapping[str, Any]:
    found = doors.api("GET", "status")["actors"]["search"]
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with open_doors(tmp_path_factory.mktemp("search")) as doors:
        yield doors


def test_a_tail_resumes_without_gap_or_repeat_while_data_comes_in(doors: Doors) -> None:
    count, chance = 400, random.Random(7)

    def send() -> None:
        with doors.server.connect() as connection:
            for n in range(count):
                body = json.dumps({"message": f"resume {n} of many"}).encode()
                answer = connection.post("/api/v1/webhook/event/log", body, bearer(doors.token))
                assert answer.status == 200

    sender = threading.Thread(target=send)
    found: list[int] = []
    with tail(doors, q="resume") as stream:
        sender.start()
        found += numbers(stream.take(3))
    while len(found) < count:
        with tail(doors, stream.last_id, q="resume") as stream:
            found += numbers(stream.take(min(chance.randrange(1, 60), count - len(found))))
    sender.join()
    assert found == list(range(count))
    wait_until(lambda: searching(doors)["tails"] == 0, 10, "the tails that were left are closed")


def test_a_tail_resumes_over_a_kill_without_gap_or_repeat(tmp_path: Path) -> None:
    with open_doors(tmp_path) as doors:
        for n in range(30):
            assert doors.log({"message": f"kill {n}"}).status == 200
        with tail(doors) as stream:
            found = numbers(stream.take(10))
        for n in range(30, 60):
            assert doors.log({"message": f"kill {n}"}).status == 200
        doors.server.kill()
        doors.start_again()
        for n in range(60, 90):
            assert doors.log({"message": f"kill {n}"}).status == 200
        with tail(doors, stream.last_id) as stream:
            found += numbers(stream.take(80))
        assert found == list(range(90))


def test_a_tail_that_is_not_read_holds_up_nobody_and_is_told_what_it_missed(doors: Doors) -> None:
    rows, batches = 6_000, 4
    payload = "x" * 2_000
    with tail(doors, q="slow", receive_bytes=4_096) as stream:
        # Every batch is stored and can be queried while the client reads nothing.
        for batch in range(batches):
            lines = [
                json.dumps({"message": f"slow {batch * rows + n} {payload}"}).encode()
                for n in range(rows)
            ]
            answer = doors.post("/ingest/web?wait=query", b"\n".join(lines))
            assert (answer.status, answer.headers["ingester-queryable"]) == (200, "true")
            assert answer.accepted == rows
        shown: list[int] = []
        missed = 0
        for document in stream:
            if document.get("event") == "missed":
                missed += document["lines"]
                assert document["unread_rows"] == 0
            else:
                shown += numbers([document])
            if len(shown) + missed == rows * batches:
                break
    assert missed > 0
    assert shown == sorted(set(shown))
    assert shown[-1] == rows * batches - 1


def test_a_tail_that_is_read_shows_every_line_of_a_burst(doors: Doors) -> None:
    count = 5_000
    with tail(doors, q="burst") as stream:
        lines = [json.dumps({"message": f"burst {n}"}).encode() for n in range(count)]
        assert doors.post("/ingest/web?wait=query", b"\n".join(lines)).accepted == count
        assert numbers(stream.take(100)) == list(range(100))
    # So does one that was away meanwhile.
    with tail(doors, stream.last_id, q="burst") as stream:
        assert numbers(stream.take(count - 100)) == list(range(100, count))


def test_a_client_that_leaves_ends_its_search(doors: Doors) -> None:
    line = json.dumps({"message": "ab" * 500}).encode()
    assert doors.post("/ingest/web?wait=query", b"\n".join([line] * 60_000)).status == 200
    # Each of these reads every message to its end.
    query = " ".join(f"-~(a.*b)+.*[ab]{{{n}}}c{n}" for n in range(20, 70))
    cancelled = searching(doors)["cancelled_total"]
    for path in ("/logs", "/logs/histogram"):
        connection = connect(doors)
        connection.request(
            "GET", f"/api/v1{path}?{urlencode({'q': query})}", headers=bearer(doors.reader)
        )
        wait_until(lambda: searching(doors)["running"] == 1, 10, "the search runs")
        connection.close()
        wait_until(lambda: searching(doors)["running"] == 0, 10, "the search has ended")
    assert searching(doors)["cancelled_total"] == cancelled + 2


def test_pages_over_the_api_lose_and_repeat_nothing_while_rows_arrive(doors: Doors) -> None:
    lines = [json.dumps({"message": f"page {n}"}).encode() for n in range(50)]
    assert doors.post("/ingest/web?wait=query", b"\n".join(lines)).accepted == 50
    found: list[int] = []
    cursor: dict[str, str] = {}
    while True:
        status, page = get(doors, "/logs", q="page", limit="7", **cursor)
        assert status == 200
        found += numbers(page["rows"])
        if page["cursor"] is None:
            break
        cursor = {"cursor": page["cursor"]}
        doors.log({"message": "page 999"}, "/api/v1/webhook/event/log?wait=query")
    assert found == list(range(50))[::-1]


def test_what_is_asked_wrongly_is_refused_in_a_sentence(doors: Doors) -> None:
    cases: list[tuple[str, dict[str, str], int, dict[str, object]]] = [
        ("/logs", {"q": "level:"}, 400, {"column": 7}),
        ("/logs", {"q": "x" * 5_000}, 422, {"field": "q"}),
        ("/logs", {"cursor": "nonsense"}, 422, {"field": "cursor"}),
        ("/logs", {"limit": "0"}, 422, {"field": "limit"}),
        ("/logs", {"limit": "1001"}, 422, {"field": "limit"}),
        ("/logs", {"limit": "1.5"}, 422, {"field": "limit"}),
        ("/logs", {"since": "NaN"}, 422, {"field": "since"}),
        ("/logs", {"colour": "red"}, 422, {"field": "colour"}),
        ("/logs?q=a&q=b", {}, 422, {"field": "q"}),
        ("/logs/tail", {"last_event_id": "1"}, 422, {"field": "last_event_id"}),
        ("/logs/tail", {"q": "c:count(*)"}, 400, {}),
        ("/logs/0000000000000000-9", {}, 404, {}),
        ("/logs/é", {}, 404, {}),
        ("/events/timeseries", {"interval": "minute"}, 422, {"field": "interval"}),
        ("/events/timeseries", {"group_by": "t"}, 422, {"field": "group_by"}),
        ("/metrics/x/timeseries", {"filter": "("}, 400, {"column": 1}),
    ]
    for path, query, status, more in cases:
        found = get(doors, path.replace("é", "%C3%A9"), **query)
        error = found[1].pop("error")
        assert found == (status, more), (path, query)
        assert error


def test_text_of_every_script_is_found(doors: Doors) -> None:
    message = "naïve 日本語 \U0001f600 \x00 tab\t\u2028 'quoted' \"twice\" %"
    doors.log({"message": message, "é.ü": {"ключ": "значение"}})
    doors.log({"message": "x"}, "/api/v1/webhook/event/log?wait=query")
    for query in ("日本語", "\U0001f600", "m.`é.ü`.ключ:значение", '"\'quoted\' \\"twice\\" %"'):
        status, page = get(doors, "/logs", q=query)
        assert (status, [row["message"] for row in page["rows"]]) == (200, [message]), query


def test_an_empty_store_answers_everything(tmp_path: Path) -> None:
    with open_doors(tmp_path) as doors:
        for table in ("logs", "events", "metrics"):
            status, page = get(doors, f"/{table}", since="1970-01-01")
            assert (status, page["rows"], page["cursor"]) == (200, [], None)
        for table in ("logs", "events"):
            assert get(doors, f"/{table}/histogram")[1]["buckets"] == []
            assert get(doors, f"/{table}/fields")[1]["fields"] == []
            assert get(doors, f"/{table}", q="c:count(*)")[1]["chart"]["rows"] == []
            assert get(doors, f"/{table}/complete", q="lev")[0] == 200
        assert get(doors, "/events/timeseries")[1]["points"] == []
        assert get(doors, "/metrics/a%2Fb%20c/timeseries", interval="month")[1]["points"] == []
        assert doors.server.command("search", "hello") == []


def test_the_command_searches_follows_and_reads_a_stopped_folder(tmp_path: Path) -> None:
    with open_doors(tmp_path) as doors:
        for n, level in enumerate(["info", "error", "debug"]):
            doors.log({"message": f"cli {n}", "level": level})
        doors.log({"message": "x"}, "/api/v1/webhook/event/log?wait=query")
        search = ("search", "cli", "--since", "1h")
        beside = doors.server.command(*search)
        assert numbers(beside) == [2, 1, 0]
        chart = doors.server.command("search", "cli c:count(*) c:group_by(t::day, level)")
        assert sorted((row["level"], row["value"]) for row in chart) == [
            ("debug", 1),
            ("error", 1),
            ("info", 1),
        ]
        assert doors.server.stop() == 0
        assert doors.server.command(*search) == beside
        refused = doors.server.command("search", "cli", "--follow", exit_codes=[3])
        assert "no server" in refused["error"]
