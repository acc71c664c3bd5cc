"""`ingester search`: LQL over logs, events and metrics, beside a running server or on a stopped
one.

1. Text comes oldest first, as logs are read; `--json` is one array, newest first, as the API gives
   it; with `--follow` one object a line, because a stream has no end.
2. `--follow` goes on behind what was shown, without a gap and without a repeat, also over a restart
   of the server: it resumes by the position of the last row.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click
import msgspec
from msgspec import Raw, Struct

from ingester.cli.common import (
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    Command,
    CommandFailed,
    config_option,
    data_dir_option,
    json_option,
    print_json,
    settings,
)
from ingester.cli.local import follow as follow_events
from ingester.cli.local import settled_server
from ingester.cli.rows import Rows, print_rows
from ingester.cli.search_lines import Lines
from ingester.config_load import Loaded
from ingester.errors import QueryError

__all__ = ["search"]

_PAGE_ROWS_MAX = 1_000
_ROWS_MAX = 1_000_000
# The server ends a search at `store.query_seconds_max`; its answer still has to arrive.
_ANSWER_SECONDS = 30.0

# How long `--follow` waits for a server that has gone to come back.
_RETURN_SECONDS_MAX = 60.0
_RETRY_SECONDS = 1.0

_DECODER = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)


class _Table(Struct, frozen=True):
    """A chart, or the fields that were selected."""

    names: list[str]
    rows: list[list[Raw]]


class _Cost(Struct, frozen=True):
    rows_scanned: int
    ms: float


class _Page(Struct, frozen=True):
    """What is used of the API's answer; rows stay the JSON text that they are."""

    rows: list[Raw]
    cursor: str | None
    cost: _Cost
    position: str | None = None
    select: _Table | None = None
    chart: _Table | None = None

    @property
    def count(self) -> int:
        return len(self.rows) if self.select is None else len(self.select.rows)


Parameters = Mapping[str, str]
Ask = Callable[[Parameters], bytes]


@click.command(cls=Command)
@click.argument("query", default="")
@click.option("--since", metavar="TIME", help="From: 1h, 7d, today, 2026-11-21, … Default: 2d.")
@click.option("--until", metavar="TIME", help="Up to, in the same spellings.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes in, until Ctrl-C.")
@click.option(
    "--limit",
    "-n",
    type=click.IntRange(1, _ROWS_MAX),
    default=100,
    show_default=True,
    help="The newest this many.",
)
@click.option(
    "--on",
    "table",
    type=click.Choice(["logs", "events", "metrics"]),
    default="logs",
    show_default=True,
    help="What to search.",
)
@config_option
@data_dir_option
@json_option
def search(
    query: str,
    since: str | None,
    until: str | None,
    follow: bool,
    limit: int,
    table: str,
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Search logs, events or metrics with LQL, and follow what comes in.

    On a terminal coloured and aligned; into a pipe one row a line, tab-separated, without a header.
    Charts (c:) and selected fields (s:) are a table.

    \b
      ingester search "timeout -health" --since 1h --follow
      ingester search "level:>=error service:checkout m.user.plan:pro"
      ingester search 'm.path:~"^/api/" m.ms:>500' --since today --json
      ingester search "c:count(*) c:group_by(t::hour, level)" --since 24h
      ingester search "action:login body.plan:pro" --on events
      ingester search "level:error" -n 10000 | cut -f5 | sort | uniq -c | sort -rn
    """
    loaded = settings(config_path, {"store.data_dir": data_dir}, env=os.environ)
    _check(query, table, follow=follow, until=until)
    given = {"q": query, "since": since, "until": until}
    parameters = {name: text for name, text in given.items() if text is not None}
    folder = Path(loaded.config.store.data_dir)
    if follow and settled_server(folder) is None:
        raise CommandFailed("no server runs on this folder; nothing to follow", EXIT_UNREACHABLE)
    with _asker(loaded, table) as ask:
        found = _pages(ask, parameters, limit)
    lines = Lines(table, is_terminal=sys.stdout.isatty())
    if found.chart is not None or found.select is not None:
        _print_table(found, as_json)
        return
    if as_json and not follow:
        print_json(found.rows)
        return
    write = _write_json if as_json else lambda row: _write(lines.line(_DECODER.decode(row)))
    for row in reversed(found.rows):
        write(row)
    if not follow:
        _tell(found)
        return
    try:
        _follow(folder, f"/api/v1/{table}/tail", query, found, write)
    except KeyboardInterrupt:
        click.echo("", err=True)


def _check(query: str, table: str, *, follow: bool, until: str | None) -> None:
    """Refuse what the server would, sooner and with the place in the query."""
    if follow and table == "metrics":
        raise CommandFailed("metrics cannot be followed", EXIT_USAGE)
    if follow and until is not None:
        raise CommandFailed("--follow has no end; leave out --until", EXIT_USAGE)
    if not query.isascii():
        try:
            query.encode()
        except UnicodeEncodeError:
            raise CommandFailed("the query is not valid UTF-8", EXIT_USAGE) from None
    if table == "metrics":
        return  # its columns are the server's business
    from ingester.lql import EVENTS, LOGS, parse

    try:
        parsed = parse(query, schema=EVENTS if table == "events" else LOGS)
    except QueryError as error:
        if query.isprintable():
            click.echo(f"  {query}\n  {' ' * (error.column - 1)}^", err=True)
        raise CommandFailed(str(error), EXIT_USAGE) from None
    if follow and (parsed.chart is not None or parsed.select):
        raise CommandFailed("--follow shows rows as they come: leave out c: and s:", EXIT_USAGE)


@contextmanager
def _asker(loaded: Loaded, table: str) -> Iterator[Ask]:
    """The search route of a table: of the server when there is one, else in this process."""
    config = loaded.config.store
    folder = Path(config.data_dir)
    server = settled_server(folder)
    if server is not None:
        timeout_s = config.query_seconds_max + _ANSWER_SECONDS
        yield lambda parameters: server.call(
            "GET", f"/api/v1/{table}?{urlencode(parameters)}", timeout_s=timeout_s
        )
        return
    from ingester.management.dispatch import decode_query
    from ingester.search import ROUTES, answer_search
    from ingester.store.offline import opened_store

    route = next(one for one in ROUTES if one.pattern == f"/api/v1/{table}")
    with opened_store(folder, config) as store:
        yield lambda parameters: answer_search(
            store,
            route,
            decode_query(parameters, route.query),
            {},
            seconds_max=config.query_seconds_max,
        )


def _pages(ask: Ask, parameters: Parameters, limit: int) -> _Page:
    """As many pages as it takes, as one."""
    first: _Page | None = None
    rows: list[Raw] = []
    selected: list[list[Raw]] = []
    scanned, ms, cursor, more = 0, 0.0, None, True
    while more:
        wanted = min(_PAGE_ROWS_MAX, limit - max(len(rows), len(selected)))
        asked = {**parameters, "limit": str(wanted)}
        if cursor is not None:
            asked["cursor"] = cursor
        page = msgspec.json.decode(ask(asked), type=_Page)
        first = first or page
        rows += page.rows
        selected += page.select.rows if page.select is not None else []
        scanned, ms, cursor = scanned + page.cost.rows_scanned, ms + page.cost.ms, page.cursor
        more = cursor is not None and max(len(rows), len(selected)) < limit
    assert first is not None
    return _Page(
        rows=rows,
        cursor=cursor,
        cost=_Cost(scanned, ms),
        position=first.position,
        select=None if first.select is None else _Table(first.select.names, selected),
        chart=first.chart,
    )


def _print_table(found: _Page, as_json: bool) -> None:
    table = found.chart or found.select
    assert table is not None
    rows = Rows(columns=table.names, rows=table.rows)
    if as_json:
        print_json(rows.objects())
    else:
        print_rows(rows)


def _tell(found: _Page) -> None:
    if not sys.stdout.isatty():
        return
    more = "; there are more (--limit)" if found.cursor is not None else ""
    count = f"{found.count:,} row{'' if found.count == 1 else 's'}"
    click.echo(
        f"{count} of {found.cost.rows_scanned:,} looked at, {found.cost.ms:,.0f} ms{more}", err=True
    )


def _follow(
    folder: Path, path: str, query: str, shown: _Page, write: Callable[[Raw], None]
) -> None:
    """Until Ctrl-C, or until a server that has gone does not come back."""
    # A row that was committed while the page was read may be in it and behind its position.
    seen = {row_id for row in shown.rows if (row_id := _id(row))}
    position = shown.position
    gone_at: float | None = None
    while True:
        for event in follow_events(folder, f"{path}?{urlencode({'q': query})}", position):
            gone_at, position = None, event.id or position
            if event.kind == "missed":
                _tell_missed(event.data)
            elif event.data and (_id(Raw(event.data)) not in seen):
                write(Raw(event.data))
        if gone_at is None:
            gone_at = time.monotonic()
            click.echo("the stream has ended; trying again", err=True)
        elif time.monotonic() - gone_at > _RETURN_SECONDS_MAX:
            raise CommandFailed("the server has not come back", EXIT_UNREACHABLE)
        time.sleep(_RETRY_SECONDS)


def _tell_missed(data: bytes) -> None:
    found = msgspec.json.decode(data, type=dict[str, int])
    parts = []
    if lines := found.get("lines"):
        parts.append(f"{lines:,} matching rows were left out")
    if unread := found.get("unread_rows"):
        parts.append(f"{unread:,} rows were not looked at")
    click.echo(f"… {' and '.join(parts)}: they came too fast", err=True)


def _id(row: Raw) -> str | None:
    return msgspec.json.decode(row, type=_Identified).id


class _Identified(Struct, frozen=True):
    id: str | None = None


def _write_json(row: Raw) -> None:
    # A payload may stand on several lines; inside of its strings a line end is an escape.
    sys.stdout.buffer.write(bytes(row).replace(b"\r", b" ").replace(b"\n", b" ") + b"\n")
    sys.stdout.buffer.flush()


def _write(line: str) -> None:
    click.echo(line, color=True)
