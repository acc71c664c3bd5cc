"""Series out of rollups: the same points as out of rows, whatever is asked for."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ingester.errors import InvalidField
from ingester.search import series as series_module
from ingester.store.rollups import Rollups
from tests.search.rows import NOW, Rows, ask, at, event, metric
from tests.store.recount import add_some
from tests.store.stores import opened, rows

EVENTS = "/events/timeseries"
POINTS = "/metrics/{metricId}/timeseries"
SINCE = "2025-12-01"

FILTERS = (
    "",
    "action:login",
    "account_id:a",
    "f:shop",
    "f:shop action:feature account_id:ab",
    "-action:feature",
    "action:~identify",
    "account_id:a action:feature",
)


def both(store: Any, rollups: Rollups, path: str, **parameters: Any) -> dict[str, Any]:
    """An answer out of rollups, after it was compared with that out of rows."""
    names = {"metricId": "m1"}
    told = ask(store, path, names, rollups=rollups, **parameters)
    counted = ask(store, path, names, **parameters)
    assert told["answered_from"] == "rollups", parameters
    assert counted["answered_from"] == "rows"
    for answer in (told, counted):
        for name in ("cost", "answered_from", "complete_up_to"):
            answer.pop(name, None)
    assert told == counted, parameters
    return told


@pytest.mark.parametrize("interval", ["hour", "day", "week", "month"])
def test_events_out_of_rollups_are_those_out_of_rows(tmp_path: Path, interval: str) -> None:
    chance = random.Random(interval)
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        for _ in range(4):
            add_some(made, chance, 40)
        for asked in FILTERS:
            for group in ({}, {"group_by": "action"}, {"group_by": "account_id"}):
                found = both(
                    store, rollups, EVENTS, interval=interval, q=asked, since=SINCE, **group
                )
                assert found["points"] or asked


@pytest.mark.parametrize("interval", ["hour", "day"])
def test_a_span_may_begin_and_end_within_a_period(tmp_path: Path, interval: str) -> None:
    chance = random.Random(interval)
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        for _ in range(4):
            add_some(made, chance, 40)
        for since, until in (
            ("2026-11-01T00:10:00", "2026-11-01T00:50:00"),
            ("2026-11-01T00:10:00", "2026-11-07T01:00:00"),
            ("2026-11-01T01:00:00", "2026-11-07T00:20:00"),
            ("2026-11-01T00:20:00", "2026-12-24T00:20:00.000001"),
        ):
            for group in ({}, {"group_by": "source"}):
                both(store, rollups, EVENTS, interval=interval, since=since, until=until, **group)
                both(store, rollups, POINTS, interval=interval, since=since, until=until)


@pytest.mark.parametrize("interval", ["hour", "day", "week", "month"])
def test_metrics_out_of_rollups_are_those_out_of_rows(tmp_path: Path, interval: str) -> None:
    chance = random.Random(interval)
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        for _ in range(4):
            add_some(made, chance, 40)
        for extra in ({}, {"group_by": "project_id"}, {"project": "default"}, {"q": "f:default"}):
            assert both(store, rollups, POINTS, interval=interval, since=SINCE, **extra)["points"]
            both(store, rollups, POINTS, interval=interval, percentiles="50,99.9", **extra)


def test_rare_groups_are_gathered_and_nobody_of_them_counts_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series_module, "GROUPS_MAX", 2)
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        made.add("events", [event(NOW, action) for action in "aaabbcd"])
        made.add("events", [event(NOW, "e", account_id=name) for name in "wxyz"])
        for interval in ("hour", "day", "week"):
            for group in ("action", "account_id"):
                found = both(store, rollups, EVENTS, interval=interval, group_by=group)
                assert len(found["points"]) == 3


def test_what_rollups_do_not_tell_comes_from_rows(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        made.add("events", [event(NOW, body={"plan": "x"}), event(NOW - timedelta(days=9))])
        made.add("metrics", [metric(NOW, 1, metadata={"host": "x"})])
        asked: tuple[dict[str, str], ...] = (
            {"q": "plan:x"},
            {"q": "plan"},
            {"q": "user_id:ada"},
            {"group_by": "user_id"},
            {"group_by": "m.plan"},
            {"interval": "week", "since": "2026-11-03T10:00:00"},
        )
        for parameters in asked:
            answer = ask(store, EVENTS, rollups=rollups, **parameters)
            assert (answer["answered_from"], len(answer["points"]) > 0) == ("rows", True)
        names = {"metricId": "m1"}
        for parameters in ({"filter": "host:x"}, {"group_by": "metadata.host"}):
            answer = ask(store, POINTS, names, rollups=rollups, **parameters)
            assert answer["answered_from"] == "rows"


def test_an_answer_holds_what_was_committed_before_it(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        for count in range(1, 4):
            made.add("events", [event(NOW)])
            before = rows(store, "SELECT now() AT TIME ZONE 'UTC'")[0][0].isoformat()
            answer = ask(store, EVENTS, rollups=rollups)
            assert answer["points"][0]["events"] == count
            assert answer["complete_up_to"] > before


def test_percentiles_are_told_while_all_rows_are_there(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        made.add("metrics", [metric(NOW, value) for value in range(101)])
        made.add("metrics", [metric(NOW - timedelta(days=1), 5)])
        names = {"metricId": "m1"}
        answer = ask(store, POINTS, names, rollups=rollups, percentiles="50, 99")
        assert answer["points"][-1]["percentiles"] == {"p50": 50.0, "p99": 99.0}
        with store.database.lease() as lease, lease.using() as cursor:
            cursor.execute("DELETE FROM part_000001.metrics WHERE value = 100")
        answer = ask(store, POINTS, names, rollups=rollups, percentiles="50")
        assert [point["percentiles"] for point in answer["points"]] == [{"p50": 5.0}, None]
        assert answer["points"][-1]["max"] == 100.0
        for text in ("101", "-1", "x", "nan", "1,2,3,4,5,6,7,8,9,10,11"):
            with pytest.raises(InvalidField):
                ask(store, POINTS, names, percentiles=text)


def test_metrics_are_listed_of_all_time(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        made.add("metrics", [metric(at("2020-01-01T00:00:00"), 1, "old", unit="s")])
        made.add("metrics", [metric(NOW, 2, "b", unit="ms"), metric(NOW, 3, "b")])
        answer = ask(store, "/metrics", rollups=rollups)
        told = [(m["metric_id"], m["last"], m["unit"], m["count"]) for m in answer["metrics"]]
        assert told == [("b", 3.0, None, 2), ("old", 1.0, "s", 1)]
        (only,) = ask(store, "/metrics", rollups=rollups, metric_id="old")["metrics"]
        assert only["first_time"] == only["last_time"] == "2020-01-01T00:00:00.000000Z"


def test_users_and_accounts_are_paged_and_found(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        said = {"details": {"name": "Ada", "gone": None}}
        made.add("events", [event(NOW, "identifyUser", body=said)])
        made.add("events", [event(NOW, "identifyAccount", body={"details": {"tier": [1]}})])
        made.add(
            "events",
            [event(NOW - timedelta(days=n), "x", user_id=f"u{n}") for n in range(5)]
            + [event(NOW, "x", account_id="b'", source='a"')],
        )
        found: list[tuple[str, str, str]] = []
        cursor: dict[str, str] = {}
        while True:
            page = ask(store, "/users", rollups=rollups, limit="2", **cursor)
            found += [(u["source"], u["account_id"], u["user_id"]) for u in page["users"]]
            if page["cursor"] is None:
                break
            cursor = {"cursor": page["cursor"]}
        assert found == sorted(rows(store, "SELECT source, account_id, user_id FROM users"))
        (ada,) = ask(store, "/users", rollups=rollups, user_id="ada", account_id="acme")["users"]
        assert ada["details"] == {"name": "Ada"}
        page = ask(store, "/users", rollups=rollups, seen_until="2026-11-19")
        assert [user["user_id"] for user in page["users"]] == ["u3", "u4"]
        page = ask(store, "/users", rollups=rollups, seen_since="now-1d")
        assert "u2" not in {user["user_id"] for user in page["users"]}
        page = ask(store, "/accounts", rollups=rollups)
        assert [(a["account_id"], a["details"]) for a in page["accounts"]] == [
            ("b'", {}),
            ("acme", {"tier": [1]}),
        ]
        page = ask(store, "/accounts", rollups=rollups, limit="1")
        page = ask(store, "/accounts", rollups=rollups, limit="1", cursor=page["cursor"])
        assert (page["accounts"][0]["account_id"], page["cursor"]) == ("acme", None)
        # A part of an id or of what was said last, in any case; a key that was taken back is none.
        for text, users, accounts in (
            ("ADA", ["ada"], []),
            ("U", ["u0", "u1", "u2", "u3", "u4"], []),
            ("b'", [], ["b'"]),
            ("[1]", [], ["acme"]),
            ("null", [], []),
        ):
            page = ask(store, "/users", rollups=rollups, search=text)
            people = [user for user in page["users"] if user["account_id"] == "acme"]
            assert [user["user_id"] for user in people] == users, text
            page = ask(store, "/accounts", rollups=rollups, search=text)
            assert [each["account_id"] for each in page["accounts"]] == accounts, text
        for text in ("x", "W10", ""):
            with pytest.raises(InvalidField):
                ask(store, "/users", rollups=rollups, cursor=text)
