"""Judging buckets: from values and what was judged before to what fires and what has recovered.

Pure, and the same for a live monitor, a bucket judged again for late rows, and a back-test.

1. A bucket's verdicts depend on its values and on the states after the bucket before it.
2. Judging a bucket again with the same values comes to the same states.
3. A group that was seen stays until it has been without rows for long; at most `groups_max` are
   told apart, of more those that were there first, then those with most rows.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping

from msgspec import Struct

from .settings import EventTarget, LogTarget, Monitor, RowTarget

__all__ = ["Bucket", "Point", "Values", "judge"]

# A group key is a JSON array of texts; that of a monitor without groups is empty.
ALONE = ""

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
_ABSENT_BUCKETS_MIN = 24


class Values(Struct, frozen=True):
    """What was found in one bucket: values by group, those with most rows first; and how many
    groups there were beyond them.
    """

    by_group: dict[str, float | None] = {}
    overflow: int = 0


class Point(Struct, frozen=True, array_like=True):
    """One group after one bucket. `recent`: whether the last n windows breached, oldest first.
    `absent`: for how many buckets it had no rows.
    """

    value: float | None
    is_firing: bool
    recent: tuple[bool, ...]
    absent: int = 0


class Bucket(Struct, frozen=True):
    """All groups after one bucket. `overflow`: groups that are not told apart. `is_unknown`:
    nothing could arrive in it, so it was not judged.
    """

    groups: dict[str, Point] = {}
    overflow: int = 0
    is_unknown: bool = False


def judge(
    monitor: Monitor, before: Bucket, values: Values, *, groups_max: int, is_unknown: bool = False
) -> Bucket:
    """The states after a bucket."""
    if is_unknown:
        return Bucket(before.groups, 0, True)
    groups: dict[str, Point] = {}
    known = dict(before.groups)
    if not monitor.group_by:
        known.setdefault(ALONE, Point(None, False, ()))
    for key, point in known.items():
        is_absent = key not in values.by_group
        value = _empty(monitor) if is_absent else values.by_group[key]
        absent = point.absent + 1 if is_absent else 0
        after = _step(monitor, point, value, absent)
        limit = max(_ABSENT_BUCKETS_MIN, 2 * monitor.datapoints[1])
        if not monitor.group_by or after.is_firing or after.absent <= limit:
            groups[key] = after
    overflow = values.overflow
    for key, value in values.by_group.items():
        if key in known:
            continue
        if len(groups) >= groups_max:
            overflow += 1
            continue
        groups[key] = _step(monitor, Point(None, False, ()), value, 0)
    return Bucket(groups, overflow)


def _empty(monitor: Monitor) -> float | None:
    """The value of a bucket without rows: a count is zero, and nothing else is."""
    is_count = isinstance(monitor.target, LogTarget | EventTarget | RowTarget)
    return 0.0 if is_count and monitor.operator is not None else None


def _step(monitor: Monitor, before: Point, value: float | None, absent: int) -> Point:
    m, n = monitor.datapoints
    if value is None and monitor.no_data == "keep":
        return Point(None, before.is_firing, before.recent, absent)
    is_breach = _is_breach(monitor, value)
    recent = (*before.recent, is_breach)[-n:]
    is_firing = sum(recent) >= m
    if before.is_firing and not is_firing:
        is_firing = is_breach or not _is_recovered(monitor, value)
    return Point(value, is_firing, recent, absent)


def _is_breach(monitor: Monitor, value: float | None) -> bool:
    if value is None:
        return monitor.no_data == "alert"
    if monitor.operator is None or monitor.threshold is None:
        return False
    return _COMPARE[monitor.operator](value, monitor.threshold)


def _is_recovered(monitor: Monitor, value: float | None) -> bool:
    if monitor.recovery is None or value is None or monitor.operator is None:
        return True
    return not _COMPARE[monitor.operator](value, monitor.recovery)
