"""`ingester demo`: a server of its own with real sample data, and a tour of what it did.

Everything goes the way a user's data goes: a child process runs `serve`, the events come in over
HTTP (one bulk file, single posts, some wrong lines), and the counts are asked for in SQL. A log
opens an incident, of which a receiver in this process is told. The folder is the data folder of
that server, so every printed command works on it.

Refuses to use or wipe a folder that it did not make.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import click
import msgspec
from msgspec import Struct

import ingester
from ingester.cli.common import (
    EXIT_FAILED,
    Command,
    CommandFailed,
    example_event,
    json_option,
    own_command,
    print_json,
    run_trio,
)
from ingester.cli.demo_data import DemoData, Sent, make_demo_data, send_demo_data
from ingester.cli.demo_watch import Receiver, open_incident, receiving
from ingester.cli.local import LocalServer, find_server
from ingester.cli.rows import Rows, ask, rows_table
from ingester.executable import ingester_command
from ingester.samples import SAMPLE_NAME

__all__ = ["demo"]

_MARKER_NAME = "demo.json"
_SOURCE = "demo"
_READY_SECONDS_MAX = 60.0
_QUERYABLE_SECONDS_MAX = 30.0
# Receivers of incidents may be on this machine, as those of people who try it out are.
_CONFIG = """\
# Settings of the demo's server; see config.example.toml.
[delivery]
allow_networks = ["127.0.0.0/8", "::1/128"]
"""

# `serve` drains for 30 s by default.
_STOP_SECONDS_MAX = 40.0

_QUERIES = (
    (
        "What happened most often?",
        "SELECT action, count(*) AS events, count(DISTINCT user_id) AS users FROM events"
        " WHERE source = 'demo' GROUP BY action ORDER BY events DESC, action LIMIT 5",
    ),
    (
        "Which branches were pushed to? (inside the nested payload)",
        "SELECT body->>'$.payload.ref' AS ref, count(*) AS pushes FROM events"
        " WHERE source = 'demo' AND action = 'PushEvent'"
        " GROUP BY ref ORDER BY pushes DESC, ref LIMIT 3",
    ),
    (
        "Which lines were refused, and why?",
        "SELECT line_number, reason, field, detail FROM rejects"
        " WHERE source = 'demo' ORDER BY received_at DESC, line_number LIMIT 4",
    ),
)


class Server(Struct):
    """The child process and where it listens."""

    process: subprocess.Popen[bytes]
    intake: str
    console: str
    test: str | None


@click.command(cls=Command)
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("ingester-demo"),
    help="Default: ./ingester-demo",
)
@click.option("--exit", "exit_after", is_flag=True, help="End the server afterwards.")
@click.option("--reset", is_flag=True, help="Wipe the demo's folder first.")
@json_option
def demo(directory: Path, exit_after: bool, reset: bool, as_json: bool) -> None:
    """Start a server with sample data in a folder of its own, and look around.

    \b
      ingester demo                  # keeps running until Ctrl-C
      ingester demo --exit           # shows what it does and ends; non-zero if a count is off
      ingester demo --reset --exit

    1,000 public GitHub events come in as product events: most as one gzip file, some one by one,
    and a few wrong lines beside them. An error in a log opens an incident, of which a webhook
    receiver of the demo's own is told. Ports are free ones on loopback.
    """
    started = time.monotonic()
    say = _Speaker(quiet=as_json)
    folder = _prepare(directory, reset=reset)
    with _sigterm_as_interrupt(), receiving() as receiver, _served(folder, say) as server:
        local = find_server(folder)
        if local is None:
            raise CommandFailed(f"the demo's server does not answer; see {folder / 'server.log'}")
        report = _tour(server, local, folder, say)
        _watch(server, local, receiver, report, say)
        report["seconds"] = round(time.monotonic() - started, 3)
        if as_json:
            print_json(report)
        if not exit_after:
            _say_where(server, str(report["url"]), folder, say)
            with contextlib.suppress(KeyboardInterrupt):
                server.process.wait()
                raise CommandFailed(f"the demo's server ended; see {folder / 'server.log'}")
    _say_afterwards(folder, say)
    if not report["ok"]:
        click.get_current_context().exit(EXIT_FAILED)


def _tour(server: Server, local: LocalServer, folder: Path, say: _Speaker) -> dict[str, object]:
    """Send, count, query; returns the report that --json prints."""
    say(f"Server: intake {server.intake}, console {server.console}, test door {server.test}")
    pair = _make_source(local)
    url = f"{server.intake}/v1/{pair['auth_key']}/{pair['api_key']}"
    before = _counts(local)
    data = make_demo_data(folder)
    say(f"\nSending {data.line_count} lines of real events and {len(data.wrong)} wrong ones …")
    sent = run_trio(lambda: send_demo_data(data, url, server.test))
    queryable = _wait_for(local, before, data)
    _say_counts(data, sent, queryable, say)
    answers = []
    for question, sql in _QUERIES:
        rows = ask(local, sql)
        answers.append({"question": question, "sql": sql, "rows": rows.objects()})
        say(f"\n{question}\n  {sql}")
        say.rows(rows)
    return {
        "ok": (
            sent.accepted == queryable[0] == data.line_count
            and sent.rejected == queryable[1] == len(data.wrong)
        ),
        "sent": data.line_count + len(data.wrong),
        "accepted": sent.accepted,
        "rejected": sent.rejected,
        "queryable": queryable[0],
        "rejects_queryable": queryable[1],
        "intake": server.intake,
        "console": server.console,
        "test": server.test,
        "source": _SOURCE,
        "url": url,
        "data_dir": str(folder),
        "queries": answers,
    }


def _watch(
    server: Server, local: LocalServer, receiver: Receiver, report: dict[str, object], say: _Speaker
) -> None:
    """Open an incident and see that the receiver is told."""
    say("\nSending a metric, and an error through the log door; a rule waits for such errors …")
    told = open_incident(local, server.intake, receiver)
    report["incident"] = told
    if told is None:
        report["ok"] = False
        say("  No incident has arrived at the webhook receiver.")
        return
    say(f"  Incident {told.incident_id} {told.status}, told to {told.webhook_url}")
    say(f"  {told.url}")


def _make_source(local: LocalServer) -> dict[str, str]:
    """The demo's pair: a new source, or new keys for the one of an earlier demo."""
    listed = msgspec.json.decode(local.call("GET", "/api/v1/sources"))["sources"]
    if any(entry["source"] == _SOURCE for entry in listed):
        content = local.call("POST", f"/api/v1/sources/{_SOURCE}/rotate", {"overlap_seconds": 0})
    else:
        request = {"name": _SOURCE, "lenient_session": False, "requests_per_hour": 0}
        content = local.call("POST", "/api/v1/sources", request)
    pair: dict[str, str] = msgspec.json.decode(content)
    return pair


def _counts(local: LocalServer) -> tuple[int, int]:
    """Rows of this source that a query sees: (events, rejects)."""
    counts = []
    for table in ("events", "rejects"):
        sql = f"SELECT count(*) AS n FROM {table} WHERE source = '{_SOURCE}'"
        counts.append(int(bytes(ask(local, sql).rows[0][0])))
    return counts[0], counts[1]


def _wait_for(local: LocalServer, before: tuple[int, int], data: DemoData) -> tuple[int, int]:
    """The rows that came, once all are there or the time is over."""
    deadline = time.monotonic() + _QUERYABLE_SECONDS_MAX
    while True:
        now = _counts(local)
        came = now[0] - before[0], now[1] - before[1]
        if came == (data.line_count, len(data.wrong)) or time.monotonic() > deadline:
            return came
        time.sleep(0.2)


def _say_counts(data: DemoData, sent: Sent, queryable: tuple[int, int], say: _Speaker) -> None:
    say(f"  {len(data.bulk):>5} events as one gzip file, {len(data.single)} one by one")
    say(f"  {sent.accepted:>5} accepted: acknowledged and safe on disk")
    say(f"  {sent.rejected:>5} rejected: kept with the reason, the rest of the request stored")
    say(f"  {queryable[0]:>5} events and {queryable[1]} rejects found by a query")
    if sent.test_status is not None:
        say(f"  The test door answered {sent.test_status} to one more event and stored nothing.")


def _say_where(server: Server, url: str, folder: Path, say: _Speaker) -> None:
    """Lines to paste while the server runs."""
    program, place = own_command(), shlex.quote(str(folder))
    event = example_event(time.time_ns() // 1_000_000)
    say("\nTry it:")
    say(f"  curl -sS -w '%{{http_code}}\\n' --data-binary '{event}' {url}")
    say(f"  curl -sS -w '%{{http_code}}\\n' -X POST {server.intake}/v1/ping")
    say(f"  {program} upload {shlex.quote(str(folder / SAMPLE_NAME))} --again --url {url}")
    say(f'  {program} query "SELECT * FROM requests" --data-dir {place}')
    say(f"  {program} source list --data-dir {place}")
    say(f"  curl -sS {server.console}/metrics")
    say(f"\nThe server runs until Ctrl-C (log: {folder / 'server.log'}).")


def _say_afterwards(folder: Path, say: _Speaker) -> None:
    """Lines to paste once it has ended."""
    program, place = own_command(), shlex.quote(str(folder))
    say("\nThe data stays:")
    say(f'  {program} query "SELECT * FROM requests" --data-dir {place}')
    say(f"  {program} incident list --data-dir {place}")
    say(f"  {program} check --data-dir {place}")
    say(f"  {program} serve --data-dir {place}")


class _Speaker:
    """Prints for people on standard output; silent when standard output is a JSON document."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def __call__(self, text: str) -> None:
        if not self._quiet:
            click.echo(text)

    def rows(self, rows: Rows) -> None:
        if self._quiet:
            return
        from rich.console import Console

        Console(width=None if sys.stdout.isatty() else 100).print(rows_table(rows))


def _prepare(directory: Path, *, reset: bool) -> Path:
    """The demo's folder, absolute; only an empty one or one with our marker is used."""
    folder = directory.resolve()
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _MARKER_NAME).is_file():
        raise CommandFailed(
            f"{folder} is not empty and was not made by the demo; name another one with --dir"
        )
    if folder.is_dir() and find_server(folder) is not None:
        raise CommandFailed(f"a server is running on {folder}; end it first, or use --dir")
    if reset and folder.is_dir():
        shutil.rmtree(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / _MARKER_NAME).write_text('{"made_by": "ingester demo"}\n', encoding="utf-8")
    return folder


@contextlib.contextmanager
def _served(folder: Path, say: _Speaker) -> Iterator[Server]:
    """`serve` in a child process, ready; ended by SIGTERM (drain) on the way out."""
    any_port = "127.0.0.1:0"
    config_path = folder / "config.toml"
    if not config_path.exists():
        config_path.write_text(_CONFIG)
    package_parent = str(Path(ingester.__file__).parent.parent)
    env = {name: value for name, value in os.environ.items() if not name.startswith("INGESTER_")}
    # The child must find the package this one runs from, wherever that lies.
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [package_parent, env.get("PYTHONPATH")]))
    command = [*ingester_command(), "serve"]
    command += ["--config", str(config_path), "--data-dir", str(folder)]
    command += ["--intake-bind", any_port, "--console-bind", any_port, "--test-bind", any_port]
    say(f"Starting a server in {folder} …")
    with open(folder / "server.log", "ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=env,
            start_new_session=True,  # Ctrl-C is for us; the server is asked to drain
        )
    try:
        yield _ready(process, folder)
    finally:
        _stop(process, say)


def _ready(process: subprocess.Popen[bytes], folder: Path) -> Server:
    """Wait for the ready line; the deadline ends the child, which ends the read."""
    assert process.stdout is not None
    watchdog = threading.Timer(_READY_SECONDS_MAX, process.kill)
    watchdog.start()
    try:
        line = process.stdout.readline()
    finally:
        watchdog.cancel()
    try:
        ready: dict[str, Any] = msgspec.json.decode(line)
        return Server(process, ready["intake"], ready["console"], ready.get("test"))
    except (msgspec.DecodeError, KeyError, TypeError):
        log = (folder / "server.log").read_text(encoding="utf-8", errors="replace")
        raise CommandFailed(
            f"the server did not start; the end of {folder / 'server.log'}:\n{log[-1500:]}"
        ) from None


def _stop(process: subprocess.Popen[bytes], say: _Speaker) -> None:
    if process.poll() is None:
        say("\nEnding the server …")
        process.terminate()
        try:
            process.wait(_STOP_SECONDS_MAX)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does, so that the child never stays behind."""

    def interrupt(signal_number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)
