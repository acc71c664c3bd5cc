"""The kill harness itself, against toys: it must pass an honest one and fail every liar."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.system.kill_run import KillReport, ToySubject, run_rounds
from tests.system.load import LoadPlan
from tests.system.server import CommandFailed, running

_PLAN = LoadPlan(single_workers=2, batch_workers=1, bulk_workers=1, bulk_rows=1_500)


def _run(folder: Path, mode: str, rounds: int) -> KillReport:
    subject = ToySubject(folder, mode)
    try:
        return run_rounds(
            subject,
            folder,
            rounds=rounds,
            seed=7,
            plan=_PLAN,
            round_seconds=(0.2, 0.5),
            until_problem=True,
        )
    finally:
        subject.kill()


def test_harness_passes_an_honest_toy(tmp_path: Path) -> None:
    report = _run(tmp_path, "honest", 3)
    assert report.problems == []
    assert report.total.acknowledged_rows > 100
    assert report.total.lost_rows == report.total.duplicated_rows == 0


@pytest.mark.parametrize(
    ("mode", "complaint"),
    [
        ("early", "acknowledged as"),
        ("torn", "acknowledged as"),
        # Also a request whose answer was lost is stored twice when it is repeated.
        ("twice", "repeat|acknowledged as"),
        ("ghost", "yet stored"),
    ],
)
def test_harness_fails_a_toy_that_lies(tmp_path: Path, mode: str, complaint: str) -> None:
    report = _run(tmp_path, mode, 6)
    assert any(re.search(complaint, problem) for problem in report.problems), report
    if mode in {"early", "torn"}:
        assert report.total.lost_rows > 0
    if mode == "twice":
        assert report.total.duplicated_rows > 0


def test_a_command_in_this_process_says_what_one_of_its_own_says(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        keys = server.create_source("one")
        assert server.command_process("source", "reveal", "one")["api_key"] == keys.api_key
        asked = [
            ("source", "list"),
            ("query", "SELECT 1 AS n, 'a' AS t, NULL AS nothing UNION ALL SELECT 2, 'é', 0"),
            ("check",),
        ]
        for arguments in asked:
            assert server.command(*arguments) == server.command_process(*arguments), arguments
        for failing in (("query", "SELECT nope"), ("source", "list", "--no-such-option")):
            with pytest.raises(CommandFailed) as here:
                server.command(*failing)
            with pytest.raises(CommandFailed) as there:
                server.command_process(*failing)
            assert str(here.value) == str(there.value)
