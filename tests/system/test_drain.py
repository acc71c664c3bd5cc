"""SIGTERM with everything under way at once (F7): 50 uploads, 20 deliveries, clients that never
read. Each upload ends or is cleanly refused, each delivery is recorded, and the process ends.
"""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.system.client import Connection, NoAnswer, compress, event_line, head_bytes
from tests.system.server import Server, SourceKeys
from tests.system.test_delivery import LOOPBACK, append
from tests.system.webhooks import Webhooks, webhooks

_UPLOADS = 50
_DELIVERIES = 20
_GRACE_S = 6
_BULK_ROWS = 9_000
_ENVIRONMENT = {
    **LOOPBACK,
    "INGESTER_SERVER_DRAIN_SECONDS_MAX": str(_GRACE_S),
    # On a busy machine it takes as long as the usual ones until all are under way.
    "INGESTER_DELIVERY_TIMEOUT_SECONDS_MAX": "60",
    "INGESTER_DELIVERY_CONCURRENCY_PER_DESTINATION_MAX": "8",
}


@dataclass
class Upload:
    """One that is half sent."""

    name: str
    row_count: int
    connection: Connection
    rest: bytes
    status: int = 0


@dataclass
class Outcome:
    """What became of everything."""

    exit_code: int = -1
    seconds: float = 0.0
    statuses: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def begin_uploads(server: Server, keys: SourceKeys) -> list[Upload]:
    """Small and large, of every encoding, the first half of each."""
    uploads = []
    pad = "d" * 150
    for number in range(_UPLOADS):
        row_count = _BULK_ROWS if number % 10 == 0 else 40
        name = f"drain-{number}"
        lines = b"".join(event_line(name, row, pad=pad) + b"\n" for row in range(row_count))
        encoding = (None, "gzip", "zstd", "deflate")[number % 4]
        body = compress(lines, encoding)
        headers = {"Content-Length": str(len(body))}
        if encoding:
            headers["Content-Encoding"] = encoding
        connection = server.connect()
        half = len(body) // 2
        connection.send_raw(head_bytes("POST", keys.path, headers) + body[:half])
        uploads.append(Upload(name, row_count, connection, body[half:]))
    return uploads


def finish(upload: Upload) -> None:
    with upload.connection:
        try:
            upload.connection.send_raw(upload.rest)
            upload.status = upload.connection.read_answer().status
        except NoAnswer:
            upload.status = 0


def deaf_clients(server: Server, admin: str) -> list[Connection]:
    """At the intake door one that pipelines and reads nothing, at the console one that has asked
    for more than any buffer holds.
    """
    pipelining = server.connect()
    request = b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"

    def pour() -> None:
        try:
            for _ in range(1_000):
                pipelining.send_raw(request * 300)
        except NoAnswer:
            pass

    threading.Thread(target=pour, daemon=True).start()
    parts = urlsplit(server.ready["console"])
    console = Connection((parts.hostname or "", parts.port or 0))
    sql = b'{"sql":"SELECT repeat(\'x\', 1000) FROM range(200000)","format":"csv"}'
    headers = {"Authorization": f"Bearer {admin}", "Content-Length": str(len(sql))}
    console.send_raw(head_bytes("POST", "/api/v1/query", headers) + sql)
    return [pipelining, console]


def _hold(release: threading.Event) -> None:
    release.wait(20)


def drain(folder: Path, broken: str = "") -> Outcome:
    outcome = Outcome()
    module = "tests.system.broken_server" if broken else "ingester"
    environment = {**_ENVIRONMENT, "BROKEN": broken}
    server = Server(folder / "data", folder / "server.log", environment, module=module)
    release = threading.Event()
    try:
        with webhooks() as hooks:
            hooks.before_answer = lambda: _hold(release)
            server.start()
            _drain(server, hooks, release, outcome, is_broken=bool(broken))
    finally:
        release.set()
        server.kill()
    return outcome


def _drain(
    server: Server, hooks: Webhooks, release: threading.Event, outcome: Outcome, *, is_broken: bool
) -> None:
    keys = server.create_source("drain")
    admin = server.command("token", "create", "--scope", "admin")["token"]
    server.settle(keys)
    made = [
        server.command("destination", "create", f"ops{number}", "--url", hooks.url)["id"]
        for number in range(3)
    ]
    for number in range(_DELIVERIES):
        append(server, f"inc_{number}", made[number % 3])
    deadline = time.monotonic() + 20
    while len(hooks.received) < _DELIVERIES and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(hooks.received) == _DELIVERIES, "all are under way"
    deaf = deaf_clients(server, admin)
    uploads = begin_uploads(server, keys)
    time.sleep(0.3)
    began = time.monotonic()
    server.signal_stop()
    time.sleep(0.3)
    with ThreadPoolExecutor(_UPLOADS) as pool:
        list(pool.map(finish, uploads))
    release.set()
    outcome.exit_code = server.wait_exit(60)
    outcome.seconds = time.monotonic() - began
    for connection in deaf:
        connection.close()
    outcome.statuses = sorted({upload.status for upload in uploads})
    if set(outcome.statuses) - {200, 503}:
        outcome.problems.append(f"uploads were answered {outcome.statuses}")
    if is_broken:
        return
    assert "Traceback" not in server.log_text()
    server.start()
    server.settle(keys)
    rows = server.query("SELECT account_id AS a, count(*) AS n FROM events GROUP BY 1")
    stored = {row["a"]: row["n"] for row in rows}
    for upload in uploads:
        wanted = upload.row_count if upload.status == 200 else 0
        if stored.get(upload.name, 0) != wanted:
            outcome.problems.append(f"{upload.name}: {upload.status}, {stored.get(upload.name)}")
    listed = server.command("delivery", "list", "--limit", "100")["deliveries"]
    ends = sorted((one["state"], one["attempts"]) for one in listed)
    if ends != [("delivered", 1)] * _DELIVERIES:
        odd = [one for one in listed if (one["state"], one["attempts"]) != ("delivered", 1)]
        told = [server.command("delivery", "show", one["id"]) for one in odd]
        outcome.problems.append(f"deliveries: {told}")
    if len(hooks.received) != _DELIVERIES:
        outcome.problems.append(f"{len(hooks.received)} requests came to the receiver")
    assert server.stop() == 0
    assert server.command("check")["ok"] is True


@pytest.mark.timeout(180)
def test_a_stop_ends_what_is_under_way_and_waits_for_nobody_else(tmp_path: Path) -> None:
    outcome = drain(tmp_path)
    print(f"drained in {outcome.seconds:.1f} s, uploads answered {outcome.statuses}")
    assert outcome.problems == []
    assert outcome.exit_code == 0
    # The clients that do not read are cut at the end of the grace time; what comes behind it
    # (loading, checkpoint, the console's two seconds) is given as much again on a busy machine.
    assert outcome.seconds < 2 * _GRACE_S + 10


@pytest.mark.long
@pytest.mark.timeout(180)
def test_a_build_that_cuts_uploads_is_found(tmp_path: Path) -> None:
    assert drain(tmp_path, "cuts").problems, "the test lets a broken build pass"


def ends_at_the_second_signal(folder: Path, broken: str = "") -> tuple[bool, bool]:
    """Whether it ended at once, and whether everything acknowledged is there."""
    module = "tests.system.broken_server" if broken else "ingester"
    server = Server(folder / "data", folder / "server.log", {"BROKEN": broken}, module=module)
    try:
        server.start()
        keys = server.create_source("second")
        held = server.connect()
        held.send_raw(head_bytes("POST", keys.path, {"Content-Length": "100"}) + b"x")
        with server.connect() as connection:
            for row in range(20):
                assert connection.post(keys.path, event_line("second", row)).status == 200
        server.signal_stop()
        deadline = time.monotonic() + 20
        while "draining" not in server.log_text() and time.monotonic() < deadline:
            time.sleep(0.02)
        process = server.process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 3
        while (code := process.poll()) is None and time.monotonic() < deadline:
            time.sleep(0.02)
        server.kill()
        held.close()
        server.module = "ingester"
        server.start()
        server.settle(keys)
        count = server.value("SELECT count(*) FROM events WHERE account_id = 'second'")
        return code == 1, count == 20
    finally:
        server.kill()


def test_a_second_signal_ends_it_at_once_and_loses_nothing(tmp_path: Path) -> None:
    assert ends_at_the_second_signal(tmp_path) == (True, True)


@pytest.mark.long
def test_a_build_that_is_deaf_to_it_is_found(tmp_path: Path) -> None:
    assert ends_at_the_second_signal(tmp_path, "deaf") == (False, True)
