"""`ingester route`: which incidents reach a destination besides those that name it."""

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
    manager_options,
    print_json,
    settings,
)
from ingester.cli.destination import destination_id_of
from ingester.cli.local import open_manager
from ingester.config_load import Loaded

__all__ = ["route"]

_FIELDS = ("service", "monitor", "table", "label")
_MATCHES = {"=": "exact", "^=": "prefix", "$=": "suffix", "~": "regex"}
_RULE_HELP = "service=web, monitor^=prod, table$=_raw, label~'^sev[12]$'; several times."


@click.group()
def route() -> None:
    """Decide which incidents reach a destination, besides those that name it.

    \b
      ingester route create ops
      ingester route create ops --allow service=web --allow 'label~^sev[12]$'
      ingester route create ops --allow table^=shop. --ignore table$=_tmp
      ingester route test --service web --label sev1
      ingester route list

    A rule compares a service, monitor, table or label: = exactly, ^= its beginning, $= its end,
    ~ a regular expression found in it.
    """


@route.command(cls=Command)
@click.argument("destination", metavar="DESTINATION")
@click.option("--allow", multiple=True, metavar="RULE", help=_RULE_HELP)
@click.option("--ignore", multiple=True, metavar="RULE", help="Never these.")
@manager_options
def create(
    destination: str,
    allow: tuple[str, ...],
    ignore: tuple[str, ...],
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Make a route to a destination; without --allow for everything."""
    rules = {"allow": [_rule(one) for one in allow], "ignore": [_rule(one) for one in ignore]}
    with open_manager(_loaded(config_path, data_dir)) as manager:
        request = {"destination": destination_id_of(manager, destination), **rules}
        document = manager("POST", "/api/v1/routes", request)
    if as_json:
        print_json(document)
    else:
        _print_route(document)


@route.command("list", cls=Command)
@manager_options
def list_routes(config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """List routes."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("GET", "/api/v1/routes")
    if as_json:
        print_json(document)
        return
    if not document["routes"]:
        click.echo("no routes yet; make one with: ingester route create DESTINATION", err=True)
    for entry in document["routes"]:
        _print_route(entry)


@route.command(cls=Command)
@click.option("--service", "services", multiple=True, help="Of the incident; several times.")
@click.option("--monitor", "monitors", multiple=True, help="The same.")
@click.option("--table", "tables", multiple=True, help="The same.")
@click.option("--label", "labels", multiple=True, help="The same.")
@manager_options
def test(
    config_path: Path | None, data_dir: str | None, as_json: bool, **facts: tuple[str, ...]
) -> None:
    """Who would get this? Nothing is sent."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("POST", "/api/v1/routes/test", dict(facts))
    if as_json:
        print_json(document)
        return
    if not document["destinations"]:
        click.echo("no route leads anywhere for this", err=True)
    for entry in document["destinations"]:
        click.echo(f"{entry['id']}  {entry['name']}{'' if entry['enabled'] else '  (disabled)'}")


@route.command(cls=Command)
@click.argument("route_id", metavar="ID")
@manager_options
def delete(route_id: str, config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """Delete a route."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("DELETE", f"/api/v1/routes/{quote(route_id, safe='') or '-'}")
    if as_json:
        print_json(document)
    else:
        click.echo(f"{route_id}: deleted")


def _loaded(config_path: Path | None, data_dir: str | None) -> Loaded:
    return settings(config_path, {"store.data_dir": data_dir}, env=os.environ)


def _rule(text: str) -> dict[str, str]:
    for field in _FIELDS:
        rest = text.removeprefix(field)
        if rest == text:
            continue
        for sign in ("^=", "$=", "=", "~"):
            if rest.startswith(sign) and len(rest) > len(sign):
                return {"field": field, "match": _MATCHES[sign], "value": rest[len(sign) :]}
    raise CommandFailed(f"{text!r} is no rule; write {_RULE_HELP}", EXIT_USAGE)


def _print_route(entry: dict[str, Any]) -> None:
    signs = {match: sign for sign, match in _MATCHES.items()}
    parts = [entry["id"], f"to {entry['destination']}"]
    for name in ("allow", "ignore"):
        parts += [
            f"{name} {rule['field']}{signs[rule['match']]}{rule['value']}" for rule in entry[name]
        ]
    click.echo("  ".join(parts if len(parts) > 2 else [*parts, "everything"]))
