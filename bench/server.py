"""A server under test: `ingester serve` as a child process on loopback, in a folder of its own.

Why: the whole-process benches must measure what an operator starts, not a library call. The
folder lies on the file system of the corpus cache, so that a sync costs what it costs there, and
is removed at the end. A server that does not stop in time is killed and reported, never waited
for without end.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from bench.corpus import cache_directory
from bench.process import cpu_seconds, memory_mb
from bench.report import Row

__all__ = [
    "Door",
    "EchoServer",
    "Server",
    "ServerUnavailable",
    "child_line",
    "run_echo",
    "run_server",
    "timed_start",
]

_READY_SECONDS_MAX = 30.0
_STOP_SECONDS_MAX = 60.0
_REPOSITORY = Path(__file__).resolve().parent.parent

# The command under test; the tests of this package put a stand-in here.
PROGRAM: list[str] = [sys.executable, "-m", "ingester"]


class ServerUnavailable(Exception):
    """The program did not come up; the message is the end of what it wrote."""


class Door(Struct, frozen=True):
    """Where requests with a bearer key go."""

    host: str
    port: int
    target: str
    token: str


class Server(Struct):
    """A running server: where it listens, the target its events go to, its process."""

    pid: int
    host: str
    port: int
    target: str  # "/v1/<auth>/<api>"
    data_dir: Path
    token: str = ""  # the pair of a source is in the target
    console: str = ""  # "127.0.0.1:8081"

    def ingest_door(self) -> Door:
        """The honest door, with a new token."""
        return self._door("/ingest/bench", self._ingest_token())

    def log_door(self) -> Door:
        """The log door, with a new token."""
        return self._door("/api/v1/webhook/event/log", self._ingest_token())

    def metric_door(self, project_id: str) -> Door:
        """The metric door, with a new connection of that project."""
        found = _cli(
            "connection", "create", "bench", "--project", project_id, data_dir=self.data_dir
        )
        assert found["project_id"] == project_id
        return self._door("/api/webhooks/custom", found["api_key"])

    def read_token(self) -> str:
        """A new token for searches and queries at the console."""
        token: str = _cli("token", "create", "--scope", "read", data_dir=self.data_dir)["token"]
        return token

    def _ingest_token(self) -> str:
        named = ("--service", "bench", "--environment", "test")
        token: str = _cli("token", "create", *named, data_dir=self.data_dir)["token"]
        return token

    def _door(self, target: str, token: str) -> Door:
        return Door(self.host, self.port, target, token)

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Rows of one SELECT, through the CLI: what an operator would see."""
        rows: list[dict[str, Any]] = _cli("query", sql, data_dir=self.data_dir)
        return rows

    def wait_count(self, expected: int, *, table: str = "events", seconds_max: float = 15.0) -> int:
        """The number of rows once it equals `expected`, or what it is at the deadline."""
        deadline = time.monotonic() + seconds_max
        while True:
            count = int(self.query(f"SELECT count(*) AS n FROM {table}")[0]["n"])
            if count >= expected or time.monotonic() > deadline:
                return count
            time.sleep(0.1)


class EchoServer(Struct):
    """The bare httptools echo: the ceiling for small requests."""

    pid: int
    host: str
    port: int
    target: str
    token: str = ""


def _environment() -> dict[str, str]:
    """The caller's environment with this checkout first on the import path, without settings.

    A setting of the caller's would change what is measured; our own `INGESTER_BENCH_CACHE` would
    be refused as an unknown one.
    """
    path = os.pathsep.join(filter(None, [str(_REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    kept = {key: value for key, value in os.environ.items() if not key.startswith("INGESTER_")}
    return {**kept, "PYTHONPATH": path}


def _cli(*arguments: str, data_dir: Path) -> Any:
    command = [*PROGRAM, *arguments, "--json", "--data-dir", str(data_dir)]
    answer = subprocess.run(
        command, capture_output=True, env=_environment(), check=False, timeout=120
    )
    if answer.returncode != 0:
        tail = answer.stderr.decode(errors="replace")[-2000:]
        raise ServerUnavailable(
            f"`{' '.join(arguments[:2])}` ended with {answer.returncode}: {tail}"
        )
    return msgspec.json.decode(answer.stdout)


def child_line(stream: IO[bytes], seconds_max: float) -> bytes:
    """One line of a child's standard output, b"" at its end or at the deadline."""
    line: list[bytes] = []
    reader = threading.Thread(target=lambda: line.append(stream.readline()), daemon=True)
    reader.start()
    reader.join(seconds_max)
    return line[0] if line else b""


@contextmanager
def _child(command: list[str], errors: Path, environment: Mapping[str, str]) -> Iterator[Any]:
    """A child that prints a ready line; yields (process, ready), stops it by SIGTERM."""
    with (
        errors.open("wb") as error_file,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=error_file, env=dict(environment)
        ) as process,
    ):
        assert process.stdout is not None
        try:
            line = child_line(process.stdout, _READY_SECONDS_MAX)
            if not line:
                tail = errors.read_text(errors="replace")[-2000:]
                raise ServerUnavailable(f"{' '.join(command[1:4])} did not become ready: {tail}")
            yield process, msgspec.json.decode(line)
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise ServerUnavailable(f"no exit within {_STOP_SECONDS_MAX:.0f} s of SIGTERM") from None


@contextmanager
def run_server(settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A fresh server on an empty folder; `settings` are `INGESTER_*` variables."""
    folder = Path(tempfile.mkdtemp(prefix="server-", dir=cache_directory()))
    data_dir = folder / "data"
    environment = {**_environment(), **(settings or {})}
    try:
        with _child(_serve_command(data_dir), folder / "stderr.txt", environment) as (
            process,
            ready,
        ):
            intake = urlsplit(ready["intake"])
            assert intake.hostname is not None
            assert intake.port is not None
            pair = _cli("source", "create", "bench", data_dir=data_dir)
            yield Server(
                pid=process.pid,
                host=intake.hostname,
                port=intake.port,
                target=f"/v1/{pair['auth_key']}/{pair['api_key']}",
                data_dir=data_dir,
                console=urlsplit(ready["console"]).netloc,
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def timed_start(data_dir: Path, *, expected: int) -> Row:
    """Seconds, CPU seconds and memory of a start on `data_dir`; its events are counted after."""
    began = time.perf_counter()
    with _child(_serve_command(data_dir), data_dir.parent / "stderr.txt", _environment()) as (
        process,
        _,
    ):
        row = Row(bench="", name="", events=expected, seconds=time.perf_counter() - began)
        row.cpu_s, row.peak_rss_mb = cpu_seconds(process.pid), memory_mb(process.pid)
        found = _cli("query", "SELECT count(*) AS n FROM events", data_dir=data_dir)[0]["n"]
    assert found == expected, f"{found} events stored, {expected} acknowledged"
    return row


def _serve_command(data_dir: Path) -> list[str]:
    binds = ["--intake-bind", "127.0.0.1:0", "--console-bind", "127.0.0.1:0"]
    return [*PROGRAM, "serve", "--data-dir", str(data_dir), *binds]


@contextmanager
def run_echo() -> Iterator[EchoServer]:
    """The echo server on a free port."""
    folder = Path(tempfile.mkdtemp(prefix="echo-", dir=cache_directory()))
    command = [sys.executable, "-m", "bench.echo", "--port", "0"]
    try:
        with _child(command, folder / "stderr.txt", _environment()) as (process, ready):
            yield EchoServer(
                pid=process.pid, host="127.0.0.1", port=int(ready["port"]), target="/v1/a/b"
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
