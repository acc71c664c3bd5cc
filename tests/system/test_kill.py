"""`kill -9` at random moments under mixed load: what was acknowledged is there, once and whole."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.system.kill_run import IngesterSubject, KillReport, run_rounds
from tests.system.server import Server

_ROUNDS_SHORT = 20
_ROUNDS_LONG = 300
_ROUNDS_SMALL_FILES = 100

# Rotation, checkpoints and new segments happen in every round.
_SMALL_FILES = {
    "INGESTER_STORE_PART_BYTES_MAX": str(8 * 1024 * 1024),
    "INGESTER_STORE_CHECKPOINT_BYTES": str(1024 * 1024),
    "INGESTER_JOURNAL_SEGMENT_BYTES": str(2 * 1024 * 1024),
    "INGESTER_JOURNAL_RETENTION_BYTES_MAX": str(1024 * 1024),
}


def _kill_run(
    folder: Path,
    rounds: int,
    environment: Mapping[str, str] | None = None,
    *,
    until_problem: bool = False,
) -> KillReport:
    """The rounds on a new data folder. `KILL_SEED` repeats a run."""
    seed = int(os.environ.get("KILL_SEED") or secrets.randbelow(1 << 32))
    server = Server(folder / "data", folder / "server.log", environment or {})
    keys = server.create_source("kill")
    try:
        report = run_rounds(
            IngesterSubject(server, keys),
            folder,
            rounds=rounds,
            seed=seed,
            until_problem=until_problem,
        )
        print(report)
        return report
    finally:
        server.kill()


@pytest.mark.timeout(7200)
def test_acknowledged_requests_survive_kill_exactly_once(tmp_path: Path, long_form: bool) -> None:
    rounds = int(os.environ.get("KILL_ROUNDS") or _ROUNDS_LONG) if long_form else _ROUNDS_SHORT
    report = _kill_run(tmp_path, rounds)
    assert report.problems == [], f"{report}\n" + "\n".join(report.problems[:20])
    assert report.rounds == rounds
    assert report.total.acknowledged_rows > 0
    assert report.total.lost_rows == report.total.duplicated_rows == 0
    shutil.rmtree(tmp_path / "data")  # the long form leaves some GB


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_acknowledged_requests_survive_kill_between_rotations(tmp_path: Path) -> None:
    report = _kill_run(tmp_path, _ROUNDS_SMALL_FILES, _SMALL_FILES)
    assert report.problems == [], f"{report}\n" + "\n".join(report.problems[:20])
    assert report.total.lost_rows == report.total.duplicated_rows == 0
    shutil.rmtree(tmp_path / "data")


@pytest.mark.timeout(300)
def test_a_kill_during_the_first_start_leaves_a_folder_that_starts(
    tmp_path: Path, long_form: bool
) -> None:
    """A new folder each time, killed at a random moment of its making."""
    seed = int(os.environ.get("KILL_SEED") or secrets.randbelow(1 << 32))
    print(f"first starts, seed {seed}")
    rng = random.Random(seed)
    for number in range(60 if long_form else 3):
        server = Server(tmp_path / f"data{number}", tmp_path / "server.log")
        try:
            for _ in range(2):
                server.launch()
                time.sleep(rng.uniform(0.0, 0.5))
                server.kill()
            server.start()
            keys = server.create_source("first")
            server.settle(keys)
            assert server.value("SELECT count(*) FROM events") == 1
            assert server.stop() == 0
            assert server.command("check")["ok"] is True
        finally:
            server.kill()


@pytest.mark.timeout(300)
def test_harness_catches_a_build_that_acknowledges_before_the_write(tmp_path: Path) -> None:
    fault = {"INGESTER_FAULT": "ack_before_journal"}
    report = _kill_run(tmp_path, 8, fault, until_problem=True)
    assert report.total.lost_rows > 0, f"the harness let a broken build pass: {report}"
