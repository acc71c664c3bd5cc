"""The journal: an append-only, checksummed, group-committed log of accepted small requests.

`JournalWriter` makes groups of records durable, `recover` reads them back after a crash. Payloads
are opaque bytes here.
"""

from __future__ import annotations

from ingester.journal.recovery import Recovery, RecoveryReport, recover
from ingester.journal.segments import FileCalls
from ingester.journal.writer import JournalStatistics, JournalWriter

__all__ = [
    "FileCalls",
    "JournalStatistics",
    "JournalWriter",
    "Recovery",
    "RecoveryReport",
    "recover",
]
