"""Pages of rows: order, cursors while rows arrive, pruning, shapes, hostile queries."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ingester.errors import InvalidField, NotFound, QueryError
from ingester.lql.times import Window
from ingester.search.reading import Reading
from ingester.search.subjects import LOG_ROWS
from ingester.search.walk import relation_within
from tests.search.rows import NOW, Rows, ask, at, event, log
from tests.store.stores import opened


def pages(store: Any, **parameters: str) -> list[str]:
    """The ids of all pages."""
    ids: list[str] = []
    cursor: str | None = None
    while True:
        more = {} if cursor is None else {"cursor": cursor}
        answer = ask(store, "/logs", **parameters, **more)
        ids += [row["id"] for row in answer["rows"]]
        cursor = answer["cursor"]
        if cursor is None:
            return ids


def test_rows_come_newest_first_from_parts_and_files_and_tell_all(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        first = rows.add("logs", [log(NOW - timedelta(hours=2), "one", attributes='{"n": 0.10}')])
        store.rotate()
        second = rows.add("logs", [log(NOW - timedelta(hours=1), "two")], as_file=True)
        third = rows.add("logs", [log(NOW - timedelta(hours=3), "three")])
        answer = ask(store, "/logs")
        assert [row["id"] for row in answer["rows"]] == second + first + third
        row = answer["rows"][1]
        assert row["attributes"] == {"n": 0.10}
        assert {name: row[name] for name in row if name not in {"id", "attributes"}} == {
            "time": "2026-11-21T10:00:00.000000Z",
            "received_at": "2026-11-21T10:00:00.000000Z",
            "service": "web",
            "environment": "prod",
            "level": "info",
            "message": "one",
            "batch_id": 1,
        }
        assert answer["cursor"] is None
        assert answer["since"] == "2026-11-19T12:00:00.000000Z"
        assert answer["until"] is None
        assert answer["cost"]["rows_scanned"] == 3
        assert answer["cost"]["files"] == 3


def test_rows_of_one_instant_have_an_order_of_their_own(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        ids = rows.add("logs", [log(NOW, f"{n}") for n in range(25)])
        ids += rows.add("logs", [log(NOW, f"{n}") for n in range(25)], as_file=True)
        assert pages(store, limit="7") == ids[::-1]


def test_pages_lose_and_repeat_nothing_while_rows_arrive(tmp_path: Path) -> None:
    chance = random.Random(4)
    with opened(tmp_path) as store:
        rows = Rows(store)
        before: set[str] = set()
        for n in range(12):
            made = [
                log(NOW - timedelta(seconds=chance.randrange(86_400)), f"{i}") for i in range(30)
            ]
            before |= set(rows.add("logs", made, as_file=n % 3 == 0))
        ids: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            answer = ask(store, "/logs", limit="31", **cursor)
            ids += [row["id"] for row in answer["rows"]]
            if answer["cursor"] is None:
                break
            cursor = {"cursor": answer["cursor"]}
            rows.add("logs", [log(NOW - timedelta(seconds=chance.randrange(86_400)))])
            rows.add("logs", [log(NOW + timedelta(seconds=1))])
        assert len(ids) == len(set(ids))
        assert before <= set(ids)


def test_a_cursor_keeps_the_span_that_the_first_page_asked_for(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        rows.add("logs", [log(NOW - timedelta(minutes=n), f"{n}") for n in range(10)])
        first = ask(store, "/logs", since="now-5m", limit="2")
        second = ask(store, "/logs", since="now-5m", cursor=first["cursor"])
        assert second["since"] == first["since"]
        assert [row["message"] for row in second["rows"]] == ["2", "3", "4", "5"]


@pytest.mark.parametrize("cursor", ["", "x", "W10", "WzEsMiwzXQ", "bnVsbA", "é", "A" * 401])
def test_a_made_up_cursor_is_refused(tmp_path: Path, cursor: str) -> None:
    with opened(tmp_path) as store, pytest.raises(InvalidField) as caught:
        ask(store, "/logs", cursor=cursor)
    assert caught.value.field == "cursor"


def test_since_until_and_t_intersect(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        rows.add("logs", [log(at(f"2026-11-{day:02d}T06:00:00"), f"{day}") for day in range(1, 22)])

        def days(**parameters: str) -> list[str]:
            return [row["message"] for row in ask(store, "/logs", **parameters)["rows"]]

        assert days() == ["21", "20"]
        assert days(until="2026-11-20T00:00:00Z") == ["19", "18"]
        assert days(since="2026-11-19", until="today") == ["20", "19"]
        assert days(since="2026-11-20T05:00:00+02:00") == ["21", "20"]
        assert days(since="2026-11-20T05:00:00 02:00") == ["21", "20"]
        assert days(q="t:2026-11-03") == ["3"]
        assert days(q="t:>2026-11-03", since="2026-11-02", until="2026-11-05") == ["4", "3"]
        assert days(q="t:2026-11-03", since="now-1d") == []
        assert days(since="now-30d", until="2026-11-03") == ["2", "1"]
        assert days(since="7d", until="now-5d") == ["16", "15"]


@pytest.mark.parametrize("text", ["", "soon", "now-", "now-1x", "2026-13-01", "now-99999999999d"])
def test_a_wrong_time_names_its_parameter(tmp_path: Path, text: str) -> None:
    with opened(tmp_path) as store:
        for name in ("since", "until"):
            with pytest.raises(InvalidField) as caught:
                ask(store, "/logs", **{name: text})
            assert caught.value.field == name


@pytest.mark.parametrize("text", ["now-999999999w", "now+999999999w", "0001-01-01", "9999-12-31"])
def test_times_at_the_ends_of_the_calendar_are_taken(tmp_path: Path, text: str) -> None:
    with opened(tmp_path) as store:
        Rows(store).add("logs", [log(NOW)])
        for name in ("since", "until"):
            for path in ("/logs", "/logs/histogram", "/logs/fields"):
                ask(store, path, **{name: text})


def test_files_outside_of_the_range_are_not_read(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        for day in range(1, 21):
            rows.add("logs", [log(at(f"2026-11-{day:02d}T06:00:00"))], as_file=True)
        span = {"since": "2026-11-07", "until": "2026-11-08"}
        answer = ask(store, "/logs", **span)
        assert len(answer["rows"]) == 1
        assert answer["cost"]["files"] == 2  # the part, and the file of that day
        assert answer["cost"]["rows_scanned"] == 1
        assert ask(store, "/logs/histogram", **span)["cost"]["files"] == 2
        with Reading.open(store, seconds_max=10, now=NOW) as reading:
            window = Window(at("2026-11-07T00:00:00"), at("2026-11-08T00:00:00"))
            found = relation_within(reading, LOG_ROWS, window)
        assert found.count(".parquet") == 1


def test_a_range_is_a_filter_of_the_scan_itself(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        Rows(store).add("logs", [log(NOW)])
        with Reading.open(store, seconds_max=10, now=NOW) as reading:
            rows = relation_within(reading, LOG_ROWS, Window(NOW, None))
            ((_, plan),) = reading.rows(f"EXPLAIN SELECT id FROM {rows} WHERE time >= ?", [NOW])
        scan = str(plan)[str(plan).index("SEQ_SCAN") :]
        assert "Filters:" in scan
        assert "FILTER" not in str(plan).replace("Filters", "")


def test_row_groups_outside_of_the_range_are_not_scanned(tmp_path: Path) -> None:
    rows_max = 50_000
    with opened(tmp_path) as store:
        times = [NOW - timedelta(seconds=rows_max - n) for n in range(rows_max)]
        Rows(store).add("logs", [log(time) for time in times])
        with Reading.open(store, seconds_max=10, now=NOW) as reading:
            rows = relation_within(reading, LOG_ROWS, Window(NOW - timedelta(seconds=100), None))
            ((_, plan),) = reading.rows(
                f"EXPLAIN (ANALYZE, FORMAT json) SELECT id FROM {rows} WHERE time >= ?",
                [at("2026-11-21T11:58:20").replace(tzinfo=None)],
            )
        found = json.loads(str(plan))
        assert 100 <= found["cumulative_rows_scanned"] <= 16_384


def test_a_broad_query_looks_at_the_newest_windows_only(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        rows.add("logs", [log(NOW - timedelta(minutes=n)) for n in range(2_000)])
        answer = ask(store, "/logs", limit="5")
        assert len(answer["rows"]) == 5
        assert answer["cost"]["rows_scanned"] < 500


def test_charts_and_selections_answer_their_own_shapes(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        rows.add("logs", [log(NOW - timedelta(minutes=1), attributes={"a": {"b": [1, 2]}})] * 2)
        rows.add("logs", [log(NOW - timedelta(days=5), level="error")])
        answer = ask(store, "/logs", q="c:count(*) c:group_by(t::minute, level)")
        assert answer["rows"] == []
        assert answer["chart"] == {
            "names": ["bucket", "level", "value"],
            "rows": [["2026-11-21T11:59:00.000000Z", "info", 2]],
            "truncated": False,
        }
        answer = ask(store, "/logs", q="s:m.a.b@b s:level", limit="1")
        assert answer["select"]["names"] == ["b", "level"]
        assert answer["select"]["rows"] == [[[1, 2], "info"]]
        assert answer["rows"] == []
        more = ask(store, "/logs", q="s:m.a.b@b s:level", limit="1", cursor=answer["cursor"])
        assert (len(more["select"]["rows"]), more["cursor"]) == (1, None)
        answer = ask(store, "/logs", q="s:*")
        assert answer["select"]["rows"][0][-2] == {"a": {"b": [1, 2]}}


def test_long_texts_are_left_out_of_lists_and_shown_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        long = "x" * 100_000
        ids = Rows(store).add("logs", [log(NOW, long), log(NOW, "short")])
        short, cut = ask(store, "/logs")["rows"]
        assert (short["message"], "cut" in short) == ("short", False)
        assert (cut["message"], cut["attributes"], cut["cut"]) == (None, None, True)
        whole = ask(store, "/logs/{id}", {"id": ids[0]})["row"]
        assert whole["message"] == long
        assert whole["attributes"] == {"message": long}


def test_a_page_of_large_rows_ends_early_and_goes_on(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        ids = Rows(store).add("logs", [log(NOW, "x" * 60_000) for _ in range(100)])
        first = ask(store, "/logs", limit="100")
        assert 1 < len(first["rows"]) < 100
        assert first["cursor"] is not None
        assert pages(store, limit="100") == ids[::-1]


def test_a_log_has_its_neighbours_of_the_same_service(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        times = [NOW - timedelta(minutes=n) for n in range(40)]
        mine = rows.add("logs", [log(time) for time in times], as_file=True)
        rows.add("logs", [log(time, service="api") for time in times])
        rows.add("logs", [log(time, environment="test") for time in times])
        answer = ask(store, "/logs/{id}", {"id": mine[20]}, before="2", after="3")
        assert answer["row"]["id"] == mine[20]
        assert [row["id"] for row in answer["before"]] == [mine[22], mine[21]]
        assert [row["id"] for row in answer["after"]] == [mine[19], mine[18], mine[17]]
        answer = ask(store, "/logs/{id}", {"id": mine[0]}, before="500", after="500")
        assert (len(answer["before"]), answer["after"]) == (39, [])


def test_neighbours_of_a_row_without_a_service_have_none_either(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        ids = rows.add("logs", [log(NOW, service=None), log(NOW, service=None), log(NOW)])
        answer = ask(store, "/logs/{id}", {"id": ids[0]}, after="9")
        assert [row["id"] for row in answer["after"]] == [ids[1]]


@pytest.mark.parametrize("row_id", ["x", "1-1", "f" * 16 + "-1", "0" * 16 + "-9", "0" * 16 + "-1'"])
def test_an_id_nobody_has_is_not_found(tmp_path: Path, row_id: str) -> None:
    with opened(tmp_path) as store:
        Rows(store).add("logs", [log(NOW)])
        with pytest.raises(NotFound):
            ask(store, "/logs/{id}", {"id": row_id})


def test_events_are_searched_by_their_columns_and_body(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        ids = rows.add("events", [event(NOW, "login", body={"plan": {"name": "pro"}})])
        ids += rows.add("events", [event(NOW, "logout", user_id="bob")], as_file=True)
        future = rows.add("events", [event(at("9000-01-01T00:00:00"), "later")])
        found = ask(store, "/events", q="m.plan.name:pro action:login account_id:acme")
        assert [row["id"] for row in found["rows"]] == ids[:1]
        assert found["rows"][0]["body"] == {"plan": {"name": "pro"}}
        assert [row["id"] for row in ask(store, "/events")["rows"]] == future + ids[::-1]
        found = ask(store, "/events", q="f:shop user_id:bob", until="now+1d")
        assert [row["id"] for row in found["rows"]] == ids[1:]


@pytest.mark.parametrize(
    "query",
    [
        "'; DROP TABLE logs; --",
        '"\' OR 1=1 --"',
        "m.`a' OR '1'='1`:x",
        'm.`a"]`:x',
        "~(a*)*$",
        "level:\\",
        "s:m.`x'; SELECT 1 --`",
        "c:count(m.`x'`) c:group_by(t::day, m.`y'`)",
        "t:>0001-01-01 x",
        "m." + ".".join("a" * 1 for _ in range(50)) + ":1",
        " ".join(f"-x{n}" for n in range(99)),
        "\x00",
        "\ud800",
        "m.a:1e308 m.b:>-1e308",
    ],
)
def test_no_query_breaks_out_of_its_parameters(tmp_path: Path, query: str) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        rows.add("logs", [log(NOW, "a'b")])
        rows.add("logs", [log(NOW, "a'b")], as_file=True)
        for path in ("/logs", "/logs/histogram", "/logs/fields"):
            with suppress(QueryError):
                ask(store, path, q=query)
        assert len(ask(store, "/logs")["rows"]) == 2
