"""Cursors of who reads committed batches: a part stays until all of them have passed it.

A reader keeps its cursor (a commit number) with its output, in one transaction of its own; what
stands here is its word in memory, given again after each start. Who is not named holds nothing up.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

__all__ = ["Cursors"]


class Cursors:
    """The last commit number that each reader is through with. Safe from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_reader: dict[str, int] = {}

    def move(self, reader: str, commit_number: int) -> None:
        """`reader` has stored what it made of all commits up to `commit_number`."""
        with self._lock:
            self._by_reader[reader] = commit_number

    def have_passed(self, commit_number: int) -> bool:
        with self._lock:
            return all(passed >= commit_number for passed in self._by_reader.values())

    def positions(self) -> Mapping[str, int]:
        with self._lock:
            return dict(self._by_reader)
