"""Names and units of metrics: a change of either is a warning on the metric (contract 3.3).

Why it exists: a metric whose unit goes from ms to s is stored as sent, and its chart then lies. The
request is right by itself, so nothing is refused; the change is counted, and shown to whoever looks
after the metric.

1. Only what was stored is looked at. A unit that is absent says nothing and changes nothing.
2. At most `_METRICS_MAX` metrics are known; the one that was named longest ago goes first. After a
   start nothing is known: a change over a restart is not seen.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Iterable

from msgspec import Struct

from ..protocol.metrics import Metric, labels

__all__ = ["LabelWarning", "MetricLabels"]

_METRICS_MAX = 10_000


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


class MetricLabels:
    """What each metric was called last, and how often that changed."""

    def __init__(self, metrics_max: int = _METRICS_MAX) -> None:
        self._metrics_max = metrics_max
        self._known: OrderedDict[tuple[str, str], tuple[str, str | None]] = OrderedDict()
        self._warnings: dict[tuple[str, str], LabelWarning] = {}
        self._changes: Counter[str] = Counter()

    def see(self, project: str, metrics: Iterable[Metric]) -> None:
        """Take note of stored metrics."""
        known = self._known
        for metric_id, name, unit in labels(metrics):
            key = (project, metric_id)
            before = known.get(key)
            if before is None:
                self._remember(key, name, unit)
            elif before[0] != name or (before[1] != unit and unit is not None):
                self._change(key, before, name, unit)
            else:
                known.move_to_end(key)

    def warnings(self) -> list[LabelWarning]:
        """The newest change first."""
        return sorted(self._warnings.values(), key=lambda warning: -warning.changed_at)

    def warning_of(self, project: str, metric_id: str) -> str | None:
        """What has changed about a metric, as a sentence; None: nothing. Safe from any thread."""
        warning = self._warnings.get((project, metric_id))
        if warning is None:
            return None
        if warning.unit != warning.previous_unit:
            return (
                f"its unit changed from {warning.previous_unit or 'none'} to "
                f"{warning.unit or 'none'} ({warning.unit_changes} changes of the unit so far)"
            )
        return (
            f"its name changed from {warning.previous_name!r} to {warning.name!r} "
            f"({warning.name_changes} changes of the name so far)"
        )

    def statistics(self) -> dict[str, object]:
        by_project = {"by_project": dict(self._changes)}
        return {"metrics": len(self._known), "changes_total": by_project}

    def _remember(self, key: tuple[str, str], name: str, unit: str | None) -> None:
        self._known[key] = (name, unit)
        if len(self._known) > self._metrics_max:
            forgotten, _ = self._known.popitem(last=False)
            self._warnings.pop(forgotten, None)

    def _change(
        self, key: tuple[str, str], before: tuple[str, str | None], name: str, unit: str | None
    ) -> None:
        old_name, old_unit = before
        unit = old_unit if unit is None else unit
        self._known[key] = (name, unit)
        self._known.move_to_end(key)
        is_unit_changed = old_unit is not None and unit != old_unit
        if name == old_name and not is_unit_changed:
            return  # its first unit
        project, metric_id = key
        warning = self._warnings.get(key)
        if warning is None:
            warning = LabelWarning(project, metric_id, name, unit, old_name, old_unit)
            self._warnings[key] = warning
        warning.previous_name, warning.previous_unit = old_name, old_unit
        warning.name, warning.unit = name, unit
        warning.name_changes += name != old_name
        warning.unit_changes += is_unit_changed
        warning.changed_at = time.time()
        self._changes[project] += 1
