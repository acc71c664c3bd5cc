"""What one run was asked to do, and where its notes go.

Sizes default to what gives steady figures; `smoke` makes every bench tiny and checks counts
only. A bench reads what concerns it and ignores the rest.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from bench.corpus import ENCODINGS, Corpus, Encoding, open_corpus
from bench.log_corpus import open_log_corpus
from bench.report import note

__all__ = ["DOORS", "DoorName", "Options", "Skipped"]

DoorName = Literal["natero", "log", "metric"]
DOORS: tuple[DoorName, ...] = ("natero", "log", "metric")

_SYNTHETIC_EVENTS = 1_000_000
_REAL_EVENTS = 250_000  # about 540 MB: the lines are six times as long
_SMOKE_EVENTS = 5_000


class Skipped(Exception):
    """This bench cannot run here; the message says why. It becomes a note, not a failure."""


class Options(Struct, kw_only=True):
    """Command-line choices; 0 means the default of the bench."""

    events: int = 0
    encodings: tuple[Encoding, ...] = ENCODINGS
    data: str = "synthetic"
    rounds: int = 3
    seconds: float = 3.0
    connections: tuple[int, ...] = (1, 8, 32, 128)
    doors: tuple[DoorName, ...] = ()
    gigabytes: float = 10.0
    uploads: int = 64
    rows: int = 0
    rivals: tuple[str, ...] = ("duckdb", "clickhouse")
    smoke: bool = False
    notes: list[str] = field(default_factory=list)

    def corpus(self) -> Corpus:
        """The events asked for."""
        return _present(open_corpus(self.data, self._count()))

    def log_corpus(self) -> Corpus:
        """The logs asked for."""
        return _present(open_log_corpus(self.data, self._count()))

    def _count(self) -> int:
        if self.events:
            return self.events
        return _SMOKE_EVENTS if self.smoke else self._usual_events()

    def _usual_events(self) -> int:
        return _REAL_EVENTS if self.data == "real" else _SYNTHETIC_EVENTS

    def add_note(self, text: str) -> None:
        """A remark that belongs to the result; said once."""
        if text not in self.notes:
            self.notes.append(text)
            note(f"note: {text}")


def _present(corpus: Corpus | None) -> Corpus:
    if corpus is None:
        raise Skipped("the real data files are not present beside the repository")
    return corpus
