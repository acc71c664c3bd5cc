"""Server processes forked off one that has imported everything.

Why: most of the processor time of a start is imports (measured 2026-11-22 by `tests/system/`: see
ARCHITECTURE), and tests start hundreds of servers. One helper a test process imports what `serve`
imports, in its order and with its settings, and forks a server for each that is asked for. What it
runs from there on is `python -m ingester serve …`: arguments, environment, folder, output, session
and exit code are its own.

1. A forked server is the child of the test process, as if it had been started there: its helper
   forks twice, and while it does so the test process takes over what has lost its parent.
2. The helper has no threads, and ends with the test process.

It refuses to be what a start from nothing is: a test that is about that, or that looks at the
command line of the process, starts its `Server` with `is_cold`.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

__all__ = ["Child", "start"]

_REPOSITORY = Path(__file__).resolve().parents[2]
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_REQUEST_BYTES_MAX = 128 * 1024


class Child:
    """A child that this process has not started by itself: as much of `Popen` as a server needs."""

    def __init__(self, pid: int, stdout: int) -> None:
        self.pid = pid
        self.stdout = io.FileIO(stdout)
        self.returncode: int | None = None
        self._turn = threading.Lock()

    def poll(self) -> int | None:
        with self._turn:
            if self.returncode is None:
                found, status = os.waitpid(self.pid, os.WNOHANG)
                if found:
                    self.returncode = os.waitstatus_to_exitcode(status)
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            self._wait_end(left_s)
        return code

    def _wait_end(self, seconds_max: float | None) -> None:
        try:
            ended = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return  # another thread has reaped it
        try:
            select.select([ended], [], [], seconds_max)
        finally:
            os.close(ended)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(module: str, arguments: Sequence[str], environment: Mapping[str, str], log: int) -> Child:
    """`python -m module arguments…` with its standard output in a pipe and its errors in `log`."""
    with _turn:
        helper = _helper()
        reader, writer = os.pipe()
        request = json.dumps([module, list(arguments), dict(environment)]).encode()
        assert len(request) < _REQUEST_BYTES_MAX
        _take_orphans(True)
        try:
            socket.send_fds(helper, [request], [writer, log])
            answer = helper.recv(32)
        finally:
            _take_orphans(False)
            os.close(writer)
    assert answer, "the process that servers are forked off has ended: see its error above"
    return Child(int(answer), reader)


_turn = threading.Lock()


@cache
def _helper() -> socket.socket:
    """Its end; started when the first server is."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.system.warm", str(theirs.fileno())],
            cwd=_REPOSITORY,
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )

    def end() -> None:
        ours.close()
        process.wait(10)

    atexit.register(end)
    return ours


def _take_orphans(is_on: bool) -> None:
    assert ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(is_on), 0, 0, 0) == 0


# From here on: the helper.


def _serve_starts(requests: socket.socket) -> tuple[str, list[str], dict[str, str]] | None:
    """Fork for each request. Returns what to run in a server, and None at the end."""
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, _REQUEST_BYTES_MAX, 2)
        if not request:
            return None
        told, tell = os.pipe()
        between = os.fork()
        if between:
            os.close(tell)
            answer = os.read(told, 32)
            os.waitpid(between, 0)  # from now on the server has its new parent
            requests.send(answer)
            for descriptor in (told, *descriptors):
                os.close(descriptor)
            continue
        if os.fork():
            os._exit(0)
        os.setsid()
        os.write(tell, str(os.getpid()).encode())
        os.close(told)
        os.close(tell)
        requests.close()
        for number, descriptor in zip((1, 2), descriptors, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
        module, arguments, environment = json.loads(request)
        return module, arguments, environment


def _import_all() -> None:
    """As `ingester.cli.serve` does it."""
    from ingester.cli import serve  # noqa: F401
    from ingester.process_memory import leave_out

    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    leave_out()
    gc.disable()
    import duckdb

    import ingester.topology  # noqa: F401

    gc.enable()
    # It connects when it is imported; a fork would have the connection and not its thread, and
    # makes another one when it wants one.
    duckdb.close()
    # A server does so, too, before it is ready.
    gc.freeze()


def _main() -> None:
    _import_all()
    wanted = _serve_starts(socket.socket(fileno=int(sys.argv[1])))
    if wanted is None:
        return
    module, arguments, environment = wanted
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    # `serve` leaves modules out by itself, other commands may want them.
    del sys.meta_path[0]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
