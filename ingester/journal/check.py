"""Reading the whole journal to say whether it is sound; nothing on disk is changed.

Why beside `recovery`: a start needs what lies beyond the store and skips the rest. A check reads
every retained record, and must tell a record that is only gone from the journal (its rows are in
the store) from one that is gone altogether.

1. What lies before the oldest segment was deleted by retention, if the store has it.
2. The end of the newest segment may be torn by a crash, or be under way beside a running server;
   it counts as damage only when it hides a record that the store says it has taken from there.
3. A segment that a repair has set aside explains the gap it leaves.
"""

from __future__ import annotations

import re
from pathlib import Path

from msgspec import Struct, field

from .recovery import Gap, recover
from .segments import LARGE_NAME, SPARE_NAME

__all__ = ["SET_ASIDE_MARK", "JournalCheck", "check_journal"]

# What a repair puts behind the name of a file that it takes out of use.
SET_ASIDE_MARK = ".damaged-"

_SEGMENT = re.compile(r"\d{20}\.seg")
_SET_ASIDE = re.compile(r"\d{20}\.seg" + re.escape(SET_ASIDE_MARK) + r".+")
# Ends of a scan that are no damage of that segment: what followed it is missing.
_MISSING = ("the segment ends", "zeros where a record should begin")
_ADVICE = "; `ingester check --repair` sets the damaged file aside"


class JournalCheck(Struct, kw_only=True):
    """What was found. `record_count` and `last_seq` are of sound records that count.

    `damaged` are the names of segments that hold damage, and of whose records none is missing in
    the store.
    """

    problems: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    record_count: int = 0
    first_seq: int | None = None
    last_seq: int = 0


def check_journal(directory: Path, *, applied_seq: int) -> JournalCheck:
    """`applied_seq` is the newest sequence the store had before this was called.

    Raises JournalFailed for a newer format and OSError when a file cannot be opened.
    """
    found = JournalCheck()
    if not directory.is_dir():
        if applied_seq:
            found.problems.append("journal/: the folder is missing; the next start makes it")
        return found
    set_aside = _strangers(directory, found)
    first_seq = recover(directory, after_seq=0).first_seq
    if first_seq is None:
        _note_headers(directory, found)
        return found
    # What is older than the first segment was deleted, which is right only for what is applied.
    recovery = recover(directory, after_seq=min(first_seq - 1, applied_seq))
    header_problems = list(recovery.report.problems)
    for seq, _ in recovery:
        found.last_seq = seq
    found.record_count = recovery.report.record_count
    found.first_seq = first_seq
    found.problems += [f"journal/{problem}{_ADVICE}" for problem in header_problems]
    found.damaged += [problem.partition(",")[0] for problem in header_problems]
    for gap in recovery.report.gaps:
        _note_gap(found, gap, applied_seq, is_explained=set_aside)
    newest = max(found.last_seq, first_seq - 1)
    if newest < applied_seq:
        hidden = Gap(recovery.last_stop, newest + 1, applied_seq)
        _note_gap(found, hidden, applied_seq, is_explained=set_aside)
    return found


def _note_gap(found: JournalCheck, gap: Gap, applied_seq: int, *, is_explained: bool) -> None:
    records = f"record {gap.first_seq}"
    if gap.last_seq > gap.first_seq:
        records = f"records {gap.first_seq} to {gap.last_seq}"
    if gap.last_seq > applied_seq:
        found.problems.append(
            f"journal/{gap.where}; {records} cannot be read and are not all in the store: put back"
            " the file from a backup before the next start"
        )
    elif not is_explained:
        advice = "; this mends itself when the journal's retention has passed"
        if not gap.where.endswith(_MISSING):
            found.damaged.append(gap.where.partition(",")[0])
            advice = _ADVICE
        found.problems.append(
            f"journal/{gap.where}; {records} cannot be read. Their rows are in the store, but could"
            f" not be rebuilt from here{advice}"
        )


def _note_headers(directory: Path, found: JournalCheck) -> None:
    for path in sorted(directory.glob("*.seg")):
        found.problems.append(
            f"journal/{path.name}, offset 0: nothing in it can be read; put it back from a backup"
        )


def _strangers(directory: Path, found: JournalCheck) -> bool:
    """Name what is no segment; whether a repair has set one aside."""
    is_set_aside = False
    for path in sorted(directory.iterdir()):
        if path.name in (SPARE_NAME, LARGE_NAME) or _SEGMENT.fullmatch(path.name):
            continue
        if _SET_ASIDE.fullmatch(path.name):
            is_set_aside = True
            continue
        found.problems.append(
            f"journal/{path.name}: this is no file of the journal; move it elsewhere"
        )
    return is_set_aside
