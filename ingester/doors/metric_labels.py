"""Names and units of metrics: a change of either is a warning on the metric (contract 3.3).

Why it exists: a metric whose unit goes from ms to s is stored as sent, and its chart then lies. The
request is right by itself, so nothing is refused; the change is counted, and shown to whoever looks
after the metric.

1. Only what was stored is looked at. A unit that is absent says nothing and changes nothing.
2. At most `_METRICS_MAX` metrics are known; those that were named longest ago go first, some at a
   time. After a start nothing is known: a change over a restart is not seen.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from heapq import nsmallest

from msgspec import Struct

from ..protocol.metrics import Metric

__all__ = ["LabelWarning", "MetricLabels"]

_METRICS_MAX = 10_000
# Finding the oldest looks at all of them.
_FORGOTTEN_SHARE = 8


class LabelWarning(Struct):
    """A metric whose name or unit has changed, as last sent and before that."""

    project: str
    metric_id: str
    name: str
    unit: str | None
    previous_name: str
    previous_unit: str | None
    name_changes: int = 0
    unit_changes: int = 0
    changed_at: float = 0.0

    def __repr__(self) -> str:
        return f"LabelWarning({self.name_changes} names, {self.unit_changes} units)"


class _Label:
    """What a metric is called, was called before, and how often that changed.

    Plain slots: setting an attribute of a Struct costs three times as much.
    """

    __slots__ = (
        "changed_at",
        "name",
        "name_changes",
        "named_at",
        "previous_name",
        "previous_unit",
        "unit",
        "unit_changes",
    )

    def __init__(self, name: str, unit: str | None, named_at: int) -> None:
        self.name = self.previous_name = name
        self.unit = self.previous_unit = unit
        self.named_at = named_at  # a count of all namings
        self.name_changes = self.unit_changes = 0
        self.changed_at = 0.0

    def change(self, name: str, unit: str | None, now: float) -> bool:
        """False for what is no change: its first unit."""
        old_name, old_unit = self.name, self.unit
        self.name = name
        if unit is not None:
            self.unit = unit
        is_unit_changed = old_unit is not None and self.unit != old_unit
        if name == old_name and not is_unit_changed:
            return False
        self.previous_name, self.previous_unit = old_name, old_unit
        self.name_changes += name != old_name
        self.unit_changes += is_unit_changed
        self.changed_at = now
        return True

    def warning(self, project: str, metric_id: str) -> LabelWarning:
        return LabelWarning(
            project,
            metric_id,
            self.name,
            self.unit,
            self.previous_name,
            self.previous_unit,
            self.name_changes,
            self.unit_changes,
            self.changed_at,
        )


class MetricLabels:
    """What each metric was called last, and how often that changed."""

    def __init__(self, metrics_max: int = _METRICS_MAX) -> None:
        self._metrics_max = metrics_max
        self._known: dict[str, dict[str, _Label]] = {}
        self._known_count = 0
        self._named_count = 0
        self._changes: Counter[str] = Counter()

    def see(self, project: str, metrics: Iterable[Metric]) -> None:
        """Take note of stored metrics."""
        known = self._known.get(project)
        if known is None:
            known = self._known[project] = {}
        named_at, changes = self._named_count, 0
        now = time.time()
        for metric in metrics:
            named_at += 1
            metric_id, name, unit = metric.metricId, metric.metricName, metric.unit
            label = known.get(metric_id)
            if label is None:
                known[metric_id] = _Label(name, unit, named_at)
                self._known_count += 1
                continue
            label.named_at = named_at
            if label.name != name or (unit is not None and unit != label.unit):
                changes += label.change(name, unit, now)
        self._named_count = named_at
        if changes:
            self._changes[project] += changes
        if self._known_count > self._metrics_max:
            self._forget()

    def warnings(self) -> list[LabelWarning]:
        """The newest change first."""
        found = [
            label.warning(project, metric_id)
            for project, known in self._known.items()
            for metric_id, label in known.items()
            if label.changed_at
        ]
        return sorted(found, key=lambda warning: -warning.changed_at)

    def warning_of(self, project: str, metric_id: str) -> str | None:
        """What has changed about a metric, as a sentence; None: nothing. Safe from any thread."""
        label = self._known.get(project, {}).get(metric_id)
        if label is None or not label.changed_at:
            return None
        if label.unit != label.previous_unit:
            return (
                f"its unit changed from {label.previous_unit or 'none'} to "
                f"{label.unit or 'none'} ({label.unit_changes} changes of the unit so far)"
            )
        return (
            f"its name changed from {label.previous_name!r} to {label.name!r} "
            f"({label.name_changes} changes of the name so far)"
        )

    def statistics(self) -> dict[str, object]:
        by_project = {"by_project": dict(self._changes)}
        return {"metrics": self._known_count, "changes_total": by_project}

    def _forget(self) -> None:
        """Drop the oldest; a request may have brought a hundred."""
        count = self._known_count - self._metrics_max + self._metrics_max // _FORGOTTEN_SHARE
        ages = (
            (label.named_at, project, metric_id)
            for project, known in self._known.items()
            for metric_id, label in known.items()
        )
        for _, project, metric_id in nsmallest(count, ages):
            del self._known[project][metric_id]
            if not self._known[project]:
                del self._known[project]
        self._known_count -= count
