"""Rows of a search as lines: coloured and aligned on a terminal, tab-separated into a pipe.

1. One row is one line in a pipe: tab, line end and backslash are escapes. On a terminal the further
   lines of a message stand under its first.
2. Nothing a sender put into a row drives the terminal.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Any

import click
import msgspec

from ingester.cli.rows import ESCAPES, printable

__all__ = ["Lines"]

_LEVEL_STYLES: dict[str, dict[str, Any]] = {
    "trace": {"dim": True},
    "debug": {"dim": True},
    "info": {"fg": "green"},
    "notice": {"fg": "cyan"},
    "warning": {"fg": "yellow"},
    "error": {"fg": "red"},
    "critical": {"fg": "red", "bold": True},
    "alert": {"fg": "red", "bold": True},
    "emergency": {"fg": "red", "bold": True, "reverse": True},
}
_LEVEL_WIDTH = max(map(len, _LEVEL_STYLES))

# A column is as wide as what was in it so far, up to this.
_WIDTH_MAX = 24
_PAYLOAD_WIDTH_MIN = 20

_COLUMNS = {
    "logs": ("time", "level", "service", "environment", "message"),
    "events": ("created_at", "action", "account_id", "user_id", "source", "body"),
    "metrics": ("time", "metric_id", "value", "unit", "project_id", "metadata"),
}
# What is left out on a terminal, which is not as wide.
_FOR_PIPES = frozenset({"environment", "source", "project_id"})

_ENCODER = msgspec.json.Encoder(decimal_format="number")


class Lines:
    """The lines of one output; columns grow with what they have held."""

    def __init__(self, table: str, *, is_terminal: bool) -> None:
        self._is_terminal = is_terminal
        self._is_coloured = is_terminal and not os.environ.get("NO_COLOR")
        self._columns = _COLUMNS[table]
        self._widths: dict[str, int] = {}

    def line(self, row: Mapping[str, object]) -> str:
        """Without its line end."""
        if not self._is_terminal:
            return "\t".join(_text(row.get(name)).translate(ESCAPES) for name in self._columns)
        names = [name for name in self._columns if name not in _FOR_PIPES]
        cells = [self._cell(name, _text(row.get(name))) for name in names[:-1]]
        start = sum(len(plain) + 1 for plain, _ in cells)
        last = self._last(names[-1], row, start)
        return " ".join([*(shown for _, shown in cells), last]).rstrip()

    def _cell(self, name: str, text: str) -> tuple[str, str]:
        """A column but the last: padded, and the same with its colour."""
        if name in {"time", "created_at"}:
            plain = text[:23].replace("T", " ")
            return plain, self._styled(plain, dim=True)
        text = printable(text).replace("\n", " ")
        if name == "level":
            plain = text.ljust(_LEVEL_WIDTH)
            return plain, self._styled(plain, **_LEVEL_STYLES.get(text, {}))
        width = max(self._widths.get(name, 0), min(len(text), _WIDTH_MAX))
        self._widths[name] = width
        plain = text.rjust(width) if name == "value" else text.ljust(width)
        style = {"bold": True} if name in {"action", "metric_id"} else {"fg": "blue"}
        return plain, self._styled(plain, **({} if name in {"value", "unit"} else style))

    def _last(self, name: str, row: Mapping[str, object], start: int) -> str:
        text = printable(_text(row.get(name)))
        if row.get("cut") and not text:
            return self._styled("(a long text is left out of lists)", dim=True)
        if name == "message":
            return text.replace("\n", "\n" + " " * start)
        width = max(_PAYLOAD_WIDTH_MIN, shutil.get_terminal_size().columns - start)
        if len(text) > width:
            text = text[: width - 1] + "…"
        return self._styled(text.replace("\n", " "), dim=True)

    def _styled(self, text: str, **style: Any) -> str:
        return click.style(text, **style) if self._is_coloured and style and text else text


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else _ENCODER.encode(value).decode()
