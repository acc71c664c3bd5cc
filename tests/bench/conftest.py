"""Benches under test: a cache of their own, and a stand-in for the server."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench import server


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGESTER_BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def fake_program(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Path(__file__).with_name("fake_ingester.py")
    monkeypatch.setattr(server, "PROGRAM", [sys.executable, str(fake)])
