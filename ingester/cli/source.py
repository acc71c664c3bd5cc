"""`ingester source`: event sources, their settings and their key pairs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from ingester.cli.common import (
    EXIT_USAGE,
    Command,
    CommandFailed,
    end_text,
    manager_options,
    overlap_option,
    print_json,
    settings,
)
from ingester.cli.local import open_manager
from ingester.cli.usage import print_usage
from ingester.config_load import Loaded

__all__ = ["source"]


@click.group()
def source() -> None:
    """Make, list, change, rotate and revoke event sources and their key pairs.

    \b
      ingester source create shop
      ingester source create kiosk --lenient-session --requests-per-hour 10000
      ingester source create github --dedup-field id --map account_id=/repo/owner/id
      ingester source list
      ingester source rotate shop --overlap 24h
      ingester source reveal shop
      ingester source revoke shop
    """


_dedup_field = click.option(
    "--dedup-field", metavar="FIELD", help='Leave out repeats by this field; "" ends it.'
)
_dedup_hours = click.option(
    "--dedup-hours", type=click.IntRange(min=1), metavar="N", help="How far back (default 24)."
)
_map = click.option(
    "--map",
    "mapping",
    multiple=True,
    metavar="COLUMN=PLACE",
    help="Where a column is found in events of any shape: account_id=/org/id (JSON pointer), "
    "action==push (a constant), time_unit=ms|s|us|ns|rfc3339. Several times.",
)


@source.command(cls=Command)
@click.argument("name")
@click.option("--lenient-session", is_flag=True, help="Accept events without a sessionId.")
@click.option(
    "--requests-per-hour",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Quota per UTC hour; 0 (default): none.",
)
@_dedup_field
@_dedup_hours
@_map
@click.option("--not-copyable", is_flag=True, help="Keep a hash only: `reveal` cannot show it.")
@manager_options
def create(
    name: str,
    lenient_session: bool,
    requests_per_hour: int,
    dedup_field: str | None,
    dedup_hours: int | None,
    mapping: tuple[str, ...],
    not_copyable: bool,
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Make a source and its first key pair.

    \b
      ingester source create shop
      ingester source create shop --json | jq -r .url
    """
    request: dict[str, object] = {
        "name": name,
        "lenient_session": lenient_session,
        "requests_per_hour": requests_per_hour,
        **_settings(dedup_field, dedup_hours, mapping),
    }
    if not_copyable:
        request["copyable"] = False
    with open_manager(_loaded(config_path, data_dir), create=True) as manager:
        document = manager("POST", "/api/v1/sources", request)
    _print_pair(document, as_json=as_json, copyable=not not_copyable)


@source.command("set", cls=Command)
@click.argument("name")
@click.option(
    "--lenient-session/--strict-session",
    default=None,
    help="Whether events may come without a sessionId.",
)
@click.option(
    "--requests-per-hour",
    type=click.IntRange(min=0),
    metavar="N",
    help="Quota per UTC hour; 0: none.",
)
@_dedup_field
@_dedup_hours
@_map
@manager_options
def set_settings(
    name: str,
    lenient_session: bool | None,
    requests_per_hour: int | None,
    dedup_field: str | None,
    dedup_hours: int | None,
    mapping: tuple[str, ...],
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Change settings of a source; what is not named stays.

    \b
      ingester source set shop --requests-per-hour 10000
      ingester source set github --dedup-field id --dedup-hours 48
    """
    changes = _settings(dedup_field, dedup_hours, mapping)
    if lenient_session is not None:
        changes["lenient_session"] = lenient_session
    if requests_per_hour is not None:
        changes["requests_per_hour"] = requests_per_hour
    if not changes:
        raise CommandFailed("name a setting to change; see --help", EXIT_USAGE)
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("PATCH", _path(name), changes)
    if as_json:
        print_json(document)
    else:
        _print_source(document)


@source.command(cls=Command)
@click.argument("name")
@overlap_option
@manager_options
def rotate(
    name: str, overlap: int, config_path: Path | None, data_dir: str | None, as_json: bool
) -> None:
    """Make a new key pair; the old one ends after the overlap.

    \b
      ingester source rotate shop                # both work for a day
      ingester source rotate shop --overlap 0    # a leaked key: the old pair ends now
    """
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("POST", _path(name, "rotate"), {"overlap_seconds": overlap})
    _print_pair(document, as_json=as_json)


@source.command(cls=Command)
@click.argument("name")
@manager_options
def revoke(name: str, config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """End every key pair of a source now. Its events stay; `rotate` gives it a new pair."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("POST", _path(name, "revoke"), {})
    if as_json:
        print_json(document)
    else:
        count = document["revoked"]
        click.echo(f"{name}: {count} key pair{'' if count == 1 else 's'} revoked")


@source.command(cls=Command)
@click.argument("name")
@manager_options
def reveal(name: str, config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """Show the newest key pair again, when it was kept so that it can be."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("POST", _path(name, "reveal"), {})
    _print_pair(document, as_json=as_json)


@source.command(cls=Command)
@click.argument("name")
@manager_options
def delete(name: str, config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """Delete a source: its keys end now, its settings are gone, its events stay."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("DELETE", _path(name))
    if as_json:
        print_json(document)
    else:
        click.echo(f"{name}: deleted; its events stay")


@source.command(cls=Command)
@click.argument("name")
@click.option(
    "--hours", type=click.IntRange(1, 1176), default=24, show_default=True, help="How far back."
)
@manager_options
def usage(
    name: str, hours: int, config_path: Path | None, data_dir: str | None, as_json: bool
) -> None:
    """Requests, rows and refusals by hour."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("GET", _path(name, f"usage?hours={hours}"))
    print_usage(document, as_json=as_json)


@source.command("list", cls=Command)
@manager_options
def list_sources(config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """List sources and their pairs (the last four characters of each api key)."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("GET", "/api/v1/sources")
    if as_json:
        print_json(document)
        return
    if not document["sources"]:
        click.echo("no sources yet; make one with: ingester source create NAME", err=True)
    for entry in document["sources"]:
        _print_source(entry)


def _loaded(config_path: Path | None, data_dir: str | None) -> Loaded:
    return settings(config_path, {"store.data_dir": data_dir}, env=os.environ)


def _path(name: str, action: str = "") -> str:
    if not name:
        raise CommandFailed("a source name is needed", EXIT_USAGE)
    return f"/api/v1/sources/{quote(name, safe='', errors='replace')}" + (
        f"/{action}" if action else ""
    )


def _settings(
    dedup_field: str | None, dedup_hours: int | None, mapping: tuple[str, ...]
) -> dict[str, object]:
    """What was given, as the API takes it."""
    given: dict[str, object] = {}
    if dedup_field is not None:
        given["dedup_field"] = dedup_field or None
    if dedup_hours is not None:
        given["dedup_hours"] = dedup_hours
    if mapping:
        places = [one.partition("=") for one in mapping]
        if any(not column or not separator for column, separator, _ in places):
            raise CommandFailed("--map takes COLUMN=PLACE, like account_id=/org/id", EXIT_USAGE)
        given["map"] = {column: place for column, _, place in places}
    return given


def _print_source(entry: dict[str, Any]) -> None:
    notes = ["lenient session"] if entry["lenient_session"] else []
    if entry["requests_per_hour"]:
        notes.append(f"{entry['requests_per_hour']} requests an hour")
    if entry.get("dedup_field"):
        notes.append(f"no repeats by {entry['dedup_field']} in {entry['dedup_hours']} h")
    if entry.get("map"):
        notes.append("map: " + " ".join(f"{key}={value}" for key, value in entry["map"].items()))
    click.echo(entry["source"] + (f"  ({', '.join(notes)})" if notes else ""))
    for key in entry["keys"]:
        click.echo(f"  …{key['tail']}  made {key['created_at']}{end_text(key)}")


def _print_pair(document: dict[str, Any], *, as_json: bool, copyable: bool = True) -> None:
    if as_json:
        print_json(document)
        return
    click.echo(f"source    {document['source']}")
    click.echo(f"auth key  {document['auth_key']}")
    click.echo(f"api key   {document['api_key']}")
    click.echo(f"url       {document['url']}")
    if not copyable:
        click.echo("Keep the keys now: only a hash of them is stored.", err=True)
