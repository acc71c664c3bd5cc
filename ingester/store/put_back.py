"""Parts that were lost and came back: which of them have rows that are stored elsewhere by now.

Why it exists: a start without a part loads the journal's records again, into a new one, and a
repair lists upload files again. Who then puts the old file back would have those rows twice. Such
a part is left as it is and not read; a repair takes from it what is stored nowhere else.

1. It is told by what only one part may have: a request, or an upload file. Of two parts whose
   journal sequences do not cross no rows are looked at.
2. Of two the older one came back: what is loaded or listed again lands in a newer part.
3. What cannot be read of a damaged part proves nothing against it.

Another kind has the number of a part that is sealed by now: a sealing that was killed leaves it,
and it is removed. One with other commits, or more rows, was put there by somebody, and stays
(`ledger.is_sealed`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from itertools import combinations
from pathlib import Path

import duckdb

from .control.sealed_files import SealedFile
from .database import Cursor
from .schema import parquet_relation
from .sealed import that_may_hold

__all__ = ["DOUBLED", "REPLACED", "doubled_parts"]

DOUBLED = (
    "the part was put back after its requests had been loaded again: rows of it are stored"
    " elsewhere, so none of it is read; stop the server and run `ingester check --repair`, which"
    " takes from it what is stored nowhere else"
)


REPLACED = (
    "the part of this number is sealed by now, and this file has other rows: it is not read; move"
    " it elsewhere"
)


def doubled_parts(
    cursor: Cursor, attached: Collection[int], sealed: Iterable[SealedFile], directory: Path
) -> list[int]:
    """Their numbers. `sealed` are files that can be read, below `directory`."""
    numbers = sorted(attached)
    doubled: set[int] = set()
    for older, newer in _neighbours(cursor, numbers):
        if older not in doubled and _share_requests(cursor, older, f"{_part(newer)}.requests"):
            doubled.add(older)
    listed: dict[str, int] = {}
    for number in numbers:
        with suppress(duckdb.Error):
            for (name,) in cursor.execute(
                f"SELECT file_name FROM {_part(number)}.upload_files"
            ).fetchall():
                if name in listed:
                    doubled.add(listed[name])
                listed[name] = number
    requests = [file for file in sealed if file.table == "requests"]
    for number in numbers:
        # Parts are sealed in their order: usually there are none.
        later = [file for file in requests if file.last_part > number]
        if later and number not in doubled and _share_sealed(cursor, number, later, directory):
            doubled.add(number)
    return sorted(doubled)


def _part(number: int) -> str:
    return f"part_{number:06d}"


def _neighbours(cursor: Cursor, numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Pairs of parts, the older one first, that may have the same journal record."""
    spans: list[tuple[int, int, int]] = []
    for number in numbers:
        with suppress(duckdb.Error):
            ((low, high),) = cursor.execute(
                "SELECT min(first_seq), max(last_seq) "
                f"FROM {_part(number)}.applied WHERE lane IN ('small', 'small_again')"
            ).fetchall()
            if low is not None:
                spans.append((number, low, high))
    return [
        (older, newer)
        for (older, low, high), (newer, other_low, other_high) in combinations(spans, 2)
        if low <= other_high and other_low <= high
    ]


def _share_requests(cursor: Cursor, number: int, relation: str) -> bool:
    with suppress(duckdb.Error):
        ((count,),) = cursor.execute(
            f"SELECT count(*) FROM {_part(number)}.requests SEMI JOIN {relation} AS other "
            "USING (request_number)"
        ).fetchall()
        return bool(count)
    return False


def _share_sealed(
    cursor: Cursor, number: int, files: Iterable[SealedFile], directory: Path
) -> bool:
    with suppress(duckdb.Error):
        ((low, high),) = cursor.execute(
            f"SELECT min(request_number), max(request_number) FROM {_part(number)}.requests"
        ).fetchall()
        if low is not None:
            found = [directory / f.name for f in that_may_hold(files, "request_number", low, high)]
            return bool(found) and _share_requests(cursor, number, parquet_relation(found))
    return False
