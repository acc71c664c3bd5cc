"""Every command block of the README is executed, in its order, against one server.

What a block says is run as it stands but for what `_RUN` names beside it: addresses and keys, the
places of files, ids that another server would give, and streams that never end. A block that is in
neither table fails the test that compares them.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ingester.config_load import load
from tests.system.client import event_line
from tests.system.doors import METRICS, Doors, metric, open_doors
from tests.system.readme_shell import Shell, blocks, open_shell
from tests.system.server import REPOSITORY, wait_until
from tests.system.webhooks import Webhooks, webhooks

# Run by others: the file that does, and what of the block must stand there or is its own.
_ELSEWHERE = {
    ("Try it", 0): ("tests/cli/test_demo.py", "ingester demo --exit"),
    ("Try it", 1): (".ci/run", "-m pytest"),
    ("Run it", 0): ("tests/system/server.py", "ingester serve --data-dir"),
    ("Product events", 0): ("tests/system/test_readme.py", "curl"),
    ("Logs", 0): ("tests/system/test_readme.py", "curl"),
    ("Metrics", 0): ("tests/system/test_readme.py", "curl"),
    ("Honest door", 0): ("tests/system/test_readme.py", "curl"),
    ("Watching", 1): ("tests/system/test_readme.py", "api monitors"),
}
_RECEIVER = "https://example.org/hook"
# In the order of the README. What is replaced must be there.
_RUN: dict[tuple[str, int], tuple[tuple[str, str], ...]] = {
    # `--follow` has no end; tests/system/test_search.py follows.
    ("Run it", 1): ((".venv/bin/", ""), (" --follow", ""), ("create cron", "create cron2")),
    # tests/shipping/test_binary.py builds the one file and runs it (long form).
    ("As a service, in a container, as one file", 0): (
        ("/etc/systemd/system/", ""),
        (".venv/bin/pip install '.[binary]' && .venv/bin/python -m", "true"),
        (".venv/bin/", ""),
    ),
    ("Events of any shape", 0): (
        ("--source win\n", "--source win > made\n"),
        ("--token TOKEN", "--token $(grep -o 'ing._[A-Za-z0-9]*' made | head -1)"),
    ),
    ("Repeats and rejects", 0): (),
    ("Repeats and rejects", 1): (("06a1…-3", "REJECT"),),
    ("Search", 0): ((" --follow", ""),),
    ("Search", 1): (
        ("curl -N", "curl -sS --max-time 1 -N"),
        ('level:error"', 'level:error" || [ $? = 28 ]'),
    ),
    ("Watching", 0): ((_RECEIVER, "HOOK"),),
    ("Watching", 2): (("inc_7", "inc_1"),),
    ("Telling others of incidents", 0): (
        ("create ops", "create ops2"),
        ("verify ops", "verify ops2"),
        (_RECEIVER, "HOOK"),
        ("dlv_7", "dlv_1"),
    ),
    ("Hourly and daily counts", 0): (),
    ("Keys and members", 0): (
        ("source create shop", "source create shop2"),
        ("connection create cron", "connection create cron3"),
    ),
    ("Explorer, dashboards, metrics, accounts", 0): (("$TOKEN", "ADMIN"),),
    ("How long rows are kept", 0): (),
    ("Check, repair, back up, export", 0): (
        ("/mnt/backup/ingester", "backup"),
        ("--repair", "--repair --data-dir ./restored"),
    ),
    ("Check, repair, back up, export", 1): (),
    ("Operations", 0): (("/mnt/backup/ingester", "backup"),),
    ("Reading from outside", 0): (),
}
# Python blocks that are no sample of a door (`test_readme.py` has those), and what they print.
_PYTHON = {
    ("Reading from outside", 0): r"login|1",
    ("Reading from outside", 1): r"api",
    ("Reading from outside", 2): r"queue_length",
}
_SAMPLES = ("Product events", "Logs", "Metrics", "Honest door")
_SMALL_PARTS = {
    "INGESTER_STORE_PART_BYTES_MAX": str(64 * 1024),
    "INGESTER_DELIVERY_ALLOW_NETWORKS": "127.0.0.0/8",
}


@dataclass
class Place:
    """A server, a folder with the files that blocks name, and a shell in it."""

    doors: Doors
    shell: Shell
    hooks: Webhooks

    def filled_in(self, text: str) -> str:
        words = {
            "TOKEN": self.doors.token,
            "READTOKEN": self.doors.reader,
            "READ_TOKEN": self.doors.reader,
            "ADMIN": self.doors.admin,
            "HOOK": self.hooks.url,
        }
        text = re.sub(rf"(?<!\$)\b({'|'.join(words)})\b", lambda match: words[match[1]], text)
        text = text.replace("http://127.0.0.1:8080", self.doors.server.ready["intake"])
        return text.replace("http://127.0.0.1:8081", self.doors.server.ready["console"])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("readme")
    with (
        open_doors(folder, _SMALL_PARTS) as doors,
        webhooks() as hooks,
        open_shell(folder, settings_of(doors)) as shell,
    ):
        (folder / "ingester-data").symlink_to(doors.server.data_dir)
        row = {"Hostname": "pc1", "Channel": "System", "SourceName": "svc"}
        row["TimeCreated"] = "2026-11-20T10:00:00Z"
        with gzip.open(folder / "windows-events.ndjson.gz", "wb") as file:
            file.write(json.dumps(row).encode() + b"\n")
        (folder / "fixed.json").write_bytes(event_line("acme", 1))
        yield Place(doors, shell, hooks)


def settings_of(doors: Doors) -> dict[str, str]:
    """Where the server is, for commands."""
    ready = doors.server.ready
    return {
        "INGESTER_STORE_DATA_DIR": str(doors.server.data_dir),
        "INGESTER_INTAKE_BIND": ready["intake"].removeprefix("http://"),
        "INGESTER_CONSOLE_BIND": ready["console"].removeprefix("http://"),
    }


def test_no_block_is_left_out() -> None:
    assert set(blocks("sh")) == set(_RUN) | set(_ELSEWHERE)
    assert {key for key in blocks("python") if key[0] not in _SAMPLES} == set(_PYTHON)
    assert {key[0] for key in blocks("js")} == set(_SAMPLES)
    for (section, number), (name, text) in _ELSEWHERE.items():
        assert (REPOSITORY / name).is_file(), name
        assert text in blocks("sh")[section, number]
    assert list(_RUN) == [key for key in blocks("sh") if key in _RUN], "in the README's order"


@pytest.mark.timeout(300)
def test_every_command_block_runs(place: Place) -> None:
    """One after the other: later ones use what earlier ones have made."""
    told = []
    for key, replacements in _RUN.items():
        script, began = blocks("sh")[key], time.monotonic()
        for old, new in replacements:
            assert old in script, (key, old)
            script = script.replace(old, new)
        if "REJECT" in script:
            script = script.replace("REJECT", a_reject(place.doors))
        done = place.shell.run(place.filled_in(script))
        print(key, done.returncode, f"{time.monotonic() - began:.1f} s")
        if done.returncode != 0:
            told.append(f"{key}: {done.returncode}\n{script}\n{done.stdout}\n{done.stderr}")
    assert not told, "\n\n".join(told)
    assert {"ingester.service", "Containerfile", "errors.csv", "backup"} <= {
        path.name for path in place.shell.folder.iterdir()
    }


def a_reject(doors: Doors) -> str:
    """The id of a line that source `shop` has refused for want of a session."""
    revealed = doors.server.command("source", "reveal", "shop")
    path = f"/v1/{revealed['auth_key']}/{revealed['api_key']}?wait=query"
    with doors.server.connect() as client:
        assert client.post(path, event_line("acme", 1, sessionId=None)).status == 200
    ((row_id,),) = doors.rows_now(
        "SELECT id FROM rejects WHERE source = 'shop' ORDER BY received_at DESC LIMIT 1"
    )
    return str(row_id)


def _has_row(folder: Path, column: str, value: str) -> bool:
    for path in folder.glob("*/*.parquet"):
        with contextlib.suppress(FileNotFoundError):  # joined with others meanwhile
            if value in pq.read_table(path, columns=[column])[column].to_pylist():
                return True
    return False


@pytest.fixture(scope="module")
def sealed(place: Place) -> Path:
    """The folder, when its rows of all three kinds lie in sealed files."""
    doors = place.doors
    doors.connection.close()
    doors.log({"message": "gone wrong", "level": "error"})
    assert doors.send(metric(metricId="queue_length")).status == 200
    assert doors.connection.post(METRICS, b"{}").status == 401
    lines = [event_line("acme", n, action="login", pad="p" * 99) for n in range(999)]
    assert doors.connection.post(doors.settle_path, b"\n".join(lines)).status == 200
    folder = doors.server.data_dir / "sealed"

    wanted = {"events": "action=login", "logs": "level=error", "metrics": "metric_id=queue_length"}

    def has_all() -> bool:
        return all(_has_row(folder / table, *row.split("=")) for table, row in wanted.items())

    wait_until(has_all, 60, "rows are sealed")
    return place.shell.folder


@pytest.mark.parametrize("key", _PYTHON)
def test_sealed_days_are_read_from_outside_while_the_server_runs(
    sealed: Path, key: tuple[str, int]
) -> None:
    block = blocks("python")[key]
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=sealed, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(_PYTHON[key], done.stdout), done.stdout


def test_settings_of_the_readme_are_settings(tmp_path: Path) -> None:
    for block in blocks("toml").values():
        tomllib.loads(block)
        (tmp_path / "config.toml").write_text("[store]\n" + block, "utf-8")
        load(tmp_path / "config.toml", {}, {})


def test_values_of_the_readme_are_json() -> None:
    for key, block in blocks("json").items():
        assert json.loads(block.replace("…", "")), key
