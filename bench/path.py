"""The whole path: one bulk upload over loopback HTTP, first byte sent to rows queryable.

A bulk answer means committed, so the clock stops at the answer; the count is then asked for
outside the timed section and must be exact. Ours pays for HTTP, inflating, validation and
rejects; the rivals read the same file from the page cache (`rivals.py` has the rules). Every
round has a fresh folder and process for each side, one after the other (`rounds.py`). Of DuckDB
every round has both: the plain statement, and the same with `preserve_insertion_order=false`.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping
from functools import partial

from bench.client import Target, upload
from bench.corpus import Corpus, Encoding, dirty_corpus
from bench.options import Options
from bench.process import cpu_seconds, memory_mb, reset_peak_memory, wait_quiet
from bench.report import Row, median_row
from bench.rivals import RIVALS, Rival, available_rivals, best_variant, run_rival
from bench.rounds import Contender, compare_rounds
from bench.server import Server, run_server

__all__ = ["measured_upload", "note_stand_in", "run", "upload_once"]


def upload_once(
    corpus: Corpus, encoding: Encoding, settings: Mapping[str, str] | None = None
) -> Row:
    """One upload into a fresh server, its counts checked."""
    os.sync()
    with run_server(settings) as server:
        row = measured_upload(server, server, corpus, encoding)
        stored = int(server.query("SELECT count(*) AS n FROM events")[0]["n"])
        assert stored == corpus.events, f"{stored} rows of {corpus.events} are queryable"
    return row


def measured_upload(
    server: Server, target: Target, corpus: Corpus, encoding: Encoding, bench: str = "path"
) -> Row:
    """One upload to a door of `server`; the counts of the answer must be those of the corpus."""
    path = corpus.path(encoding)
    wait_quiet(server.pid)
    reset_peak_memory(server.pid)
    cpu_before = cpu_seconds(server.pid)
    done = upload(target, path, encoding)
    cpu_s = cpu_seconds(server.pid) - cpu_before
    peak_rss_mb = memory_mb(server.pid)
    counts = (done.status, done.accepted, done.rejected)
    assert counts == (200, corpus.events, corpus.rejects), counts
    return Row(
        bench=bench,
        name=f"ours {encoding}",
        events=corpus.events,
        raw_bytes=corpus.raw_bytes,
        seconds=done.seconds,
        cpu_s=cpu_s,
        client_cpu_s=done.cpu_s,
        peak_rss_mb=peak_rss_mb,
    )


def run(options: Options) -> list[Row]:
    """Rows of every encoding: ours, then each rival with our rate over its rate."""
    corpus = options.corpus()
    rounds = 1 if options.smoke else options.rounds
    rivals = available_rivals(RIVALS, options)
    variants: dict[tuple[str, Encoding], tuple[str, ...]] = {}
    rows: list[Row] = []
    for encoding in options.encodings:
        contenders = []
        for rival in rivals:
            key = (rival.name, rival.readable(encoding))
            if key not in variants:
                variants[key] = _variants(rival, corpus, encoding, options)
            note_stand_in(rival, encoding, options)
            contenders += [
                Contender(rival.name, partial(run_rival, rival, corpus, encoding, variant))
                for variant in variants[key]
            ]
        ours = partial(upload_once, corpus, encoding)
        rows += compare_rounds(f"path {encoding}", ours, contenders, rounds)
    if "gzip" in options.encodings and options.data == "synthetic":
        rows.append(_dirty(options, corpus, rounds, rows))
    return rows


def _variants(
    rival: Rival, corpus: Corpus, encoding: Encoding, options: Options
) -> tuple[str, ...]:
    """Those that take part in every round."""
    if rival.repeated:
        return rival.repeated
    if options.smoke:
        return (next(iter(rival.variants)),)
    chosen, tried = best_variant(rival, corpus, encoding)
    times = "; ".join(f"{row.name} {row.seconds:.2f} s" for row in tried)
    options.add_note(f"{rival.name} tried: {times}")
    return (chosen,)


def note_stand_in(rival: Rival, encoding: Encoding, options: Options) -> None:
    """Say that a rival's gzip figure stands for an encoding it cannot read."""
    if rival.readable(encoding) != encoding:
        options.add_note(f"{rival.name} cannot read {encoding}: its gzip figure stands in")


def _dirty(options: Options, clean: Corpus, rounds: int, rows: list[Row]) -> Row:
    """The same upload with one line in a thousand refused; compared with the clean one."""
    corpus = dirty_corpus(clean.events)
    row = median_row([upload_once(corpus, "gzip") for _ in range(rounds)])
    row.name = "ours gzip, 1 line in 1000 refused"
    row.extra["rejects"] = corpus.rejects
    base = statistics.median(other.seconds for other in rows if other.name == "ours gzip")
    row.ratio = base / row.seconds
    row.ratio_to = "dirty/clean"
    return row
