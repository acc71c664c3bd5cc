"""One line of progress on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Line", "progress_line", "size_text"]

_EVERY_SECONDS = 0.2
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Line:
    """Overwritten in place, at most five times a second."""

    def __init__(self, *, is_shown: bool) -> None:
        self._is_shown = is_shown
        self._shown_at = 0.0
        self._width = 0

    def show(self, text: str) -> None:
        now = time.monotonic()
        if not self._is_shown or now - self._shown_at < _EVERY_SECONDS:
            return
        self._shown_at = now
        self._write(text)

    def clear(self) -> None:
        if self._width:
            self._write("")
            sys.stderr.write("\r")

    def _write(self, text: str) -> None:
        sys.stderr.write("\r" + text.ljust(self._width))
        sys.stderr.flush()
        self._width = len(text)


@contextmanager
def progress_line() -> Iterator[Line]:
    line = Line(is_shown=sys.stderr.isatty())
    try:
        yield line
    finally:
        line.clear()


def size_text(byte_count: int) -> str:
    size, unit = float(byte_count), 0
    while size >= 1024 and unit + 1 < len(_UNITS):
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"
