"""`ingester serve`: settings in, the server runs, the ready line out.

Standard output carries one line of JSON when every listener is bound, for scripts. Everything for
people goes to standard error, except the keys of the very first start when standard error is no
terminal: they would end in a log, so they go to `first-run.txt` in the data folder.
"""

from __future__ import annotations

import gc
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from ingester.cli.common import (
    Command,
    config_option,
    data_dir_option,
    example_event,
    intake_base,
    json_option,
    natero_url,
    own_command,
    run_trio,
    settings,
    write_private,
)
from ingester.process_memory import forget_loading, leave_out
from ingester.systemd import notify, notify_reloading

if TYPE_CHECKING:
    from ingester.config import Config
    from ingester.store.control import SourceKeys
    from ingester.topology import Announcement

__all__ = ["first_run_text", "serve", "setup_text"]

# `services.py` removes it after the set-up.
FIRST_RUN_FILE = "first-run.txt"


@click.command(cls=Command)
@config_option
@data_dir_option
@click.option("--intake-bind", metavar="HOST:PORT", help="Where events arrive (port 0: any free).")
@click.option("--console-bind", metavar="HOST:PORT", help="API, metrics and web console.")
@click.option("--test-bind", metavar="HOST:PORT", help="The test door; off unless set.")
@json_option
def serve(
    config_path: Path | None,
    data_dir: str | None,
    intake_bind: str | None,
    console_bind: str | None,
    test_bind: str | None,
    as_json: bool,
) -> None:
    """Run the server until SIGTERM or Ctrl-C.

    \b
      ingester serve
      ingester serve --data-dir /var/lib/ingester --intake-bind 0.0.0.0:8080
      ingester serve --config /etc/ingester/config.toml
      ingester serve --intake-bind 127.0.0.1:0 --console-bind 127.0.0.1:0 | jq -r .intake

    When ready, one line of JSON on standard output says where (--json changes nothing):
    {"event": "ready", "intake": "http://…", "console": "http://…"}.
    SIGHUP reads settings and certificates again; SIGTERM drains and ends.
    """
    overrides = {
        "store.data_dir": data_dir,
        "intake.bind": intake_bind,
        "console.bind": console_bind,
        "intake.test_bind": test_bind,
    }

    def read() -> Config:
        return settings(config_path, overrides, env=os.environ).config

    config = read()

    def reload() -> Config:
        notify_reloading()
        try:
            return read()
        finally:
            notify("READY=1")

    def announce(announcement: Announcement) -> None:
        _show_first_run(announcement, config)
        forget_loading()
        _print_ready(announcement)
        notify("READY=1", f"STATUS=intake {announcement.intake}, console {announcement.console}")

    async def run() -> None:
        # Read when numpy is imported: its linear algebra would start a thread for every core, and
        # our products are too small to be shared out.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        leave_out()
        # What is imported stays: collections would find nothing, and are a sixth of the start.
        gc.disable()
        from ingester.topology import serve as serve_topology

        gc.enable()
        await serve_topology(config, reload=reload, announce=announce)

    run_trio(run)


def _print_ready(announcement: Announcement) -> None:
    ready = {
        "event": "ready",
        "intake": announcement.intake,
        "console": announcement.console,
    }
    if announcement.test is not None:
        ready["test"] = announcement.test
    sys.stdout.write(msgspec.json.encode(ready).decode() + "\n")
    sys.stdout.flush()


def _show_first_run(announcement: Announcement, config: Config) -> None:
    texts = []
    data_dir = Path(config.store.data_dir)
    if announcement.setup_url is not None:
        texts.append(setup_text(announcement.setup_url))
    if announcement.first_run is not None:
        base = intake_base(config) if config.intake.public_url else announcement.intake
        now_ms = time.time_ns() // 1_000_000
        texts.append(first_run_text(announcement.first_run, base, data_dir, now_ms=now_ms))
    if not texts:
        return
    text = "\n".join(texts)
    if sys.stderr.isatty():
        click.echo(text, err=True)
        return
    path = (data_dir / FIRST_RUN_FILE).resolve()
    write_private(path, text)
    click.echo(f"First start: keys, examples and the set-up link are in {path}", err=True)


def setup_text(url: str) -> str:
    """The console's one-time link."""
    return f"""\
Set up the console in a browser. This link works once, within seven days:

  {url}
"""


def first_run_text(made: SourceKeys, base: str, data_dir: Path, *, now_ms: int) -> str:
    """Keys and lines that work as pasted into a shell."""
    url = natero_url(base, made.auth_key, made.api_key)
    event = example_event(now_ms)
    folder = shlex.quote(str(data_dir.resolve()))
    program = own_command()
    return f"""\
A source named {made.source.name!r} is ready. These are its keys.

  auth key  {made.auth_key}
  api key   {made.api_key}

Send an event (200 means: it is safe on disk):

  curl -sS -w '%{{http_code}}\\n' --data-binary '{event}' {url}

Send a file, one JSON object a line:

  echo '{event}' > file.json
  curl -X POST -T file.json {url}

Send a large file, with progress, retries and resume:

  {program} upload file.json --url {url}

Is it up?

  curl -sS -w '%{{http_code}}\\n' -X POST {base}/v1/ping

What arrived:

  {program} query "SELECT * FROM events ORDER BY received_at DESC LIMIT 5" --data-dir {folder}
  {program} query "SELECT line_number, reason, detail FROM rejects" --data-dir {folder}

Keys for another sender, these keys once more, and a new set-up link:

  {program} source create NAME --data-dir {folder}
  {program} source reveal {made.source.name} --data-dir {folder}
  {program} member list --data-dir {folder}
  {program} member invite mem_1 --data-dir {folder}
"""
