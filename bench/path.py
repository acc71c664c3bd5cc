"""The whole path: one bulk upload over loopback HTTP, first byte sent to rows queryable.

A bulk answer means committed, so the clock stops at the answer; the count is then asked for
outside the timed section and must be exact. Ours pays for HTTP, inflating, validation and
rejects; the rivals read the same file from the page cache (`rivals.py` has the rules). Every
round has a fresh folder and process for each side, one after the other, so that slow drifts of
the machine hit all of them alike.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping

from bench.client import upload
from bench.corpus import Corpus, Encoding, dirty_corpus
from bench.options import Options
from bench.process import cpu_seconds, memory_mb, reset_peak_memory, wait_quiet
from bench.report import Row, median_row, note, pairwise_ratios
from bench.rivals import RIVALS, Rival, best_variant, run_rival
from bench.server import run_server

__all__ = ["run", "upload_once"]


def upload_once(
    corpus: Corpus, encoding: Encoding, settings: Mapping[str, str] | None = None
) -> Row:
    """One upload into a fresh server, its counts checked."""
    path = corpus.path(encoding)
    os.sync()
    with run_server(settings) as server:
        wait_quiet(server.pid)
        reset_peak_memory(server.pid)
        cpu_before = cpu_seconds(server.pid)
        done = upload(server, path, encoding)
        cpu_s = cpu_seconds(server.pid) - cpu_before
        peak_rss_mb = memory_mb(server.pid)
        counts = (done.status, done.accepted, done.rejected)
        assert counts == (200, corpus.events, corpus.rejects), counts
        stored = int(server.query("SELECT count(*) AS n FROM events")[0]["n"])
        assert stored == corpus.events, f"{stored} rows of {corpus.events} are queryable"
    return Row(
        bench="path",
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
    rivals = _available(options)
    variants: dict[tuple[str, Encoding], str] = {}
    rows: list[Row] = []
    for encoding in options.encodings:
        for rival in rivals:
            key = (rival.name, rival.readable(encoding))
            if key not in variants:
                variants[key] = _variant(rival, corpus, encoding, options)
        rows += _compare(corpus, encoding, rivals, variants, rounds)
    if "gzip" in options.encodings and options.data == "synthetic":
        rows.append(_dirty(options, corpus, rounds, rows))
    return rows


def _available(options: Options) -> list[Rival]:
    found = []
    for rival in RIVALS:
        if rival.name not in options.rivals:
            continue
        if rival.available():
            found.append(rival)
        else:
            options.add_note(f"{rival.name} skipped: install the extra 'bench' ({rival.package})")
    return found


def _variant(rival: Rival, corpus: Corpus, encoding: Encoding, options: Options) -> str:
    if options.smoke:
        return rival.variants[0]
    chosen, tried = best_variant(rival, corpus, encoding)
    times = ", ".join(f"{row.name} {row.seconds:.2f} s" for row in tried)
    options.add_note(f"{rival.name} tried: {times}")
    if rival.readable(encoding) != encoding:
        options.add_note(f"{rival.name} cannot read {encoding}: its gzip figure stands in")
    return chosen


def _compare(
    corpus: Corpus,
    encoding: Encoding,
    rivals: list[Rival],
    variants: Mapping[tuple[str, Encoding], str],
    rounds: int,
) -> list[Row]:
    """Rounds of ours and every rival in turn; medians and ratios."""
    ours: list[Row] = []
    theirs: dict[str, list[Row]] = {rival.name: [] for rival in rivals}
    for number in range(rounds):
        ours.append(upload_once(corpus, encoding))
        note(f"path {encoding} round {number + 1}: ours {ours[-1].seconds:.2f} s")
        for rival in rivals:
            variant = variants[rival.name, rival.readable(encoding)]
            theirs[rival.name].append(run_rival(rival, corpus, encoding, variant))
            note(f"  {theirs[rival.name][-1].name} {theirs[rival.name][-1].seconds:.2f} s")
    rows = [median_row(ours)]
    for name, measured in theirs.items():
        row = median_row(measured)
        row.ratio = row.seconds / rows[0].seconds
        row.ratio_to = f"ours/{name}"
        row.ratios = pairwise_ratios(ours, measured)
        rows.append(row)
    return rows


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
