"""`ingester rule` and `ingester alert`: filters on what arrives, and queries by the clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ingester.cli.common import Command, manager_options
from ingester.cli.watching import (
    common_options,
    dry_run_option,
    given,
    item_path,
    managed,
    query_text,
    seconds_option,
    show,
)

__all__ = ["alert", "rule"]

_ON = click.Choice(["logs", "events"])
_LANGUAGE = click.Choice(["sql", "lql"])


@click.group()
def rule() -> None:
    """Open an incident when a log or event that matches arrives.

    \b
      ingester rule create disk --lql 'level:>=error "disk full"' --destination ops
      ingester rule create signups --lql 'action:signup' --on events --resolve-after 5m
      ingester rule list
      ingester rule set disk --disable
      ingester rule delete disk
    """


@rule.command(cls=Command)
@click.argument("name")
@click.option("--lql", required=True, help="The filter, or @FILE.")
@click.option("--on", type=_ON, help="What it looks at; default: logs.")
@seconds_option("--resolve-after", help="Resolved after so long without a match; 15m.")
@common_options
@manager_options
def create(
    name: str,
    lql: str,
    resolve_after: int | None,
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
    **fields: Any,
) -> None:
    """Make a rule."""
    fields |= {"lql": query_text(lql), "resolve_after_s": resolve_after}
    with managed(config_path, data_dir) as manager:
        document = manager("POST", "/api/v1/rules", {"name": name, **given(manager, fields)})
    show(document, as_json=as_json, lines=[_line(document)])


@rule.command("set", cls=Command)
@click.argument("named", metavar="NAME")
@click.option("--lql", help="The filter, or @FILE.")
@click.option("--on", type=_ON, help="What it looks at; default: logs.")
@seconds_option("--resolve-after", help="Resolved after so long without a match.")
@common_options
@manager_options
def change(
    named: str,
    lql: str | None,
    resolve_after: int | None,
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
    **fields: Any,
) -> None:
    """Change a rule; what is not given stays."""
    fields |= {"lql": query_text(lql), "resolve_after_s": resolve_after}
    with managed(config_path, data_dir) as manager:
        path = item_path(manager, "rule", named)
        document = manager("PATCH", path, given(manager, fields))
    show(document, as_json=as_json, lines=[_line(document)])


@rule.command("list", cls=Command)
@manager_options
def list_rules(config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """List rules."""
    with managed(config_path, data_dir) as manager:
        document = manager("GET", "/api/v1/rules")
    show(document, as_json=as_json, lines=map(_line, document["rules"]))


@rule.command(cls=Command)
@click.argument("named", metavar="NAME")
@manager_options
def delete(named: str, config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """Delete a rule; its incident is resolved."""
    with managed(config_path, data_dir) as manager:
        document = manager("DELETE", item_path(manager, "rule", named))
    show(document, as_json=as_json, lines=[f"{named}: deleted"])


@click.group()
def alert() -> None:
    """Run a query by the clock; any row opens an incident.

    \b
      ingester alert create errors --cron '*/5 * * * *' --query "SELECT service, count(*) AS n
        FROM logs WHERE level = 'error' AND received_at >= $window_start
        AND received_at < $window_end GROUP BY ALL HAVING n > 10"
      ingester alert create panics --cron '* * * * *' --language lql --query 'level:emergency'
      ingester alert test errors
      ingester alert runs errors

    Windows tile: each begins where the one before ended. Times are UTC.
    """


@alert.command("create", cls=Command)
@click.argument("name")
@click.option("--query", required=True, help="A SELECT or an LQL filter, or @FILE.")
@click.option("--cron", required=True, help="Minute hour day month weekday, UTC.")
@click.option("--language", type=_LANGUAGE, help="Of the query; default: sql.")
@click.option("--on", type=_ON, help="What an LQL query looks at.")
@common_options
@dry_run_option
@manager_options
def create_alert(
    name: str,
    query: str,
    dry_run: bool,
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
    **fields: Any,
) -> None:
    """Make an alert; with --dry-run say what it would find in its last window."""
    fields["query"] = query_text(query)
    path = "/api/v1/alerts/test" if dry_run else "/api/v1/alerts"
    with managed(config_path, data_dir) as manager:
        document = manager("POST", path, {"name": name, **given(manager, fields)})
    lines = _test_lines(document) if dry_run else [_alert_line(document)]
    show(document, as_json=as_json, lines=lines)


@alert.command("set", cls=Command)
@click.argument("named", metavar="NAME")
@click.option("--query", help="A SELECT or an LQL filter, or @FILE.")
@click.option("--cron", help="Minute hour day month weekday, UTC.")
@click.option("--language", type=_LANGUAGE, help="Of the query; default: sql.")
@click.option("--on", type=_ON, help="What it looks at; default: logs.")
@common_options
@manager_options
def change_alert(
    named: str,
    query: str | None,
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
    **fields: Any,
) -> None:
    """Change an alert; what is not given stays."""
    fields["query"] = query_text(query)
    with managed(config_path, data_dir) as manager:
        path = item_path(manager, "alert", named)
        document = manager("PATCH", path, given(manager, fields))
    show(document, as_json=as_json, lines=[_alert_line(document)])


@alert.command("list", cls=Command)
@manager_options
def list_alerts(config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """List alerts with their last run."""
    with managed(config_path, data_dir) as manager:
        document = manager("GET", "/api/v1/alerts")
    show(document, as_json=as_json, lines=map(_alert_line, document["alerts"]))


@alert.command("test", cls=Command)
@click.argument("named", metavar="NAME")
@manager_options
def test_alert(named: str, config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """What it would find in its last window; nothing is told."""
    with managed(config_path, data_dir) as manager:
        document = manager("POST", item_path(manager, "alert", named, "test"), {})
    show(document, as_json=as_json, lines=_test_lines(document))


@alert.command("runs", cls=Command)
@click.argument("named", metavar="NAME")
@manager_options
def alert_runs(named: str, config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """The last runs, newest first."""
    with managed(config_path, data_dir) as manager:
        document = manager("GET", item_path(manager, "alert", named, "runs"))
    show(document, as_json=as_json, lines=map(_run_text, document["runs"]))


@alert.command("delete", cls=Command)
@click.argument("named", metavar="NAME")
@manager_options
def delete_alert(named: str, config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """Delete an alert; its incident is resolved."""
    with managed(config_path, data_dir) as manager:
        document = manager("DELETE", item_path(manager, "alert", named))
    show(document, as_json=as_json, lines=[f"{named}: deleted"])


def _line(entry: dict[str, Any]) -> str:
    return f"{entry['id']}  {entry['name']}  {entry['on']}  {entry['lql']}{_end(entry)}"


def _alert_line(entry: dict[str, Any]) -> str:
    last = entry["last_run"]
    ran = f"  last {_run_text(last)}" if last else ""
    return f"{entry['id']}  {entry['name']}  {entry['cron']}{ran}{_end(entry)}"


def _test_lines(document: dict[str, Any]) -> list[str]:
    outcome = "would fire" if document["would_fire"] else "would not fire"
    return [
        f"{document['window_start']} to {document['window_end']}: {document['rows']} rows,"
        f" {outcome}",
        *(str(row) for row in document["result"][:20]),
    ]


def _run_text(run: dict[str, Any]) -> str:
    rows = f"{run['rows']} row{'' if run['rows'] == 1 else 's'}"
    outcome = f"failed: {run['error']}" if run["error"] else rows
    return f"{run['window_end']}  {outcome}"


def _end(entry: dict[str, Any]) -> str:
    ends = [f"open {entry['open_incident']}"] if entry["open_incident"] else []
    ends += [f"to {one}" for one in entry["destinations"]]
    ends += [f"from {entry['file']}"] if entry["file"] else []
    ends += [] if entry["enabled"] else ["disabled"]
    return f"  ({', '.join(ends)})" if ends else ""
