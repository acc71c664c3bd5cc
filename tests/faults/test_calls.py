"""F5, F6: one system call fails, or every sync takes its time; by strace, where it is there."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.calls import KINDS
from tests.system.kill_run import IngesterSubject, KillReport, compare
from tests.system.ledger import Ledger
from tests.system.load import LoadPlan, MixedLoad
from tests.system.server import Server

# What the short form tries: a journal's sync, one within a checkpoint, and one of the manifest.
_SHORT = {"sync": "8,18,30"}
_SYNC_US = 200_000
_MEMORY_BYTES_MAX = 700 * 1024 * 1024


def _fail_calls(folder: Path, *arguments: str) -> dict[str, Any]:
    if shutil.which("strace") is None:
        pytest.skip("there is no strace to let system calls fail")
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.calls", folder / "calls", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if "strace:" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr[-2000:]
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    "kind", [k if k in _SHORT else pytest.param(k, marks=pytest.mark.long) for k in KINDS]
)
def test_one_call_that_fails_costs_nothing_that_was_promised(
    tmp_path: Path, kind: str, long_form: bool
) -> None:
    numbers = "all" if long_form else _SHORT[kind]
    report = _fail_calls(tmp_path, kind, numbers)
    print(report)
    assert report["wrong"] == []
    assert report["injected"] > 0


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_build_that_acknowledges_all_the_same_is_found(tmp_path: Path) -> None:
    assert _fail_calls(tmp_path, "sync", "6,7,8,9,10", "early")["wrong"]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_slow_disk_slows_senders_and_loses_nothing(tmp_path: Path) -> None:
    """Every sync takes 0.2 s: requests wait or are refused, and the server answers all along."""
    if shutil.which("strace") is None:
        pytest.skip("there is no strace to slow system calls down")
    seed = secrets.randbelow(1 << 32)
    server = Server(tmp_path / "data", tmp_path / "server.log")
    subject = IngesterSubject(server, server.create_source("slow"))
    ledger = Ledger(tmp_path / "ledger.jsonl")
    try:
        server.start()
        tracer = subprocess.Popen(
            [
                *("strace", "-f", "-p", str(server.pid), "-o", "/dev/null"),
                *("-e", "trace=fsync,fdatasync"),
                *("-e", f"inject=fsync,fdatasync:delay_enter={_SYNC_US}"),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert tracer.stderr is not None
        told = tracer.stderr.readline()
        if "attached" not in told:
            pytest.skip(f"strace: {told.strip()}")
        load = MixedLoad(subject.address, subject.path, ledger, "r0000", seed, LoadPlan())
        load.start()
        for _ in range(10):
            time.sleep(2)
            with server.connect() as connection:
                assert connection.request("GET", "/healthz").status == 200
        assert server.memory_peak_bytes() < _MEMORY_BYTES_MAX
        tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=30)
        load.stop()
        server.kill()
        server.start()
        report = KillReport(seed)
        compare(subject, ledger, load, report)
        print(report)
        assert report.problems == []
        assert report.total.acknowledged_rows > 0
    finally:
        ledger.close()
        server.kill()
