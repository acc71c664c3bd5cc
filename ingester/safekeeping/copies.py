"""Files written slowly and surely: a digest as they are written, synced in small steps with rests.

Why steps: one sync of a large file makes the journal's syncs behind it wait. Why rests: who copies
beside a running server must leave the disk and the processor to those who send.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["Pace", "SlowFile", "copy_file", "digest_of"]

_PIECE_BYTES = 1024 * 1024
# Small files are no burden, and a step that waited long for its turn need not be followed by a rest
# as long.
_RESTED_BYTES_MIN = 64 * 1024
_REST_SECONDS_MAX = 0.15


class Pace:
    """How fast, and whether to go on. `rest_ratio`: rests of so many times what a step took."""

    def __init__(
        self,
        *,
        rest_ratio: float = 0.0,
        refuse_if_stopped: Callable[[], None] = lambda: None,
        advanced: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._rest_ratio = rest_ratio
        self._refuse_if_stopped = refuse_if_stopped
        self._advanced = advanced
        self._step_began_at = time.monotonic()

    def step(self, byte_count: int) -> None:
        """Called behind each piece; raises what `refuse_if_stopped` does."""
        self._refuse_if_stopped()
        self._advanced(byte_count)
        if self._rest_ratio and byte_count >= _RESTED_BYTES_MIN:
            step_s = time.monotonic() - self._step_began_at
            time.sleep(min(_REST_SECONDS_MAX, step_s * self._rest_ratio))
        self._step_began_at = time.monotonic()


class SlowFile:
    """A new file, for whoever writes from the beginning to the end. `finish` syncs it."""

    closed = False

    def __init__(self, path: Path, pace: Pace) -> None:
        self.path = path
        self._pace = pace
        self._digest = hashlib.sha256()
        self._unsynced = 0
        self.byte_count = 0
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> SlowFile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def write(self, data: bytes) -> int:
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _PIECE_BYTES):
            piece = view[start : start + _PIECE_BYTES]
            self._digest.update(piece)
            left = piece
            while left:
                left = left[os.write(self._descriptor, left) :]
            self._unsynced += len(piece)
            self.byte_count += len(piece)
            if self._unsynced >= _PIECE_BYTES:
                os.fdatasync(self._descriptor)
                self._pace.step(self._unsynced)
                self._unsynced = 0
        return len(view)

    def finish(self) -> str:
        """Make it durable; its SHA-256."""
        os.fdatasync(self._descriptor)
        self._pace.step(self._unsynced)
        self._unsynced = 0
        return self._digest.hexdigest()

    def tell(self) -> int:
        return self.byte_count

    def flush(self) -> None: ...

    def close(self) -> None: ...

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


def copy_file(source: Path, target: Path, pace: Pace) -> tuple[int, str]:
    """Bytes and SHA-256 of what was copied. Raises OSError."""
    with source.open("rb", buffering=0) as file, SlowFile(target, pace) as copy:
        while piece := file.read(_PIECE_BYTES):
            copy.write(piece)
        return copy.byte_count, copy.finish()


def digest_of(path: Path, pace: Pace) -> tuple[int, str]:
    """Bytes and SHA-256 of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
            pace.step(len(piece))
    return size, digest.hexdigest()
