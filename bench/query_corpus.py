"""Logs of several days for the bench of queries: a file a day, times spread evenly over each.

Real lines where the shared data is beside the repository, else synthetic ones. Either way every
line has `context.account`, `context.user.id` and `context.action` before its own fields, so that
the same questions fit both, and a time of its own.

Invariants: 1. no two logs share a time, so "the newest hundred" is one answer. 2. Each day holds
the same number of logs and starts with the same lines; only times differ.

Kept as zstd alone: ten million real lines are 20 GB.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice

import msgspec
from msgspec import Struct

from bench import real_lines
from bench.corpus import Corpus, cached_zstd
from bench.log_corpus import log_line
from bench.log_sql import LogNames, names_of

__all__ = ["DAYS", "FIRST_DAY", "QueryCorpus", "day_lines", "open_query_corpus"]

DAYS = 7
FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)

_VERSION = 1  # part of every cached name
_SEED = 20260713
_BLOCK_LINES = 1000
_DAY_US = 86_400_000_000
_USERS = 5_000
# Of synthetic logs: 72 of the 1.4 M of a day of ten million in all, and one of the smallest.
_RARE_WORD = "quorum"
_RARE_EVERY = 20_000
_RARE_FIRST = 60
_ACTIONS = ("open", "save", "export", "invite", "search", "pay", "sign-in", "sign-out")

# A shipper's time stands before those a line has itself.
_REAL_NAMES = LogNames(("Level",), ("Message",), ("timestamp",))


class QueryCorpus(Struct, frozen=True, kw_only=True):
    """The logs, and what there is to look for in them.

    `usual_word` is in many messages, `rare_word` in fewer than a page's worth of a day's.
    """

    is_real: bool
    days: tuple[Corpus, ...]
    names: LogNames
    usual_word: str
    rare_word: str
    action: str

    @property
    def logs(self) -> int:
        return sum(day.events for day in self.days)

    @property
    def pattern(self) -> str:
        """The files of all days, as a shell spells them."""
        path = str(self.days[0].path("zstd"))
        return path.replace("-day0.", "-day*.")

    @property
    def raw_bytes(self) -> int:
        return sum(day.raw_bytes for day in self.days)


def open_query_corpus(logs: int) -> QueryCorpus:
    """About `logs` lines: a multiple of the days."""
    directory = real_lines.find_directory()
    is_real = directory is not None and real_lines.has_log_files(directory)
    per_day = max(1, logs // DAYS)
    name = f"query-{'real' if is_real else 'synthetic'}-v{_VERSION}-{per_day * DAYS}"
    days = tuple(
        cached_zstd(f"{name}-day{day}", partial(_blocks, day, per_day), per_day)
        for day in range(DAYS)
    )
    if is_real:
        return QueryCorpus(
            is_real=True,
            days=days,
            names=_REAL_NAMES,
            usual_word="svchost",
            rare_word="fbcunn",
            action="Application:1001",
        )
    return QueryCorpus(
        is_real=False,
        days=days,
        names=names_of("synthetic"),
        usual_word="completed",
        rare_word=_RARE_WORD,
        action="export",
    )


def _blocks(day: int, logs: int) -> Iterator[bytes]:
    lines = day_lines(day, logs)
    while held := list(islice(lines, _BLOCK_LINES)):
        yield b"".join(held)


def day_lines(day: int, logs: int) -> Iterator[bytes]:
    """The lines of one day, oldest first."""
    directory = real_lines.find_directory()
    first = FIRST_DAY + timedelta(days=day)
    step_us = _DAY_US // logs
    if directory is None or not real_lines.has_log_files(directory):
        yield from _synthetic(first, logs, step_us)
        return
    for number, line in enumerate(islice(real_lines.mixed_logs(directory), logs)):
        moment = first + timedelta(microseconds=number * step_us)
        text = moment.isoformat(timespec="microseconds")[:-6].encode()
        yield b'{"timestamp":"%bZ",%b\n' % (text, line[1:])


def _synthetic(first: datetime, logs: int, step_us: int) -> Iterator[bytes]:
    bits = random.Random(_SEED).getrandbits
    first_ms = int(first.timestamp()) * 1000
    for number in range(logs):
        time_ms = first_ms + number * step_us // 1000
        line = log_line(bits, time_ms)
        if number % _RARE_EVERY == _RARE_FIRST:
            line = f'{{"time":{time_ms},"level":"error","message":"{_RARE_WORD} lost"}}\n'
        context = {
            "account": f"acct-{bits(10):04d}",
            "user": {"id": f"user-{bits(17) % _USERS:06d}"},
            "action": _ACTIONS[bits(3)],
        }
        yield b'{"context":%b,%b' % (msgspec.json.encode(context), line[1:].encode())
