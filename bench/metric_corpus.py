"""Seeded requests to the metric door, one a line: a project and so many metrics.

Half of the metrics have a unit, a third a metadata object; times lie in January 2026, so that none
is ever in the future. The same bytes everywhere, as `corpus.py` promises.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from bench.corpus import Corpus, cached_corpus

__all__ = ["PROJECT_ID", "metric_blocks", "metric_corpus"]

PROJECT_ID = "default"

_VERSION = 1
_SEED = 20260713
_START_MS = 1_767_225_600_000  # 2026-01-01
_NAMES = ("Response time", "Queue depth", "Heap used", "Öffnungen", "Orders", "Temperature")
_UNITS = ("ms", "jobs", "MB", "%")


def metric_corpus(requests: int, metrics: int) -> Corpus:
    """`requests` bodies with `metrics` metrics each; the corpus counts requests as events."""
    name = f"metrics-v{_VERSION}-{requests}x{metrics}"
    return cached_corpus(name, lambda: metric_blocks(requests, metrics), requests, 0)


def metric_blocks(requests: int, metrics: int) -> Iterator[bytes]:
    """One request a block."""
    bits = random.Random(_SEED).getrandbits
    time_ms = _START_MS
    for _ in range(requests):
        time_ms += bits(8)
        found = ",".join(_metric(bits, time_ms) for _ in range(metrics))
        yield f'{{"projectId":"{PROJECT_ID}","metrics":[{found}]}}\n'.encode()


def _metric(bits: Callable[[int], int], time_ms: int) -> str:
    kind = bits(8) % len(_NAMES)
    unit = f',"unit":"{_UNITS[bits(2)]}"' if bits(1) else ""
    draw = bits(8)
    host = f',"metadata":{{"host":"node-{bits(6):02d}","zone":"z{bits(2)}"}}' if draw < 85 else ""
    return (
        f'{{"metricId":"m{kind}.{bits(6)}","metricName":"{_NAMES[kind]}",'
        f'"value":{bits(12)}.{bits(10):04d}{unit},"timestamp":{time_ms}{host}}}'
    )
