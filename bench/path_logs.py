"""The whole path of logs: NDJSON through `POST /ingest/{source}`, first byte sent to queryable.

As `path.py`, but every side also reads level, message and time out of each line: ours by the
contract's rules, the rivals by the same rules in SQL (`log_sql.py`). What was read must agree:
rows, the histogram of levels, first and last time, a sum over all times, and the bytes of all
messages and payloads.
"""

from __future__ import annotations

import os
from functools import partial

import msgspec

from bench.corpus import Corpus, Encoding
from bench.log_sql import FACTS_SQL, HISTOGRAM_SQL, LogFacts
from bench.options import Options
from bench.path import measured_upload, note_stand_in
from bench.report import Row
from bench.rivals import LOG_RIVALS, Rival, available_rivals, rival_result, rival_row
from bench.rounds import Contender, compare_rounds
from bench.server import Server, run_server

__all__ = ["run", "stored_facts"]

_BENCH = "path_logs"
_ENCODINGS: tuple[Encoding, ...] = ("gzip", "none")


def run(options: Options) -> list[Row]:
    """Rows of gzip and none: ours, then each rival with our rate over its rate."""
    comparison = _Comparison(options.log_corpus(), options.data)
    rivals = available_rivals(LOG_RIVALS, options)
    rows: list[Row] = []
    for encoding in _ENCODINGS:
        if encoding not in options.encodings:
            continue
        contenders = []
        for rival in rivals:
            note_stand_in(rival, encoding, options)
            contenders += [
                Contender(rival.name, partial(comparison.theirs, rival, encoding, variant))
                for variant in rival.repeated
            ]
        ours = partial(comparison.ours, encoding)
        rounds = 1 if options.smoke else options.rounds
        rows += compare_rounds(f"{_BENCH} {encoding}", ours, contenders, rounds)
    return rows


def stored_facts(server: Server) -> LogFacts:
    """What a server holds, asked through the public view."""
    levels = {row["level"]: row["n"] for row in server.query(HISTOGRAM_SQL)}
    return msgspec.convert({**server.query(FACTS_SQL)[0], "levels": levels}, LogFacts)


class _Comparison:
    """One corpus for all sides, and what the first of them found in it."""

    def __init__(self, corpus: Corpus, data: str) -> None:
        self._corpus = corpus
        self._data = data
        self._facts: LogFacts | None = None

    def ours(self, encoding: Encoding) -> Row:
        os.sync()
        with run_server() as server:
            door = server.ingest_door()
            row = measured_upload(server, door, self._corpus, encoding, _BENCH)
            self._check("ours", stored_facts(server))
        return row

    def theirs(self, rival: Rival, encoding: Encoding, variant: str) -> Row:
        result = rival_result(rival, self._corpus, encoding, variant, self._data)
        assert result.facts is not None
        row = rival_row(rival, self._corpus, encoding, variant, result, _BENCH)
        self._check(row.name, result.facts)
        return row

    def _check(self, name: str, facts: LogFacts) -> None:
        """Raises unless `facts` are those of everyone before."""
        self._facts = self._facts or facts
        if facts != self._facts or facts.row_count != self._corpus.events:
            raise AssertionError(f"{name} read {facts}; before it was {self._facts}")
