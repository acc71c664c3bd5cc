"""F20: sending, retries, crashes, FATAL, rotation, sealing, retention, in any order."""

from __future__ import annotations

import logging
import os
import secrets
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.faults.builds import BREAKS, broken
from tests.faults.machine import StoreMachine
from tests.faults.points import POINT_GROUPS

_QUIET: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    "verbosity": Verbosity.normal,
}


# Where each of them goes wrong: of all points most machines would not come by it.
_BROKEN_AT = {
    "not written": "journal",
    "ledger without sequences": "loading",
    "upload not listed": "uploads",
    "segment unlinked early": "journal",
    "part removed early": "sealing",
    "manifest forgets": "sealing",
    "rollup cursor first": "rollups",
    "replayed again": "starting",
}


@pytest.fixture(autouse=True)
def _without_log_lines() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def _run(number: int, examples: int, steps: int, *, shrinks: bool = True) -> None:
    StoreMachine.crash_count, StoreMachine.points = 0, set()
    phases = tuple(Phase) if shrinks else (Phase.generate,)
    chosen = settings(max_examples=examples, stateful_step_count=steps, phases=phases, **_QUIET)
    run_state_machine_as_test(seed(number)(StoreMachine), settings=chosen)


@pytest.mark.timeout(7200)
def test_whatever_the_order_requests_are_there_once_and_rollups_are_a_recount(
    long_form: bool,
) -> None:
    number = int(os.environ.get("MACHINE_SEED") or (secrets.randbelow(1 << 32) if long_form else 7))
    examples, steps = (300, 40) if long_form else (4, 12)
    _run(number, examples, steps)
    print(
        f"seed {number}: {examples} machines, {StoreMachine.crash_count} crashes at "
        f"{len(StoreMachine.points)} points, nothing lost or doubled"
    )
    assert StoreMachine.crash_count > examples


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("build", BREAKS)
def test_builds_that_are_broken_are_found(build: str, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [point for point, group in POINT_GROUPS.items() if group == _BROKEN_AT[build]]
    monkeypatch.setattr(StoreMachine, "crash_points", points)
    with broken(build), pytest.raises(AssertionError):
        _run(11, 60, 40, shrinks=False)
