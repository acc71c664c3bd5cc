"""Counters of other processes, read from `/proc`.

Why: a rate says little on a shared machine; CPU seconds and peak memory of exactly the process
under test do. Invariants:

1. CPU time covers a whole tree: every thread of every live descendant, and children that ended
   and were waited for (`cutime`, `cstime`).
2. Peak memory is the kernel's own high-water mark (`VmHWM`), never a sample that can miss a peak.

Refuses to guess: a process that is gone raises `ProcessLookupError`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["cpu_seconds", "memory_mb", "process_tree", "reset_peak_memory", "wait_quiet"]

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def _stat_fields(pid: int) -> list[str]:
    """The fields of `/proc/<pid>/stat` after the command name, which may hold blanks itself."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None
    return text.rpartition(")")[2].split()


def process_tree(pid: int) -> list[int]:
    """`pid` and every live descendant of it."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                parent = int(_stat_fields(int(entry))[1])
            except ProcessLookupError:  # ended between the listing and the read
                continue
            children.setdefault(parent, []).append(int(entry))
    found = [pid]
    for known in found:  # grows while it is walked: breadth first, ends with the leaves
        found.extend(children.get(known, ()))
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of the tree under `pid`; the resolution is one clock tick (10 ms)."""
    ticks = 0
    for member in process_tree(pid):
        try:
            fields = _stat_fields(member)
        except ProcessLookupError:
            if member == pid:
                raise
            continue
        ticks += sum(int(value) for value in fields[11:15])  # utime stime cutime cstime
    return ticks / _TICKS_PER_SECOND


def memory_mb(pid: int, field: str = "VmHWM") -> float:
    """Resident memory in MB (10^6): `VmHWM` the peak since the last reset, `VmRSS` now."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None
    for line in text.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ProcessLookupError(pid)  # a zombie has no memory lines


def reset_peak_memory(pid: int) -> None:
    """Set `VmHWM` back to the memory of this moment (`proc(5)`, `clear_refs` value 5)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def wait_quiet(pid: int, *, seconds_max: float = 5.0) -> None:
    """Return once the tree under `pid` idles, so that its left-over work falls on no other row."""
    deadline = time.monotonic() + seconds_max
    before = cpu_seconds(pid)
    while time.monotonic() < deadline:
        time.sleep(0.25)
        now = cpu_seconds(pid)
        if now - before <= 0.02:  # at most two ticks in a quarter second
            return
        before = now
