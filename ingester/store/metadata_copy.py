"""A copy of the metadata blocks of a DuckDB file, taken before each checkpoint that is ours.

Why it exists: a checkpoint writes a metadata block of 256 KiB in place, the one that the header in
force refers to, and its checksum covers all of it (DuckDB 1.5.6, measured 2026-11-21: block 0 is
written by every checkpoint). `kill -9` tears such a write (974 of 1,500 kills within one), and so
may a power cut; the file then cannot be attached any more, and all rows that were checkpointed
are lost with it. Once seen, in some 250 kills of a server on a busy machine.

1. The copy has the headers as they are before the checkpoint. It is put back, before the file is
   attached, only when they are still the same: the checkpoint has not come to its end, and
   everything else it wrote lies in blocks that these headers call free. Rows committed since are in
   the WAL. It is not waited for an error: some metadata is read long after the attaching.
2. The copy is synced, and renamed into place durably, before the checkpoint begins. Where it cannot
   be written (a full disk) the checkpoint goes on without: it may be what gives space back.
3. A block whose checksum does not hold is not copied: it was not written yet, or is past help.
4. The file is read through DuckDB's own descriptor: closing one of ours would drop its lock.
5. No other checkpoint of the file may run beside the copying.
6. Headers that are newer than the copy's are written once more and synced before the file is
   attached: the sync of theirs may have failed. Linux takes such pages for written, DuckDB drops
   the WAL when it reads them, and a power cut would bring back the headers before (measured, DuckDB
   1.5.6 with EIO from the last sync of a checkpoint).

Refuses to put blocks into a file whose headers are others (a file that was made anew has another
identifier in its first one); where there is no `/proc`, copies nothing.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from ..errors import StoreFailed
from .database import Cursor
from .syncing import sync_path

__all__ = ["copy_path", "keep_metadata", "put_back_metadata"]

# Of each of the three only the first sector is used, which no power cut tears.
_HEADERS_BYTES = 3 * 4096
_BLOCK_BYTES = 262_144
# More than a part of the largest size has; beyond it something else is wrong.
_BLOCKS_MAX = 1_000
# With its version.
_MAGIC = b"ingester metadata 1\n"
_ANY_MAGIC = b"ingester metadata "
# DuckDB's checksum: words multiplied and added without carry, kept in the first word.
_FACTOR = np.uint64(0xBF58476D1CE4E5B9)
_START = np.uint64(5381)


class _Copy(Struct, frozen=True):
    """Headers, and blocks by number."""

    headers: bytes
    blocks: dict[int, bytes]


def copy_path(path: Path) -> Path:
    """Where the copy for a file lies."""
    return path.with_name(f"{path.name}.meta")


def keep_metadata(cursor: Cursor, name: str, path: Path) -> bool:
    """Copy what the next checkpoint of the database attached as `name` may tear. False when that
    cannot be read or written.
    """
    descriptor = _maybe_descriptor(path)
    if descriptor is None:
        return False
    numbers = [
        int(number)
        for (number,) in cursor.execute(
            f"SELECT block_id FROM pragma_metadata_info('{name}')"
        ).fetchall()
    ]
    partial = path.with_name(f"{path.name}.meta.partial")
    try:
        headers = os.pread(descriptor, _HEADERS_BYTES, 0)
        blocks = _read(descriptor, numbers)
        if len(headers) < _HEADERS_BYTES or blocks is None:
            return False
        text = msgspec.msgpack.encode(_Copy(headers, blocks))
        with partial.open("wb") as file:
            file.write(_MAGIC + zlib.crc32(text).to_bytes(4, "little"))
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(copy_path(path))
        sync_path(path.parent)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        return False
    return True


def put_back_metadata(path: Path) -> bool:
    """Before a file is attached: undo what a checkpoint that did not end has written over; whether
    there was any such thing.
    """
    found = _maybe_copy(path)
    if found is None or not path.exists():
        return False
    is_torn = False
    with path.open("r+b") as file:
        headers = file.read(_HEADERS_BYTES)
        if headers != found.headers:
            written = os.fstat(file.fileno())
            file.seek(0)
            file.write(headers)
            file.flush()
            # A repair reads there when the rows came (`lost.py`).
            os.utime(file.fileno(), ns=(written.st_atime_ns, written.st_mtime_ns))
            os.fsync(file.fileno())
            return False
        for number, block in found.blocks.items():
            begin = _HEADERS_BYTES + number * _BLOCK_BYTES
            file.seek(begin)
            if file.read(_BLOCK_BYTES) != block:
                is_torn = True
                file.seek(begin)
                file.write(block)
        if is_torn:
            file.flush()
            os.fsync(file.fileno())
    return is_torn


def _is_whole(block: bytes) -> bool:
    words = np.frombuffer(block, "<u8")
    return bool(np.bitwise_xor.reduce(words[1:] * _FACTOR) ^ _START == words[0])


def _maybe_copy(path: Path) -> _Copy | None:
    try:
        content = copy_path(path).read_bytes()
    except FileNotFoundError:
        return None
    begin = len(_MAGIC) + 4
    text = content[begin:]
    if content.startswith(_ANY_MAGIC) and not content.startswith(_MAGIC):
        raise StoreFailed(
            f"{path.name}.meta has a format that this release does not know: start the newer"
            " release that wrote it; nothing was changed"
        )
    if content[:begin] != _MAGIC + zlib.crc32(text).to_bytes(4, "little"):
        return None
    return msgspec.msgpack.decode(text, type=_Copy)


def _maybe_descriptor(path: Path) -> int | None:
    """DuckDB's own of an attached file."""
    try:
        wanted = os.stat(path)
        names = os.listdir("/proc/self/fd")
    except OSError:
        return None
    for name in names:
        try:
            found = os.stat(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
            return int(name)
    return None


def _read(descriptor: int, numbers: Sequence[int]) -> dict[int, bytes] | None:
    if len(numbers) > _BLOCKS_MAX:
        return None
    size = os.fstat(descriptor).st_size
    blocks = {}
    for number in numbers:
        begin = _HEADERS_BYTES + number * _BLOCK_BYTES
        if begin + _BLOCK_BYTES > size:
            continue
        block = os.pread(descriptor, _BLOCK_BYTES, begin)
        if _is_whole(block):
            blocks[number] = block
    return blocks
