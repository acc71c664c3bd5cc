"""Actor snapshots as Prometheus metrics, so that an actor only returns plain dictionaries.

`statistics()` gives one mapping per actor; `ingester_<actor>_<name>` is the metric.

| in the snapshot | becomes |
|---|---|
| `"depth": 3` (int, float, bool) | gauge `ingester_<actor>_depth` |
| `"rows_total": 3` (name ends in `_total`) | counter `ingester_<actor>_rows_total` |
| `"wal": {"bytes": 3}` | gauge `ingester_<actor>_wal_bytes` |
| `"flushes_total": {"by_reason": {"rows": 3}}` | `ingester_<actor>_flushes_total{reason="rows"}` |
| `"requests_total": {"by_door": {"natero": {"by_status": {"200": 3}}}}` | both labels |
| text, None, sequences | nothing: for `/api/v1/status` only |

Names used across actors: `requests_total` by door and status, `rejects_total` by reason and
source, `channel_depth` and `blocked_seconds_total` by edge, `journal` `lag_records` and
`lag_bytes`, `flushes_total` by reason.

Invariants:

1. Labels are a closed list, and their values short plain words: no key, no payload, nothing a
   client can make up at will. A value that is none, looks like an issued key, or comes after the
   first `LABEL_VALUES_MAX` of its family counts under `other`, so sums stay right.
2. A snapshot that breaks these rules costs its own samples, never the scrape.
3. The registry is our own; importing another package adds nothing to it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from ingester.logs import mask_text

__all__ = [
    "LABELS",
    "LABEL_VALUES_MAX",
    "METRICS_CONTENT_TYPE",
    "StatisticsCollector",
    "make_registry",
    "metrics_text",
]

METRICS_CONTENT_TYPE = CONTENT_TYPE_LATEST

# Every label there is; `source` and `project` are named by the operator, the others are words of
# this package.
LABELS = frozenset({
    "actor",
    "door",
    "edge",
    "encoding",
    "kind",
    "lane",
    "listener",
    "outcome",
    "project",
    "reason",
    "result",
    "source",
    "state",
    "status",
    "table",
})

# Series are memory in whoever scrapes; a family has at most this many values of a label.
LABEL_VALUES_MAX = 200

_OTHER = "other"
_LABEL_VALUE = re.compile(r"[A-Za-z0-9 ._:/>-]{1,64}")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_BY = "by_"

Snapshot = Mapping[str, Mapping[str, object]]
_Labels = tuple[tuple[str, str], ...]


class StatisticsCollector(Collector):
    """Reads a snapshot at every scrape."""

    def __init__(self, statistics: Callable[[], Snapshot]) -> None:
        self._statistics = statistics
        self._log = structlog.get_logger("ingester.console")
        self._reported: set[str] = set()

    def collect(self) -> Iterable[Metric]:
        families: dict[str, dict[_Labels, float]] = {}
        skipped = 0
        for actor, snapshot in self._statistics().items():
            for name, labels, value in _samples((actor,), (), snapshot):
                if not _NAME.fullmatch(name) or not all(label in LABELS for label, _ in labels):
                    skipped += 1
                    self._report(name)
                    continue
                family = families.setdefault(f"ingester_{name}", {})
                place = labels if labels in family else _bounded(family, labels)
                family[place] = family.get(place, 0.0) + value
        for name, samples in families.items():
            yield _family(name, samples)
        yield GaugeMetricFamily(
            "ingester_metrics_skipped", "Statistics that cannot be shown as metrics.", skipped
        )

    def describe(self) -> Iterable[Metric]:
        """Nothing at registration: the actors do not run yet."""
        return ()

    def _report(self, name: str) -> None:
        if name not in self._reported and len(self._reported) < LABEL_VALUES_MAX:
            self._reported.add(name)
            self._log.warning(
                "a statistic is no metric: its name or label is not allowed", name=name
            )


def make_registry(statistics: Callable[[], Snapshot]) -> CollectorRegistry:
    """A registry with the actors' figures and those of the process (memory, descriptors, CPU)."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StatisticsCollector(statistics))
    ProcessCollector(registry=registry)
    return registry


def metrics_text(registry: CollectorRegistry) -> bytes:
    """The Prometheus text format; its type is `METRICS_CONTENT_TYPE`."""
    return generate_latest(registry)


def _samples(
    path: tuple[str, ...], labels: _Labels, value: object
) -> Iterator[tuple[str, _Labels, float]]:
    """Every number of a snapshot with the name and the labels its place gives it."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            key_text = str(key)
            if key_text.startswith(_BY) and isinstance(item, Mapping):
                label = key_text.removeprefix(_BY)
                for label_value, inner in item.items():
                    pair = (label, _label_value(label_value))
                    yield from _samples(path, (*labels, pair), inner)
            else:
                yield from _samples((*path, key_text), labels, item)
    elif isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        yield "_".join(path), labels, number


def _label_value(value: object) -> str:
    text = str(value)
    if _LABEL_VALUE.fullmatch(text) and mask_text(text) == text:
        return text
    return _OTHER


def _bounded(family: Mapping[_Labels, float], labels: _Labels) -> _Labels:
    """`labels`, each value replaced by `other` once its label has enough of them."""
    if len(family) < LABEL_VALUES_MAX:
        return labels
    known: dict[str, set[str]] = {}
    for series in family:
        for label, value in series:
            known.setdefault(label, set()).add(value)
    return tuple(
        (
            label,
            value
            if value in known.get(label, ()) or len(known.get(label, ())) < LABEL_VALUES_MAX
            else _OTHER,
        )
        for label, value in labels
    )


def _family(name: str, samples: Mapping[_Labels, float]) -> Metric:
    help_text = name.removeprefix("ingester_").replace("_", " ") + "."
    is_counter = name.endswith("_total")
    metric = (
        CounterMetricFamily(name, help_text) if is_counter else GaugeMetricFamily(name, help_text)
    )
    for labels, value in samples.items():
        metric.add_sample(name, dict(labels), value)
    return metric
