"""F14: minutes of load on a fast clock, killed again and again; nothing grows."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from pathlib import Path

import pytest

from tests.system.server import Server
from tests.system.soak import Soak, SoakReport

_DAYS = 4
_BROKEN_S = 60.0
_SETTINGS = {
    "INGESTER_STORE_PART_BYTES_MAX": str(4 * 1024 * 1024),
    "INGESTER_STORE_UPLOAD_FILE_BYTES_MIN": str(256 * 1024),
    "INGESTER_STORE_CHECKPOINT_BYTES": str(1024 * 1024),
    "INGESTER_STORE_CHECKPOINT_SECONDS": "5",
    "INGESTER_JOURNAL_SEGMENT_BYTES": str(1024 * 1024),
    "INGESTER_JOURNAL_RETENTION_BYTES_MAX": str(4 * 1024 * 1024),
    "INGESTER_STORE_RETENTION_DAYS": ",".join(
        f"{table}={_DAYS}" for table in ("events", "logs", "metrics", "rejects", "requests")
    ),
    "INGESTER_STORE_ROLLUP_RETENTION_DAYS": str(_DAYS),
    "INGESTER_INTAKE_IDEMPOTENCY_HOURS": "24",
}


def _soak(
    folder: Path, *, lives: int, life_s: float, last_s: float, broken: str = ""
) -> SoakReport:
    """A day is a quarter of a life."""
    seed = int(os.environ.get("SOAK_SEED") or secrets.randbelow(1 << 32))
    clock = f"{time.time():.0f}:{86_400 / (life_s / 4)}"
    environment = {**_SETTINGS, "FAULT_CLOCK": clock, "BROKEN": broken}
    server = Server(
        folder / "data",
        folder / "server.log",
        environment,
        module="tests.system.soak_server",
        is_cold=True,  # its clock is set before the rest is imported
    )
    soak = Soak(server, server.create_source("soak"), clock, _DAYS, seed)
    try:
        report = soak.run(folder, lives=lives, life_s=life_s, last_s=last_s)
        print(report)
        if broken:
            assert server.stop(120) == 0
            report.problems += server.command("check", exit_codes=(0, 1))["problems"]
            return report
        removed = server.log_text().count("rows removed")
        assert removed > 0
        oldest = server.value("SELECT min(epoch(received_at))::BIGINT FROM events")
        assert oldest // 86_400 >= soak.today() - _DAYS - 3
        assert server.stop(120) == 0
        assert server.command("check") == {"ok": True, "problems": []}
    finally:
        server.kill()
    return report


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_twenty_minutes_with_a_kill_each_leave_nothing_that_grows(tmp_path: Path) -> None:
    """And five more without: what only a process keeps would go with each kill."""
    minutes = float(os.environ.get("SOAK_MINUTES") or 20)
    life_s = min(60.0, minutes * 60 / 5)
    lives = int(minutes * 60 / life_s) + 1
    report = _soak(tmp_path, lives=lives, life_s=life_s, last_s=minutes * 15)
    assert report.problems == [], f"{report}\n" + "\n".join(report.problems[:20])
    assert report.lost_rows == report.duplicated_rows == 0
    assert report.grown() == []
    shutil.rmtree(tmp_path / "data")


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("broken", "what"),
    [("leaks", "descriptors"), ("hoards", "rss_bytes"), ("keeps_files", "sealed/")],
)
def test_a_build_that_grows_is_found(tmp_path: Path, broken: str, what: str) -> None:
    report = _soak(tmp_path, lives=1, life_s=20, last_s=_BROKEN_S, broken=broken)
    assert any(line.startswith(what) for line in (*report.grown(), *report.problems)), report


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_build_that_does_not_grow_is_not_found_within_as_long(tmp_path: Path) -> None:
    report = _soak(tmp_path, lives=1, life_s=20, last_s=_BROKEN_S)
    assert report.grown() == []
