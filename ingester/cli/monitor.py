"""`ingester monitor`: thresholds on metrics, counts, freshness and SQL, judged window by window."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from ingester.cli.common import (
    EXIT_USAGE,
    Command,
    CommandFailed,
    duration_seconds,
    manager_options,
)
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

__all__ = ["monitor"]

_TABLES = click.Choice(["logs", "events", "metrics"])
_TARGETS = ("metric", "logs", "events", "rows", "freshness", "sql")
_OPERATORS = click.Choice([">", ">=", "<", "<=", "==", "!="])


@click.group()
def monitor() -> None:
    """Watch a value window by window, and open an incident when it breaches.

    \b
      ingester monitor create errors --logs 'level:error' --operator '>' --threshold 10 \\
        --window 5m --group-by service --datapoints 2/3
      ingester monitor create queue --metric queue_length --aggregate max --operator '>=' \\
        --threshold 100 --recovery 50
      ingester monitor create heartbeat --metric cron_ok --no-data alert --window 1h
      ingester monitor create stale --freshness events --operator '>' --threshold 3600
      ingester monitor backtest errors --since 2d
      ingester monitor list

    A window is judged when it is over; rows that come late make it be judged again.
    """


def _settings(function: Any) -> Any:
    for option in (
        seconds_option("--delay", help="How long after its end a window is judged."),
        click.option("--recovery", type=float, help="Recovered only when beyond this too."),
        click.option(
            "--no-data",
            type=click.Choice(["ok", "alert", "keep"]),
            help="What a window without rows means; default: ok.",
        ),
        click.option("--datapoints", metavar="M/N", help="Fires when M of the last N breach."),
        click.option("--group-by", multiple=True, metavar="FIELD", help="Several times."),
        seconds_option("--window", help="Length of a window; 5m."),
        click.option("--threshold", type=float, help="What the value is compared with."),
        click.option(
            "--operator",
            type=_OPERATORS,
            help='A window breaches when "value OPERATOR threshold" holds.',
        ),
        click.option("--sql", help="A SELECT over $window_start and $window_end, or @FILE."),
        click.option("--freshness", type=_TABLES, help="Seconds since the newest row."),
        click.option("--rows", type=_TABLES, help="Rows that arrived."),
        click.option("--events", metavar="LQL", help="Events that match."),
        click.option("--logs", metavar="LQL", help="Logs that match."),
        click.option("--filter", "filter_", metavar="LQL", help="Only these points or rows."),
        click.option(
            "--aggregate", help="avg, sum, min, max, last, count, countd, p50, p90, p95 or p99."
        ),
        click.option("--project", metavar="ID", help="Of --metric; default: default."),
        click.option("--metric", metavar="ID", help="An aggregate of a metric."),
    ):
        function = option(function)
    return function


@monitor.command(cls=Command)
@click.argument("name")
@_settings
@common_options
@dry_run_option
@manager_options
def create(
    name: str,
    dry_run: bool,
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
    **fields: Any,
) -> None:
    """Make a monitor; with --dry-run say what it would have done in the last 200 windows."""
    body = {"name": name, **_body(fields)}
    if "target" not in body:
        raise CommandFailed(
            "name what is watched: --metric, --logs, --events, --rows, --freshness or --sql",
            EXIT_USAGE,
        )
    with managed(config_path, data_dir) as manager:
        body = given(manager, body)
        if dry_run:
            document = manager("POST", "/api/v1/monitors/backtest", {"monitor": body})
        else:
            document = manager("POST", "/api/v1/monitors", body)
    lines = _backtest_lines(document) if dry_run else [_line(document)]
    show(document, as_json=as_json, lines=lines)


@monitor.command("set", cls=Command)
@click.argument("named", metavar="NAME")
@_settings
@common_options
@manager_options
def change(
    named: str, config_path: Path | None, data_dir: str | None, as_json: bool, **fields: Any
) -> None:
    """Change a monitor, which then begins anew; what is not given stays."""
    with managed(config_path, data_dir) as manager:
        path = item_path(manager, "monitor", named)
        document = manager("PATCH", path, given(manager, _body(fields)))
    show(document, as_json=as_json, lines=[_line(document)])


@monitor.command("list", cls=Command)
@manager_options
def list_monitors(config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """List monitors with what they say now."""
    with managed(config_path, data_dir) as manager:
        document = manager("GET", "/api/v1/monitors")
    show(document, as_json=as_json, lines=map(_line, document["monitors"]))


@monitor.command(cls=Command)
@click.argument("named", metavar="NAME")
@manager_options
def delete(named: str, config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """Delete a monitor; its incidents are resolved."""
    with managed(config_path, data_dir) as manager:
        document = manager("DELETE", item_path(manager, "monitor", named))
    show(document, as_json=as_json, lines=[f"{named}: deleted"])


@monitor.command(cls=Command)
@click.argument("named", metavar="NAME")
@click.option("--since", metavar="TIME", help="24h, 7d, or a time (RFC 3339, UTC).")
@click.option("--until", metavar="TIME", help="Up to, in the same spellings.")
@manager_options
def backtest(
    named: str,
    since: str | None,
    until: str | None,
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """What it would have done over stored data; nothing is told."""
    span = {"since": _time(since), "until": _time(until)}
    with managed(config_path, data_dir) as manager:
        path = item_path(manager, "monitor", named, "backtest")
        document = manager("POST", path, given(manager, span))
    show(document, as_json=as_json, lines=_backtest_lines(document))


def _backtest_lines(document: dict[str, Any]) -> list[str]:
    lines = [
        f"{document['since']} to {document['until']}: {document['buckets']} windows,"
        f" {document['firing_buckets']} firing, {document['firings_count']} incidents"
    ]
    for one in document["firings"]:
        group = f"  {_group(one['group'])}" if one["group"] else ""
        end = one["recovered_at"] or "still firing"
        lines.append(f"{one['fired_at']} to {end}{group}  {one['value']}")
    return lines


def _time(text: str | None) -> str | None:
    """A duration back from now, or a time, as RFC 3339."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        context = click.get_current_context()
        seconds = duration_seconds(context, context.command.params[0], text)
        assert seconds is not None
        found = datetime.now(UTC) - timedelta(seconds=seconds)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()


def _body(fields: dict[str, Any]) -> dict[str, Any]:
    """The options as the API takes them."""
    body = {name: value for name, value in fields.items() if value not in (None, ())}
    target = _target(body)
    if target is not None:
        body["target"] = target
    for option, field in (("window", "window_s"), ("delay", "delay_s")):
        if option in body:
            body[field] = body.pop(option)
    if "datapoints" in body:
        m, slash, n = body["datapoints"].partition("/")
        if not (slash and m.isdecimal() and n.isdecimal()):
            raise CommandFailed("--datapoints: write M/N, such as 2/3", EXIT_USAGE)
        body["datapoints"] = [int(m), int(n)]
    return body


def _target(body: dict[str, Any]) -> dict[str, Any] | None:
    """What is watched; its options are taken out of `body`."""
    kinds = [name for name in _TARGETS if name in body]
    project, aggregate, filter_ = (
        body.pop(name, None) for name in ("project", "aggregate", "filter_")
    )
    if len(kinds) > 1:
        raise CommandFailed(f"--{kinds[0]} and --{kinds[1]} exclude each other", EXIT_USAGE)
    if not kinds:
        if project or aggregate or filter_:
            raise CommandFailed("say what is watched too, such as --metric ID", EXIT_USAGE)
        return None
    (kind,) = kinds
    value = body.pop(kind)
    target: dict[str, Any] = {"kind": kind}
    match kind:
        case "metric":
            target |= {"metric_id": value, "project_id": project, "aggregate": aggregate}
            target["filter"] = filter_
        case "logs" | "events":
            target["lql"] = query_text(value)
        case "rows":
            target["table"] = value
        case "freshness":
            target |= {"table": value, "lql": filter_}
        case _:
            target["query"] = query_text(value)
    return {name: one for name, one in target.items() if one is not None}


def _line(entry: dict[str, Any]) -> str:
    target = entry["target"]
    what = " ".join(str(value) for value in target.values() if value)
    threshold = f" {entry['operator']} {entry['threshold']}" if entry["operator"] else " no data"
    ends = [f"open {one}" for one in entry["open_incidents"]]
    ends += [f"to {one}" for one in entry["destinations"]]
    ends += [f"{entry['groups_left_out']} groups left out"] if entry["groups_left_out"] else []
    ends += [f"not judged: {entry['error']}"] if entry["error"] else []
    ends += [f"from {entry['file']}"] if entry["file"] else []
    ends += [] if entry["enabled"] else ["disabled"]
    end = f"  ({', '.join(ends)})" if ends else ""
    return f"{entry['id']}  {entry['name']}  {what}{threshold} in {entry['window_s']} s{end}"


def _group(group: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in group.items())
