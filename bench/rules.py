"""Rules over arriving logs: 1,000 of them, as a stage and beside a bulk stream.

Stage: the plan of 1,000 substring rules, and of 1,000 of which 80 % ask for a service, a level or a
path to be equal to something, over the corpus in batches as the rule engine reads them. Ceiling:
the same rules one after the other as compiled SQL, over as many rows as that can do.

Whole process: the corpus through the honest door several times in a row, with no rule and with the
1,000 mixed ones. The clock stops when all is stored, and again when the rules are through with it:
the loss of rate is that of the later.
"""

from __future__ import annotations

import os
import random
import time
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import msgspec
import pyarrow as pa

from bench.client import upload
from bench.corpus import cache_directory
from bench.options import Options
from bench.process import cpu_seconds, memory_mb, reset_peak_memory, wait_quiet
from bench.report import Row, median_row
from bench.server import Server, run_server
from ingester.lql import LOGS, parse
from ingester.lql.compiler import condition_of
from ingester.lql.sql import Fragment
from ingester.store.rule_rows import RuleRows
from ingester.watch.plan import Plan

__all__ = ["mixed_rules", "run", "stage", "substring_rules"]

_RULES = 1000
_BATCH_ROWS = 65_536
_STAGE_ROWS = 262_144
# What one statement a rule can do in a few seconds.
_CEILING_ROWS = 4_096
_STREAM_UPLOADS = 3
_THROUGH_SECONDS_MAX = 120.0
_SERVICES = 50


def run(options: Options) -> list[Row]:
    """Stage rows, then whole-process rows."""
    return [*stage(options), *_whole(options)]


def substring_rules(count: int = _RULES) -> list[str]:
    """Rules of one word that is in no row."""
    bits = random.Random(7)
    return [_word(bits) for _ in range(count)]


def mixed_rules(count: int = _RULES) -> list[str]:
    """Four of five ask for equality; a few of them match now and then."""
    bits = random.Random(11)
    rules = []
    for n in range(count):
        service = f"service:svc{bits.randrange(_SERVICES)}"
        rules.append(
            (
                f'{service} "{_word(bits)}"',
                f"{service} level:>=error {_word(bits)}",
                f'level:error "{_word(bits)}"',
                f"level:alert {service}",
                f"m.user.id:user-{bits.randrange(1 << 17):06d}",
                f"m.http.path:/api/checkout/{bits.randrange(1 << 17)}",
                f"m.labels.node:node-{bits.randrange(256):03d} m.labels.zone:z1 level:error",
                f"m.job.id:{bits.randrange(1 << 96):024x}",
                _word(bits),
                f'"{_word(bits)} {_word(bits)}"' if n % 100 else f"~{_word(bits)}+x",
            )[n % 10]
        )
    return rules


def stage(options: Options) -> list[Row]:
    """Rates of the plan, each with that of one statement a rule."""
    corpus = options.log_corpus()
    rows = _table(corpus.plain, min(_STAGE_ROWS, corpus.events))
    few = rows.slice(0, _CEILING_ROWS)
    rounds = 1 if options.smoke else options.rounds
    found: list[Row] = []
    for name, rules in (("1,000 substrings", substring_rules()), ("1,000 mixed", mixed_rules())):
        queries = [parse(text, context="rule") for text in rules]
        conditions = [condition_of(query.where, LOGS) for query in queries if query.where]
        with RuleRows("logs", "attributes") as rule_rows:
            plan = Plan(queries, LOGS, rule_rows)
            _matched(plan, rows.slice(0, 1))
            timed = [_timed(f"ours, {name}", rows, partial(_matched, plan)) for _ in range(rounds)]
            mine = median_row(timed)
            other = _timed(f"a statement each, {name}", few, partial(_each, rule_rows, conditions))
        other.ratio = mine.events_per_s / other.events_per_s
        other.ratio_to = "ours/this"
        found += [mine, other]
    return found


def _timed(name: str, rows: pa.Table, work: Callable[[pa.Table], None]) -> Row:
    reset_peak_memory(os.getpid())
    cpu, began = time.process_time(), time.perf_counter()
    work(rows)
    return Row(
        bench="rules",
        name=name,
        events=rows.num_rows,
        raw_bytes=rows.nbytes,
        seconds=time.perf_counter() - began,
        cpu_s=time.process_time() - cpu,
        peak_rss_mb=memory_mb(os.getpid()),
    )


def _each(rule_rows: RuleRows, conditions: Sequence[Fragment], rows: pa.Table) -> None:
    for condition in conditions:
        rule_rows.which(rows, [condition])


def _matched(plan: Plan, rows: pa.Table) -> None:
    for begin in range(0, rows.num_rows, _BATCH_ROWS):
        plan.matches(rows.slice(begin, _BATCH_ROWS), rows_max=250)


def _table(path: Path, count: int) -> pa.Table:
    """The first lines of the corpus as rows of `logs`."""
    with path.open("rb") as file:
        lines = [line.rstrip() for line in islice(file, count)]
    bits = random.Random(3)
    levels, messages, services = [], [], []
    for line in lines:
        fields = msgspec.json.decode(line)
        level = fields.get("level") or fields.get("severity") or "info"
        levels.append(str(level).lower() if isinstance(level, str) else "info")
        messages.append(str(fields.get("message") or fields.get("msg") or line.decode()))
        services.append(f"svc{bits.randrange(_SERVICES)}")
    return pa.table({
        "service": services,
        "environment": ["prod"] * len(services),
        "level": levels,
        "message": messages,
        "attributes": [line.decode() for line in lines],
    })


def _whole(options: Options) -> list[Row]:
    """Without rules, and with: until stored, and until the rules are through."""
    corpus = options.log_corpus()
    rounds = 1 if options.smoke else options.rounds
    uploads = 1 if options.smoke else _STREAM_UPLOADS
    file = cache_directory() / "rules.toml"
    tables = (
        f"[[rules]]\nname = {msgspec.json.encode(f'r{n}').decode()}\n"
        f"lql = {msgspec.json.encode(text).decode()}\n"
        for n, text in enumerate(mixed_rules())
    )
    file.write_text("".join(tables), encoding="utf-8")
    found: dict[str, list[Row]] = {"no rule": [], "1,000 rules, stored": []}
    through: list[Row] = []
    for _ in range(rounds):
        with run_server() as server:
            found["no rule"].append(_stream(server, corpus.plain, corpus.events, uploads)[0])
        with run_server({"INGESTER_WATCH_FILES": str(file)}) as server:
            stored, evaluated = _stream(
                server, corpus.plain, corpus.events, uploads, until_through=True
            )
            found["1,000 rules, stored"].append(stored)
            through.append(evaluated)
    rows = [median_row(each) for each in found.values()] + [median_row(through)]
    names = (*found, "1,000 rules, evaluated")
    for row, name in zip(rows, names, strict=True):
        row.name = f"stream, {name}"
        if row is not rows[0]:
            row.ratio = row.events_per_s / rows[0].events_per_s
            row.ratio_to = "this/no rule"
    return rows


def _stream(
    server: Server, path: Path, events: int, uploads: int, *, until_through: bool = False
) -> Sequence[Row]:
    """Until stored, and until the rules have seen all of it."""
    door = server.ingest_door()
    wait_quiet(server.pid)
    reset_peak_memory(server.pid)
    cpu_before, began = cpu_seconds(server.pid), time.monotonic()
    for _ in range(uploads):
        done = upload(door, path, "none")
        assert (done.status, done.accepted) == (200, events), done
    rows = [_row(server, events * uploads, time.monotonic() - began, cpu_before)]
    if until_through:
        while _evaluated(server) < events * uploads:
            assert time.monotonic() - began < _THROUGH_SECONDS_MAX, "rules are not through"
            time.sleep(0.05)
        rows.append(_row(server, events * uploads, time.monotonic() - began, cpu_before))
    return rows


def _row(server: Server, events: int, seconds: float, cpu_before: float) -> Row:
    return Row(
        bench="rules",
        name="",
        events=events,
        seconds=seconds,
        cpu_s=cpu_seconds(server.pid) - cpu_before,
        peak_rss_mb=memory_mb(server.pid),
    )


def _evaluated(server: Server) -> int:
    """Rows that the rules have seen."""
    with urllib.request.urlopen(f"http://{server.console}/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("ingester_watch_rule_rows_total "):
                return int(float(line.split()[1]))
    return 0


def _word(bits: random.Random) -> str:
    """Eight letters that the corpus does not hold."""
    return "".join(bits.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(8))
