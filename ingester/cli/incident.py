"""`ingester incident`, `ingester silence` and `ingester label`."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from ingester.cli.common import Command, manager_options
from ingester.cli.watching import item_path, managed, rules_from, seconds_option, show

__all__ = ["incident", "label", "silence"]


@click.group()
def incident() -> None:
    """See incidents, label them, give them an owner, resolve them.

    \b
      ingester incident list --status opened
      ingester incident show inc_7
      ingester incident history inc_7
      ingester incident set inc_7 --label sev1 --label db --owner ada
      ingester incident resolve inc_7
    """


@incident.command("list", cls=Command)
@click.option("--status", type=click.Choice(["opened", "resolved"]), help="Only those.")
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=50,
    show_default=True,
    help="The newest this many.",
)
@manager_options
def list_incidents(
    status: str | None,
    limit: int,
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """List incidents, newest first."""
    chosen = f"&status={status}" if status else ""
    with managed(config_path, data_dir) as manager:
        document = manager("GET", f"/api/v1/incidents?limit={limit}{chosen}")
    show(document, as_json=as_json, lines=map(_line, document["incidents"]))


@incident.command("show", cls=Command)
@click.argument("incident_id", metavar="ID")
@manager_options
def show_incident(
    incident_id: str, config_path: Path | None, data_dir: str | None, as_json: bool
) -> None:
    """One incident with what takes part in it."""
    with managed(config_path, data_dir) as manager:
        document = manager("GET", _path(incident_id))
    lines = [_line(document), document["description"], document["url"]]
    for one in document["affected"]:
        group = "".join(f" {name}={value}" for name, value in (one["group"] or {}).items())
        end = f"  resolved {one['resolved_at']}" if one["resolved_at"] else ""
        lines.append(
            f"{one['linked_at']}  {one['type']} {one['name']}{group}  {one['absolute_path']}"
            f"  fired {one['firings']} times, {one['matches']} matches{end}"
        )
    show(document, as_json=as_json, lines=filter(None, lines))


@incident.command(cls=Command)
@click.argument("incident_id", metavar="ID")
@manager_options
def history(
    incident_id: str, config_path: Path | None, data_dir: str | None, as_json: bool
) -> None:
    """Its revisions, oldest first."""
    with managed(config_path, data_dir) as manager:
        document = manager("GET", _path(incident_id, "history"))
    lines = (
        f"{one['updated_at']}  {one['kind']}  {one['actor']}  {one['note']}"
        f"{'' if one['told'] else '  (silenced)'}"
        for one in document["revisions"]
    )
    show(document, as_json=as_json, lines=lines)


@incident.command("set", cls=Command)
@click.argument("incident_id", metavar="ID")
@click.option("--label", "labels", multiple=True, help="All of its labels; several times.")
@click.option("--no-labels", is_flag=True, help="Take all labels away.")
@click.option("--owner", help="Who looks after it.")
@click.option("--no-owner", is_flag=True, help="Nobody does.")
@manager_options
def change(
    incident_id: str,
    labels: tuple[str, ...],
    no_labels: bool,
    owner: str | None,
    no_owner: bool,
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Set its labels or its owner."""
    body: dict[str, Any] = {}
    if labels or no_labels:
        body["labels"] = list(labels)
    if owner or no_owner:
        body["owner"] = owner
    with managed(config_path, data_dir) as manager:
        document = manager("PATCH", _path(incident_id), body)
    show(document, as_json=as_json, lines=[_line(document)])


@incident.command(cls=Command)
@click.argument("incident_id", metavar="ID")
@manager_options
def resolve(
    incident_id: str, config_path: Path | None, data_dir: str | None, as_json: bool
) -> None:
    """End it by hand; what fires again opens a new one."""
    with managed(config_path, data_dir) as manager:
        document = manager("PATCH", _path(incident_id), {"status": "resolved"})
    show(document, as_json=as_json, lines=[_line(document)])


@click.group()
def silence() -> None:
    """Tell nothing of what matches, for a while; incidents are still opened and shown.

    \b
      ingester silence preview service=web
      ingester silence create service=web monitor^=disk --for 2h --reason "new disks"
      ingester silence list
      ingester silence end sil_1

    A matcher compares a service, monitor, table or label: = exactly, ^= its beginning, $= its end,
    ~ a regular expression found in it. All matchers of a silence must match.
    """


@silence.command("create", cls=Command)
@click.argument("matchers", nargs=-1, required=True, metavar="MATCHER…")
@seconds_option("--for", "seconds", default="1h", show_default=True, help="How long: 30m, 2h, 7d.")
@click.option("--reason", default="", help="Shown beside it.")
@manager_options
def create_silence(
    matchers: tuple[str, ...],
    seconds: int,
    reason: str,
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Make a silence that begins now."""
    body = {"matchers": rules_from(matchers), "seconds": seconds, "reason": reason}
    with managed(config_path, data_dir) as manager:
        document = manager("POST", "/api/v1/silences", body)
    show(document, as_json=as_json, lines=[_silence_line(document)])


@silence.command("list", cls=Command)
@click.option("--ended", is_flag=True, help="Those that have ended too.")
@manager_options
def list_silences(
    ended: bool, config_path: Path | None, data_dir: str | None, as_json: bool
) -> None:
    """List silences, newest first."""
    with managed(config_path, data_dir) as manager:
        document = manager("GET", f"/api/v1/silences?ended={'true' if ended else 'false'}")
    show(document, as_json=as_json, lines=map(_silence_line, document["silences"]))


@silence.command(cls=Command)
@click.argument("matchers", nargs=-1, required=True, metavar="MATCHER…")
@manager_options
def preview(
    matchers: tuple[str, ...], config_path: Path | None, data_dir: str | None, as_json: bool
) -> None:
    """Which open incidents it would keep from being told."""
    body = {"matchers": rules_from(matchers)}
    with managed(config_path, data_dir) as manager:
        document = manager("POST", "/api/v1/silences/preview", body)
    if not document["incidents"]:
        click.echo("no open incident would be silenced by it", err=True)
    show(document, as_json=as_json, lines=map(_line, document["incidents"]))


@silence.command(cls=Command)
@click.argument("silence_id", metavar="ID")
@manager_options
def end(silence_id: str, config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """End it now."""
    with managed(config_path, data_dir) as manager:
        path = f"/api/v1/silences/{quote(silence_id, safe='') or '-'}"
        document = manager("PATCH", path, {})
    show(document, as_json=as_json, lines=[_silence_line(document)])


@silence.command("delete", cls=Command)
@click.argument("silence_id", metavar="ID")
@manager_options
def delete_silence(
    silence_id: str, config_path: Path | None, data_dir: str | None, as_json: bool
) -> None:
    """Delete it."""
    with managed(config_path, data_dir) as manager:
        path = f"/api/v1/silences/{quote(silence_id, safe='') or '-'}"
        document = manager("DELETE", path)
    show(document, as_json=as_json, lines=[f"{silence_id}: deleted"])


@click.group()
def label() -> None:
    """List, make and delete labels of incidents.

    \b
      ingester label list
      ingester label create sev1
      ingester label delete sev1
    """


@label.command("list", cls=Command)
@manager_options
def list_labels(config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """List labels."""
    with managed(config_path, data_dir) as manager:
        document = manager("GET", "/api/v1/labels")
    lines = (f"{one['id']}  {one['name']}  {one['incidents']}" for one in document["labels"])
    show(document, as_json=as_json, lines=lines)


@label.command("create", cls=Command)
@click.argument("name")
@manager_options
def create_label(name: str, config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """Make a label."""
    with managed(config_path, data_dir) as manager:
        document = manager("POST", "/api/v1/labels", {"name": name})
    show(document, as_json=as_json, lines=[f"{document['id']}  {document['name']}"])


@label.command("delete", cls=Command)
@click.argument("named", metavar="NAME")
@manager_options
def delete_label(named: str, config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """Delete a label; incidents lose it."""
    with managed(config_path, data_dir) as manager:
        document = manager("DELETE", item_path(manager, "label", named))
    show(document, as_json=as_json, lines=[f"{named}: deleted"])


def _path(incident_id: str, action: str = "") -> str:
    path = f"/api/v1/incidents/{quote(incident_id, safe='', errors='replace') or '-'}"
    return f"{path}/{action}" if action else path


def _line(entry: dict[str, Any]) -> str:
    labels = "".join(f"  #{one['name']}" for one in entry["labels"])
    owner = f"  owner {entry['owner']}" if entry["owner"] else ""
    silenced = "  (silenced)" if entry["silenced"] else ""
    return (
        f"{entry['id']}  {entry['status']}  {entry['created_at']}  {entry['title']}"
        f"{labels}{owner}{silenced}"
    )


def _silence_line(entry: dict[str, Any]) -> str:
    signs = {"prefix": "^=", "suffix": "$=", "regex": "~", "exact": "="}
    matchers = " ".join(
        f"{one['field']}{signs[one['match']]}{one['value']}" for one in entry["matchers"]
    )
    reason = f"  {entry['reason']}" if entry["reason"] else ""
    return f"{entry['id']}  {matchers}  until {entry['ends_at']}{reason}"
