"""The bench of queries: its logs, its questions beside the rival's, its askers."""

from __future__ import annotations

import gzip
import http.server
import importlib.util
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from bench import query, query_corpus, real_lines
from bench.asker import Asker
from bench.client_search import SearchPlan, _Clients
from bench.options import Options
from bench.query_questions import Question, Way
from bench.query_rival import Answered, RivalProcess
from ingester.protocol.body_decoder import BodyLimits
from ingester.protocol.log_requests import read_honest_logs

_HAS_CHDB = importlib.util.find_spec("chdb") is not None
_DAY_US = 86_400_000_000


@pytest.fixture
def _no_real_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real_lines, "find_directory", lambda: None)


@pytest.fixture
def _small_real_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = {
        "Hostname": "h.example",
        "Channel": "Security/Audit",
        "EventID": 4624,
        "@timestamp": "2023-09-05T09:51:51.566Z",
        "Level": "2",
        "Message": "m",
    }
    github = {
        "type": "PushEvent",
        "actor": {"id": 1, "login": "octo"},
        "repo": {"id": 2, "name": "octo/cat"},
        "created_at": "2015-01-01T01:00:00Z",
        "payload": {"commits": [{"sha": "x"}]},
    }
    for name in real_lines.LOG_FILES:
        line = json.dumps(github if "github" in name else windows).encode()
        (tmp_path / name).write_bytes(gzip.compress(line + b"\r\n"))
    monkeypatch.setattr(real_lines, "find_directory", lambda: tmp_path)


def _read(day: int, logs: int) -> list[Any]:
    read = read_honest_logs(
        b"".join(query_corpus.day_lines(day, logs)),
        BodyLimits(),
        received_at_us=1_795_000_000_000_000,
        rejects_max=1,
        is_plain=False,
    )
    assert read.rejected_count == 0
    return list(read.rows)


@pytest.mark.usefixtures("_no_real_data")
def test_days_are_the_same_logs_at_other_times_and_no_time_repeats() -> None:
    first, third = _read(0, 3000), _read(2, 3000)
    times = [row.time_us for row in first]
    start_us = int(query_corpus.FIRST_DAY.timestamp()) * 1_000_000
    assert times == sorted(set(times))
    assert start_us <= times[0] < times[-1] < start_us + _DAY_US
    # A time in seconds with a fraction is only as exact as a float.
    shifts = {row.time_us - other.time_us for row, other in zip(third, first, strict=True)}
    assert all(abs(shift - 2 * _DAY_US) <= 1 for shift in shifts)
    assert [row.level for row in third] == [row.level for row in first]


@pytest.mark.usefixtures("_small_real_data")
def test_real_lines_keep_what_they_say_and_get_a_time_and_a_context() -> None:
    lines = [json.loads(line) for line in query_corpus.day_lines(1, 240)]
    assert len(lines) == 240
    pushes = [line for line in lines if line["context"]["action"] == "PushEvent"]
    assert len(pushes) == 2
    assert pushes[0]["payload"] == {"commits": [{"sha": "x"}]}
    assert pushes[0]["context"] == {
        "account": "octo",
        "user": {"id": "octo"},
        "action": "PushEvent",
    }
    assert lines[0]["@timestamp"] == "2023-09-05T09:51:51.566Z"
    assert [line["timestamp"] for line in lines[::60]] == [
        f"2026-01-02T{hour:02d}:00:00.000000Z" for hour in (0, 6, 12, 18)
    ]
    assert [row.time_us for row in _read(1, 240)] == sorted({row.time_us for row in _read(1, 240)})


@pytest.mark.usefixtures("_no_real_data")
def test_the_files_are_written_once_and_named_by_one_pattern() -> None:
    corpus = query_corpus.open_query_corpus(705)
    assert [day.events for day in corpus.days] == [100] * 7
    assert corpus.logs == 700
    pattern = Path(corpus.pattern)
    written = {path: path.stat().st_mtime_ns for path in pattern.parent.glob(pattern.name)}
    assert sorted(written) == [day.path("zstd") for day in corpus.days]
    assert query_corpus.open_query_corpus(705) == corpus
    assert {path: path.stat().st_mtime_ns for path in written} == written


@pytest.mark.usefixtures("_no_real_data")
def test_every_question_is_answered_alike_by_both() -> None:
    """Against the real server: a rival that is not installed is a note, and ours go on."""
    options = Options(smoke=True, events=2100, rivals=("clickhouse",))
    rows = query.run(options)
    assert all(row.seconds for row in rows)
    ours = [row for row in rows if row.name.startswith("ours, ") and row.extra.get("rows")]
    assert len(ours) == 7
    assert [row.events for row in ours] == [300, 300, 2100, 2100, 2100, 1000, 2100]
    compared = [row for row in rows if row.ratio_to == "ours/clickhouse"]
    assert len(compared) == (10 if _HAS_CHDB else 0)
    assert all(row.ratio for row in compared)
    assert "synthetic logs" in options.notes[0]
    assert _HAS_CHDB or "clickhouse skipped" in options.notes[1]
    idle, beside = rows[-2:]
    assert beside.ratio_to == "beside/idle"
    assert beside.ratio
    assert idle.extra["p99_ms"] > 0
    assert beside.extra.keys() >= {"p99_ms", "p99_times", "searches", "queries", "told_to_wait"}


class _Answers:
    """In the place of an asker and of a rival: always the same rows."""

    name = "them"

    def __init__(self, rows: list[list[Any]]) -> None:
        self._rows = rows

    def get(self, _: str) -> bytes:
        return msgspec.json.encode(self._rows)

    def ask(self, _: str, times: int = 1) -> Answered:
        assert times >= 1
        return Answered(rows=self._rows, seconds=0.5, cpu_s=0.1, peak_rss_mb=1.0)


def _contest(rows: list[list[Any]]) -> query._Contest:
    way = Way(sql=lambda _: "SELECT 1", bring=sorted)
    question = Question(name="q", target="/", logs=9, rows=lambda found: found, ways=(way,))
    asker = cast(Asker, _Answers(rows))
    return query._Contest(cast(Any, None), asker, question, smoke=False)


def test_rows_of_the_rival_are_compared_each_time_and_asked_for_about_a_second() -> None:
    contest = _contest([["a", 1], ["b", 2]])
    (theirs,) = contest.contenders(cast(RivalProcess, _Answers([["b", 2], ["a", 1]])))
    row = theirs.run()
    assert (row.events, row.seconds, row.extra["times"]) == (9, 0.5, 2)


@pytest.mark.parametrize("rows", [[["a", 1]], [["a", 1], ["b", 3]], [["a", 1], ["b", 2], ["c", 0]]])
def test_a_rival_that_answers_otherwise_is_refused(rows: list[list[Any]]) -> None:
    with pytest.raises(AssertionError, match="them answers q with"):
        _contest([["a", 1], ["b", 2]]).contenders(cast(RivalProcess, _Answers(rows)))


def test_a_question_without_an_answer_proves_nothing() -> None:
    with pytest.raises(AssertionError, match="nothing answers q"):
        _contest([])


class _Console(http.server.BaseHTTPRequestHandler):
    """Answers with the status that the path names; SQL with 200."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(int(self.path.removeprefix("/")))

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(200 if sent == {"sql": "SELECT 1", "format": "json"} else 400)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def console_address() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Console) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_askers_count_answers_deadlines_and_refusals(console_address: str) -> None:
    plan = SearchPlan(
        address=console_address,
        token="t",
        clients=1,
        targets=["/200", "/408", "/503", "/200"],
        statements=["SELECT 1"],
    )
    clients = _Clients(plan)
    asker = Asker(plan.address, plan.token)
    for number in range(3, 8):
        clients._ask(asker, number)
    asker.close()
    done = clients.done
    assert (done.searches, done.queries, done.timeouts, done.refused) == (2, 1, 1, 1)
    assert done.failures == []


def test_another_answer_ends_an_asker_and_is_told(console_address: str) -> None:
    plan = SearchPlan(
        address=console_address, token="t", clients=1, targets=["/500"], statements=[]
    )
    clients = _Clients(plan)
    clients._ask_on(0)
    assert clients.done.failures == ["Refused: 500: "]
