"""Warnings about metrics whose name or unit changes."""

from __future__ import annotations

from ingester.doors.metric_labels import MetricLabels
from ingester.protocol.metrics import Metric


def metric(ident: str = "m", name: str = "M", unit: str | None = None) -> Metric:
    return Metric(ident, name, 1.0, unit)


def test_the_first_name_and_unit_are_no_change() -> None:
    labels = MetricLabels()
    labels.see("p", [metric(), metric(unit="ms"), metric(unit="ms"), metric()])
    labels.see("other", [metric(name="N", unit="s")])
    assert labels.warnings() == []
    assert labels.statistics() == {"metrics": 2, "changes_total": {"by_project": {}}}


def test_changes_are_counted_with_what_was_before() -> None:
    labels = MetricLabels()
    labels.see("p", [metric(unit="ms")])
    labels.see("p", [metric(unit="s")])
    labels.see("p", [metric(name="N")])
    labels.see("p", [metric("x"), metric("x", "X")])
    second, first = labels.warnings()
    assert (first.metric_id, first.name, first.unit) == ("m", "N", "s")
    assert (first.previous_name, first.previous_unit) == ("M", "s")
    assert (first.name_changes, first.unit_changes) == (1, 1)
    assert (second.metric_id, second.previous_name, second.name) == ("x", "M", "X")
    assert labels.statistics()["changes_total"] == {"by_project": {"p": 3}}


def test_what_is_known_is_bounded_and_the_oldest_goes_first() -> None:
    labels = MetricLabels(metrics_max=2)
    labels.see("p", [metric("a"), metric("a", "A"), metric("b"), metric("a", "A"), metric("c")])
    assert labels.statistics()["metrics"] == 2
    labels.see("p", [metric("b", "B")])
    assert [warning.metric_id for warning in labels.warnings()] == []
    labels.see("p", [metric("c", "C")])
    assert [warning.metric_id for warning in labels.warnings()] == ["c"]
