"""What the ledgers of all parts say together: no number twice, no record missing, none too late.

Beside it, what a check has found (`PartsCheck`), which other rooms go by.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from msgspec import Struct, field

from ..errors import StoreError
from .control.sealed_files import Manifest
from .lost import kept_files, lost_problem, unlisted_problem
from .put_back import DOUBLED
from .schema import parquet_relation

__all__ = [
    "ADVICE",
    "MARKS",
    "NAMED_MAX",
    "Ask",
    "AttachedPart",
    "Interval",
    "PartsCheck",
    "Rows",
    "Unreadable",
    "check_losses",
    "check_numbers",
    "check_sequences",
]

# Lanes of `applied` that are no batches.
MARKS = "('carry', 'wide')"
NAMED_MAX = 20
ADVICE = "; `ingester check --repair` rebuilds from the journal what it still holds"

Rows: TypeAlias = list[tuple[Any, ...]]
Ask: TypeAlias = Callable[[str], Rows]
Interval: TypeAlias = tuple[int, int]


class Unreadable(StoreError):
    """The statement met damage."""


class AttachedPart(Struct, frozen=True):
    """A part as it is attached."""

    number: int
    name: str
    file_name: str


class PartsCheck(Struct, kw_only=True):
    """What was found. `damaged` are numbers of parts that cannot be read, or not wholly, and why,
    `doubled` of those that are not read (`put_back.py`), `missing` of those that are not there;
    `is_behind`: others have seen commits that the
    ledger lacks. `applied` are the intervals of journal sequences in batches, joined and in order,
    with what lies before the oldest part; `listed` the names of upload files, `unlisted` of those
    that no part lists and that may hold rows which were acknowledged.
    """

    problems: list[str] = field(default_factory=list)
    damaged: dict[int, str] = field(default_factory=dict)
    doubled: list[int] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    is_behind: bool = False
    unlisted: list[str] = field(default_factory=list)
    applied: list[Interval] = field(default_factory=list)
    gaps: list[Interval] = field(default_factory=list)
    applied_seq: int = 0
    listed: set[str] = field(default_factory=set)
    lost_files: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    are_rollups_lost: bool = False
    are_rollups_wrong: bool = False


def check_losses(
    found: PartsCheck,
    manifest: Manifest,
    uploads: Path,
    *,
    attached: Collection[int],
    newest_commit: int,
    last_known: int,
) -> None:
    """Parts and commits that are gone, and upload files that are kept for a repair. `attached`:
    parts that can be read; `last_known`: the last commit that was made, as far as rules, rollups
    and the mark beside the parts tell.
    """
    sealed = {part.part_number for part in manifest.parts}
    found.problems += [
        f"open/{number:06d}.duckdb: the part is missing{ADVICE}" for number in found.missing
    ]
    found.problems += [f"open/{number:06d}.duckdb: {DOUBLED}" for number in found.doubled]
    found.problems += [lost_problem(lost) for lost in manifest.lost]
    is_whole = not (found.damaged or found.missing or found.doubled)
    if last_known > newest_commit and is_whole:
        found.is_behind = True
        found.problems.append(
            f"open/: the ledger ends at commit {newest_commit}, but commit {last_known} has been"
            " made: rows were lost with a WAL (`open/*.wal`){ADVICE}, and lists the"
            " upload files that are left"
        )
    found.unlisted = kept_files(
        uploads,
        found.listed | {path.removeprefix("uploads/") for path in manifest.removals},
        attached=() if found.is_behind else attached,
        sealed=sealed,
        lost=manifest.lost,
    )
    found.problems += map(unlisted_problem, found.unlisted)


def check_numbers(parts: Sequence[AttachedPart], ask: Ask, found: PartsCheck) -> None:
    """No request and no number of the ledger may be there twice."""
    names = " UNION ALL ".join(f"SELECT request_number FROM {part.name}.requests" for part in parts)
    (repeats,) = ask(f"SELECT count(*) - count(DISTINCT request_number) FROM ({names})")[0]
    if repeats:
        found.problems.append(f"{repeats} requests are stored twice")
    for column in ("commit_number", "batch_id"):
        names = " UNION ALL ".join(
            f"SELECT {column} FROM {part.name}.applied WHERE lane NOT IN {MARKS}" for part in parts
        )
        for number, count in ask(
            f"SELECT {column}, count(*) FROM ({names}) GROUP BY ALL HAVING count(*) > 1 "
            f"ORDER BY {column} LIMIT {NAMED_MAX}"
        ):
            found.problems.append(f"{column} {number} was used {count} times")


def check_sequences(
    parts: Sequence[AttachedPart], ask: Ask, found: PartsCheck, ledgers: Sequence[Path]
) -> None:
    """Journal sequences of the batches follow each other: none is missing. One that is there twice
    was given twice, by a journal that was lost and began anew: requests are counted by their own
    numbers. `ledgers` are those of parts that were sealed while an older one was still written to.
    """
    names = " UNION ALL ".join(
        f"SELECT first_seq, last_seq FROM {part.name}.applied "
        f"WHERE lane NOT IN {MARKS} AND last_seq > 0"
        for part in parts
    )
    if ledgers:
        names += (
            f" UNION ALL SELECT first_seq, last_seq FROM {parquet_relation(ledgers)} "
            f"WHERE lane NOT IN {MARKS} AND last_seq > 0"
        )
    # The oldest part begins with the marks of all that were before it; later ones say nothing.
    ((before,),) = ask(
        f"SELECT coalesce(min(last_seq), 0) FROM {parts[0].name}.applied WHERE lane = 'carry'"
    )
    if not found.missing or parts[0].number < min(found.missing):
        found.applied.append((0, before))
    expected = before + 1
    for first, last in ask(f"SELECT * FROM ({names}) ORDER BY ALL"):
        if first > expected:
            found.gaps.append((expected, first - 1))
            found.problems.append(
                f"journal records {expected} to {first - 1} are in no batch of the ledger{ADVICE}"
            )
        expected = max(expected, last + 1)
        if found.applied and first <= found.applied[-1][1] + 1:
            found.applied[-1] = (found.applied[-1][0], max(last, found.applied[-1][1]))
        else:
            found.applied.append((first, last))
    found.applied_seq = expected - 1
