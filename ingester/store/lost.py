"""What a start finds to be gone: the newest part, or commits that were in its WAL.

Why it matters: numbers would be given again. Rows under a commit number that rules and rollups have
passed are seen by none of them, and an upload file of a lost part would be taken for what a crash
has left of the next part of that number, and be removed.

1. The highest number that a part had is what the manifest, the attached parts, and the names of
   files below `uploads/` and `sealed/` say. The next part is numbered above it.
2. Commits are gone when that part is not there, or when rules, rollups or `last-commit`
   (`commit_mark.py`) know of a later one than the ledger has. Then the next part begins `LEAP`
   numbers further on, and the manifest says so.
3. They are gone, too, when a part was begun behind a commit that none before it has: its WAL was
   lost after the rotation. Only then is there no leap: the numbers behind it are given.
4. An upload file that no part lists is kept when its part is not known, or when it may have been
   listed by a commit that is gone. What a crash has left of any other is removed, as ever.

A repair lists those files again and forgets the loss.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from .control.sealed_files import LostCommits, Manifest, SealedPart
from .database import Cursor
from .ledger import BULK_AGAIN

__all__ = [
    "LEAP",
    "accept_cuts",
    "bulk_lane",
    "cut_ledgers",
    "kept_files",
    "lost_problem",
    "missing_numbers",
    "newest_number",
    "numbers_named",
    "part_number_of",
    "unlisted_problem",
]

# Above all that a part can have had: a million commits a second are not reached in its hours.
LEAP = 1_000_000_000
# A file is committed right after its last byte was written: so late at most, however busy.
_COMMIT_MS_MAX = 120_000
_NUMBERED = re.compile(r"(\d{6,})-")
_SEALED = re.compile(r"(\d{6,})-(\d{6,})-[0-9a-f]+\.parquet")


def part_number_of(name: str) -> int | None:
    """Of an upload file, or of an exported one."""
    found = _NUMBERED.match(name)
    return None if found is None else int(found[1])


def numbers_named(directory: Path) -> set[int]:
    """Numbers of parts that whole files in `uploads/` or `export/` bear."""
    names = (path.name for path in directory.glob("*.parquet"))
    return {number for name in names if (number := part_number_of(name))}


def newest_number(manifest: Manifest, uploads: Path, sealed: Path) -> int:
    """The highest number that a part is known to have had, whether it is attached or not."""
    found = {manifest.newest_part, *(part.part_number for part in manifest.parts)}
    found |= numbers_named(uploads)
    for path in sealed.glob("*/*/*.parquet"):
        if (match := _SEALED.fullmatch(path.name)) is not None:
            found.add(int(match[2]))
    return max(found)


def missing_numbers(attached: Collection[int], sealed: Collection[int], newest: int) -> list[int]:
    """Parts are numbered from 1 without gaps; without any, the first one is missing."""
    known = {*attached, *sealed}
    return [n for n in range(1, max([1, newest, *known]) + 1) if n not in known]


def cut_ledgers(
    cursor: Cursor,
    attached: Collection[int],
    sealed: Iterable[SealedPart],
    told: Collection[LostCommits] = (),
) -> list[tuple[int, int, int]]:
    """Commits above the first number, up to the second, that are gone from the part of the third:
    the next part began behind them. Those that are `told` of are left out.
    """
    highest = {part.part_number: part.commit_high for part in sealed}
    begun: dict[int, int] = {}
    for number in attached:
        ((begun[number], highest[number]),) = cursor.execute(
            "SELECT coalesce(min(commit_number) FILTER (lane = 'carry'), 0),"
            f" coalesce(max(commit_number), 0) FROM {_part_name(number)}.applied"
        ).fetchall()
    found: list[tuple[int, int, int]] = []
    for number, carried in begun.items():
        before = max((high for other, high in highest.items() if other < number), default=0)
        # A leap is no loss of that part; some of what it passed over may have come back.
        if any(lost.low <= before and carried <= lost.high for lost in told):
            continue
        if number - 1 in begun and before < carried < before + LEAP:
            found.append((before, carried, number - 1))
    return found


def accept_cuts(cursor: Cursor, attached: Collection[int], sealed: Iterable[SealedPart]) -> None:
    """Let these parts end where the next one begins: what was lost of them was looked for."""
    for _, carried, number in cut_ledgers(cursor, attached, sealed):
        cursor.execute(
            f"INSERT INTO {_part_name(number)}.applied FROM {_part_name(number + 1)}.applied"
            f" WHERE lane = 'carry' AND commit_number = {carried}"
        )


def _part_name(number: int) -> str:
    return f"part_{number:06d}"


def kept_files(
    uploads: Path,
    listed: Collection[str],
    *,
    attached: Collection[int],
    sealed: Collection[int],
    lost: Iterable[LostCommits],
) -> list[str]:
    """Names of upload files that no part lists and that may hold rows which were acknowledged."""
    through = max((each.through for each in lost), default=0)
    found: list[str] = []
    for path in sorted(uploads.glob("*.parquet")):
        number = part_number_of(path.name)
        if number is None or path.name in listed or number in sealed:
            continue
        if number not in attached or number <= through:
            found.append(path.name)
    return found


def bulk_lane(paths: Iterable[Path], evaluated_ms: int) -> str:
    """Of an upload file that is listed again, or of a part and its WAL when their ledger is lost:
    whether rules had evaluated what is in it. When unsure, not: an incident twice is better than
    none.
    """
    written_ms = max(path.stat().st_mtime for path in paths) * 1000
    return BULK_AGAIN if written_ms + _COMMIT_MS_MAX < evaluated_ms else "bulk"


def lost_problem(lost: LostCommits) -> str:
    return (
        f"open/: rows were lost with a part or with its WAL (commits behind {lost.low}); small"
        " requests came back from the journal as far as it is kept; stop the server and run"
        " `ingester check --repair`: it lists the upload files that are left and makes the rollups"
        " anew"
    )


def unlisted_problem(name: str) -> str:
    return (
        f"uploads/{name}: the part that lists it is lost; the file is kept, and `ingester check"
        " --repair` (with the server stopped) lists it again"
    )
