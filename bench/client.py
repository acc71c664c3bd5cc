"""Driving the load clients: start one, wait until it is ready, say go, read what it measured.

The clients are processes of their own, so that their CPU time is told apart from the server's
and their interpreter start is outside every timed section.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from bench.client_bulk import BulkDone, BulkPlan, Progress
from bench.client_search import SearchDone, SearchPlan
from bench.client_small import SmallPlan, SmallWindow
from bench.server import child_line

__all__ = [
    "BulkClient",
    "SearchClient",
    "SmallClient",
    "Target",
    "bulk_client",
    "search_client",
    "small_client",
    "upload",
]

_READY_SECONDS_MAX = 30.0
_REPOSITORY = Path(__file__).resolve().parent.parent


class Target(Protocol):
    """Where requests go: a `Server` (its Natero door), an `EchoServer` or a `Door`."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def target(self) -> str: ...
    @property
    def token(self) -> str: ...


@contextmanager
def _client(module: str, plan: Struct) -> Iterator[subprocess.Popen[bytes]]:
    """A started client that printed its ready line; its end is waited for."""
    command = [sys.executable, "-m", module, msgspec.json.encode(plan).decode()]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_REPOSITORY
    ) as process:
        assert process.stdout is not None
        try:
            if not child_line(process.stdout, _READY_SECONDS_MAX):
                raise RuntimeError(f"{module} did not become ready")
            yield process
        except BaseException:
            process.kill()
            raise


def _write_line(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(line + b"\n")
    process.stdin.flush()


class BulkClient:
    """A running bulk client."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def go(self) -> None:
        _write_line(self._process, b"go")

    def stop(self) -> None:
        """No further uploads; the one under way is finished."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def events(self) -> Iterator[BulkDone | Progress]:
        """What it prints, until it ends; a failed client raises."""
        assert self._process.stdout is not None
        decoder = msgspec.json.Decoder(BulkDone | Progress)
        for line in self._process.stdout:
            yield decoder.decode(line)
        if self._process.wait() != 0:
            raise RuntimeError(f"the bulk client ended with {self._process.returncode}")


class SmallClient:
    """A running small-request client."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def go(self) -> None:
        _write_line(self._process, b"go")

    def mark(self) -> SmallWindow:
        """The window since the last mark."""
        _write_line(self._process, b"mark")
        return self._window()

    def stop(self) -> SmallWindow:
        """Let it finish; its last window."""
        _write_line(self._process, b"stop")
        return self._window()

    def finished(self) -> list[SmallWindow]:
        """All windows of a client that runs by its own clock."""
        windows = [self._window()]
        while not windows[-1].last:
            windows.append(self._window())
        return windows

    def _window(self) -> SmallWindow:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the small client ended early; its error is above")
        return msgspec.json.decode(line, type=SmallWindow)


class SearchClient:
    """Running askers."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def go(self) -> None:
        _write_line(self._process, b"go")

    def stop(self) -> SearchDone:
        """No further questions; what they got."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        return msgspec.json.decode(self._process.stdout.readline(), type=SearchDone)


@contextmanager
def bulk_client(target: Target, path: Path, **settings: Any) -> Iterator[BulkClient]:
    """A bulk client that is ready to go."""
    plan = BulkPlan(
        host=target.host,
        port=target.port,
        target=target.target,
        token=target.token,
        path=str(path),
        **settings,
    )
    with _client("bench.client_bulk", plan) as process:
        yield BulkClient(process)


@contextmanager
def small_client(
    target: Target, path: Path, connections: int, **settings: Any
) -> Iterator[SmallClient]:
    """A small-request client that is connected and ready to go."""
    plan = SmallPlan(
        host=target.host,
        port=target.port,
        target=target.target,
        token=target.token,
        path=str(path),
        connections=connections,
        **settings,
    )
    with _client("bench.client_small", plan) as process:
        yield SmallClient(process)


@contextmanager
def search_client(plan: SearchPlan) -> Iterator[SearchClient]:
    """Askers that are ready to go."""
    with _client("bench.client_search", plan) as process:
        yield SearchClient(process)


def upload(target: Target, path: Path, encoding: str) -> BulkDone:
    """One upload of a file, start to answer."""
    with bulk_client(target, path, encoding=encoding) as client:
        client.go()
        done = [event for event in client.events() if isinstance(event, BulkDone)]
    assert len(done) == 1
    return done[0]
