"""F1, F2: `kill -9` at every named point of the write path, and at random moments.

In this process's children, hundreds a minute (`killer.py`); with the whole server at the same
points: `tests/system/test_kill_points.py`.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.builds import BREAKS
from tests.faults.points import POINTS

_ROUNDS_SHORT = 8
_ROUNDS_LONG = 600
# The broken builds that the short form tries; the long form tries all.
_SHORT_BUILDS = ("ledger without sequences", "upload not listed", "manifest forgets")


def _kill(folder: Path, rounds: int, seed: int, *build: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.faults.killer", str(folder / "data")]
    done = subprocess.run(
        [*command, str(rounds), str(seed), *build], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


@pytest.mark.timeout(7200)
def test_a_kill_at_any_point_loses_and_doubles_nothing(tmp_path: Path, long_form: bool) -> None:
    chosen = os.environ.get("KILL_SEED") or (secrets.randbelow(1 << 32) if long_form else 1)
    report = _kill(tmp_path, _ROUNDS_LONG if long_form else _ROUNDS_SHORT, int(chosen))
    print(report)
    assert report["wrong"] == []
    assert report["acknowledged_rows"] > 0
    # Which are passed depends on what a seed does before its kills.
    assert len(POINTS) - len(report["never_passed"]) > (32 if long_form else 20)
    if long_form:
        assert set(report["reached"]) == set(POINTS)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "build",
    [b if b in _SHORT_BUILDS else pytest.param(b, marks=pytest.mark.long) for b in BREAKS],
)
def test_a_build_that_is_broken_is_found(tmp_path: Path, build: str) -> None:
    assert _kill(tmp_path, 200, 3, build)["wrong"]
