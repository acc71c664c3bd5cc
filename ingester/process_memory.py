"""Memory of the server process: what is not loaded, what allocators keep, what the loader has read.

1. `leave_out` names modules that others import in case somebody uses them. Idle, on a machine that
   does nothing else (measured 2026-11-22): DuckDB looks for pandas, 34 MB where it is installed;
   structlog draws tracebacks with rich, 3 MB; Arrow knows file systems of five clouds, 3 MB.
2. `bound_arenas`: a bulk upload allocates and frees quarter-megabyte pieces from three threads.
   glibc gives each thread an arena of its own and keeps what is freed, Arrow's default pool does
   the same once more: 685 MB peak after three uploads of 341 MB, 526 MB with one arena and Arrow
   on malloc, at the same CPU (measured 2026-11-21).
3. `forget_loading`: of DuckDB's and Arrow's libraries the linker reads all symbols and relocations,
   once, and the kernel maps what lies around: 50 MB of an idle process. They are pages of files,
   so nothing is lost but a fault for those that are used again; and only mappings that have no
   page of their own are let go, as those that were relocated cannot be read again.

Where there is no glibc or `/proc` these calls do nothing.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.abc import MetaPathFinder

__all__ = ["bound_arenas", "forget_loading", "leave_out"]

_LEFT_OUT = frozenset({
    *("pandas", "rich"),
    *("pyarrow._s3fs", "pyarrow._gcsfs", "pyarrow._azurefs", "pyarrow._hdfs"),
})
_M_ARENA_MAX = -8  # malloc.h
_MADV_DONTNEED = 4  # sys/mman.h
# Nearly all that is to be had is in the large ones; those that come and go are small.
_MAPPING_BYTES_MIN = 256 * 1024
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-[-x]p \S+ \S+ \d+ +/\S*\.so[.0-9]*$")
_HEAD = re.compile(r"[0-9a-f]+-[0-9a-f]+ ")


class _NotInstalled(MetaPathFinder):
    """Not None in `sys.modules`: modules compiled by Cython, as Arrow's, take that for one."""

    def find_spec(self, name: str, *_: object) -> None:
        if name in _LEFT_OUT:
            raise ModuleNotFoundError(f"{name} is left out of the server", name=name)


def leave_out() -> None:
    """Let imports of what we never use fail, as they do where it is not installed. Call first."""
    sys.meta_path.insert(0, _NotInstalled())


def bound_arenas() -> None:
    """One arena for all threads, Arrow included; call before threads are started."""
    import pyarrow as pa

    pa.set_memory_pool(pa.system_memory_pool())
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def forget_loading() -> int:
    """Let go of pages of libraries; bytes that were looked at. Some 20 ms."""
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    if madvise is None or sys.platform != "linux":
        return 0
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    # Twice: a library that another thread is just loading looks unchanged until it is relocated,
    # and it cannot do so both times, as both looks take longer than loading one.
    found = set()
    with suppress(OSError):
        found = set(_unchanged()) & set(_unchanged())
    for start, end in found:
        madvise(start, end - start, _MADV_DONTNEED)
    return sum(end - start for start, end in found)


def _unchanged() -> Iterator[tuple[int, int]]:
    """Mappings of large libraries of which every page is still the file's, here or in swap."""
    found: re.Match[str] | None = None
    with open("/proc/self/smaps", encoding="utf-8", errors="replace") as file:
        for line in file:
            if _HEAD.match(line):
                found = _MAPPING.match(line)
            elif found is None:
                continue
            elif line.startswith(("Anonymous:", "Swap:")) and line.split()[1] != "0":
                found = None
            elif line.startswith("VmFlags:"):  # the last line of each
                start, end = int(found[1], 16), int(found[2], 16)
                if end - start >= _MAPPING_BYTES_MIN:
                    yield start, end
                found = None
