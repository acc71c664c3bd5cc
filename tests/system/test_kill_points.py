"""F2 with the whole server: it kills itself at named points of the write path, under mixed load.

The same points as `tests/faults/test_named_points.py`, but for retention's, whose days do not pass
here. What is stored is compared by a server that is not armed.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults.points import POINTS
from tests.system.kill_run import IngesterSubject, KillReport, compare
from tests.system.ledger import Ledger
from tests.system.load import LoadPlan, MixedLoad
from tests.system.server import Server

_ROUNDS_LONG = 500
_ROUND_SECONDS_MAX = 8.0
_PLAN = LoadPlan(single_workers=2, batch_workers=1, bulk_rows=2_000)
_LEFT_OUT = {"purge committed", "retention unlinked"}
_SMALL_FILES = {
    "INGESTER_STORE_PART_BYTES_MAX": str(600 * 1024),
    "INGESTER_STORE_UPLOAD_FILE_BYTES_MIN": str(64 * 1024),
    "INGESTER_STORE_CHECKPOINT_BYTES": str(256 * 1024),
    "INGESTER_JOURNAL_SEGMENT_BYTES": str(1024 * 1024 + 4096),
    "INGESTER_JOURNAL_RETENTION_BYTES_MAX": str(256 * 1024),
}


def _is_gone(server: Server) -> bool:
    return server.process is None or server.process.poll() is not None


def _rounds(folder: Path, seed: int, points: list[str]) -> tuple[KillReport, Counter[str]]:
    """One round a point. Which were reached: the others end by a kill from outside."""
    chance = random.Random(seed)
    report, reached = KillReport(seed), Counter[str]()
    server = Server(
        folder / "data", folder / "server.log", _SMALL_FILES, module="tests.system.faulty_server"
    )
    subject = IngesterSubject(server, server.create_source("kill"))
    try:
        with closing(Ledger(folder / "ledger.jsonl")) as ledger:
            for number, point in enumerate(points):
                count = chance.choice((1, 1, 2, 4))
                server.environment = {**_SMALL_FILES, "FAULT_KILL": f"{point}:{count}"}
                # It may come to its point while it starts.
                with contextlib.suppress(AssertionError):
                    server.start(60)
                load = None
                if server.process is not None:
                    name = f"r{number:04d}"
                    load = MixedLoad(subject.address, subject.path, ledger, name, seed, _PLAN)
                    load.start()
                    ends_at = time.monotonic() + _ROUND_SECONDS_MAX
                    while time.monotonic() < ends_at and not _is_gone(server):
                        time.sleep(0.1)
                reached[point] += _is_gone(server)
                server.kill()
                server.environment = _SMALL_FILES
                if load is not None:
                    load.stop()
                report.ready_seconds.append(server.start(60))
                report.rounds += 1
                if load is not None:
                    compare(subject, ledger, load, report)
                server.kill()
            server.start(60)
            report.problems += subject.audit(report.total)
    finally:
        server.kill()
    return report, reached


@pytest.mark.timeout(14_400)
def test_a_server_that_is_killed_at_a_point_loses_and_doubles_nothing(
    tmp_path: Path, long_form: bool
) -> None:
    seed = int(os.environ.get("KILL_SEED") or secrets.randbelow(1 << 32))
    count = int(os.environ.get("KILL_ROUNDS") or _ROUNDS_LONG) if long_form else 1
    named = [point for point in POINTS if point not in _LEFT_OUT]
    random.Random(seed).shuffle(named)
    # In the short form one that comes soon.
    points = [named[n % len(named)] for n in range(count)] if long_form else ["ledger written"]
    report, reached = _rounds(tmp_path, seed, points)
    print(report, dict(reached))
    assert report.problems == [], f"{report}\n" + "\n".join(report.problems[:20])
    assert report.total.lost_rows == report.total.duplicated_rows == 0
    assert reached.total() > 0
    shutil.rmtree(tmp_path / "data")
