"""The live tail: positions, resumption, what a slow client misses, many at once."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
from msgspec import Struct, structs

from ingester.errors import InvalidField, Overloaded, QueryError, RequestError
from ingester.lql import parse
from ingester.search import ROUTES, Searches
from ingester.search import service as service_module
from ingester.search import stream as stream_module
from ingester.search import tail as tail_module
from ingester.search.reading import Reading
from ingester.search.requests import RangeQuery, RowsQuery, TailQuery
from ingester.search.stream import TailStream
from ingester.search.subjects import EVENT_ROWS, LOG_ROWS
from ingester.search.tail import Look, Position, look, parse_position
from ingester.store.store import Store
from tests.search.rows import NOW, Rows, event, log
from tests.store.stores import opened

TAIL = next(route for route in ROUTES if route.pattern == "/api/v1/logs/tail")


def seen(store: Store, position: Position | None, query: str = "", **options: Any) -> Look:
    with Reading.open(store, seconds_max=10) as reading:
        return look(reading, LOG_ROWS, parse(query), position, **options)


def ids(found: Look) -> list[str]:
    return [str(document["id"]) for _, document in found.rows]


def test_a_tail_begins_with_the_last_minutes_and_goes_on_behind_them(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        old = NOW - timedelta(days=300)  # in arrival order, whatever the times say
        first = rows.add("logs", [log(NOW), log(old)])
        first += rows.add("logs", [log(old)], as_file=True)
        begun = seen(store, None)
        assert ids(begun) == first
        assert ids(seen(store, begun.position)) == []
        rows.add("logs", [log(NOW, "skip")])
        store.rotate()
        second = rows.add("logs", [log(NOW)], as_file=True)
        after = seen(store, begun.position, "hello")
        assert ids(after) == second
        assert seen(store, after.position).position == after.position


def test_what_was_committed_before_the_last_minutes_is_not_told(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        rows.add("logs", [log(NOW)])
        now = datetime.now(UTC) + timedelta(minutes=6)
        with Reading.open(store, seconds_max=10, now=now) as reading:
            begun = look(reading, LOG_ROWS, parse(""), None)
        assert begun.rows == []
        assert ids(seen(store, begun.position)) == []
        later = rows.add("logs", [log(NOW)])
        assert ids(seen(store, begun.position)) == later


def test_a_tail_resumes_behind_any_row(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        made = [
            one for n in range(6) for one in rows.add("logs", [log(NOW)] * 3, as_file=n % 2 == 0)
        ]
        found = seen(store, Position(0))
        assert ids(found) == made
        for n, (position, _) in enumerate(found.rows):
            assert ids(seen(store, parse_position(str(position)))) == made[n + 1 :]


def test_a_position_survives_a_restart(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        rows.add("logs", [log(NOW)])
        position = seen(store, None).position
    with opened(tmp_path) as store:
        again = Rows(store)
        again.request_number = rows.request_number
        assert ids(seen(store, position)) == []
        assert ids(seen(store, position)) == []
        later = again.add("logs", [log(NOW)])
        assert ids(seen(store, position)) == later


def test_a_position_does_not_pass_a_commit_that_failed(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        Rows(store).add("logs", [log(NOW)])
        position = seen(store, None).position
        store.ledger.take_commit_numbers(5)  # handed out, and rolled back
        assert seen(store, position).position == position


def test_a_position_of_another_store_begins_anew(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        made = Rows(store).add("logs", [log(NOW)])
        assert ids(seen(store, Position(10**15, 1, 1))) == made


def test_more_lines_than_a_look_tells_are_told_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail_module, "_LINES_MAX", 10)
    with opened(tmp_path) as store:
        rows = Rows(store)
        made = [one for _ in range(3) for one in rows.add("logs", [log(NOW)] * 12)]
        told: list[str] = []
        position, has_more = Position(0), True
        while has_more:
            found = seen(store, position, "hello")
            assert (found.missed_lines, found.unread_rows) == (0, 0)
            told += ids(found)
            position, has_more = found.position, found.has_more
        assert told == made
        assert ids(seen(store, position)) == []


def test_events_are_followed_as_logs_are(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        rows.add("logs", [log(NOW)])
        made = rows.add("events", [event(NOW, action) for action in ("a", "b", "a")])
        with Reading.open(store, seconds_max=10) as reading:
            query = parse("action:a", schema=EVENT_ROWS.schema)
            found = look(reading, EVENT_ROWS, query, Position(0))
        assert ids(found) == [made[0], made[2]]


def test_large_rows_end_a_look_early(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        made = Rows(store).add("logs", [log(NOW, "x" * 60_000) for _ in range(100)])
        first = seen(store, Position(0))
        assert (first.has_more, first.missed_lines) == (True, 0)
        assert 1 < len(first.rows) < 100
        assert ids(first) + ids(seen(store, first.position)) == made


def test_who_lags_too_far_behind_goes_on_with_the_newest_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail_module, "_LINES_MAX", 10)
    monkeypatch.setattr(tail_module, "_BACKLOG_LINES_MAX", 15)
    with opened(tmp_path) as store:
        rows = Rows(store)
        rows.add("logs", [log(NOW)] * 8 + [log(NOW, "other")] * 50)
        made = rows.add("logs", [log(NOW)] * 10)
        found = seen(store, Position(0), "hello")
        assert ids(found) == made
        assert (found.missed_lines, found.unread_rows, found.has_more) == (8, 0, False)
        found = seen(store, Position(0), "hello", rows_max=30)
        assert ids(found) == made
        assert (found.missed_lines, found.unread_rows) == (0, 58)
        assert ids(seen(store, found.position)) == []


def test_nothing_older_than_what_was_not_read_is_told(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        rows.add("logs", [log(NOW)] * 5)
        rows.add("logs", [log(NOW)] * 40)
        made = rows.add("logs", [log(NOW)] * 5)
        found = seen(store, Position(0), rows_max=20)
        assert (ids(found), found.unread_rows) == (made, 45)


@pytest.mark.parametrize("text", ["", "1", "1.2", "1.2.3.4", "a.b.c", "-1.0.0", "1" * 99])
def test_a_made_up_position_is_refused(text: str) -> None:
    with pytest.raises(InvalidField):
        parse_position(text)


@asynccontextmanager
async def running(store: Store) -> AsyncIterator[tuple[Searches, trio.Event]]:
    stop = trio.Event()
    searches = Searches(store, seconds_max=lambda: 10)
    async with searches.running(stop):
        yield searches, stop


def events(data: bytes) -> list[tuple[str | None, Any]]:
    """The id of each event and its document."""
    found: list[tuple[str | None, Any]] = []
    for block in data.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if line[:1].isalpha())
        if "data" in lines:
            document = json.loads(lines["data"])
            found.append((lines.get("id"), {**document, "event": lines.get("event")}))
    return found


async def everyone() -> bool:
    return True


def tailed(searches: Searches, query: TailQuery, last: str | None) -> TailStream:
    return searches.tail(TAIL, query, last, is_allowed=everyone)


async def read(stream: TailStream, count: int) -> list[tuple[str | None, Any]]:
    found: list[tuple[str | None, Any]] = []
    with trio.fail_after(15):
        while len(found) < count:
            found += events(await stream.__anext__())
    return found


async def test_a_commit_wakes_a_tail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "_LOOK_EVERY_S", 0.01)
    with opened(tmp_path) as store:
        rows = Rows(store)
        async with running(store) as (searches, _):
            stream = tailed(searches, TailQuery(q="hello"), None)
            assert await stream.__anext__() == b"retry: 2000\n\n"
            made: list[str] = []
            async with trio.open_nursery() as nursery:

                async def write() -> None:
                    for _ in range(5):
                        rows_added = await trio.to_thread.run_sync(rows.add, "logs", [log(NOW)] * 2)
                        made.extend(rows_added)

                nursery.start_soon(write)
                found = await read(stream, 10)
            assert [document["id"] for _, document in found] == made
            await stream.aclose()
            assert not searches._tails


async def test_payloads_on_several_lines_stay_one_event(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        Rows(store).add("logs", [log(NOW, "a\r\nb", attributes='{\r\n"a":\n"\\n"}')])
        async with running(store) as (searches, _):
            stream = tailed(searches, TailQuery(), None)
            ((_, document),) = await read(stream, 1)
            assert (document["message"], document["attributes"]) == ("a\r\nb", {"a": "\n"})
            await stream.aclose()


async def test_a_slow_client_is_told_what_it_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail_module, "_LINES_MAX", 20)
    monkeypatch.setattr(tail_module, "_BACKLOG_LINES_MAX", 40)
    with opened(tmp_path) as store:
        rows = Rows(store)
        rows.add("logs", [log(NOW)])
        async with running(store) as (searches, _):
            stream = tailed(searches, TailQuery(), None)
            await read(stream, 1)
            made = [one for _ in range(10) for one in rows.add("logs", [log(NOW)] * 5)]
            found = await read(stream, 21)
            assert found[0][1] == {"lines": 30, "unread_rows": 0, "event": "missed"}
            assert [document["id"] for _, document in found[1:]] == made[-20:]
            await stream.aclose()


async def test_tails_are_bounded_and_end_with_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "_TAILS_MAX", 2)
    with opened(tmp_path) as store:
        async with running(store) as (searches, stop):
            streams = [tailed(searches, TailQuery(), None) for _ in range(2)]
            for stream in streams:
                await stream.__anext__()
            with pytest.raises(Overloaded):
                tailed(searches, TailQuery(), None)
            stop.set()
            for stream in streams:
                with pytest.raises(StopAsyncIteration):
                    await stream.__anext__()
                await stream.aclose()
            await tailed(searches, TailQuery(), None).aclose()


async def test_a_silent_tail_gives_signs_of_life_with_its_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "_HEARTBEAT_S", 0.05)
    with opened(tmp_path) as store:
        Rows(store).add("logs", [log(NOW, "other")])
        async with running(store) as (searches, _):
            stream = tailed(searches, TailQuery(q="hello"), None)
            await stream.__anext__()
            assert (await stream.__anext__()).startswith(b": still here\nid: 1.")
            await stream.aclose()


async def test_a_wrong_tail_is_refused_before_it_begins(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        async with running(store) as (searches, _):
            with pytest.raises(QueryError):
                tailed(searches, TailQuery(q="a:"), None)
            for query in ("c:count(*)", "s:level"):
                with pytest.raises(RequestError):
                    tailed(searches, TailQuery(q=query), None)
            with pytest.raises(InvalidField):
                tailed(searches, TailQuery(), "nonsense")


async def test_a_tail_ends_soon_after_the_right_to_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "_ASK_EVERY_S", 0.0)
    monkeypatch.setattr(stream_module, "_LOOK_EVERY_S", 0.0)
    answers = [True, False]

    async def is_allowed() -> bool:
        return answers.pop(0)

    with opened(tmp_path) as store:
        rows = Rows(store)
        rows.add("logs", [log(NOW)])
        async with running(store) as (searches, _):
            stream = searches.tail(TAIL, TailQuery(), None, is_allowed=is_allowed)
            assert len(await read(stream, 1)) == 1
            rows.add("logs", [log(NOW)])
            with trio.fail_after(15), pytest.raises(StopAsyncIteration):
                await stream.__anext__()
            await stream.aclose()


async def test_rows_do_not_wait_for_overviews(tmp_path: Path) -> None:
    histogram, rows_route = (
        next(route for route in ROUTES if route.pattern == f"/api/v1/logs{path}")
        for path in ("/histogram", "")
    )
    with opened(tmp_path) as store:
        Rows(store).add("logs", [log(NOW)])
        async with running(store) as (searches, _), trio.open_nursery() as nursery:
            gate = threading.Event()
            blocked = structs.replace(histogram, function=lambda *_: gate.wait() and LookedAt())
            for _ in range(5):
                nursery.start_soon(searches.answer, blocked, RangeQuery(), {})
            with trio.fail_after(15):
                while not searches.statistics()["running"]:
                    await trio.lowlevel.checkpoint()
                assert b'"rows":[' in await searches.answer(rows_route, RowsQuery(), {})
            assert searches.statistics()["running"] == 1
            gate.set()


class LookedAt(Struct):
    """What a blocked overview answers in the end."""
