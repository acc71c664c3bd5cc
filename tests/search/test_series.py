"""Series of events and metrics, and which metrics there are."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ingester.errors import InvalidField, QueryError, RequestError
from ingester.search import series as series_module
from tests.search.rows import NOW, Rows, ask, at, event, log, metric
from tests.store.stores import opened

EVENTS = "/events/timeseries"
POINTS = "/metrics/{metricId}/timeseries"


def series(store: Any, metric_id: str = "m1", **parameters: str) -> dict[str, Any]:
    return ask(store, POINTS, {"metricId": metric_id}, **parameters)


def test_a_metric_by_day_tells_count_sum_extremes_mean_and_last(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        day = at("2026-11-20T00:00:00")
        rows.add("metrics", [metric(day, 1, unit="ms"), metric(day + timedelta(hours=2), 4)])
        rows.add("metrics", [metric(day + timedelta(hours=2), 7)], as_file=True)
        rows.add("metrics", [metric(NOW, -1), metric(NOW, 100, "m2")])
        answer = series(store)
        assert answer.pop("cost")["rows_scanned"] == 5
        assert answer == {
            "interval": "day",
            "answered_from": "rows",
            "complete_up_to": "2026-11-21T12:00:00.000000Z",
            "group_by": None,
            "since": "2026-10-22T00:00:00.000000Z",
            "until": None,
            "truncated": False,
            "metric_id": "m1",
            "metric_name": "Metric",
            "unit": "ms",
            "points": [
                {
                    "bucket": "2026-11-20T00:00:00.000000Z",
                    **{"count": 3, "sum": 12.0, "min": 1.0, "max": 7.0, "avg": 4.0, "last": 7.0},
                },
                {
                    "bucket": "2026-11-21T00:00:00.000000Z",
                    **{"count": 1, "sum": -1.0, "min": -1.0, "max": -1.0, "avg": -1.0},
                    "last": -1.0,
                },
            ],
        }


@pytest.mark.parametrize(
    ("interval", "buckets", "since"),
    [
        ("hour", ["2026-11-21T11:00", "2026-11-21T12:00"], "2026-11-19T12:00"),
        ("day", ["2026-10-31T00:00", "2026-11-21T00:00"], "2026-10-22T00:00"),
        ("week", ["2026-10-26T00:00", "2026-11-16T00:00"], "2026-05-18T00:00"),
        ("month", ["2026-10-01T00:00", "2026-11-01T00:00"], "2025-11-01T00:00"),
    ],
)
def test_periods_are_whole_and_weeks_begin_on_monday(
    tmp_path: Path, interval: str, buckets: list[str], since: str
) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        times = [NOW, NOW - timedelta(minutes=1)]
        times += [at("2026-11-01T23:59:59"), at("2026-10-31T00:00:00")]
        rows.add("events", [event(time) for time in times])
        rows.add("metrics", [metric(time, 1) for time in times], as_file=True)
        for answer in (ask(store, EVENTS, interval=interval), series(store, interval=interval)):
            found = [point["bucket"] for point in answer["points"]]
            assert [found[0], found[-1]] == [f"{bucket}:00.000000Z" for bucket in buckets]
            assert answer["since"] == f"{since}:00.000000Z"


def test_events_by_day_count_users_accounts_and_sessions(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        made = [event(NOW, user_id=user) for user in ("ada", "bob", "ada")]
        made += [event(NOW, account_id="other"), event(NOW, source="site")]
        rows.add("events", made)
        (point,) = ask(store, EVENTS)["points"]
        assert point == {
            "bucket": "2026-11-21T00:00:00.000000Z",
            **{"events": 5, "users": 4, "accounts": 3, "sessions": 3},
        }
        (point,) = ask(store, EVENTS, q="f:shop", filter="user_id:ada")["points"]
        assert (point["events"], point["users"]) == (3, 2)
        assert ask(store, EVENTS, q="nothing")["points"] == []


def test_groups_are_told_apart_and_absent_ones_have_none(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        eu, us = {"region": "eu", "n": {"x": 5}}, {"region": "us"}
        made = [metric(NOW, 1, metadata=eu), metric(NOW, 2, metadata=us)]
        rows.add("metrics", [*made, metric(NOW, 4), metric(NOW, 8, metadata=eu)])
        answer = series(store, group_by="metadata.region")
        assert answer["group_by"] == "metadata.region"
        sums = {point["group"]: point["sum"] for point in answer["points"]}
        assert sums == {"eu": 9.0, "us": 2.0, None: 4.0}
        sums = {p["group"]: p["sum"] for p in series(store, group_by="m.n.x")["points"]}
        assert sums == {"5": 9.0, None: 6.0}
        (point,) = series(store, filter="region:eu value:>5")["points"]
        assert (point["count"], point["sum"], "group" in point) == (1, 8.0, False)
        rows.add("events", [event(NOW, a, body={"plan": p}) for a, p in ("ax", "bx", "ay")])
        for name in ("m.plan", "metadata.plan", "plan", "body.plan"):
            points = ask(store, EVENTS, group_by=name)["points"]
            assert {p["group"]: p["events"] for p in points} == {"x": 2, "y": 1}
        points = ask(store, EVENTS, group_by="action", filter="body.plan:x")["points"]
        assert {p["group"]: p["events"] for p in points} == {"a": 1, "b": 1}


def test_rare_groups_are_gathered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series_module, "GROUPS_MAX", 2)
    with opened(tmp_path) as store:
        rows = Rows(store)
        rows.add("events", [event(NOW, action) for action in "aaabbcd"])
        points = ask(store, EVENTS, group_by="action")["points"]
        assert {p["group"]: p["events"] for p in points} == {"a": 3, "b": 2, "(other)": 2}
        assert {p["group"]: p["users"] for p in points} == {"a": 1, "b": 1, "(other)": 1}


def test_a_series_is_bounded_and_keeps_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series_module, "POINTS_MAX", 3)
    with opened(tmp_path) as store:
        Rows(store).add("events", [event(NOW - timedelta(hours=n)) for n in range(5)])
        answer = ask(store, EVENTS, interval="hour")
        assert answer["truncated"] is True
        hours = [point["bucket"][11:13] for point in answer["points"]]
        assert hours == ["10", "11", "12"]


def test_metrics_are_listed_with_their_last_value_and_found_by_id_and_range(
    tmp_path: Path,
) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        before = NOW - timedelta(days=3)
        ids = rows.add("metrics", [metric(before, 1, "a", unit="ms", metric_name="Old")])
        ids += rows.add("metrics", [metric(NOW, 2, "a"), metric(NOW, 3, "a", project_id="p")])
        ids += rows.add("metrics", [metric(NOW, 4, "b", metadata={"host": "x"})], as_file=True)
        answer = ask(store, "/metrics")
        assert [row["id"] for row in answer["rows"]] == ids[::-1]
        assert answer["rows"][0]["metadata"] == {"host": "x"}
        named = [(m["project_id"], m["metric_id"], m["last"]) for m in answer["metrics"]]
        assert named == [("default", "a", 2.0), ("default", "b", 4.0), ("p", "a", 3.0)]
        first = answer["metrics"][0]
        assert (first["metric_name"], first["unit"], first["count"]) == ("Metric", "ms", 2)
        assert first["first_time"] == "2026-11-18T12:00:00.000000Z"
        assert answer["metrics_truncated"] is False
        answer = ask(store, "/metrics", metric_id="a", project="default", since="now-1d")
        assert [row["id"] for row in answer["rows"]] == ids[1:2]
        assert [m["count"] for m in answer["metrics"]] == [1]
        answer = ask(store, "/metrics", q="host:x")
        assert [m["metric_id"] for m in answer["metrics"]] == ["b"]
        answer = ask(store, "/metrics", q="metric_id:a", limit="2")
        more = ask(store, "/metrics", q="metric_id:a", cursor=answer["cursor"])
        assert [row["id"] for row in more["rows"]] == ids[:1]
        assert "metrics" not in more
        answer = ask(store, "/metrics", q="c:sum(value) c:group_by(t::day, metric_id)")
        assert [row[1:] for row in answer["chart"]["rows"]][-2:] == [["a", 5.0], ["b", 4.0]]


def test_numbers_that_are_too_large_are_null(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        Rows(store).add("metrics", [metric(NOW, 1.7e308), metric(NOW, 1.7e308)])
        (point,) = series(store)["points"]
        assert (point["sum"], point["max"]) == (None, 1.7e308)


@pytest.mark.parametrize("metric_id", ["", "a/b", "';--", "\x00", "é\U0001f600", "x" * 300])
def test_a_metric_nobody_sent_has_no_points(tmp_path: Path, metric_id: str) -> None:
    with opened(tmp_path) as store:
        answer = series(store, metric_id, group_by="m.x")
        assert (answer["points"], answer["metric_name"]) == ([], None)


@pytest.mark.parametrize(
    "text", ["", " ", "*", "t", "time", "a b", "a@b", "m.", "m.x:1", "c:count(*)", "-a", "a s:b"]
)
def test_a_group_that_is_no_field_is_refused(tmp_path: Path, text: str) -> None:
    with opened(tmp_path) as store, pytest.raises(InvalidField) as caught:
        ask(store, EVENTS, group_by=text)
    assert caught.value.field == "group_by"


def test_wrong_series_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        with pytest.raises(InvalidField):
            ask(store, EVENTS, interval="minute")
        with pytest.raises(InvalidField):
            ask(store, EVENTS, nonsense="1")
        with pytest.raises(QueryError):
            ask(store, EVENTS, filter="a:")
        for query in ("c:count(*)", "s:action"):
            with pytest.raises(RequestError):
                series(store, filter=query)


@pytest.mark.parametrize("interval", ["hour", "day", "week", "month"])
def test_a_series_reaches_both_ends_of_the_calendar(tmp_path: Path, interval: str) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        ends = [at("1970-01-01T00:00:00"), at("9999-12-31T23:59:59")]
        rows.add("events", [event(time) for time in ends])
        for since in ("0001-01-01", "now-999999999w"):
            assert len(ask(store, EVENTS, interval=interval, since=since)["points"]) == 2
        assert ask(store, EVENTS, interval=interval, until="0001-01-01")["points"] == []


def test_a_first_page_tells_where_a_tail_goes_on(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        assert ask(store, "/logs")["position"].startswith("0.")
        rows.add("logs", [log(NOW)] * 3)
        store.ledger.take_commit_numbers(5)  # handed out, and rolled back
        answer = ask(store, "/logs", limit="2")
        assert answer["position"].startswith("1.")
        assert "position" not in ask(store, "/logs", cursor=answer["cursor"])
