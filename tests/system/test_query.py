"""Queries as a client sees them: the route, the command, and what means harm (contract 5, 6)."""

from __future__ import annotations

import csv
import fcntl
import http.client
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.system.doors import Doors, bearer, open_doors
from tests.system.server import REPOSITORY, Server, running, wait_until

SECONDS_MAX = 3
ENDLESS = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range + b.range < 0"
HARM = [
    "SELECT content FROM read_blob('/etc/passwd')",
    "SELECT * FROM glob('*')",
    "FROM 'x.parquet'",
    "COPY (SELECT 1) TO 'x'",
    "ATTACH 'x.duckdb'",
    "INSTALL httpfs",
    "SET memory_limit = '1TB'",
    "PRAGMA database_list",
    "SELECT 1; SELECT 2",
    "FROM query('SELECT 1')",
    "SELECT getenv('PATH')",
    "SELECT repeat('x', 3000000000)",
    "SELECT list_sum(range(1000000000))",
    "SELECT unnest(range(1000000000))",
    "SELECT printf('%1000000000d', 1)",
]


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    environment = {
        "INGESTER_STORE_QUERY_SECONDS_MAX": str(SECONDS_MAX),
        "INGESTER_STORE_QUERY_MEMORY_BYTES_MAX": "64MiB",
    }
    with open_doors(tmp_path_factory.mktemp("query"), environment) as doors:
        doors.lines(b'{"message":"one","n":0.10}', b'{"message":"two","n":[1,"x"]}')
        assert len(doors.rows("FROM logs")) == 2
        yield doors


def console(doors: Doors) -> http.client.HTTPConnection:
    parts = urlsplit(doors.server.ready["console"])
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)


def ask(
    doors: Doors, sql: str, format_name: str = "json", *, key: str | None = None
) -> tuple[int, str, bytes]:
    connection = console(doors)
    body = json.dumps({"sql": sql, "format": format_name})
    key = doors.reader if key is None else key
    connection.request("POST", "/api/v1/query", body, bearer(key) if key else {})
    answer = connection.getresponse()
    found = answer.status, answer.headers["Content-Type"], answer.read()
    connection.close()
    return found


def confined_children(server: Server) -> set[int]:
    """Query processes at work: a spare one is not confined yet."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            status = path.read_text("ascii", "replace")
        except OSError:
            continue
        lines = dict(line.partition(":\t")[::2] for line in status.splitlines())
        if lines.get("PPid") == str(server.pid) and lines.get("Seccomp") == "2":
            found.add(int(path.parent.name))
    return found


def test_every_format_holds_the_same_rows(doors: Doors) -> None:
    sql = "SELECT message, attributes, time FROM logs ORDER BY message"
    status, kind, body = ask(doors, sql)
    assert (status, kind) == (200, "application/json")
    document = json.loads(body)
    assert document["columns"] == ["message", "attributes", "time"]
    assert [row[1]["n"] for row in document["rows"]] == [0.1, [1, "x"]]
    times = [row[2] for row in document["rows"]]
    assert all(len(text) == 27 and text.endswith("Z") for text in times)
    status, kind, body = ask(doors, sql, "ndjson")
    assert (status, kind) == (200, "application/x-ndjson")
    assert [json.loads(line)["time"] for line in body.splitlines()] == times
    status, kind, body = ask(doors, sql, "csv")
    assert (status, kind.partition(";")[0]) == (200, "text/csv")
    records = list(csv.DictReader(io.StringIO(body.decode(), newline="")))
    assert [record["time"] for record in records] == times
    assert [record["message"] for record in records] == ["one", "two"]
    _, kind, body = ask(doors, sql, "parquet")
    assert kind == "application/vnd.apache.parquet"
    assert pq.read_table(io.BytesIO(body)).column("message").to_pylist() == ["one", "two"]
    _, kind, body = ask(doors, sql, "arrow")
    assert kind == "application/vnd.apache.arrow.stream"
    table = pa.ipc.open_stream(body).read_all()
    assert table.column("message").to_pylist() == ["one", "two"]


def test_only_who_may_read_may_ask(doors: Doors) -> None:
    assert ask(doors, "SELECT 1", key=doors.admin)[0] == 200
    assert ask(doors, "SELECT 1", key="")[0] == 401
    assert ask(doors, "SELECT 1", key="nonsense")[0] == 401
    assert ask(doors, "SELECT 1", key=doors.token)[0] == 403


def test_harm_is_refused_while_the_doors_go_on(doors: Doors) -> None:
    is_over = threading.Event()
    statuses: list[int] = []

    def send() -> None:
        with doors.server.connect() as connection:
            while not is_over.wait(0.02):
                body = b'{"message":"meanwhile"}'
                statuses.append(connection.post("/ingest/x", body, bearer(doors.token)).status)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        for sql in HARM:
            status, kind, body = ask(doors, sql)
            assert (status, kind) in {(400, "application/json"), (408, "application/json")}, sql
            sentence = json.loads(body)["error"]
            assert 10 < len(sentence) < 300, sql
            assert str(doors.server.data_dir) not in sentence
    finally:
        is_over.set()
        thread.join(20)
    assert set(statuses) == {200}
    assert len(doors.rows("FROM logs WHERE message = 'meanwhile'")) == len(statuses)
    wait_until(lambda: not confined_children(doors.server), 5, "every query process has ended")


def test_a_query_is_ended_at_its_deadline(doors: Doors) -> None:
    began = time.monotonic()
    status, _, body = ask(doors, ENDLESS)
    assert (status, json.loads(body)) == (
        408,
        {"error": f"the query took longer than {SECONDS_MAX} s"},
    )
    assert time.monotonic() - began >= SECONDS_MAX
    wait_until(lambda: not confined_children(doors.server), 5, "its process has ended")


def test_a_query_ends_when_its_client_leaves(doors: Doors) -> None:
    for sql in (ENDLESS, "SELECT repeat('x', 1000) FROM range(900000)"):
        connection = console(doors)
        body = json.dumps({"sql": sql, "format": "csv"})
        connection.request("POST", "/api/v1/query", body, bearer(doors.reader))
        wait_until(lambda: confined_children(doors.server), 5, "it runs")
        connection.close()
        left_at = time.monotonic()
        wait_until(lambda: not confined_children(doors.server), 5, "it has ended")
        # Not by its deadline, which the second one would not even meet.
        assert time.monotonic() - left_at < SECONDS_MAX


def test_a_query_ends_with_a_server_that_is_killed(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        program = [sys.executable, "-m", "ingester", "query", ENDLESS]
        with subprocess.Popen(
            [*program, "--data-dir", str(server.data_dir)],
            cwd=REPOSITORY,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as asking:
            (pid,) = wait_until(lambda: confined_children(server), 20, "it runs")
            server.kill()
            assert asking.stderr is not None
            assert b"closed the connection" in asking.stderr.read()
            assert asking.wait(20) == 3
        wait_until(lambda: not _is_running(pid), 5, "its process has ended")


def _is_running(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text("ascii")
    except OSError:
        return False


def command(doors: Doors, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        _program(doors, *arguments),
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return (done.stderr if code else done.stdout).decode()


def _program(doors: Doors, *arguments: str) -> list[str]:
    where = ["--data-dir", str(doors.server.data_dir)]
    return [sys.executable, "-m", "ingester", "query", *arguments, *where]


def on_a_terminal(doors: Doors, *arguments: str, **environment: str) -> str:
    """What the command prints on a terminal of 120 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    kept = {name: text for name, text in os.environ.items() if name not in {"NO_COLOR", "COLUMNS"}}
    process = subprocess.Popen(
        _program(doors, *arguments),
        cwd=REPOSITORY,
        env={**kept, "TERM": "xterm-256color", **environment},
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:  # how the end of a terminal looks on Linux
        pass
    os.close(ours)
    assert process.wait(20) == 0
    return shown.decode()


ROWS_SQL = "SELECT message, 10 AS ten, NULL AS no FROM logs WHERE message <> 'meanwhile' ORDER BY 1"


def test_the_command_suits_pipes_and_terminals(doors: Doors) -> None:
    assert command(doors, ROWS_SQL) == "message\tten\tno\none\t10\t\ntwo\t10\t\n"
    assert json.loads(command(doors, ROWS_SQL, "--json"))[0] == {
        "message": "one",
        "ten": 10,
        "no": None,
    }
    assert command(doors, ROWS_SQL, "--format", "csv").startswith("message,ten,no\r\n")
    shown = on_a_terminal(doors, ROWS_SQL)
    assert "\x1b[36m 10\x1b[0m" in shown
    assert "NULL" in shown
    plain = on_a_terminal(doors, ROWS_SQL, NO_COLOR="1")
    assert "\x1b[3" not in plain
    lines = [line.split() for line in plain.splitlines()]
    assert ["one", "10"] in [words[:2] for words in lines]
    sentence = command(doors, "DROP VIEW events", code=1)
    assert sentence == "Error: only SELECT is taken\n"
    assert json.loads(_failed_json(doors, "DROP VIEW events")) == {"error": "only SELECT is taken"}


def _failed_json(doors: Doors, sql: str) -> bytes:
    program = _program(doors, sql, "--json")
    done = subprocess.run(program, cwd=REPOSITORY, capture_output=True, timeout=60, check=False)
    assert done.returncode == 1
    return done.stdout


def test_a_reader_that_has_enough_ends_the_query(doors: Doors) -> None:
    with subprocess.Popen(
        _program(doors, "SELECT i, repeat('x', 1000) FROM range(900000) t(i)"),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"i\t")
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
        process.wait(20)
    wait_until(lambda: not confined_children(doors.server), 5, "it has ended")


def test_the_command_reads_a_stopped_folder(doors: Doors) -> None:
    beside = command(doors, ROWS_SQL)
    assert doors.server.stop() == 0
    try:
        assert command(doors, ROWS_SQL) == beside
        assert len(json.loads(command(doors, ROWS_SQL, "--json"))) == 2
        assert command(doors, "FROM glob('*')", code=1).startswith("Error: the function")
    finally:
        doors.start_again()
