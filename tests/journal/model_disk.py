"""A disk in memory that fails and loses power on demand.

It keeps apart what a process sees and what is durable: writes become durable by `fdatasync`, names
by `fsync_dir`. A power cut keeps a random part of the rest, torn in small sectors; a failed sync
drops a random part of it for good, as Linux does.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ingester.journal import FileCalls

SECTOR_BYTES = 16


class Died(BaseException):
    """The process ended inside a file call."""


@dataclass
class Inode:
    seen: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)  # None: truncate to


def apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        content.extend(bytes(offset - len(content)))
        return
    if len(content) < offset + len(data):
        content.extend(bytes(offset + len(data) - len(content)))
    content[offset : offset + len(data)] = data


class ModelDisk(FileCalls):
    """`verdict(call number, call name)` says what becomes of a call:

    "ok", "before" (fails without effect), "after" (fails, with its effect), "short" (a write comes
    back short), "die".
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.verdict: Callable[[int, str], str] = lambda number, name: "ok"
        self.call_count = 0
        self._names: dict[str, Inode] = {}
        self._durable_names: dict[str, Inode] = {}
        self._pending_names: list[dict[str, Inode]] = []
        self._files: dict[int, Inode] = {}
        self._spoilt: set[int] = set()
        self._next_fd = 1000

    # --- the calls

    def _judge(self, name: str, effect: Callable[[], None]) -> None:
        self.call_count += 1
        verdict = self.verdict(self.call_count, name)
        if verdict == "die":
            if self.rng.random() < 0.5:
                effect()
            raise Died
        if verdict != "before":
            effect()
        if verdict in {"before", "after"}:
            raise OSError(self.rng.choice([errno.EIO, errno.ENOSPC]), f"injected in {name}")

    def open(self, path: Path, flags: int) -> int:
        fd = self._next_fd
        self._next_fd += 1

        def effect() -> None:
            if path.name not in self._names:
                if not flags & os.O_CREAT:
                    raise FileNotFoundError(path)
                self._rename({**self._names, path.name: Inode()})
            inode = self._names[path.name]
            if flags & os.O_TRUNC:
                self._change(inode, 0, None)
            self._files[fd] = inode

        self._judge("open", effect)
        return fd

    def write(self, fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        data = b"".join(buffers)
        inode = self._files[fd]
        self.call_count += 1
        verdict = self.verdict(self.call_count, "write")
        taken = len(data)
        if verdict in {"short", "after", "die"}:
            taken = self.rng.randint(1 if verdict == "short" else 0, len(data))
        if verdict != "before":
            self._change(inode, offset, data[:taken])
        if verdict == "die":
            raise Died
        if verdict in {"before", "after"}:
            raise OSError(errno.ENOSPC, "injected in write")
        return taken

    def fdatasync(self, fd: int) -> None:
        assert fd not in self._spoilt, "a descriptor is synced again after a failed sync"
        inode = self._files[fd]
        self.call_count += 1
        verdict = self.verdict(self.call_count, "fdatasync")
        if verdict in {"ok", "short", "after"}:
            self._settle(inode, 1.0)
        if verdict in {"before", "after"}:
            self._spoilt.add(fd)
            self._settle(inode, self.rng.random())
            raise OSError(errno.EIO, "injected in fdatasync")
        if verdict == "die":
            raise Died

    def fallocate(self, fd: int, byte_count: int) -> None:
        inode = self._files[fd]

        def effect() -> None:
            if byte_count > len(inode.seen):
                self._change(inode, byte_count, None)

        self._judge("fallocate", effect)

    def truncate(self, fd: int, byte_count: int) -> None:
        self._judge("truncate", lambda: self._change(self._files[fd], byte_count, None))

    def close(self, fd: int) -> None:
        self._judge("close", lambda: None)
        del self._files[fd]

    def rename(self, old: Path, new: Path) -> None:
        def effect() -> None:
            names = dict(self._names)
            names[new.name] = names.pop(old.name)
            self._rename(names)

        self._judge("rename", effect)

    def unlink(self, path: Path) -> None:
        def effect() -> None:
            if path.name not in self._names:
                raise FileNotFoundError(path)
            self._rename({name: self._names[name] for name in self._names if name != path.name})

        self._judge("unlink", effect)

    def fsync_dir(self, path: Path) -> None:
        def effect() -> None:
            self._durable_names = self._names
            self._pending_names.clear()

        self._judge("fsync_dir", effect)

    # --- what becomes of it

    def _rename(self, names: dict[str, Inode]) -> None:
        self._names = names
        self._pending_names.append(names)

    def _change(self, inode: Inode, offset: int, data: bytes | None) -> None:
        apply(inode.seen, offset, data)
        inode.pending.append((offset, data))

    def _settle(self, inode: Inode, kept: float) -> None:
        """Make a share of the pending changes durable and forget the others."""
        for offset, data in inode.pending:
            if data is None:
                if self.rng.random() < kept:
                    apply(inode.durable, offset, None)
                continue
            for start in range(0, len(data), SECTOR_BYTES):
                if self.rng.random() < kept:
                    apply(inode.durable, offset + start, data[start : start + SECTOR_BYTES])
        inode.pending.clear()

    def kill(self) -> None:
        """The process ends; the page cache stays."""
        self._files.clear()

    def cut_power(self) -> None:
        self._files.clear()
        for inode in {id(i): i for i in self._names.values()}.values():
            self._settle(inode, self.rng.choice([0.0, 0.5, 1.0, self.rng.random()]))
        kept = self.rng.randint(0, len(self._pending_names))
        names = self._pending_names[kept - 1] if kept else self._durable_names
        self._pending_names.clear()
        self._names = self._durable_names = names
        for inode in names.values():
            if inode.pending:
                self._settle(inode, self.rng.random())
            inode.seen = bytearray(inode.durable)

    def show(self, directory: Path) -> None:
        """Put what a process would see into a real folder."""
        directory.mkdir(exist_ok=True)
        for path in directory.iterdir():
            path.unlink()
        for name, inode in self._names.items():
            (directory / name).write_bytes(inode.seen)
