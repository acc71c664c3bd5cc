"""The whole process: signals, drain, reload, and what ends it."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system.client import NoAnswer, event_line, head_bytes
from tests.system.server import REPOSITORY, Server, SourceKeys, running, wait_until

_BULK_ROWS = 9_000


def _lines(account: str, row_count: int) -> bytes:
    return b"".join(event_line(account, row, pad="d" * 120) + b"\n" for row in range(row_count))


def _post(server: Server, keys: SourceKeys, account: str, row_count: int = 1) -> int:
    with server.connect() as connection:
        return connection.post(keys.path, _lines(account, row_count)).status


@dataclass
class _FaultyServer(Server):
    """A server in whose process `fault` is executed first."""

    fault: str = ""

    def launch(self) -> None:
        if not self.fault:
            super().launch()
            return
        arguments = ["serve", "--data-dir", str(self.data_dir), "--intake-bind", "127.0.0.1:0"]
        arguments += ["--console-bind", "127.0.0.1:0"]
        code = f"{self.fault}\nfrom ingester.cli import main\nmain({arguments!r})\n"
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                cwd=REPOSITORY,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )


@contextlib.contextmanager
def _faulty(folder: Path, fault: str, **environment: str) -> Iterator[_FaultyServer]:
    """A source named `test` exists before the faulty process starts."""
    server = _FaultyServer(folder / "data", folder / "data.log", environment, fault=fault)
    try:
        yield server
    finally:
        server.kill()


def test_sigterm_drains_in_order_with_an_upload_and_a_small_request_open(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        keys = server.create_source("test")
        bulk, small = _lines("bulk", _BULK_ROWS), _lines("small", 1)
        console = server.ready["console"]
        with server.connect() as upload, server.connect() as request:
            for connection, body in ((upload, bulk), (request, small)):
                head = head_bytes("POST", keys.path, {"Content-Length": str(len(body))})
                connection.send_raw(head + body[: len(body) // 2])
            time.sleep(0.3)
            server.signal_stop()
            wait_until(lambda: _is_refused(server.address), 5, "the door stops accepting")
            status, body = _get(f"{console}/readyz")
            assert (status, b"draining" in body) == (503, True)
            request.send_raw(small[len(small) // 2 :])
            upload.send_raw(bulk[len(bulk) // 2 :])
            assert upload.read_answer().status == 200
            assert request.read_answer().status == 200
        assert server.wait_exit() == 0
        assert server.query(
            "SELECT account_id, count(*) AS n FROM events GROUP BY 1 ORDER BY 1"
        ) == [
            {"account_id": "bulk", "n": _BULK_ROWS},
            {"account_id": "small", "n": 1},
        ]
        log = server.log_text()
        assert log.index("draining") < log.index("stopped")


def _is_refused(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, 1.0).close()
    except OSError:
        return True
    return False


def _get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_an_upload_that_does_not_end_is_cut_at_the_end_of_the_grace_time(tmp_path: Path) -> None:
    with _faulty(tmp_path, "", INGESTER_SERVER_DRAIN_SECONDS_MAX="1") as server:
        server.start()
        keys = server.create_source("test")
        assert _post(server, keys, "before") == 200
        bulk = _lines("bulk", _BULK_ROWS)
        with server.connect() as upload:
            head = head_bytes("POST", keys.path, {"Content-Length": str(len(bulk))})
            upload.send_raw(head + bulk[: len(bulk) // 2])
            time.sleep(0.2)
            server.signal_stop()
            with pytest.raises(NoAnswer):
                upload.read_answer()
        assert server.wait_exit(20) == 0
        assert server.value("SELECT count(*) FROM events") == 1
        assert "cut at the end of the grace time" in server.log_text()


def test_a_second_signal_ends_the_process_and_loses_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        keys = server.create_source("test")
        for _ in range(5):
            assert _post(server, keys, "before") == 200
        bulk = _lines("bulk", _BULK_ROWS)
        with server.connect() as upload:
            head = head_bytes("POST", keys.path, {"Content-Length": str(len(bulk))})
            upload.send_raw(head + bulk[: len(bulk) // 2])
            time.sleep(0.2)
            server.signal_stop()
            wait_until(lambda: "draining" in server.log_text(), 5, "the drain begins")
            server.signal_stop()
            assert server.wait_exit(5) == 1
        server.start()
        assert server.value("SELECT count(*) FROM events") == 5


def test_sighup_takes_over_a_good_configuration_and_refuses_a_bad_one_whole(
    tmp_path: Path,
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[intake]\nline_bytes_max = 200\n")
    with _faulty(tmp_path, "", INGESTER_CONFIG=str(config)) as server:
        server.start()
        keys = server.create_source("test")

        def accepted() -> int:
            with server.connect() as connection:
                return connection.post(keys.path, event_line("a", pad="p" * 400)).accepted

        def hang_up(text: str | None, said: str) -> None:
            config.unlink(missing_ok=True)
            if text is not None:
                config.write_text(text)
            before = server.log_text().count(said)
            assert server.process is not None
            server.process.send_signal(signal.SIGHUP)
            wait_until(lambda: server.log_text().count(said) > before, 5, said)

        assert accepted() == 0
        for bad in (
            "[intake]\nline_bytes_max = 1000\nno_such_key = 1\n",
            "[intake\n",
            "[intake]\nline_bytes_max = -1\n",
            "\udcff",
        ):
            with contextlib.suppress(UnicodeEncodeError):
                hang_up(bad, "configuration refused")
            assert accepted() == 0
        hang_up(None, "configuration refused")
        hang_up("[intake]\nline_bytes_max = 1000\n", "configuration read again")
        assert accepted() == 1
        assert server.stop() == 0


# After the first batch the loader meets a bug.
_CRASHING_LOADER = """
from ingester.actors import loader
real = loader.load_requests
def load_requests(*arguments):
    if arguments[1] > 1:
        raise RuntimeError("a bug in the loader")
    real(*arguments)
loader.load_requests = load_requests
"""


def test_a_crash_of_the_loader_ends_the_process_and_loses_nothing(tmp_path: Path) -> None:
    with _faulty(tmp_path, _CRASHING_LOADER) as server:
        server.start()
        keys = server.create_source("test")
        statuses = []
        with contextlib.suppress(NoAnswer):
            for _ in range(200):
                statuses.append(_post(server, keys, "a"))
                time.sleep(0.01)
        assert server.wait_exit(20) not in (0, None)
        assert "a bug in the loader" in server.log_text()
        acknowledged = statuses.count(200)
        assert acknowledged >= 1
        server.fault = ""
        server.start()
        found = server.value("SELECT count(*) FROM events")
        assert acknowledged <= found <= acknowledged + 1
        assert server.stop() == 0


# The store takes nothing, as on a full disk.
_STUCK_LOADER = """
from ingester.actors import loader
from ingester.errors import StoreBusy
import ingester.topology
ingester.topology._LOAD_SECONDS_MIN = 1
def load_requests(*arguments):
    raise StoreBusy("no space")
loader.load_requests = load_requests
"""


def test_a_store_that_takes_nothing_does_not_keep_the_process_from_ending(tmp_path: Path) -> None:
    with _faulty(tmp_path, _STUCK_LOADER, INGESTER_SERVER_DRAIN_SECONDS_MAX="1") as server:
        server.start()
        keys = server.create_source("test")
        for _ in range(3):
            assert _post(server, keys, "a") == 200
        assert server.stop(20) == 0
        assert "not all is in the store yet" in server.log_text()
        server.fault = ""
        server.start()
        assert server.value("SELECT count(*) FROM events") == 3
        assert server.stop() == 0


# The console fails half a second after it listens, twice; maintenance always.
_FAILING_PERIPHERY = """
import trio
import ingester.topology as topology
from ingester.actors import maintenance
real, left = topology.serve_console, [2]
async def serve_console(*arguments, **named):
    if left[0]:
        left[0] -= 1
        with trio.move_on_after(0.5):
            await real(*arguments, **named)
        raise RuntimeError("a bug in the console")
    await real(*arguments, **named)
topology.serve_console = serve_console
async def run(**_):
    raise RuntimeError("a bug in maintenance")
maintenance.run = run
topology._RESTART_WAITS_S = (0.05,)
"""


def test_a_failing_console_or_maintenance_is_restarted_and_data_is_taken(tmp_path: Path) -> None:
    with _faulty(tmp_path, _FAILING_PERIPHERY) as server:
        server.start()
        address = f"{server.ready['console']}/metrics"

        def is_restarted() -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException):
                return b'actor="console"} 2' in _get(address)[1]
            return False

        wait_until(is_restarted, 10, "the console listens where it did")
        assert "a bug in the console" in server.log_text()
        keys = server.create_source("test")
        assert _post(server, keys, "a") == 200
        assert server.stop(20) == 0
        assert server.value("SELECT count(*) FROM events") == 1
