"""Folders of every released layout open, hold what they held, and go on; and the way back is there.

A layout is `tests/data/layouts/<version>.tar.xz` (`layouts.py` makes it).
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.client import event_line
from tests.system.doors import LOGS, bearer
from tests.system.server import Server
from tests.upgrade.layouts import LAYOUTS, facts_of, unpacked

# Keys of requests, however old the layout is.
_REMEMBERED = {"INGESTER_INTAKE_IDEMPOTENCY_HOURS": "1000000"}
ARCHIVES = sorted(LAYOUTS.glob("*.tar.xz"))


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name.removesuffix(".tar.xz"))
def layout(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[Server, dict[str, Any]]]:
    with unpacked(request.param, tmp_path) as (data_dir, facts):
        server = Server(data_dir, tmp_path / "log", _REMEMBERED)
        try:
            yield server, facts
        finally:
            server.kill()


def look(server: Server, facts: dict[str, Any]) -> None:
    """Everything that was there is there, what only the journal had too, and each row once."""
    found = json.loads(json.dumps(facts_of(server), default=str))
    for name in found:
        assert found[name] == facts[name], name


def keys_work(server: Server, kept: dict[str, str], age_s: float) -> None:
    """The old keys, a repeat of an old request, and an old id as long as one may be remembered."""
    with server.connect() as client:
        lines = [event_line("beta", 1, messageId="first-1"), b"not json", b'{"accountId": 7}']
        again = client.post(kept["path"], b"\n".join(lines), {"Idempotency-Key": "first-key"})
        assert (again.status, again.request_id) == (200, kept["first_request"])
        repeat = client.post(f"{kept['path']}?wait=query", event_line("beta", 9, messageId="m7"))
        accepted = "0" if age_s < 8784 * 3600 else "1"
        assert (repeat.status, repeat.headers["ingester-accepted"]) == (200, accepted)
        assert client.post(LOGS, b'{"message":"new"}', bearer(kept["token"])).status == 200


def test_a_layout_is_kept_of_the_present_release() -> None:
    assert ARCHIVES, "python -m tests.upgrade.layouts makes one"


def test_a_folder_of_a_released_layout_opens_and_goes_on(
    layout: tuple[Server, dict[str, Any]], tmp_path: Path
) -> None:
    server, facts = layout
    server.start()
    assert server.command("check") == {"ok": True, "problems": []}
    look(server, facts)
    keys_work(server, facts["kept"], time.time() - facts["made_at"])
    rows = server.value("SELECT count(*) AS n FROM events")
    server.command("backup", str(tmp_path / "backup"))
    assert server.stop() == 0
    assert server.command("check") == {"ok": True, "problems": []}
    restored = Server(tmp_path / "restored", tmp_path / "restored.log")
    restored.command("restore", str(tmp_path / "backup"))
    assert restored.query("SELECT count(*) AS n FROM events") == [{"n": rows}]


def test_a_newer_release_migrates_after_copies_and_the_older_one_takes_these_back(
    layout: tuple[Server, dict[str, Any]],
) -> None:
    server, facts = layout
    server.start()  # brings the folder to the present layout
    assert server.stop() == 0
    before = {path for path in server.data_dir.rglob("*.bak")}
    server.module = "tests.upgrade.newer_release"
    server.is_cold = True  # what it changes is read when modules are imported
    server.start()
    look(server, facts)
    assert server.command_process("check") == {"ok": True, "problems": []}
    assert server.stop() == 0
    copies = {path for path in server.data_dir.rglob("*.bak")} - before
    folders = sorted(str(path.relative_to(server.data_dir).parent) for path in copies)
    assert folders[:2] == [".", "."]
    assert set(folders[2:]) == {"open"}

    server.module = "ingester"
    held = {path: path.read_bytes() for path in server.data_dir.rglob("*.duckdb")}
    with pytest.raises(AssertionError, match="start the newer release that wrote it"):
        server.start()
    assert {path: path.read_bytes() for path in held} == held
    # One by one the other files say so as well, as they come in turn.
    for name in ("control.sqlite", "open", "rollups.duckdb"):
        for path in sorted(copies):
            if path.name.startswith(name) or path.parent.name == name:
                put_back(path)
        if name == "rollups.duckdb":
            break
        with pytest.raises(AssertionError, match="start the newer release that wrote it"):
            server.start()
    server.start()
    look(server, facts)
    assert server.command("check") == {"ok": True, "problems": []}
    assert server.stop() == 0


def put_back(copy: Path) -> None:
    path = copy.with_name(copy.name.partition(".v")[0])
    for rest in ("", "-wal", "-shm", ".wal", ".meta"):
        path.with_name(path.name + rest).unlink(missing_ok=True)
    shutil.move(copy, path)
