"""Snapshots of actors as Prometheus text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import ingester
from ingester.console.connection import ConsoleCounters
from ingester.console.metrics import LABEL_VALUES_MAX, LABELS, make_registry, metrics_text

Sample = tuple[str, frozenset[tuple[str, str]]]


def scraped(snapshot: Mapping[str, Mapping[str, object]]) -> dict[Sample, float]:
    """Every sample of ours, as a strict reader sees it."""
    text = metrics_text(make_registry(lambda: snapshot)).decode()
    names = [family.name for family in text_string_to_metric_families(text)]
    assert len(names) == len(set(names))
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("ingester_")
    }


def sample(name: str, **labels: str) -> Sample:
    return name, frozenset(labels.items())


def kind(snapshot: Mapping[str, Mapping[str, object]], name: str) -> str:
    text = metrics_text(make_registry(lambda: snapshot)).decode()
    (line,) = [line for line in text.splitlines() if line.startswith(f"# TYPE {name} ")]
    return line.rsplit(" ", 1)[1]


def test_every_label_that_a_snapshot_of_ours_names_is_one() -> None:
    """One that is none costs its figures: deliveries and queries by outcome were nowhere."""
    sources = Path(ingester.__file__).parent.rglob("*.py")
    named = {name for path in sources for name in re.findall(r'"by_(\w+)"', path.read_text())}
    assert {"outcome", "reason"} <= named <= LABELS


def test_numbers_become_gauges_and_totals_counters() -> None:
    snapshot = {"loader": {"rows_total": 7, "depth": 2.5, "open": True}}
    assert scraped(snapshot) == {
        sample("ingester_loader_rows_total"): 7,
        sample("ingester_loader_depth"): 2.5,
        sample("ingester_loader_open"): 1,
        sample("ingester_metrics_skipped"): 0,
    }
    assert kind(snapshot, "ingester_loader_rows_total") == "counter"
    assert kind(snapshot, "ingester_loader_depth") == "gauge"


def test_nested_names_are_joined_and_text_is_left_out() -> None:
    snapshot = {"store": {"wal": {"bytes": 3}, "path": "/data", "last": None, "parts": [1, 2]}}
    assert sample("ingester_store_wal_bytes") in scraped(snapshot)
    assert len(scraped(snapshot)) == 2


def test_by_keys_become_labels() -> None:
    snapshot = {
        "intake": {
            "requests_total": {
                "by_door": {
                    "natero": {"by_status": {"200": 5, "400": 1}},
                    "test": {"by_status": {200: 2}},
                }
            },
            "rejects_total": {
                "by_reason": {"invalid_json": {"by_source": {"shop.eu-1": 4}}},
            },
        },
        "topology": {
            "channel_depth": {"by_edge": {"intake -> journal": 3}},
            "blocked_seconds_total": {"by_edge": {"intake -> journal": 0.5}},
        },
        "journal": {"flushes_total": {"by_reason": {"rows": 2, "linger": 9}}, "lag_records": 1},
    }
    samples = scraped(snapshot)
    assert samples[sample("ingester_intake_requests_total", door="natero", status="200")] == 5
    assert samples[sample("ingester_intake_requests_total", door="test", status="200")] == 2
    assert (
        samples[sample("ingester_intake_rejects_total", reason="invalid_json", source="shop.eu-1")]
        == 4
    )
    assert samples[sample("ingester_topology_channel_depth", edge="intake -> journal")] == 3
    assert samples[sample("ingester_journal_flushes_total", reason="linger")] == 9
    assert kind(snapshot, "ingester_topology_blocked_seconds_total") == "counter"


def test_the_consoles_own_counters_fit() -> None:
    counters = ConsoleCounters()
    counters.answered("console", 200)
    samples = scraped({"console": counters.snapshot()})
    assert samples[sample("ingester_console_requests_total", listener="console", status="200")] == 1
    assert samples[sample("ingester_metrics_skipped")] == 0


@pytest.mark.parametrize(
    "value",
    [
        "q7Zt0VbXy2LmNc8RkWfJdH3sPgAe",
        "/v1/hunter2/hunter3",
        "token=hunter2",
        'quote"',
        "line\nend",
        "",
        "é",
        "x" * 65,
        '{"accountId": 1}',
        b"\xff",
        ("a", 1),
    ],
)
def test_a_label_value_that_is_no_plain_word_counts_under_other(value: object) -> None:
    snapshot = {"intake": {"rejects_total": {"by_source": {"shop": 1, value: 2}}}}
    samples = scraped(snapshot)  # type: ignore[arg-type]
    assert samples[sample("ingester_intake_rejects_total", source="shop")] == 1
    assert samples[sample("ingester_intake_rejects_total", source="other")] == 2
    text = metrics_text(make_registry(lambda: snapshot))  # type: ignore[arg-type,return-value]
    assert b"hunter" not in text
    assert b"q7Zt0" not in text


def test_a_family_is_bounded_and_keeps_its_sum() -> None:
    count = LABEL_VALUES_MAX + 50
    snapshot = {
        "intake": {"rejects_total": {"by_source": {f"s{number}": 1 for number in range(count)}}}
    }
    samples = scraped(snapshot)
    assert len(samples) == LABEL_VALUES_MAX + 2
    assert samples[sample("ingester_intake_rejects_total", source="other")] == 50


def test_two_labels_are_bounded_each() -> None:
    count = LABEL_VALUES_MAX + 50
    snapshot = {
        "intake": {
            "rejects_total": {
                "by_source": {
                    f"s{number}": {"by_reason": {"too_long": 1, "too_deep": 1}}
                    for number in range(count)
                }
            }
        }
    }
    samples = scraped(snapshot)
    assert sum(samples.values()) == 2 * count
    sources = {dict(labels)["source"] for name, labels in samples if labels}
    assert len(sources) <= LABEL_VALUES_MAX + 1


@pytest.mark.parametrize(
    "snapshot",
    [
        {"intake": {"Bad-Name": 1, "good": 1}},
        {"intake": {"x": {"by_api_key": {"abc": 1}}, "good": 1}},
        {"intake": {"hits": {"by_path": {"/v1/a/b": 1}}, "good": 1}},
        {"intake": {"é": 1, "good": 1}},
    ],
)
def test_what_is_not_allowed_costs_its_own_samples_only(
    snapshot: dict[str, dict[str, object]], capfd: pytest.CaptureFixture[str]
) -> None:
    samples = scraped(snapshot)
    assert samples == {
        sample("ingester_intake_good"): 1,
        sample("ingester_metrics_skipped"): 1,
    }
    assert "is no metric" in "".join(capfd.readouterr())


def test_equal_names_are_one_family_and_summed() -> None:
    snapshot = {
        "a": {"x_total": {"by_door": {"natero": 1}, "plain": 3}, "b_c": 1},
        "a_b": {"c": 2, "huge": 10**400},
    }
    samples = scraped(snapshot)
    assert samples[sample("ingester_a_b_c")] == 3
    assert samples[sample("ingester_a_x_total_plain")] == 3
    assert samples[sample("ingester_a_b_huge")] == float("inf")


def test_the_process_is_described_and_nothing_of_other_registries() -> None:
    text = metrics_text(make_registry(dict)).decode()
    assert "\nprocess_resident_memory_bytes " in text
    assert "python_gc" not in text
