"""Histograms out of rollups: the same buckets as out of rows, or they come from rows."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ingester.store.rollups import Rollups
from tests.search.rows import NOW, Rows, ask, at, log
from tests.search.test_rolled import FILTERS, both
from tests.store.recount import add_some
from tests.store.sealing_rows import seal_all
from tests.store.stores import opened

HISTOGRAMS = ("/logs/histogram", "/events/histogram")
LOG_FILTERS = ("", "level:error", "f:web", "-level:info", "environment:prod level:warn")


@pytest.mark.parametrize("path", HISTOGRAMS)
def test_a_histogram_by_hours_out_of_rollups_is_that_out_of_rows(tmp_path: Path, path: str) -> None:
    chance = random.Random(path)
    filters = FILTERS if "events" in path else LOG_FILTERS
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        for _ in range(4):
            add_some(made, chance, 40)
        for since, until in (
            ("2026-11-01", "2026-12-01"),
            ("2026-11-01T00:20:00", "2026-12-24T00:20:00.000001"),
            ("2026-11-01T00:20:00", "2026-11-07T01:00:00"),
        ):
            for asked in filters:
                found = both(store, rollups, path, q=asked, since=since, until=until)
                assert found["buckets"] or asked


def test_an_open_end_and_what_lies_before_the_epoch_are_in_the_histogram(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        for text in ("1969-12-31T23:30:00", "1970-01-01T00:30:00", "1960-02-03T04:05:06"):
            made.add("logs", [log(at(text))])
        old = both(store, rollups, HISTOGRAMS[0], since="1960-01-01", until="1970-02-01")
        assert [bucket["count"] for bucket in old["buckets"]] == [1, 1, 1]
        assert old["buckets"][0]["time"] < "1960-02-03T04:05:06" < old["buckets"][1]["time"]
        made.add("logs", [log(NOW), log(at("2027-03-04T05:06:07"))])
        told = ask(store, HISTOGRAMS[0], rollups=rollups, since="2026-10-01")
        counted = ask(store, HISTOGRAMS[0], since="2026-10-01")
        assert told["answered_from"] == "rollups"
        assert told["buckets"] == counted["buckets"]
        assert sum(bucket["count"] for bucket in told["buckets"]) == 2
        assert told["buckets"][-1]["time"] < told["until"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"since": "now-1h"},
        {"since": "2026-10-01", "q": "hello"},
        {"since": "2026-10-01", "q": "m.a:1"},
    ],
)
def test_a_histogram_of_minutes_or_of_texts_comes_from_rows(
    tmp_path: Path, parameters: dict[str, str]
) -> None:
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        made.add("logs", [log(NOW, attributes={"a": 1})])
        told = ask(store, HISTOGRAMS[0], rollups=rollups, **parameters)
        assert (told["answered_from"], told["count"]) == ("rows", 1)


def test_a_histogram_never_counts_rows_that_were_removed(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        made.add("logs", [log(at("2026-10-02T00:00:00"), received_at=at("2026-10-02T00:00:00"))])
        made.add("logs", [log(NOW)])
        assert both(store, rollups, HISTOGRAMS[0], since="2026-10-01")["count"] == 2
        store.rotate()
        assert seal_all(store)
        assert both(store, rollups, HISTOGRAMS[0], since="2026-10-01")["count"] == 2
        oldest = min(store.sealed.files["logs"], key=lambda file: file.received_low_us)
        store.publish_sealed(dropped=[oldest])
        told = ask(store, HISTOGRAMS[0], rollups=rollups, since="2026-10-01")
        assert (told["answered_from"], told["count"]) == ("rows", 1)


def test_a_histogram_comes_from_rows_where_rollups_lag_or_were_shortened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        made.add("logs", [log(at("2026-10-02T00:00:00")), log(NOW)])
        assert both(store, rollups, HISTOGRAMS[0], since="2026-10-01")["count"] == 2
        rollups.purge(30, now=NOW)
        told = ask(store, HISTOGRAMS[0], rollups=rollups, since="2026-10-01")
        assert (told["answered_from"], told["count"]) == ("rows", 2)
        assert both(store, rollups, HISTOGRAMS[0], since="2026-11-01")["count"] == 1
        made.add("logs", [log(NOW)])
        monkeypatch.setattr(Rollups, "catch_up", lambda self, **_: self.complete_up_to)
        told = ask(store, HISTOGRAMS[0], rollups=rollups, since="2026-11-01")
        assert (told["answered_from"], told["count"]) == ("rows", 2)
