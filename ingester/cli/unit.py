"""`ingester unit` and `ingester completion`: texts for the system this program is installed on."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.resources import files
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from ingester.cli.common import EXIT_USAGE, Command, CommandFailed, json_option, print_json

__all__ = ["completion", "unit"]


@click.command(cls=Command)
@click.argument("kind", type=click.Choice(["systemd", "container"]), default="systemd")
@json_option
def unit(kind: str, as_json: bool) -> None:
    """Print a systemd unit, or a Containerfile.

    \b
      ingester unit | sudo tee /etc/systemd/system/ingester.service
      sudo systemctl daemon-reload && sudo systemctl enable --now ingester
      ingester unit container > Containerfile

    The unit runs the program under its own user, with data in /var/lib/ingester, settings from
    /etc/ingester/config.toml, and nothing else of the system to write to.
    """
    name = "ingester.service" if kind == "systemd" else "Containerfile"
    text = (files("ingester.shipping") / name).read_text(encoding="utf-8")
    text = text.replace("@EXECUTABLE@", _executable())
    if as_json:
        print_json({"name": name, "text": text})
    else:
        click.echo(text, nl=False)


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option
def completion(shell: str, as_json: bool) -> None:
    """Print completion for a shell.

    \b
      ingester completion bash | sudo tee /etc/bash_completion.d/ingester
      ingester completion zsh > "${fpath[1]}/_ingester"
      ingester completion fish > ~/.config/fish/completions/ingester.fish
    """
    made = get_completion_class(shell)
    assert made is not None
    root = click.get_current_context().find_root().command
    name = "ingester"
    text = made(root, {}, name, f"_{name.upper()}_COMPLETE").source()
    if as_json:
        print_json({"shell": shell, "text": text})
    else:
        click.echo(text)


def _executable() -> str:
    """The file to start, absolute; a unit has no PATH to look through."""
    started = os.environ.get("_INGESTER_STARTED_AS") or sys.argv[0]
    found = Path(started)
    if found.name == "__main__.py":  # python -m ingester
        beside = Path(sys.executable).with_name("ingester")
        found = beside if beside.exists() else Path(shutil.which("ingester") or beside)
    path = found.absolute()
    if " " in str(path):
        raise CommandFailed(
            f"{path} has a space in it, which a unit cannot start: put the program elsewhere",
            EXIT_USAGE,
        )
    return str(path)
