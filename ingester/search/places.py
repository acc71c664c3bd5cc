"""Places: reading rows again where they lie, a part or a file at a time.

A place is read directly: 24 rows scattered over a part of 1.5 M cost 41 ms, one row of a file 2 ms
(measured 2026-11-21); found again by their times they cost ten times that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..lql.sql import Fragment, sql
from ..store.relations import FILES, arm_of_files, arm_of_part
from .keys import Key
from .reading import Reading
from .subjects import Subject

__all__ = ["arms"]


def arms(reading: Reading, subject: Subject, keys: Sequence[Key]) -> Iterator[Fragment]:
    """The rows of `keys`, one relation a part or file, each to stand behind FROM."""
    by_place: dict[tuple[int, str], list[int]] = {}
    for key in keys:
        by_place.setdefault((key.arm_number, key.file_name), []).append(key.place)
    for (number, file), places in by_place.items():
        rows = _arm(reading, subject, number, file, places)
        # A selection calls the row by the name of its relation.
        yield Fragment(f"({rows.sql}) AS {subject.schema.relation}", rows.params)


def _arm(reading: Reading, subject: Subject, number: int, file: str, places: list[int]) -> Fragment:
    """A file is read by constants, which its reader skips by; a part by a join, which is as much
    faster there.
    """
    if number == FILES:
        arm = arm_of_files([Path(file)], subject.columns)
        listed = Fragment(", ".join("?" * len(places)), tuple(places))
        return sql("SELECT * FROM ({}) WHERE place IN ({})", Fragment(arm), listed)
    part = reading.snapshot.parts[number]
    arm = arm_of_part(part, number, subject.table, subject.columns)
    return sql(
        "SELECT * FROM ({}) WHERE place IN (SELECT unnest({}::BIGINT[]))", Fragment(arm), places
    )
