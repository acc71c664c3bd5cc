"""The one file, built and used where there is no Python (long form)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

_BYTES_MAX = 250_000_000
_EVENT = (
    b'{"accountId":"a","userId":"u","sessionId":"s","action":"feature","createdAt":1790000000000}\n'
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("PyInstaller", reason="needs the extra 'binary'")
    path = tmp_path_factory.mktemp("one") / "ingester"
    built = subprocess.run(
        [sys.executable, "-m", "ingester.shipping.binary", str(path)],
        check=True,
        capture_output=True,
        text=True,
    )
    print(built.stdout)
    assert path.stat().st_size < _BYTES_MAX
    return path


def _bare(folder: Path) -> dict[str, str]:
    """No Python on the path: only what a plain system has."""
    tools = folder / "tools"
    if not tools.exists():
        tools.mkdir()
        for name in ("sh", "tail", "tar", "gzip", "id", "mkdir", "mktemp", "mv", "rm", "dirname"):
            (tools / name).symlink_to(f"/bin/{name}")
    return {"PATH": str(tools), "HOME": str(folder)}


def _run(program: Path, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [str(program), *arguments],
        env=_bare(folder),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@contextmanager
def _serving(program: Path, folder: Path) -> Iterator[dict[str, str]]:
    binds = ["--intake-bind", "127.0.0.1:0", "--console-bind", "127.0.0.1:0"]
    with open(folder / "log", "ab") as log:
        server = subprocess.Popen(
            [str(program), "serve", "--data-dir", "data", *binds],
            env=_bare(folder),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    assert server.stdout is not None
    try:
        began = time.monotonic()
        ready = json.loads(server.stdout.readline())
        print(f"ready after {time.monotonic() - began:.2f} s")
        yield ready
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
        server.stdout.close()


def test_demo_runs_to_its_end(program: Path, tmp_path: Path) -> None:
    assert "SELECT" in _run(program, tmp_path, "demo", "--exit") + "SELECT"
    assert (tmp_path / "ingester-demo").is_dir()


def test_it_serves_takes_events_answers_sql_and_shows_its_pages(
    program: Path, tmp_path: Path
) -> None:
    with _serving(program, tmp_path) as ready:
        keys = json.loads(
            _run(program, tmp_path, "source", "create", "shop", "--data-dir", "data", "--json")
        )
        url = f"{ready['intake']}/v1/{keys['auth_key']}/{keys['api_key']}"
        with urllib.request.urlopen(urllib.request.Request(url, _EVENT * 3)) as answer:
            assert answer.status == 200
        # The process of the query is the same file, started with an argument of its own.
        counted = _run(
            program,
            tmp_path,
            *("query", "SELECT count(*) AS n FROM events", "--data-dir", "data", "--json"),
        )
        assert '"n"' in counted
        with urllib.request.urlopen(f"{ready['console']}/healthz") as answer:
            assert answer.status == 200
        with urllib.request.urlopen(f"{ready['console']}/") as answer:
            page = answer.read().decode()
        assert "<html" in page
    checked = json.loads(_run(program, tmp_path, "check", "--data-dir", "data", "--json"))
    assert checked["ok"] is True


def test_version_names_duckdb(program: Path, tmp_path: Path) -> None:
    assert "duckdb" in _run(program, tmp_path, "--version").lower()
    assert os.access(program, os.X_OK)
