"""Start, stop and change of a running server: drain, restart, sources, memory of keys."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.system.client import Answer, Connection, NoAnswer, compress, event_line, head_bytes
from tests.system.server import CommandFailed, Server, SourceKeys, running, wait_until

_BULK_ROWS = 12_000


def _lines(account: str, row_count: int) -> bytes:
    return b"".join(event_line(account, row, pad="d" * 120) + b"\n" for row in range(row_count))


def _post(server: Server, keys: SourceKeys, body: bytes, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with server.connect() as connection:
        return connection.post(keys.path, body, named)


def test_idempotency_keys_are_known_after_stop_and_after_kill(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        keys = server.create_source("memory")
        firsts: dict[str, tuple[bytes, Answer]] = {}
        for name, row_count in (("small", 2), ("bulk", _BULK_ROWS)):
            body = _lines(name, row_count)
            firsts[name] = body, _post(server, keys, body, Idempotency_Key=name)
        for end in ("kill", "stop"):
            if end == "kill":
                server.kill()
            else:
                assert server.stop() == 0
            server.start()
            for name, (body, first) in firsts.items():
                again = _post(server, keys, body, Idempotency_Key=name)
                assert (again.status, again.counts) == (200, first.counts), (end, name)
                assert again.request_id == first.request_id, (end, name)
                other = _post(server, keys, body + body, Idempotency_Key=name)
                assert (other.status, other.body) == (400, b""), (end, name)
        server.settle(keys)
        assert server.query(
            "SELECT account_id, count(*) AS n FROM events WHERE account_id <> 'settle' "
            "GROUP BY 1 ORDER BY 1"
        ) == [{"account_id": "bulk", "n": _BULK_ROWS}, {"account_id": "small", "n": 2}]


def test_ids_and_rows_are_the_same_after_every_restart(tmp_path: Path) -> None:
    columns = "id, epoch_us(received_at) AS received, account_id, session_id, batch_id"
    with running(tmp_path) as server:
        keys = server.create_source("stable")
        for number in range(20):
            assert _post(server, keys, _lines("stable", 3) + b"bad\n").status == 200
            if number == 10:
                _post(server, keys, compress(_lines("bulk", _BULK_ROWS), "zstd"))
        server.kill()  # some rows are in the journal only
        server.start()
        server.settle(keys)
        wanted = [
            server.query(f"SELECT {columns} FROM events WHERE account_id = 'stable' ORDER BY id"),
            server.query("SELECT * FROM rejects ORDER BY id"),
            server.query("SELECT * FROM requests ORDER BY request_id"),
        ]
        assert len(wanted[0]) == 60
        for end in (server.kill, server.stop):
            end()
            server.start()
            found = [
                server.query(
                    f"SELECT {columns} FROM events WHERE account_id = 'stable' ORDER BY id"
                ),
                server.query("SELECT * FROM rejects ORDER BY id"),
                server.query("SELECT * FROM requests ORDER BY request_id"),
            ]
            assert found == wanted


def test_query_works_on_a_stopped_folder(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        keys = server.create_source("stopped")
        assert _post(server, keys, _lines("stopped", 5)).status == 200
        server.kill()  # not even a checkpoint: the rows may lie in the journal
        running_count = server.value("SELECT count(*) FROM events WHERE account_id = 'stopped'")
        assert running_count in {0, 5}  # the journal is applied by `serve`
        server.start()
        server.settle(keys)
        assert server.stop() == 0
        assert server.value("SELECT count(*) FROM events WHERE account_id = 'stopped'") == 5
        check = server.command("check")
        assert check["ok"] is True, check
        assert check["problems"] == []


@pytest.mark.parametrize("late_s", [0.0, 1.0])
def test_drain_finishes_open_uploads_and_ends_with_0(tmp_path: Path, late_s: float) -> None:
    """SIGTERM in the middle of uploads: each is finished or cleanly refused; acks stay."""
    with running(tmp_path) as server:
        keys = server.create_source("drain")
        small, bulk = _lines("small", 3), compress(_lines("bulk", _BULK_ROWS), "gzip")
        open_requests: list[tuple[Connection, bytes]] = []
        for body, encoding in ((small, None), (bulk, "gzip"), (bulk, "gzip")):
            connection = server.connect()
            headers = {"Content-Length": str(len(body))}
            if encoding:
                headers["Content-Encoding"] = encoding
            half = len(body) // 2
            connection.send_raw(head_bytes("POST", keys.path, headers) + body[:half])
            open_requests.append((connection, body[half:]))
        acknowledged = [_post(server, keys, _lines("before", 1)) for _ in range(20)]
        time.sleep(0.2)
        address = server.address
        server.signal_stop()
        time.sleep(0.1 + late_s)
        statuses: list[int] = []
        for connection, rest in open_requests:
            with connection:
                try:
                    connection.send_raw(rest)
                    statuses.append(connection.read_answer().status)
                except NoAnswer:
                    statuses.append(0)
        assert server.wait_exit() == 0
        assert set(statuses) <= {200, 503}, "an open upload was dropped by the drain"
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(address, 1.0)
        server.start()
        server.settle(keys)
        rows = server.query("SELECT account_id, count(*) AS n FROM events GROUP BY 1")
        counts = {row["account_id"]: row["n"] for row in rows}
        assert counts["before"] == sum(answer.accepted for answer in acknowledged)
        assert counts.get("small", 0) == (3 if statuses[0] == 200 else 0)
        assert counts.get("bulk", 0) == _BULK_ROWS * statuses[1:].count(200)


def test_a_stop_under_load_loses_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        keys = server.create_source("load")
        accepted: list[int] = []

        def work(worker: int) -> None:
            rows = 0
            with server.connect() as connection:
                for _ in range(100_000):
                    try:
                        answer = connection.post(keys.path, _lines(f"load-{worker}", 2))
                    except NoAnswer:
                        break
                    if answer.status != 200:
                        assert answer.status == 503
                        break
                    rows += answer.accepted
            accepted.append(rows)

        address = server.address
        with ThreadPoolExecutor(6) as pool:
            tasks = [pool.submit(work, worker) for worker in range(6)]
            time.sleep(1.0)
            assert server.stop() == 0
            for task in tasks:
                task.result(10.0)
        assert address
        server.start()
        found = server.value("SELECT count(*) FROM events WHERE account_id LIKE 'load-%'")
        # A request that was whole but unanswered may be there as well: one per worker, 2 rows.
        assert sum(accepted) <= found <= sum(accepted) + 12
        assert sum(accepted) > 0


def test_health_says_ready_and_draining(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        keys = server.create_source("health")
        with server.connect() as connection:
            assert connection.request("GET", "/healthz").status == 200
            assert connection.request("GET", "/readyz").status == 200
        body = _lines("health", 3)
        held = server.connect()
        head = head_bytes("POST", keys.path, {"Content-Length": str(len(body))})
        held.send_raw(head + body[:10])
        watcher = server.connect()
        watcher.send_raw(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert watcher.read_answer("GET").status == 200
        time.sleep(0.1)
        server.signal_stop()
        time.sleep(0.3)
        with contextlib.suppress(NoAnswer):
            # An open connection may still be answered while the upload is held: not ready.
            assert watcher.request("GET", "/readyz").status == 503
        with held, watcher:
            held.send_raw(body[10:])
            assert held.read_answer().status in {200, 503}
        assert server.wait_exit() == 0


def test_sources_can_be_changed_while_the_server_runs(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        first = server.create_source("one")
        assert _post(server, first, _lines("one", 1)).status == 200
        with pytest.raises(CommandFailed):
            server.create_source("one")
        shown = json.dumps(server.command("source", "list"))
        assert '"one"' in shown
        assert first.api_key not in shown, "a list must not show keys"
        assert first.auth_key not in shown, "a list must not show keys"

        made = server.command("source", "rotate", "one")
        second = SourceKeys("one", made["auth_key"], made["api_key"], made.get("url", ""))
        assert second.path != first.path
        assert _post(server, second, _lines("one", 1)).status == 200

        server.command("source", "revoke", "one")
        for keys in (first, second):
            wait_until(
                lambda keys=keys: _post(server, keys, _lines("one", 1)).status == 400,
                5.0,
                "a revoked pair is refused",
            )
        # Keys survive a restart, and so does their end.
        other = server.create_source("two")
        server.kill()
        server.start()
        assert _post(server, other, _lines("two", 1)).status == 200
        refused = _post(server, second, _lines("one", 1))
        assert (refused.status, refused.body) == (400, b"")
        server.settle(other)
        assert server.value("SELECT count(*) FROM events WHERE source = 'one'") == 2


def test_kills_do_not_pile_up_journal_segments(tmp_path: Path) -> None:
    """A segment cut short by a kill must not keep the space set aside for its future: a server
    that is killed every few seconds would fill the disk with empty segments."""
    segment_bytes = 16 * 1024 * 1024
    environment = {
        "INGESTER_JOURNAL_SEGMENT_BYTES": str(segment_bytes),
        "INGESTER_JOURNAL_RETENTION_BYTES_MAX": str(segment_bytes),
    }
    with running(tmp_path, environment) as server:
        keys = server.create_source("segments")
        for _ in range(6):
            server.settle(keys)  # one small event
            server.kill()
            server.start()
        files = (server.data_dir / "journal").iterdir()
        allocated = sum(path.stat().st_blocks * 512 for path in files)
        # The retention, the active segment and the next one made ahead.
        assert allocated <= 3 * segment_bytes
        server.settle(keys)
        assert server.value("SELECT count(*) FROM events") == 7


def test_a_second_server_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        keys = server.create_source("lock")
        second = Server(server.data_dir, tmp_path / "second.log")
        second.launch()
        try:
            assert second.wait_exit(20.0) != 0
        finally:
            second.kill()
        assert _post(server, keys, _lines("lock", 1)).status == 200
        server.settle(keys)
        assert server.stop() == 0
