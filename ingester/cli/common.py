"""What every command shares: options, errors as sentences with an exit code, printing.

Settings reach a command as in `config_load`: file, environment, then its own options.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from ingester.config import Config, ConsoleConfig, IntakeConfig
from ingester.config_check import split_address
from ingester.config_load import Loaded, find_file, load
from ingester.errors import ConfigError, IngesterError

__all__ = [
    "EXIT_FAILED",
    "EXIT_PARTLY",
    "EXIT_UNREACHABLE",
    "EXIT_USAGE",
    "Command",
    "CommandFailed",
    "config_option",
    "console_base",
    "data_dir_option",
    "duration_seconds",
    "end_text",
    "example_event",
    "intake_base",
    "json_option",
    "manager_options",
    "natero_url",
    "overlap_option",
    "own_command",
    "print_json",
    "run_trio",
    "settings",
    "write_private",
]

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_PARTLY = 4

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_DURATION = re.compile(r"(\d{1,9})([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}

# Where a server that listens on every interface is reached from its own machine.
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class CommandFailed(IngesterError):
    """The command ends here; the sentence says why, and what to do when that is known."""

    def __init__(self, message: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Command(click.Command):
    """A command whose errors of ours become a sentence and an exit code, never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except IngesterError as error:
            click.echo(f"Error: {error}", err=True)
            if ctx.params.get("as_json"):
                print_json({"error": str(error)})
            ctx.exit(_exit_code(error))


def _exit_code(error: IngesterError) -> int:
    if isinstance(error, CommandFailed):
        return error.exit_code
    return EXIT_USAGE if isinstance(error, ConfigError) else EXIT_FAILED


def json_option(function: F) -> F:
    return click.option(
        "--json", "as_json", is_flag=True, help="Print exactly one JSON document on stdout."
    )(function)


def config_option(function: F) -> F:
    return click.option(
        "--config",
        "config_path",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Settings file; default: $INGESTER_CONFIG, else ./config.toml when present.",
    )(function)


def data_dir_option(function: F) -> F:
    return click.option(
        "--data-dir",
        metavar="DIR",
        help="Folder of the stored data (setting store.data_dir).",
    )(function)


def manager_options(function: F) -> F:
    """The options of every command that manages keys, sources or members."""
    return config_option(data_dir_option(json_option(function)))


def duration_seconds(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    """`90`, `30m`, `24h`, `7d` as seconds."""
    if text is None:
        return None
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise click.BadParameter(f"{text!r} is no duration; write 0, 90s, 30m, 24h or 7d")
    return int(found[1]) * _SECONDS[found[2]]


def overlap_option(function: F) -> F:
    return click.option(
        "--overlap",
        callback=duration_seconds,
        default="24h",
        show_default=True,
        help="How long the old key still works: 0, 90s, 30m, 24h, 7d.",
    )(function)


def end_text(key: Mapping[str, str | None]) -> str:
    """How a key in a list ends, when it does."""
    if key["revoked_at"]:
        return f", revoked {key['revoked_at']}"
    return f", ends {key['expires_at']}" if key["expires_at"] else ""


def settings(
    config_path: Path | None, overrides: Mapping[str, object | None], *, env: Mapping[str, str]
) -> Loaded:
    """The settings that count for this command; options that were not given are None."""
    given = {name: value for name, value in overrides.items() if value is not None}
    return load(find_file(config_path, env), env, given)


def print_json(document: object) -> None:
    click.echo(msgspec.json.encode(document))


def intake_base(config: Config) -> str:
    """The base of links to the intake door, as configured (a port 0 stays 0)."""
    return _base(config.intake)


def console_base(config: Config) -> str:
    """The base of links to the console."""
    return _base(config.console)


def _base(listener: IntakeConfig | ConsoleConfig) -> str:
    if listener.public_url:
        return listener.public_url
    address = split_address(listener.bind)
    assert address is not None
    host, port = _WILDCARDS.get(address[0], address[0]), address[1]
    return (
        f"{'https' if listener.tls_cert_file else 'http'}://"
        f"{f'[{host}]' if ':' in host else host}:{port}"
    )


def natero_url(base: str, auth_key: str, api_key: str) -> str:
    return f"{base.rstrip('/')}/v1/{auth_key}/{api_key}"


def example_event(now_ms: int) -> str:
    """A valid event for printed curl lines; nothing in it needs quoting inside '…'."""
    return (
        f'{{"accountId":"acme","userId":"ada","createdAt":{now_ms},'
        '"action":"login","sessionId":"s1"}'
    )


def own_command() -> str:
    """How this program was started, so that a printed line works as pasted."""
    # One file runs from where it was unpacked, and its launcher says where it lies.
    started = Path(os.environ.get("_INGESTER_STARTED_AS") or sys.argv[0])
    if started.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m ingester"
    found = shutil.which(started.name)
    if found is not None and os.path.realpath(found) == os.path.realpath(started):
        return shlex.quote(started.name)
    return shlex.quote(str(started.absolute()))


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, replacing one that is there."""
    partial_path = path.with_name(f".{path.name}.partial")
    partial_path.unlink(missing_ok=True)
    descriptor = os.open(partial_path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    partial_path.replace(path)


def run_trio(function: Callable[[], Awaitable[T]]) -> T:
    """`trio.run`, with one error of ours (or Ctrl-C) out of the group it came in."""
    import trio

    try:
        return trio.run(function)
    except BaseExceptionGroup as group:
        for wanted in (KeyboardInterrupt, CommandFailed, IngesterError):
            if (matching := group.subgroup(wanted)) is not None:
                raise _first_leaf(matching) from group
        raise


def _first_leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    leaf = group.exceptions[0]
    return _first_leaf(leaf) if isinstance(leaf, BaseExceptionGroup) else leaf
