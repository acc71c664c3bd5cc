"""Limits of the query process, set by the kernel before anything of a query is looked at.

1. Memory: RLIMIT_AS, what is mapped now plus what DuckDB may use plus room for rows on their way
   out. Past it an allocation fails, which DuckDB tells as being out of memory.
2. Files: none is written (RLIMIT_FSIZE 0), few are open, no core dump; Landlock (Linux 5.13, where
   it is compiled in) opens only the files it is given, for reading.
3. Network: Landlock refuses TCP (Linux 6.7) and, with seccomp where it can be had, no socket is
   made and no program started.
4. Time: RLIMIT_CPU for the case that nobody is left to kill it; the deadline is the server's.

It holds for the calling thread and those it starts, so no other may run a query. None of this can
be taken back. What the kernel lacks is left out: the walls before it stand.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
from collections.abc import Iterable
from contextlib import suppress

__all__ = ["confine"]

# Beside DuckDB's own limit: results on their way out, Python objects, stacks of threads.
_HEADROOM_BYTES = 384 * 1024 * 1024
_FILES_OPEN_MAX = 256
_NICE = 19
_PAGE_BYTES = resource.getpagesize()

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_PR_SET_DUMPABLE = 4

# linux/landlock.h; the numbers are the same on every architecture (asm-generic).
_LANDLOCK_CREATE, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_GET_VERSION = 1
_LANDLOCK_RULE_PATH = 1
_ACCESS_READ_FILE = 1 << 2
_ACCESS_FILES_V1 = (1 << 13) - 1
_ACCESS_BY_VERSION = ((2, 1 << 13), (3, 1 << 14), (5, 1 << 15))
_ACCESS_TCP = 0b11
_SCOPES = 0b11

# linux/seccomp.h, linux/bpf_common.h
_SECCOMP_MODE_FILTER = 2
_LOAD, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_ALLOW, _DENY, _UNKNOWN_CALL = 0x7FFF0000, 0x00050001, 0x00050026  # EPERM, ENOSYS
_CLONE_THREAD = 0x10000
# Architecture, clone, clone3, and what is denied: socket, connect, bind, sendto, socketpair,
# execve, execveat, fork, vfork, ptrace, kill, process_vm_readv, io_uring_setup, bpf, mount, unlink,
# unlinkat, rename, renameat, renameat2.
_CALLS = {
    "x86_64": (
        0xC000003E,
        56,
        435,
        (41, 42, 49, 44, 53, 59, 322, 57, 58, 101, 62, 310, 425, 321, 165, 87, 263, 82, 264, 316),
    ),
    "aarch64": (
        0xC00000B7,
        220,
        435,
        (198, 203, 200, 206, 199, 221, 281, 117, 129, 270, 425, 280, 40, 35, 38, 276),
    ),
}


def confine(readable: Iterable[str], *, memory_bytes: int, cpu_seconds: int) -> None:
    """From now on: these files and no others, so much memory and time."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    with open("/proc/self/statm", encoding="ascii") as statm:
        mapped = int(statm.read().split()[0]) * _PAGE_BYTES
    _limit(resource.RLIMIT_AS, mapped + memory_bytes + _HEADROOM_BYTES)
    _limit(resource.RLIMIT_CPU, cpu_seconds)
    _limit(resource.RLIMIT_NOFILE, _FILES_OPEN_MAX)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        _landlock(libc, readable)
        _seccomp(libc)


def _limit(what: int, wanted: int) -> None:
    _, hard = resource.getrlimit(what)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(what, (wanted, wanted))


def _landlock(libc: ctypes.CDLL, readable: Iterable[str]) -> None:
    version = libc.syscall(_LANDLOCK_CREATE, None, 0, _LANDLOCK_GET_VERSION)
    if version < 1:
        return
    access = _ACCESS_FILES_V1
    for since, bit in _ACCESS_BY_VERSION:
        access |= bit if version >= since else 0
    attributes = struct.pack(
        "=QQQ", access, _ACCESS_TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0
    )
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = libc.syscall(_LANDLOCK_CREATE, attributes, size, 0)
    if ruleset < 0:
        return
    for path in readable:
        file = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", _ACCESS_READ_FILE, file)
        added = libc.syscall(_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_RULE_PATH, rule, 0)
        os.close(file)
        if added != 0:
            raise OSError(ctypes.get_errno(), "a Landlock rule is refused")
    if libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0) != 0:
        raise OSError(ctypes.get_errno(), "Landlock is refused")
    os.close(ruleset)


def _seccomp(libc: ctypes.CDLL) -> None:
    """Deny calls that no query needs. A list of what is denied: DuckDB and Python may use others
    tomorrow, and files are Landlock's affair.
    """
    found = _CALLS.get(platform.machine())
    if found is None:
        return
    architecture, clone, clone3, denied = found
    count = len(denied)
    program = [
        _step(_LOAD, _ARCHITECTURE_AT),
        _step(_JUMP_EQUAL, architecture, otherwise=count + 7),
        _step(_LOAD, _NUMBER_AT),
        *(_step(_JUMP_EQUAL, call, then=count - at + 5) for at, call in enumerate(denied)),
        # The C library then tries the older one, whose flags a filter can read.
        _step(_JUMP_EQUAL, clone3, then=4),
        _step(_JUMP_EQUAL, clone, otherwise=2),
        _step(_LOAD, _FIRST_ARGUMENT_AT),
        _step(_JUMP_SET, _CLONE_THREAD, otherwise=2),
        _step(_RETURN, _ALLOW),
        _step(_RETURN, _UNKNOWN_CALL),
        _step(_RETURN, _DENY),
    ]
    code = ctypes.create_string_buffer(b"".join(program))
    header = struct.pack("@HP", len(program), ctypes.addressof(code))
    libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0)


def _step(code: int, value: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    """One instruction; a jump counts from the next one."""
    return struct.pack("=HBBI", code, then, otherwise, value)
