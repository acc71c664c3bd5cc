"""`ingester config`: what is set, where it comes from, whether it would be accepted."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ingester.cli.common import (
    EXIT_FAILED,
    Command,
    config_option,
    data_dir_option,
    json_option,
    print_json,
    settings,
)
from ingester.config_load import SETTINGS, Setting, format_value
from ingester.errors import ConfigError

__all__ = ["config"]


@click.group()
def config() -> None:
    """Show or check the settings: defaults, file, environment, command line; later wins.

    \b
      ingester config show --origin
      INGESTER_INTAKE_BIND=0.0.0.0:8080 ingester config show
      ingester config check --config /etc/ingester/config.toml
    """


@config.command(cls=Command)
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
@config_option
@data_dir_option
@json_option
def show(origin: bool, config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """Print every setting as a file that would load the same."""
    loaded = settings(config_path, {"store.data_dir": data_dir}, env=os.environ)
    sections: dict[str, list[tuple[Setting, object]]] = {}
    for setting in SETTINGS.values():
        value = getattr(getattr(loaded.config, setting.section), setting.key)
        sections.setdefault(setting.section, []).append((setting, value))
    if as_json:
        print_json({
            section: {
                setting.key: {"value": value, "origin": loaded.origins[setting.name]}
                if origin
                else value
                for setting, value in entries
            }
            for section, entries in sections.items()
        })
        return
    for number, (section, entries) in enumerate(sections.items()):
        click.echo(f"{chr(10) if number else ''}[{section}]")
        for setting, value in entries:
            line = f"{setting.key} = {format_value(setting, value)}"
            click.echo(f"{line:<48}  # {loaded.origins[setting.name]}" if origin else line)


@config.command(cls=Command, short_help="Say whether `serve` would accept the settings.")
@config_option
@json_option
def check(config_path: Path | None, as_json: bool) -> None:
    """Say whether `serve` would accept the settings and read the watch files; exit code 0 only
    then.
    """
    try:
        loaded = settings(config_path, {}, env=os.environ)
        if loaded.config.watch.files:
            # Brings the store and the query language with it: a second, for who needs it.
            from ingester.watch.files import read_files

            read_files(loaded.config.watch.files)
    except ConfigError as error:
        if as_json:
            print_json({"ok": False, "problems": [str(error)]})
        else:
            click.echo(str(error))
        click.get_current_context().exit(EXIT_FAILED)
    if as_json:
        print_json({"ok": True, "problems": []})
    else:
        click.echo(f"ok ({loaded.path or 'no file; defaults and environment'})")
