"""Verdicts: six operators, m of n, recovery, no data, groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from ingester.watch.judge import Bucket, Values, judge
from ingester.watch.settings import Monitor
from ingester.watch.values import group_key

METRIC = {"kind": "metric", "metric_id": "m1"}
LOGS = {"kind": "logs"}


def monitor(**fields: Any) -> Monitor:
    settings = {"name": "m", "target": METRIC, "operator": ">", "threshold": 10, **fields}
    return msgspec.convert(settings, Monitor)


def firing(made: Monitor, values: Sequence[float | None]) -> str:
    """One letter a bucket: F fires, a dot does not. None: no rows."""
    before, found = Bucket(), ""
    for value in values:
        rows = {} if value is None else {"": value}
        before = judge(made, before, Values(rows), groups_max=10)
        found += "F" if before.groups[""].is_firing else "."
    return found


@pytest.mark.parametrize(
    ("operator", "expected"),
    [(">", "..F"), (">=", ".FF"), ("<", "F.."), ("<=", "FF."), ("==", ".F."), ("!=", "F.F")],
)
def test_six_operators(operator: str, expected: str) -> None:
    assert firing(monitor(operator=operator), [9, 10, 11]) == expected


@pytest.mark.parametrize(
    ("datapoints", "values", "expected"),
    [
        ((2, 3), [11, 1, 11, 1, 1], "..F.."),
        ((3, 3), [11, 11, 1, 11, 11, 11, 11, 1], ".....FF."),
        ((1, 3), [11, 1, 1, 1], "FFF."),
        ((2, 2), [11], "."),
    ],
)
def test_m_of_n(datapoints: tuple[int, int], values: list[float], expected: str) -> None:
    assert firing(monitor(datapoints=datapoints), values) == expected


def test_a_recovery_threshold_keeps_it_firing_until_it_is_passed() -> None:
    assert firing(monitor(recovery=5), [11, 9, 6, 5, 9, 11, 8, 4]) == "FFF..FF."
    below = monitor(operator="<", threshold=2, recovery=6)
    assert firing(below, [1, 3, 5, 6, 3]) == "FFF.."


@pytest.mark.parametrize(
    ("no_data", "expected"), [("ok", "F.F"), ("alert", "FFF"), ("keep", "FFF")]
)
def test_no_data_of_a_metric(no_data: str, expected: str) -> None:
    assert firing(monitor(no_data=no_data), [11, None, 11]) == expected


def test_kept_windows_count_for_nothing() -> None:
    assert firing(monitor(no_data="keep", datapoints=(2, 2)), [11, None, None, 11]) == "...F"
    assert firing(monitor(no_data="keep"), [1, None]) == ".."


def test_a_count_of_nothing_is_zero() -> None:
    assert firing(monitor(target=LOGS, operator="<", threshold=1), [None, 2, None]) == "F.F"
    assert firing(monitor(target=LOGS), [None, 20, None]) == ".F."


def test_a_pure_no_data_monitor_needs_no_threshold() -> None:
    made = msgspec.convert(
        {"name": "m", "target": LOGS, "no_data": "alert", "datapoints": (2, 2)}, Monitor
    )
    assert firing(made, [None, None, 5, None, None]) == ".F..F"


def test_groups_have_one_state_each_and_a_cap_that_shows() -> None:
    made = monitor(target=LOGS, group_by=["service"])
    keys = [group_key([name]) for name in "abcd"]
    first = judge(made, Bucket(), Values({keys[0]: 11, keys[1]: 1}), groups_max=3)
    assert [point.is_firing for point in first.groups.values()] == [True, False]
    full = Values({keys[3]: 99, keys[2]: 50, keys[0]: 11, keys[1]: 11}, overflow=5)
    second = judge(made, first, full, groups_max=3)
    # Those that were there first stay, then those with most rows.
    assert list(second.groups) == [keys[0], keys[1], keys[3]]
    assert second.overflow == 6
    third = judge(made, second, Values({}), groups_max=3)
    assert not any(point.is_firing for point in third.groups.values())


def test_a_group_is_forgotten_when_it_is_long_without_rows_but_not_while_it_fires() -> None:
    made = monitor(target=LOGS, group_by=["service"], operator="<", threshold=1)
    key = group_key(["a"])
    state = judge(made, Bucket(), Values({key: 5}), groups_max=3)
    for _ in range(100):
        state = judge(made, state, Values(), groups_max=3)
    assert state.groups[key].is_firing
    quiet = monitor(target=LOGS, group_by=["service"])
    state = judge(quiet, Bucket(), Values({key: 5}), groups_max=3)
    for _ in range(100):
        state = judge(quiet, state, Values(), groups_max=3)
    assert state.groups == {}


def test_an_unknown_bucket_changes_no_state() -> None:
    made = monitor()
    before = judge(made, Bucket(), Values({"": 11}), groups_max=3)
    after = judge(made, before, Values(), groups_max=3, is_unknown=True)
    assert after.groups == before.groups
    assert after.is_unknown
