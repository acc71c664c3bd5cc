"""The kernel's walls, looked at from inside a process that is confined."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
import os, socket, sys, threading
from ingester.sandbox.confine import confine
granted, other, what = sys.argv[1:]
confine([granted], memory_bytes=64 << 20, cpu_seconds=2)
def attempt(act):
    try:
        act()
    except (OSError, MemoryError) as error:
        print("refused", flush=True)
    else:
        print("done", flush=True)
attempt({
    "read the granted": lambda: open(granted).read(),
    "read another": lambda: open(other).read(),
    "read memory": lambda: open("/proc/self/mem").read(1),
    "list the folder": lambda: os.listdir(os.path.dirname(granted)),
    "write the granted": lambda: open(granted, "r+").write("x"),
    "make a file": lambda: open(granted + ".new", "w"),
    "remove the granted": lambda: os.unlink(granted),
    "rename": lambda: os.rename(granted, other),
    "make a socket": lambda: socket.socket(),
    "make a unix socket": lambda: socket.socket(socket.AF_UNIX),
    "start a program": lambda: os.execv("/bin/true", ["true"]),
    "fork": lambda: os.fork() or os._exit(0),
    "start a thread": lambda: threading.Thread(target=int).start(),
    "kill the parent": lambda: os.kill(os.getppid(), 0),
    "take memory": lambda: bytearray(1 << 30),
    "burn": lambda: any(iter(int, 1)),
}[what])
"""


def _landlock_version() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.syscall(444, None, 0, 1))


def attempt(folder: Path, what: str) -> tuple[str, int]:
    granted, other = folder / "granted", folder / "other"
    granted.write_text("g")
    other.write_text("o")
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, granted, other, what],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        timeout=30,
        check=False,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert granted.read_text() == "g"
    assert other.read_text() == "o"
    assert sorted(path.name for path in folder.iterdir()) == ["granted", "other"]
    return done.stdout.decode().strip(), done.returncode


def test_the_granted_file_is_read(tmp_path: Path) -> None:
    assert attempt(tmp_path, "read the granted") == ("done", 0)


@pytest.mark.parametrize(
    "what",
    [
        "read another",
        "read memory",
        "list the folder",
        "write the granted",
        "make a file",
        "remove the granted",
        "rename",
    ],
)
@pytest.mark.skipif(_landlock_version() < 1, reason="this kernel has no Landlock")
def test_no_other_file_is_touched(tmp_path: Path, what: str) -> None:
    assert attempt(tmp_path, what) == ("refused", 0)


@pytest.mark.parametrize(
    "what", ["make a socket", "make a unix socket", "start a program", "fork", "kill the parent"]
)
def test_no_socket_and_no_other_process(tmp_path: Path, what: str) -> None:
    assert attempt(tmp_path, what) == ("refused", 0)


def test_threads_are_started(tmp_path: Path) -> None:
    assert attempt(tmp_path, "start a thread") == ("done", 0)


def test_memory_is_bounded(tmp_path: Path) -> None:
    assert attempt(tmp_path, "take memory") == ("refused", 0)


def test_time_is_bounded(tmp_path: Path) -> None:
    said, code = attempt(tmp_path, "burn")
    assert said == ""
    assert code < 0
