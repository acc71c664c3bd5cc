"""The server as a black box: a child process, its folder, and the documented commands.

Why: the safety tests may rely on nothing but what a user can see (`serve`, `source create`,
`query`, the ready line, HTTP). The process runs in a group of its own, so that `kill` takes
everything it started with it and nothing else.

Refuses to: read any file of the data folder, except to look at sizes.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from click.testing import CliRunner

from ingester.cli import main
from tests.system import warm
from tests.system.client import Answer, Connection, NoAnswer, event_line

__all__ = ["REPOSITORY", "CommandFailed", "Server", "SourceKeys", "running", "wait_until"]

REPOSITORY = Path(__file__).resolve().parents[2]

_COMMAND_SECONDS_MAX = 60


class CommandFailed(Exception):
    """A command of the CLI ended with another code than 0."""


@dataclass(frozen=True)
class SourceKeys:
    """A source and the path its events are posted to."""

    name: str
    auth_key: str
    api_key: str
    url: str

    @property
    def path(self) -> str:
        return f"/v1/{self.auth_key}/{self.api_key}"


@dataclass
class Server:
    """One data folder and, while started, the process that serves it."""

    data_dir: Path
    log_path: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: Sequence[str] = ()
    module: str = "ingester"
    # In a process from nothing, not in a fork of one that has imported everything (`warm.py`).
    is_cold: bool = False
    process: subprocess.Popen[bytes] | warm.Child | None = None
    ready: dict[str, str] = field(default_factory=dict)
    start_seconds: list[float] = field(default_factory=list)

    def launch(self) -> None:
        """Start the process without waiting for it."""
        assert self.process is None
        arguments = ["serve", "--data-dir", str(self.data_dir)]
        arguments += ["--intake-bind", "127.0.0.1:0", "--console-bind", "127.0.0.1:0"]
        arguments += self.arguments
        environment = _environment(self.environment)
        with self.log_path.open("ab") as log:
            if not self.is_cold:
                self.process = warm.start(self.module, arguments, environment, log.fileno())
                return
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, *arguments],
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    def start(self, seconds_max: float = 30.0) -> float:
        """Start and wait for the ready line; the seconds that took."""
        began = time.monotonic()
        self.launch()
        self.wait_ready(seconds_max)
        taken = time.monotonic() - began
        self.start_seconds.append(taken)
        return taken

    def wait_ready(self, seconds_max: float = 30.0) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds_max
        stdout = self.process.stdout.fileno()
        line = b""
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            readable = left > 0 and select.select([stdout], [], [], left)[0]
            piece = os.read(stdout, 4096) if readable else b""
            if not piece:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    # Its output ends a moment before it does.
                    self.process.wait(5.0 if readable else 0.0)
                code = self.process.poll()
                self.kill()
                raise AssertionError(f"not ready (exit code {code}):\n{self.log_tail()}")
            line += piece
        self.ready = json.loads(line)
        assert self.ready["event"] == "ready", line

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the intake door."""
        parts = urlsplit(self.ready["intake"])
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def kill(self) -> None:
        """`kill -9` of the process group, and wait until it is gone."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self._reap(10.0)

    def signal_stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def wait_exit(self, seconds_max: float = 40.0) -> int:
        assert self.process is not None
        return self._reap(seconds_max)

    def stop(self, seconds_max: float = 40.0) -> int:
        """SIGTERM and wait; the exit code."""
        self.signal_stop()
        return self.wait_exit(seconds_max)

    def _reap(self, seconds_max: float) -> int:
        assert self.process is not None
        code = self.process.wait(seconds_max)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code

    def connect(self, timeout_s: float = 30.0) -> Connection:
        return Connection(self.address, timeout_s)

    def command(self, *arguments: str, exit_codes: Collection[int] = (0,)) -> Any:
        """Run one CLI command with `--json`; its document.

        Beside a server it runs in this process, where its modules are loaded already; on a stopped
        folder, or from a thread, in a fork of its own (`warm.py`).
        """
        if self.process is None or threading.current_thread() is not threading.main_thread():
            return self._command_forked(*arguments, exit_codes=exit_codes)
        unset = {name: None for name in os.environ if name.startswith("INGESTER_")}
        with contextlib.chdir(REPOSITORY):
            result = CliRunner().invoke(
                main,
                [*arguments, "--json", "--data-dir", str(self.data_dir)],
                env={**unset, **self.environment},
                prog_name="ingester",
            )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return _document(
            arguments, result.exit_code, result.stdout_bytes, result.stderr_bytes, exit_codes
        )

    def _command_forked(self, *arguments: str, exit_codes: Collection[int]) -> Any:
        with tempfile.TemporaryFile() as errors:
            process = warm.start(
                "ingester",
                [*arguments, "--json", "--data-dir", str(self.data_dir)],
                _environment(self.environment),
                errors.fileno(),
            )
            with process.stdout as output:
                printed = output.read()
            code = process.wait(_COMMAND_SECONDS_MAX)
            errors.seek(0)
            return _document(arguments, code, printed, errors.read(), exit_codes)

    def command_process(
        self, *arguments: str, exit_codes: Collection[int] = (0,), module: str = "ingester"
    ) -> Any:
        """The same as a user types it; `module` may be that of a broken build."""
        result = subprocess.run(
            [sys.executable, "-m", module, *arguments, "--json", "--data-dir", self.data_dir],
            cwd=REPOSITORY,
            env=_environment(self.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_COMMAND_SECONDS_MAX,
            check=False,
        )
        return _document(arguments, result.returncode, result.stdout, result.stderr, exit_codes)

    def create_source(self, name: str) -> SourceKeys:
        made = self.command("source", "create", name)
        return SourceKeys(name, made["auth_key"], made["api_key"], made["url"])

    def query(self, sql: str) -> list[dict[str, Any]]:
        rows = self.command("query", sql)
        assert isinstance(rows, list), rows
        return rows

    def value(self, sql: str) -> Any:
        """The one value of a one-row query."""
        rows = self.query(sql)
        assert len(rows) == 1, rows
        (value,) = rows[0].values()
        return value

    def settle(self, keys: SourceKeys, seconds_max: float = 30.0) -> None:
        """Return when everything acknowledged so far can be queried.

        One more event is posted with `?wait=query`: the journal is applied in order, so its
        row is the last. A refusal for want of space or time is tried again.
        """
        deadline = time.monotonic() + seconds_max
        body = event_line("settle")
        last: object = None
        while time.monotonic() < deadline:
            with self.connect() as connection, contextlib.suppress(NoAnswer):
                last = answer = connection.post(f"{keys.path}?wait=query", body)
                if answer.status == 200 and answer.headers.get("ingester-queryable") != "false":
                    return
                assert answer.status in {200, 429, 503}, answer
            time.sleep(0.2)
        raise AssertionError(f"acknowledged rows do not become queryable: {last}")

    def log_text(self) -> str:
        return self.log_path.read_text("utf-8", "replace") if self.log_path.exists() else ""

    def log_tail(self) -> str:
        return self.log_text()[-4000:]

    def memory_peak_bytes(self) -> int:
        """VmHWM of the process."""
        return _status_kib(self.pid, "VmHWM") * 1024

    def forget_memory_peak(self) -> None:
        """Let VmHWM start again from the present size."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5", "ascii")


@contextlib.contextmanager
def running(
    folder: Path,
    environment: Mapping[str, str] | None = None,
    *,
    name: str = "data",
    broken: str = "",
) -> Iterator[Server]:
    """A started server on `folder/name`; killed at the end when the test did not stop it.

    `broken` names a build of `broken_server.py`.
    """
    environment = dict(environment or {})
    if broken:
        environment["BROKEN"] = broken
    module = "tests.system.broken_server" if broken else "ingester"
    server = Server(folder / name, folder / f"{name}.log", environment, module=module)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def wait_until(answer: Any, seconds_max: float, what: str) -> Any:
    """Call `answer()` until it is true; its value."""
    deadline = time.monotonic() + seconds_max
    while not (value := answer()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds_max} s: {what}")
        time.sleep(0.1)
    return value


def is_empty_refusal(answer: Answer, status: int = 400) -> bool:
    """The Natero door says no by its status alone."""
    return answer.status == status and answer.body == b""


def _document(
    arguments: Sequence[str],
    code: int,
    stdout: bytes,
    stderr: bytes | None,
    exit_codes: Collection[int],
) -> Any:
    if code not in exit_codes:
        raise CommandFailed(f"{arguments[:2]} exit {code}: {stdout!r} {stderr!r}")
    return json.loads(stdout)


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Ours without settings of the user's own server, plus `extra`."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("INGESTER_")}
    return {**kept, **extra}


def _status_kib(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise AssertionError(f"{name} not in /proc/{pid}/status")
