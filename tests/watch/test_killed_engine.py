"""`kill -9` between evaluating an alert or a monitor and its outbox: the same is told, byte for
byte, as by a run that nobody has killed.
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

from tests.system.server import REPOSITORY

_WINDOWS_SHORT = 3
_WINDOWS_LONG = 60


def run(folder: Path, kind: str, windows: int, seed: int, *flags: str) -> dict[str, Any]:
    folder.mkdir()
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "tests.watch.killed_engine", str(folder), kind),
            *(str(windows), str(seed), *flags),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        timeout=900,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["alert", "monitor"])
def test_kills_between_evaluation_and_outbox_change_nothing_that_is_told(
    tmp_path: Path, kind: str, long_form: bool
) -> None:
    seed = int(os.environ.get("KILL_SEED") or secrets.randbelow(1 << 32))
    windows = _WINDOWS_LONG if long_form else _WINDOWS_SHORT
    calm = run(tmp_path / "calm", kind, windows, seed)
    killed = run(tmp_path / "killed", kind, windows, seed, "kills")
    print(f"{kind}, seed {seed}: {killed['kills']} kills, {len(killed['told'])} messages")
    assert killed.pop("kills") == windows
    assert calm.pop("kills") == 0
    assert killed == calm
    assert calm["told"]


@pytest.mark.parametrize("kind", ["alert", "monitor"])
def test_a_build_that_stores_where_it_stands_first_tells_less(tmp_path: Path, kind: str) -> None:
    calm = run(tmp_path / "calm", kind, 3, 16)
    broken = run(tmp_path / "broken", kind, 3, 16, "kills", "state_first")
    assert len(broken["told"]) < len(calm["told"])
