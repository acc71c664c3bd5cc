"""Data folders as releases have left them: how one is made, and what must be found in it again.

`python -m tests.upgrade.layouts` writes `tests/data/layouts/<version>.tar.xz` with the program of
this tree. Run it once for a release, when it is made; the file is never written again. A folder was
ended by `kill -9` with acknowledged records that only the journal has, and holds every kind of file
that we write: sealed days and their ledger, an open part, files of large uploads, rollups, exported
increments, control data with every kind of row, `secret.key`.

`facts.json` beside the folder says what was in it, as answers of the program that made it.
"""

from __future__ import annotations

import json
import secrets
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ingester
from tests.system.client import event_line
from tests.system.doors import HONEST, LOGS, METRICS, bearer
from tests.system.server import REPOSITORY, Server, wait_until

__all__ = ["LAYOUTS", "facts_of", "unpacked"]

LAYOUTS = REPOSITORY / "tests" / "data" / "layouts"

# A part is rotated and sealed at once; a small upload gets a file of its own.
_SMALL_PARTS = {
    "INGESTER_STORE_PART_BYTES_MAX": str(64 * 1024),
    "INGESTER_STORE_UPLOAD_FILE_BYTES_MIN": str(64 * 1024),
    "INGESTER_INTAKE_SMALL_BODY_BYTES_MAX": str(32 * 1024),
    "INGESTER_JOURNAL_SEGMENT_BYTES": str(1024 * 1024),
}
# Nothing is loaded but what a query waits for.
_LATE = {
    "INGESTER_STORE_LINGER_MS_MAX": "60000",
    "INGESTER_STORE_UPLOAD_FILE_BYTES_MIN": str(64 * 1024),
    "INGESTER_INTAKE_SMALL_BODY_BYTES_MAX": str(32 * 1024),
    "INGESTER_JOURNAL_SEGMENT_BYTES": str(1024 * 1024),
}

# The columns that say the same whatever file the rows lie in.
_RELATIONS = {
    "events": "id, source, account_id, user_id, created_at, action, session_id, body::VARCHAR,"
    " received_at",
    "logs": "id, time, received_at, service, environment, level, message, attributes::VARCHAR",
    "metrics": "id, time, project_id, metric_id, value, unit, metadata::VARCHAR",
    "rejects": "id, door, source, line_number, reason, field, detail, line",
    "requests": "request_id, door, source, accepted, rejected, bytes_in, bytes_raw, encoding,"
    " idempotency_key",
    "events_daily": "bucket, source, account_id, action, events, users, sessions",
    "logs_daily": "bucket, service, environment, level, logs",
    "metrics_daily": "bucket, project_id, metric_id, count, sum, last",
    "users": "source, account_id, user_id, details::VARCHAR",
}
# One query: each is a process.
_QUESTION = "SELECT " + ", ".join(
    f"(SELECT count(*) || ' ' || count(DISTINCT hash({columns})) || ' ' || bit_xor(hash({columns}))"
    f" FROM {name}) AS {name}"
    for name, columns in _RELATIONS.items()
)
_SOCKET = shutil.ignore_patterns("control.sock")
# Not incidents, deliveries and silences: these go on with time.
_LISTS = (
    *("source", "token", "connection", "project", "member", "destination", "route", "rule"),
    *("alert", "monitor"),
)
_SOCKET = shutil.ignore_patterns("control.sock")


def facts_of(server: Server) -> dict[str, Any]:
    """What a running server knows, as far as it must not change: rows as counts and digests."""
    facts: dict[str, Any] = server.query(_QUESTION)[0]
    for command in _LISTS:
        facts[command] = _names(server.command(command, "list"))
    return facts


def _names(listed: Any) -> list[str]:
    """Of each thing the name it is known by; times of use and the like may change."""
    rows = listed if isinstance(listed, list) else next(iter(listed.values()))
    return sorted(str(row.get("id") or row.get("name") or row.get("email")) for row in rows)


@contextmanager
def unpacked(archive: Path, folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The data folder of a layout, and what it must hold."""
    with tarfile.open(archive, "r:xz") as tar:
        tar.extractall(folder, filter="data")
    yield folder / "data", json.loads((folder / "facts.json").read_text("utf-8"))


def make(archive: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="layout-") as name:
        folder = Path(name)
        server = Server(folder / "data", folder / "log", _SMALL_PARTS)
        try:
            server.start()
            kept = _fill(server)
            wait_until(lambda: "part sealed" in server.log_text(), 60, "a part is sealed")
            assert server.stop() == 0
            server.environment = _LATE
            server.start()
            _add_late(server, kept)
            server.kill()
            # Looking would load them.
            shutil.copytree(folder / "data", folder / "seen", ignore=_SOCKET)
            server.data_dir = folder / "seen"
            server.start()
            facts = {**facts_of(server), "kept": kept, "made_at": time.time()}
        finally:
            server.kill()
        (folder / "facts.json").write_text(json.dumps(facts, indent=1, default=str), "utf-8")
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive, "w:xz", preset=9) as tar:
            for path in ("facts.json", "data"):
                tar.add(folder / path, path, filter=_plain)
    sys.stdout.write(f"{archive} {archive.stat().st_size} bytes\n")


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _fill(server: Server) -> dict[str, str]:
    """One of everything; the keys that must go on to work."""
    source = server.command("source", "create", "shop")
    server.command("source", "set", "shop", "--dedup-field", "messageId", "--dedup-hours", "8784")
    token = server.command("token", "create", "--service", "web", "--environment", "prod")["token"]
    connection = server.command("connection", "create", "cron", "--project", "acme")
    admin = server.command("token", "create", "--scope", "admin")["token"]
    server.command("member", "create", "ada@example.org", "--role", "viewer")
    server.command("destination", "create", "ops", "--url", "https://192.0.2.1/hook")
    server.command("route", "create", "ops", "--allow", "service=web")
    server.command("rule", "create", "disk", "--lql", 'level:>=error "disk full"')
    server.command(
        "alert",
        "create",
        "slow",
        "--cron",
        "0 0 1 1 *",
        "--language",
        "lql",
        "--query",
        "m.ms:>2000",
    )
    server.command(
        *("monitor", "create", "queue", "--metric", "queue_length", "--aggregate", "max"),
        *("--operator", ">=", "--threshold", "100", "--window", "5m"),
    )
    server.command("silence", "create", "service=api", "--for", "30d", "--reason", "old layout")
    path = f"/v1/{source['auth_key']}/{source['api_key']}"
    kept = {"path": path, "token": token, "api_key": connection["api_key"], "admin": admin}
    with server.connect() as client:
        bulk = b"\n".join(
            event_line("acme", n, messageId=f"m{n}", pad=secrets.token_hex(16)) for n in range(999)
        )
        sent = client.post(path, bulk)
        assert sent.status == 200, server.log_tail()
        kept["first_request"] = _send_small(client, kept, "first")
        assert client.post(f"{path}?wait=query", event_line("acme", 1, messageId="w")).status == 200
    wait_until(lambda: server.command("incident", "list") != [], 20, "the rule opens an incident")
    server.query("SELECT count(*) AS n FROM events")
    return kept


def _send_small(client: Any, kept: dict[str, str], word: str) -> str:
    """One request for each door; the number of the first."""
    path, token, api_key = kept["path"], kept["token"], kept["api_key"]
    lines = [event_line("beta", 1, messageId=f"{word}-1"), b"not json", b'{"accountId": 7}']
    sent = client.post(path, b"\n".join(lines), {"Idempotency-Key": f"{word}-key"})
    assert sent.status == 200, sent
    details = {"details": {"plan": "pro"}, "messageId": f"{word}-2"}
    assert client.post(path, event_line("beta", 2, action="identifyUser", **details)).status == 200
    log = {"message": f"{word}: disk full on /var", "level": "error", "ms": 2500}
    assert client.post(LOGS, json.dumps(log).encode(), bearer(token)).status == 200
    assert client.post(HONEST, b'{"message":"one"}\nnope', bearer(token)).status == 200
    metric = {"metricId": "queue_length", "metricName": "Queue", "value": 3, "unit": "jobs"}
    body = json.dumps({"projectId": "acme", "metrics": [{**metric, "metadata": {"host": "a"}}]})
    assert client.post(METRICS, body.encode(), bearer(api_key)).status == 200
    return str(sent.request_id)


def _add_late(server: Server, kept: dict[str, str]) -> None:
    """More: a file of an upload that lies beside its part, and what only the journal has."""
    with server.connect() as client:
        bulk = b"\n".join(
            event_line("delta", n, messageId=f"d{n}", pad="p" * 99) for n in range(500)
        )
        assert client.post(kept["path"], bulk).status == 200
        _send_small(client, kept, "late")


if __name__ == "__main__":
    make(LAYOUTS / f"{ingester.__version__}.tar.xz")
