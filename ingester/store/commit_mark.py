"""The number of the last commit, beside the database: it tells that a WAL is gone.

Why it exists: DuckDB opens a part whose WAL is lost, or has a flipped bit in its first bytes, as if
nothing had been committed since the last checkpoint, without a word (1.5.6). Rules and rollups know
of a later commit, but only of those that they have passed.

1. Written after each COMMIT has returned, in place, unsynced: a kill leaves what was written, a
   power cut may leave an older number, which tells less and nothing wrong.
2. A file that cannot be written or read tells nothing. No commit fails for it.
"""

from __future__ import annotations

import os
import zlib
from contextlib import suppress
from pathlib import Path

__all__ = ["CommitMark"]

_NUMBER_BYTES = 8
_BYTES = 12


class CommitMark:
    """`last-commit` in the data folder: eight bytes, little-endian, and their CRC-32."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "last-commit"

    def write(self, commit_number: int) -> None:
        number = commit_number.to_bytes(_NUMBER_BYTES, "little")
        content = number + zlib.crc32(number).to_bytes(4, "little")
        with suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(descriptor, content, 0)
            finally:
                os.close(descriptor)

    def read(self) -> int:
        """0 when nothing is known."""
        try:
            content = self._path.read_bytes()
        except OSError:
            return 0
        number, checksum = content[:_NUMBER_BYTES], content[_NUMBER_BYTES:]
        is_whole = len(content) == _BYTES and zlib.crc32(number).to_bytes(4, "little") == checksum
        return int.from_bytes(number, "little") if is_whole else 0
