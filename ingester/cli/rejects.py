"""`ingester rejects`: lines that were refused, listed, counted, and sent through again.

Beside a running server everything goes through it. On a stopped folder lists and counts read the
store; a replay starts journal and loader in this process for as long as it takes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from ingester.cli.common import (
    EXIT_PARTLY,
    EXIT_USAGE,
    Command,
    CommandFailed,
    duration_seconds,
    manager_options,
    print_json,
    settings,
)
from ingester.cli.local import Manager, calls_in_process, settled_server
from ingester.config_load import Loaded
from ingester.messages import REJECT_REASONS

__all__ = ["rejects"]

# What one call of the API takes.
_PAGE_MAX = 1000
_EXCERPT_CHARACTERS = 100
_DONE = {"replayed", "accepted", "already_replayed"}


@click.group()
def rejects() -> None:
    """List rejected lines, and send them through their door again after a fix.

    \b
      ingester rejects counts
      ingester rejects list --source shop --reason missing_field --since 24h
      ingester source set shop --lenient-session
      ingester rejects replay --source shop --reason missing_field --dry-run
      ingester rejects replay --source shop --reason missing_field
      ingester rejects replay --edit 06a1…-3=fixed.json

    A line is replayed at most once, under the present settings of its source. What is refused
    again stays a reject, with the new reason beside it.
    """


def _since(ctx: click.Context, param: click.Parameter, text: str | None) -> str | None:
    """A duration back from now, or a time, as RFC 3339."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        seconds = duration_seconds(ctx, param, text)
        assert seconds is not None
        return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
    if text.isdecimal():
        raise click.BadParameter(f"{text!r} is no time; write 90s, 30m, 24h, 7d or 2026-01-31")
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()


def _choice_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Which rejects."""
    for option in (
        click.option("--until", callback=_since, metavar="TIME", help="Before that."),
        click.option(
            "--since", callback=_since, metavar="TIME", help="24h, 7d, or a time (RFC 3339, UTC)."
        ),
        click.option("--request", "request_id", metavar="ID", help="Of one request."),
        click.option("--reason", type=click.Choice(REJECT_REASONS), help="With this reason."),
        click.option("--source", metavar="NAME", help="Of one source."),
        click.option("--door", type=click.Choice(["natero", "ingest"]), help="Of one door."),
    ):
        function = option(function)
    return function


@rejects.command("list", cls=Command)
@_choice_options
@click.option("--replayed/--open", "replayed", default=None, help="Only (not) replayed ones.")
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=100,
    show_default=True,
    help="The newest this many.",
)
@manager_options
def list_rejects(
    limit: int,
    replayed: bool | None,
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
    **choice: str | None,
) -> None:
    """List rejected lines, newest first; --json shows them whole."""
    query = _given(choice)
    if replayed is not None:
        query["replayed"] = str(replayed).lower()
    found: list[dict[str, Any]] = []
    with _reading(_loaded(config_path, data_dir)) as manager:
        while len(found) < limit:
            query["limit"] = str(min(limit - len(found), _PAGE_MAX))
            document = manager("GET", f"/api/v1/rejects?{urlencode(query)}")
            found += document["rejects"]
            if document["cursor"] is None:
                break
            query["cursor"] = document["cursor"]
    if as_json:
        print_json({"rejects": found})
        return
    if not found:
        click.echo("no rejects", err=True)
    for reject in found:
        _print_reject(reject)


@rejects.command(cls=Command)
@click.option("--door", type=click.Choice(["natero", "ingest"]), help="Of one door.")
@click.option("--source", metavar="NAME", help="Of one source.")
@click.option("--since", callback=_since, metavar="TIME", help="24h, 7d, or a time.")
@click.option("--until", callback=_since, metavar="TIME", help="Before that.")
@manager_options
def counts(
    config_path: Path | None, data_dir: str | None, as_json: bool, **choice: str | None
) -> None:
    """Count kept rejects by door, source and reason."""
    with _reading(_loaded(config_path, data_dir)) as manager:
        document = manager("GET", f"/api/v1/rejects/counts?{urlencode(_given(choice))}")
    if as_json:
        print_json(document)
        return
    for row in document["counts"]:
        click.echo(
            f"{row['rejects']:>9}  {row['door']}  {_plain(row['source'])}  {row['reason']}"
            f"  {row['replayed']} replayed, newest {row['newest_at']}"
        )
    click.echo(f"{document['rejects']} rejects, {document['replayed']} replayed", err=True)


@rejects.command(cls=Command)
@click.argument("ids", nargs=-1, metavar="[ID]...")
@_choice_options
@click.option("--all", "is_all", is_flag=True, help="All that were not replayed.")
@click.option(
    "--edit",
    "edits",
    multiple=True,
    metavar="ID=FILE",
    help="Send the text of FILE (- for standard input) instead of the line; several times.",
)
@click.option("--dry-run", is_flag=True, help="Only tell what would be accepted.")
@manager_options
def replay(
    ids: tuple[str, ...],
    is_all: bool,
    edits: tuple[str, ...],
    dry_run: bool,
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
    **choice: str | None,
) -> None:
    """Send rejected lines through their door again, each at most once.

    Exit code 4 when some of the chosen lines stay rejects.
    """
    chosen = _given(choice)
    texts = dict(_edit(text) for text in edits)
    ids = tuple(dict.fromkeys([*ids, *texts]))
    if bool(ids) == bool(chosen or is_all):
        sentence = "name rejects by id or --edit, or choose them by --source, --reason, …, or --all"
        raise CommandFailed(sentence, EXIT_USAGE)
    request: dict[str, object] = {"dry_run": dry_run}
    if not ids:
        # What comes meanwhile is for the next time.
        chosen.setdefault("until", datetime.now(UTC).isoformat())
        request["filter"] = chosen

    def run(manager: Manager) -> list[dict[str, Any]]:
        if ids:
            return list(_replay_ids(manager, request, ids, texts))
        return list(_replay_all(manager, request))

    _print_replay(_replaying(_loaded(config_path, data_dir), run), dry_run, as_json=as_json)


def _replay_ids(
    manager: Manager, request: Mapping[str, object], ids: Sequence[str], texts: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Edits one a call: a body is limited."""
    plain = [one for one in ids if one not in texts]
    calls: list[dict[str, object]] = [
        {"ids": plain[start : start + _PAGE_MAX]} for start in range(0, len(plain), _PAGE_MAX)
    ]
    calls += [{"edits": {name: text}} for name, text in texts.items()]
    for call in calls:
        yield from manager("POST", "/api/v1/rejects/replay", {**request, **call})["results"]


def _replay_all(manager: Manager, request: Mapping[str, object]) -> Iterator[dict[str, Any]]:
    cursor: str | None = None
    while True:
        body = dict(request) if cursor is None else {**request, "cursor": cursor}
        document = manager("POST", "/api/v1/rejects/replay", body)
        yield from document["results"]
        cursor = document["cursor"]
        if cursor is None:
            return


def _print_replay(results: Sequence[dict[str, Any]], dry_run: bool, *, as_json: bool) -> None:
    done = sum(row["outcome"] in _DONE for row in results)
    left = len(results) - done
    if as_json:
        print_json({
            "dry_run": dry_run,
            "replayed": sum(row["outcome"] == "replayed" for row in results),
            "refused": sum(row["outcome"] == "refused" for row in results),
            "left": left,
            "results": list(results),
        })
    else:
        for row in results:
            why = " ".join(filter(None, (row["reason"], row["detail"], row["request_id"])))
            click.echo(f"{row['id']}  {row['outcome']}  {_plain(why)}".rstrip())
        would = "would be replayed" if dry_run else "replayed"
        click.echo(f"{done} {would}, {left} stay rejects", err=True)
    if left:
        click.get_current_context().exit(EXIT_PARTLY)


def _edit(text: str) -> tuple[str, str]:
    """`ID=FILE` as the id and the text."""
    name, equals, path = text.partition("=")
    if not equals or not path:
        raise CommandFailed(f"--edit takes ID=FILE, got {text!r}", EXIT_USAGE)
    try:
        content = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return name, content.decode()
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror or error}", EXIT_USAGE) from error
    except UnicodeDecodeError:
        raise CommandFailed(f"{path} is not UTF-8", EXIT_USAGE) from None


@contextmanager
def _reading(loaded: Loaded) -> Iterator[Manager]:
    data_dir = Path(loaded.config.store.data_dir)
    server = settled_server(data_dir)
    if server is not None:
        yield Manager(server.call)
        return
    from ingester.reject_desk import StoreDesk
    from ingester.store.control import ControlStore
    from ingester.store.offline import opened_store

    with (
        opened_store(data_dir, loaded.config.store) as store,
        closing(ControlStore.open(data_dir / "control.sqlite")) as control,
    ):
        yield Manager(calls_in_process(control, loaded, StoreDesk(store, None)))


def _replaying(
    loaded: Loaded, run: Callable[[Manager], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    server = settled_server(Path(loaded.config.store.data_dir))
    if server is not None:
        return run(Manager(server.call))
    from ingester.offline_replay import with_stopped_folder

    return with_stopped_folder(
        loaded.config,
        lambda desk, control: run(Manager(calls_in_process(control, loaded, desk))),
    )


def _loaded(config_path: Path | None, data_dir: str | None) -> Loaded:
    return settings(config_path, {"store.data_dir": data_dir}, env=os.environ)


def _given(choice: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in choice.items() if value is not None}


def _print_reject(reject: dict[str, Any]) -> None:
    place = f"line {reject['line_number']}"
    if reject["column"]:
        place += f" column {reject['column']}"
    state = reject["replay"]
    after = "" if state is None else f"  [{state['state']} {state['at']}]"
    click.echo(
        f"{reject['id']}  {reject['received_at']}  {reject['door']}  {_plain(reject['source'])}"
        f"  {place}  {reject['reason']}: {_plain(reject['detail'])}{after}"
    )
    click.echo(f"  {_plain(reject['excerpt'][:_EXCERPT_CHARACTERS])}")


def _plain(text: str) -> str:
    """No control characters: what a sender put into a line must not drive the terminal."""
    return text if text.isprintable() else repr(text)[1:-1]
