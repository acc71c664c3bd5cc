"""Histograms and fields: what a range holds without its rows."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from ingester.search import histogram as histogram_module
from ingester.search.histogram import bucket_seconds
from tests.search.rows import NOW, Rows, ask, at, event, log
from tests.store.stores import opened


def test_a_histogram_counts_every_row_of_the_range_by_level(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        for n, level in enumerate(["info", "error", "info"]):
            made = [log(NOW - timedelta(hours=h), level=level) for h in range(50)]
            rows.add("logs", made, as_file=n == 1)
        answer = ask(store, "/logs/histogram")
        assert answer["group"] == "level"
        assert answer["count"] == 3 * 49
        assert answer["bucket_seconds"] == 1_800
        assert sum(bucket["groups"]["error"] for bucket in answer["buckets"]) == 49
        assert all(one["time"] < two["time"] for one, two in pairwise(answer["buckets"]))
        assert ask(store, "/logs/histogram", q="level:error")["count"] == 49
        assert ask(store, "/logs/histogram", q="level:alert")["buckets"] == []
        assert ask(store, "/logs/histogram", since="now-1m", until="now")["buckets"] == []


def test_rare_actions_are_gathered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histogram_module, "_GROUPS_MAX", 2)
    with opened(tmp_path) as store:
        actions = ["a"] * 5 + ["b"] * 3 + ["c", "d"]
        Rows(store).add("events", [event(NOW, action) for action in actions])
        (bucket,) = ask(store, "/events/histogram")["buckets"]
        assert bucket["groups"] == {"a": 5, "b": 3, "(other)": 2}


def test_a_range_without_an_end_is_shown_where_there_are_rows(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        rows.add("events", [event(at("1970-01-01T00:00:00")), event(at("9999-01-01T00:00:00"))])
        rows.add("events", [event(NOW)])
        answer = ask(store, "/events/histogram", q="t:<9999-12-31")
        assert answer["count"] == 3
        assert len(answer["buckets"]) == 2
        assert ask(store, "/events/histogram")["count"] == 2


@pytest.mark.parametrize("days", [0.00001, 0.1, 1, 2, 7, 31, 365, 3_650, 3_000_000])
def test_a_histogram_has_a_bounded_number_of_buckets(days: float) -> None:
    assert 0 < timedelta(days=days).total_seconds() / bucket_seconds(timedelta(days=days)) <= 120


def test_fields_tell_nested_names_their_share_and_values(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        rows = Rows(store)
        made = [
            log(
                NOW - timedelta(seconds=n),
                level="error" if n < 3 else "info",
                attributes={
                    "user": {"id": n % 2, "e mail": None},
                    "items": [{"sku": "x"}, {"sku": "y"}],
                    **({"rare": True} if n == 0 else {}),
                    "flat.key": 1.50,
                },
            )
            for n in range(10)
        ]
        rows.add("logs", made[:5])
        rows.add("logs", made[5:], as_file=True)
        answer = ask(store, "/logs/fields")
        assert (answer["sampled"], answer["sample_max"]) == (10, 1_000)
        fields = {field["name"]: field for field in answer["fields"]}
        assert fields["level"]["values"] == [
            {"value": "info", "count": 7},
            {"value": "error", "count": 3},
        ]
        assert fields["metadata.user.id"]["values"] == [
            {"value": 0, "count": 5},
            {"value": 1, "count": 5},
        ]
        assert fields["metadata.items.sku"]["share"] == 1.0
        assert fields["metadata.items.sku"]["values"][0] == {"value": "x", "count": 10}
        assert (fields["metadata.rare"]["share"], fields["metadata.rare"]["types"]) == (
            0.1,
            ["BOOLEAN"],
        )
        assert fields["metadata.user.`e mail`"]["values"] == [{"value": None, "count": 10}]
        assert fields["metadata.flat.key"]["values"] == [{"value": 1.5, "count": 10}]
        assert ask(store, "/logs/fields", q="level:alert")["fields"] == []


def test_fields_of_payloads_that_are_no_objects(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        payloads = ['"text"', "5", "null", "[1, [2]]", "{}", '{"": 1, "\\"": 2, "é": 3}']
        Rows(store).add("logs", [log(NOW, attributes=payload) for payload in payloads])
        names = {field["name"] for field in ask(store, "/logs/fields")["fields"]}
        assert "metadata.é" in names
