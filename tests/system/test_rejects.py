"""Rejects: listed, mended, sent through their door again, each line exactly once."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.client import event_line
from tests.system.server import CommandFailed, Server, SourceKeys, running

pytestmark = pytest.mark.timeout(120)

REJECT_FIELDS = {
    *("id", "received_at", "door", "source", "request_id", "line_number", "reason", "field"),
    *("column", "detail", "excerpt", "line", "line_encoding", "is_cut", "replay"),
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running(tmp_path) as started:
        yield started


def without_session(account: str) -> bytes:
    event = json.loads(event_line(account))
    del event["sessionId"]
    return json.dumps(event).encode()


def post(server: Server, keys: SourceKeys, *lines: bytes) -> None:
    """Acknowledged and queryable."""
    with server.connect() as connection:
        answer = connection.post(f"{keys.path}?wait=query", b"\n".join(lines))
    assert answer.status == 200, answer


def listed(server: Server, *options: str) -> list[dict[str, Any]]:
    rejects = server.command("rejects", "list", *options)["rejects"]
    assert all(set(reject) == REJECT_FIELDS for reject in rejects)
    return list(rejects)


def replay(server: Server, *arguments: str) -> dict[str, Any]:
    """The document; exit code 4 says that some stay rejects."""
    done = server.command("rejects", "replay", *arguments, exit_codes=(0, 4))
    assert set(done) == {"dry_run", "replayed", "refused", "left", "results"}
    return dict(done)


def accounts(server: Server) -> dict[str, int]:
    rows = server.query("SELECT account_id, count(*) AS n FROM events GROUP BY ALL")
    return {row["account_id"]: row["n"] for row in rows if row["account_id"] != "settle"}


def test_a_line_passes_after_its_source_was_mended_and_never_twice(server: Server) -> None:
    keys = server.create_source("shop")
    post(server, keys, event_line("fine"), without_session("late"), b'{"accountId": \xff}', b"{")
    newest_first = listed(server, "--source", "shop")
    assert [reject["line_number"] for reject in newest_first] == [4, 3, 2]
    broken, binary, late = newest_first
    assert (late["reason"], late["field"], late["replay"]) == ("missing_field", "sessionId", None)
    assert (binary["line_encoding"], binary["column"]) == ("base64", 15)
    assert (broken["line"], broken["is_cut"]) == ("{", False)
    dry = replay(server, "--all", "--dry-run")
    assert [row["outcome"] for row in dry["results"]] == ["refused"] * 3
    assert all(reject["replay"] is None for reject in listed(server))

    server.command("source", "set", "shop", "--lenient-session")
    dry = replay(server, "--source", "shop", "--reason", "missing_field", "--dry-run")
    assert [row["outcome"] for row in dry["results"]] == ["accepted"]
    done = replay(server, "--all")
    outcomes = {row["id"]: row for row in done["results"]}
    assert (done["replayed"], done["refused"]) == (1, 2)
    assert outcomes[late["id"]]["outcome"] == "replayed"
    assert outcomes[broken["id"]]["reason"] == "invalid_json"
    for arguments in (("--all",), (late["id"],)):
        again = replay(server, *arguments)
        assert again["replayed"] == 0
    assert again["results"][0]["outcome"] == "already_replayed"
    assert again["results"][0]["request_id"] == outcomes[late["id"]]["request_id"]
    server.settle(keys)
    assert accounts(server) == {"fine": 1, "late": 1}
    assert server.value("SELECT count(*) FROM rejects") == 3
    (request,) = server.query("SELECT * FROM requests WHERE idempotency_key LIKE 'replay-%'")
    assert request["request_id"] == outcomes[late["id"]]["request_id"]
    assert (request["door"], request["source"]) == ("natero", "shop")
    assert (request["accepted"], request["rejected"]) == (1, 0)
    states = {reject["id"]: reject["replay"]["state"] for reject in listed(server)}
    assert states == {late["id"]: "replayed", binary["id"]: "refused", broken["id"]: "refused"}
    assert [reject["id"] for reject in listed(server, "--replayed")] == [late["id"]]
    assert len(listed(server, "--open")) == 2
    counts = server.command("rejects", "counts")
    assert (counts["rejects"], counts["replayed"]) == (3, 1)
    assert {row["reason"]: row["replayed"] for row in counts["counts"]} == {
        "missing_field": 1,
        "invalid_utf8": 0,
        "invalid_json": 0,
    }


def test_an_edited_line_takes_the_place_of_a_broken_one(server: Server, tmp_path: Path) -> None:
    keys = server.create_source("shop")
    two = event_line("a") + b" " + event_line("b")
    cut = event_line("c")[:-1] + b',"pad":"' + b"x" * 70_000
    post(server, keys, event_line("fine"), two, cut)
    long, several = listed(server)
    assert (several["reason"], long["is_cut"]) == ("several_values", True)
    impossible = replay(server, long["id"])
    assert impossible["results"][0]["outcome"] == "impossible"
    assert "64 KiB" in impossible["results"][0]["detail"]
    still_bad, fixed, mended = (tmp_path / name for name in ("bad", "fixed", "mended"))
    still_bad.write_bytes(b"\n")
    fixed.write_bytes(event_line("a") + b"\n" + event_line("b") + b"\n")
    mended.write_bytes(cut + b'"}\n')
    assert replay(server, "--edit", f"{several['id']}={still_bad}")["refused"] == 1
    done = replay(server, "--edit", f"{several['id']}={fixed}", "--edit", f"{long['id']}={mended}")
    assert (done["replayed"], done["left"]) == (2, 0)
    server.settle(keys)
    assert accounts(server) == {"fine": 1, "a": 1, "b": 1, "c": 1}
    (entry,) = [e for e in server.command("audit")["entries"] if e["detail"].get("edited") == 1][:1]
    assert (entry["action"], entry["object"]) == ("rejects replayed", "shop")


def test_replays_survive_kill_and_are_not_repeated(server: Server) -> None:
    keys = server.create_source("shop")
    names = [f"late-{n}" for n in range(600)]
    lines = [without_session(name)[:-1] + b',"pad":"' + b"x" * 4000 + b'"}' for name in names]
    post(server, keys, event_line("fine"), *lines)
    server.command("source", "set", "shop", "--lenient-session")
    first = [reject["id"] for reject in listed(server, "--limit", "100")]
    assert replay(server, *first)["replayed"] == 100
    server.kill()
    server.start()
    wal = Path(server.data_dir) / "control.sqlite-wal"
    for _ in range(2):  # killed under way, with some claimed, some journalled and some marked
        size = wal.stat().st_size
        caller = threading.Thread(target=_replay_unanswered, args=(server,))
        caller.start()
        while wal.stat().st_size == size and caller.is_alive():
            time.sleep(0.001)
        server.kill()
        caller.join()
        server.start()
    for _ in range(2):
        last = replay(server, "--all")
    assert last["results"] == []
    server.settle(keys)
    assert accounts(server) == {"fine": 1, **dict.fromkeys(names, 1)}
    rejects = listed(server, "--limit", "1000")
    assert {reject["replay"]["state"] for reject in rejects} == {"replayed"}
    stored = {row["request_id"] for row in server.query("SELECT request_id FROM requests")}
    assert {reject["replay"]["request_id"] for reject in rejects} <= stored
    assert server.stop() == 0
    assert server.command("check")["ok"] is True


def _replay_unanswered(server: Server) -> None:
    with contextlib.suppress(CommandFailed):
        server.command("rejects", "replay", "--all")


def test_two_replays_at_once_share_the_lines_out(server: Server) -> None:
    keys = server.create_source("shop")
    names = [f"late-{n}" for n in range(500)]
    post(server, keys, event_line("fine"), *map(without_session, names))
    server.command("source", "set", "shop", "--lenient-session")
    counts: list[int] = []
    callers = [
        threading.Thread(target=lambda: counts.append(replay(server, "--all")["replayed"]))
        for _ in range(3)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert sum(counts) == 500
    server.settle(keys)
    assert accounts(server) == {"fine": 1, **dict.fromkeys(names, 1)}


def test_a_stopped_folder_lists_and_replays(server: Server) -> None:
    keys = server.create_source("shop")
    post(server, keys, event_line("fine"), without_session("late"), b"{")
    server.command("source", "revoke", "shop")
    assert server.stop() == 0
    assert len(listed(server)) == 2
    assert server.command("rejects", "counts")["rejects"] == 2
    assert replay(server, "--all", "--dry-run")["refused"] == 2
    server.command("source", "set", "shop", "--lenient-session")
    assert replay(server, "--all")["replayed"] == 1
    assert replay(server, "--all")["replayed"] == 0
    assert accounts(server) == {"fine": 1, "late": 1}
    assert server.command("check")["ok"] is True
    server.start()
    assert accounts(server) == {"fine": 1, "late": 1}
    assert replay(server, "--all")["replayed"] == 0


def test_rejects_of_the_honest_door_go_where_its_rows_went(server: Server) -> None:
    token = (
        server.command(
            *("token", "create", "--service", "web", "--environment", "prod"), *("--source", "gh")
        )
        if server.create_source("gh")
        else {}
    )
    headers = {"Authorization": f"Bearer {token['token']}"}
    shaped = b'{"org": {"id": "o"}, "type": "push",\n "at": 1700000000000, "who": 7}'
    with server.connect() as connection:
        logs = connection.post("/ingest/gh?wait=query", b'{"n": 1}\n{"n": 2\n', headers)
        good = json.loads(event_line("fine"))
        body = b"[" + json.dumps(good).encode() + b"," + shaped + b"]"
        events = connection.post("/ingest/gh?as=events&wait=query", body, headers)
    assert (logs.status, events.status) == (200, 200), (logs, events)
    shaped_reject, log_reject = listed(server, "--door", "ingest")
    assert shaped_reject["line"] == shaped.decode()
    pairs = ("account_id=/org/id", "action=/type", "user_id==nobody", "created_at=/at")
    options = [part for pair in (*pairs, "session_id==none") for part in ("--map", pair)]
    server.command("source", "set", "gh", *options)
    server.command("token", "delete", token["id"])
    edit = Path(server.data_dir) / "edit"
    edit.write_bytes(b'{"n": 2}')
    done = replay(server, shaped_reject["id"], "--edit", f"{log_reject['id']}={edit}")
    assert done["replayed"] == 2, done
    server.settle(server.create_source("settle"))
    assert accounts(server) == {"fine": 1, "o": 1}
    rows = server.query("SELECT service, environment, attributes FROM logs ORDER BY id")
    assert [row["attributes"] for row in rows] == [{"n": 1}, {"n": 2}]
    assert {(row["service"], row["environment"]) for row in rows} == {("web", "prod")}
