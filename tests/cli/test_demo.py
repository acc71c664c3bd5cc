"""The demo end to end, and the folders it refuses; the bundled sample."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

import ingester
from ingester.cli import main
from ingester.cli.demo_data import make_demo_data
from ingester.samples import map_github_event, sample_bytes

ROOT = Path(ingester.__file__).parent.parent


def test_the_sample_is_a_thousand_valid_events_in_little_space() -> None:
    content = sample_bytes()
    assert len(content) < 500_000
    events = [json.loads(line) for line in gzip.decompress(content).splitlines()]
    assert len(events) == 1000
    for event in events:
        for name in ("accountId", "userId", "action", "sessionId"):
            assert isinstance(event[name], str)
            assert 0 < len(event[name]) <= 1024
        assert 1_400_000_000_000 < event["createdAt"] < 1_500_000_000_000
        assert isinstance(event["payload"], dict)


def test_a_github_event_becomes_a_product_event() -> None:
    event = {
        "id": "7",
        "type": "PushEvent",
        "actor": {"login": "ada"},
        "repo": {"name": "acme/engine"},
        "payload": {"size": 1},
        "created_at": "2015-01-01T01:00:00Z",
    }
    assert map_github_event(event) == {
        "accountId": "acme",
        "userId": "ada",
        "createdAt": 1_420_074_000_000,
        "action": "PushEvent",
        "sessionId": "ada@acme/engine/394465",
        "repository": "acme/engine",
        "githubId": "7",
        "payload": {"size": 1},
    }
    assert map_github_event(event | {"org": {"login": "org"}})["accountId"] == "org"


def test_the_demo_data_is_the_whole_sample(tmp_path: Path) -> None:
    data = make_demo_data(tmp_path)
    assert data.line_count == 1000
    assert gzip.decompress(data.path.read_bytes()).splitlines() == list(data.bulk)


def test_the_demo_counts_what_it_sent_and_can_be_repeated(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "ingester", "demo", "--exit", "--json"],
            cwd=tmp_path,
            env=env,
            stdout=subprocess.PIPE,
            timeout=100,
            check=True,
        )
        report = msgspec.json.decode(done.stdout)
        assert report["ok"]
        assert report["incident"]["status"] == "opened", "the receiver was told"
        assert (report["sent"], report["accepted"], report["rejected"]) == (1004, 1000, 4)
        assert (report["queryable"], report["rejects_queryable"]) == (1000, 4)
        assert len(report["queries"]) == 3
        assert all(answer["rows"] for answer in report["queries"])
        assert report["data_dir"] == str(tmp_path / "ingester-demo")


@pytest.mark.parametrize("reset", [[], ["--reset"]])
def test_a_folder_of_someone_else_is_left_alone(tmp_path: Path, reset: list[str]) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    result = CliRunner().invoke(main, ["demo", "--dir", str(tmp_path), "--exit", *reset])
    assert result.exit_code == 1
    assert "was not made by the demo" in result.stderr
    assert (tmp_path / "mine.txt").read_text() == "keep"
