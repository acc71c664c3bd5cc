"""Back-tests: what a monitor would have done over stored rows, by the functions that judge live."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from msgspec import Struct

from .judge import Bucket, Values, judge
from .monitors import group_of
from .settings import Monitor
from .values import bucket_of, window_of

__all__ = ["BACKTEST_BUCKETS_MAX", "Backtest", "Firing", "Sample", "backtest", "span_of"]

BACKTEST_BUCKETS_MAX = 5_000
# What an answer shows; the counts beside them are exact.
_SAMPLES_MAX = 1_000
_FIRINGS_MAX = 500
_CHUNK_BUCKETS = 500


class Sample(Struct, frozen=True, kw_only=True):
    """One group in one window."""

    window_start: str
    group: dict[str, str] | None
    value: float | None
    firing: bool


class Firing(Struct, frozen=True, kw_only=True):
    """A group that would have fired, and recovered (None: not by the end)."""

    group: dict[str, str] | None
    fired_at: str
    recovered_at: str | None
    value: float | None


class Backtest(Struct, frozen=True, kw_only=True):
    """The newest samples and firings; counts are of all. `groups_left_out`: the most that one
    window had beyond those that are told apart.
    """

    since: str
    until: str
    buckets: int
    firing_buckets: int
    firings_count: int
    groups_left_out: int
    firings: list[Firing]
    samples: list[Sample]


Read = Callable[[int, int], Mapping[int, Values]]


def span_of(monitor: Monitor, since: datetime, until: datetime) -> tuple[int, int]:
    """The whole buckets within, both included."""
    first = bucket_of(monitor, since.timestamp() + monitor.window_s - 1e-6)
    return first, bucket_of(monitor, until.timestamp()) - 1


def backtest(monitor: Monitor, first: int, last: int, read: Read, *, groups_max: int) -> Backtest:
    """Judge the buckets from `first` to `last`, beginning with nothing known."""
    samples: list[Sample] = []
    firings: list[Firing] = []
    open_: dict[str, tuple[str, float | None]] = {}
    buckets = firing_buckets = left_out = 0
    for bucket, after in _judged(monitor, first, last, read, groups_max):
        start, end = (_text(each) for each in window_of(monitor, bucket))
        buckets += 1
        left_out = max(left_out, after.overflow)
        firing_buckets += any(point.is_firing for point in after.groups.values())
        for key in [key for key in open_ if not _is_firing(after, key)]:
            fired_at, value = open_.pop(key)
            firings.append(_firing(monitor, key, fired_at, end, value))
        for key, point in after.groups.items():
            if point.is_firing and key not in open_:
                open_[key] = end, point.value
            samples.append(
                Sample(
                    window_start=start,
                    group=_group(monitor, key),
                    value=point.value,
                    firing=point.is_firing,
                )
            )
        del samples[:-_SAMPLES_MAX]
    firings += [_firing(monitor, key, at, None, value) for key, (at, value) in open_.items()]
    return Backtest(
        since=_text(window_of(monitor, first)[0]),
        until=_text(window_of(monitor, last)[1]),
        buckets=buckets,
        firing_buckets=firing_buckets,
        firings_count=len(firings),
        groups_left_out=left_out,
        firings=sorted(firings, key=lambda one: one.fired_at)[-_FIRINGS_MAX:],
        samples=samples,
    )


def _judged(
    monitor: Monitor, first: int, last: int, read: Read, groups_max: int
) -> Iterator[tuple[int, Bucket]]:
    before = Bucket()
    for begin in range(first, last + 1, _CHUNK_BUCKETS):
        end = min(begin + _CHUNK_BUCKETS - 1, last)
        values = read(begin, end)
        for bucket in range(begin, end + 1):
            before = judge(monitor, before, values.get(bucket, Values()), groups_max=groups_max)
            yield bucket, before


def _is_firing(bucket: Bucket, key: str) -> bool:
    point = bucket.groups.get(key)
    return point is not None and point.is_firing


def _firing(
    monitor: Monitor, key: str, fired_at: str, recovered_at: str | None, value: float | None
) -> Firing:
    return Firing(
        group=_group(monitor, key), fired_at=fired_at, recovered_at=recovered_at, value=value
    )


def _group(monitor: Monitor, key: str) -> dict[str, str] | None:
    found = group_of(monitor, key)
    return None if found is None else {one.name: one.value for one in found}


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
