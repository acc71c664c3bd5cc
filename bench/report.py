"""The common frame of every bench: result rows, the table, the JSON document.

Invariants: 1. a row carries raw facts (events, bytes, seconds, CPU seconds); every rate is
derived here, in one place. 2. A ratio names what it compares with, and above 1.0 always means
that ours is faster. 3. With `--json` standard output is exactly one JSON document.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

__all__ = [
    "Report",
    "Row",
    "machine_facts",
    "median_row",
    "note",
    "pairwise_ratios",
    "render_table",
]

_REPOSITORY = Path(__file__).resolve().parent.parent
_PACKAGES = ("duckdb", "chdb", "chdb-core", "msgspec", "isal", "pyarrow", "zstandard", "trio")


class Row(Struct, kw_only=True):
    """One measured line. `cpu_s` is the process under test, `client_cpu_s` its load client.

    `ratio` compares the rate with the row named by `ratio_to`; `ratios` are those of the single
    rounds, pair by pair. `peak_rss_mb` 0 means not measured.
    """

    bench: str
    name: str
    events: int
    seconds: float
    raw_bytes: int = 0
    cpu_s: float = 0.0
    client_cpu_s: float = 0.0
    peak_rss_mb: float = 0.0
    ratio: float | None = None
    ratio_to: str = ""
    ratios: list[float] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def events_per_s(self) -> float:
        return self.events / self.seconds if self.seconds else 0.0

    @property
    def mb_per_s(self) -> float:
        return self.raw_bytes / 1e6 / self.seconds if self.seconds else 0.0

    @property
    def cpu_s_per_1m(self) -> float:
        return self.cpu_s / self.events * 1e6 if self.events else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Facts and the rates derived from them, rounded for reading."""
        facts: dict[str, Any] = msgspec.to_builtins(self)
        facts["events_per_s"] = self.events_per_s
        facts["mb_per_s"] = self.mb_per_s
        facts["cpu_s_per_1m"] = self.cpu_s_per_1m
        for key, value in facts.items():
            if isinstance(value, float):
                facts[key] = round(value, 4)
        facts["ratios"] = [round(value, 3) for value in self.ratios]
        return facts


class Report(Struct, kw_only=True):
    """Everything one run measured, with what is needed to read it later."""

    machine: dict[str, Any]
    settings: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> bytes:
        document = {
            "machine": self.machine,
            "settings": self.settings,
            "rows": [row.as_dict() for row in self.rows],
            "notes": self.notes,
        }
        return msgspec.json.format(msgspec.json.encode(document), indent=2)


def note(text: str) -> None:
    """Progress for people: standard error, so that `--json` stays one document."""
    print(text, file=sys.stderr, flush=True)


def median_row(rows: Sequence[Row]) -> Row:
    """The rounds of one measurement as one row: medians of time and CPU, maximum of memory."""
    first = rows[0]
    return Row(
        bench=first.bench,
        name=first.name,
        events=first.events,
        raw_bytes=first.raw_bytes,
        seconds=statistics.median(row.seconds for row in rows),
        cpu_s=statistics.median(row.cpu_s for row in rows),
        client_cpu_s=statistics.median(row.client_cpu_s for row in rows),
        peak_rss_mb=max(row.peak_rss_mb for row in rows),
        extra={**first.extra, "rounds_s": [round(row.seconds, 3) for row in rows]},
    )


def pairwise_ratios(ours: Sequence[Row], rival: Sequence[Row]) -> list[float]:
    """Our rate over the rival's, round by round: noise that hits both rounds cancels."""
    return [
        mine.events_per_s / theirs.events_per_s for mine, theirs in zip(ours, rival, strict=False)
    ]


def machine_facts() -> dict[str, Any]:
    """What must be known to compare two runs."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cpus": os.cpu_count(),
        "load_average_at_start": os.getloadavg()[0],
        "cpu_model": _cpu_model(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": versions,
        "commit": _commit(),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    try:
        answer = subprocess.run(
            ["git", "-C", str(_REPOSITORY), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip()


_COLUMNS = (
    ("bench", "<"),
    ("name", "<"),
    ("events", ">"),
    ("seconds", ">"),
    ("events/s", ">"),
    ("MB/s", ">"),
    ("CPU s", ">"),
    ("CPU s/1M", ">"),
    ("client CPU s", ">"),
    ("RSS MB", ">"),
    ("ratio", ">"),
    ("to", "<"),
    ("more", "<"),
)


def _cells(row: Row) -> list[str]:
    more = " ".join(f"{key}={_short(value)}" for key, value in row.extra.items())
    if row.ratios:
        more = f"pairs={_short(row.ratios)} {more}"
    return [
        row.bench,
        row.name,
        f"{row.events:,}" if row.events else "",
        f"{row.seconds:.3f}" if row.seconds else "",
        f"{row.events_per_s:,.0f}" if row.events else "",
        f"{row.mb_per_s:.0f}" if row.raw_bytes else "",
        f"{row.cpu_s:.2f}" if row.cpu_s else "",
        f"{row.cpu_s_per_1m:.2f}" if row.cpu_s else "",
        f"{row.client_cpu_s:.2f}" if row.client_cpu_s else "",
        f"{row.peak_rss_mb:.0f}" if row.peak_rss_mb else "",
        f"{row.ratio:.2f}" if row.ratio is not None else "",
        row.ratio_to,
        more.strip(),
    ]


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
    if isinstance(value, list):
        return "/".join(_short(item) for item in value)
    return str(value)


def render_table(rows: Iterable[Row], notes: Iterable[str] = ()) -> str:
    """A plain table; a column that is empty in every row is left out."""
    lines = [[title for title, _ in _COLUMNS], *(_cells(row) for row in rows)]
    used = [index for index in range(len(_COLUMNS)) if any(line[index] for line in lines[1:])]
    widths = {index: max(len(line[index]) for line in lines) for index in used}
    text = [
        "  ".join(f"{line[i]:{_COLUMNS[i][1]}{widths[i]}}" for i in used).rstrip() for line in lines
    ]
    text[1:1] = ["  ".join("-" * widths[i] for i in used)]
    return "\n".join([*text, *(f"note: {line}" for line in notes)])
