"""A crowd of silent and slow clients, and few descriptors: the senders beside it are served (F13).

The short form shows what happens to whom. The long one has 5,000 silent clients, 1,000 slow ones
and 200 senders at 1,024 descriptors, and prints how long the senders waited.
"""

from __future__ import annotations

import os
import re
import resource
import secrets
import urllib.request
from pathlib import Path

import pytest
import trio

from tests.system.crowd import CrowdPlan, CrowdReport, crowding, run_senders
from tests.system.server import Server, wait_until

_SHORT = CrowdPlan(silent=200, slow=150, senders=8, seconds=3, again_s=1)
_LONG = CrowdPlan(silent=5_000, slow=1_000, senders=200, seconds=60, between_s=1.0, again_s=40)
# The limit of the process for the short form: 128 connections.
_FEW = 256
_SECONDS_MAX = 1.0


def make_server(folder: Path, descriptors: int, broken: str = "") -> Server:
    environment = {"DESCRIPTORS": str(descriptors), "BROKEN": broken}
    module = "tests.system.broken_server"
    return Server(folder / "data", folder / "server.log", environment, module=module)


def used(server: Server) -> tuple[int, int]:
    """Descriptors and threads of the server."""
    folder = Path(f"/proc/{server.pid}")
    return len(list((folder / "fd").iterdir())), len(list((folder / "task").iterdir()))


def figure(server: Server, name: str) -> float:
    with urllib.request.urlopen(f"{server.ready['console']}/metrics", timeout=20) as answer:
        found = re.search(rf"^{name} (\S+)$", answer.read().decode(), re.MULTILINE)
    assert found is not None, name
    return float(found[1])


def run(server: Server, plan: CrowdPlan) -> tuple[CrowdReport, list[str]]:
    """The report, and what is wrong with it."""
    seed = int(os.environ.get("CROWD_SEED") or secrets.randbelow(1 << 32))
    print(f"crowd, seed {seed}")
    keys = server.create_source("crowd")
    server.settle(keys)
    before = used(server)
    report = CrowdReport(seed)
    with crowding(server.address, keys.path, plan, report):
        trio.run(run_senders, server.address, keys.path, plan, report)
    print(report)
    problems = []
    if report.unanswered:
        problems.append(f"{len(report.unanswered)} requests of senders were never answered")
    if rude := set(report.put_out) - {"closed", "reset", "408", "503"}:
        problems.append(f"clients were put out by {rude}")
    if odd := set(report.tries) - {"200", "closed", "reset", "503"}:
        problems.append(f"senders were told {odd}")
    assert server.process is not None
    if server.process.poll() is not None:
        return report, [*problems, "the server has ended"]
    wait_until(lambda: figure(server, "ingester_intake_connections") == 0, 10, "all are gone")
    server.settle(keys)
    # One or two of a thread that came and of a segment made ahead.
    after = wait_until(lambda: (n := used(server))[0] <= before[0] + 4 and n, 20, "no leak")
    print(f"descriptors, threads: {before} before, {after} after")
    rows = server.query("SELECT account_id AS a, count(*) AS n FROM events GROUP BY 1")
    stored = {row["a"]: row["n"] for row in rows}
    wrong = [batch for batch in report.acknowledged if stored.get(batch) != 1]
    if wrong:
        problems.append(f"{wrong[:5]} are acknowledged and not stored once")
    return report, problems


@pytest.mark.timeout(600)
def test_senders_are_served_beside_a_crowd_and_nothing_is_left_of_it(
    tmp_path: Path, long_form: bool
) -> None:
    needed = 8_192 if long_form else 2_048
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))
    server = make_server(tmp_path, 1_024 if long_form else _FEW)
    try:
        server.start()
        report, problems = run(server, _LONG if long_form else _SHORT)
        assert problems == [], report
        assert report.put_out["closed"] > 0
        assert report.put_out["408"] > 0
        if long_form:
            assert report.wait_s(0.99) < _SECONDS_MAX, report
        assert server.stop() == 0
    finally:
        server.kill()
    assert "Traceback" not in server.log_text()
    assert "accept_exhausted" not in server.log_text()


@pytest.mark.long
@pytest.mark.timeout(120)
def test_a_build_that_lets_the_crowd_stay_is_found(tmp_path: Path) -> None:
    server = make_server(tmp_path, _FEW, "crowded")
    plan = CrowdPlan(silent=260, slow=10, senders=3, seconds=1)
    is_found = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.system.crowd._TRIES_MAX", 2)
        patch.setattr("tests.system.crowd._ANSWER_S", 1)
        try:
            server.start()
            is_found = bool(run(server, plan)[1])
        except (AssertionError, OSError):
            is_found = True  # so crowded that not even its figures can be asked for
        finally:
            server.kill()
    assert is_found, "the test lets a broken build pass"
