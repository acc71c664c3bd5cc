"""The kill harness itself, against toys: it must pass an honest one and fail every liar."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.kill_run import KillReport, ToySubject, run_rounds
from tests.system.load import LoadPlan

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
        ("twice", "repeat"),
        ("ghost", "yet stored"),
    ],
)
def test_harness_fails_a_toy_that_lies(tmp_path: Path, mode: str, complaint: str) -> None:
    report = _run(tmp_path, mode, 6)
    assert any(complaint in problem for problem in report.problems), report
    if mode in {"early", "torn"}:
        assert report.total.lost_rows > 0
    if mode == "twice":
        assert report.total.duplicated_rows > 0
