"""F3: power cuts, on a file system of our own."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.power import NOT_POSSIBLE

pytestmark = [pytest.mark.root, pytest.mark.timeout(7200)]


def _cut(folder: Path, count: int, seed: int, *build: str) -> dict[str, Any]:
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.power", folder, str(count), str(seed), *build],
        capture_output=True,
        text=True,
        check=False,
    )
    if NOT_POSSIBLE in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr[-2000:]
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def test_a_power_cut_loses_and_doubles_nothing(tmp_path: Path, long_form: bool) -> None:
    seed = int(os.environ.get("POWER_SEED") or secrets.randbelow(1 << 32))
    report = _cut(tmp_path, 200 if long_form else 2, seed)
    print(report)
    assert report["wrong"] == []


@pytest.mark.long
def test_a_journal_that_is_not_synced_loses_rows(tmp_path: Path) -> None:
    assert _cut(tmp_path, 40, 5, "unsynced")["wrong"]
