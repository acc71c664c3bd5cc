"""Settings from a file, the environment and the command line, merged and checked.

Later wins: defaults (`config.py`), the TOML file, `INGESTER_<SECTION>_<KEY>`, the command line.
The file is the one named by `--config`, else by `INGESTER_CONFIG`, else `./config.toml` when there
is one. Relative paths in a setting are relative to the working directory, wherever it was set.

Invariants:

1. A returned configuration is whole: every value has its type, is in range, and fits the others.
2. Every error names the key, where the value came from, and what would work.
3. Nothing that looks like a setting is passed over: an unknown key, section or `INGESTER_…`
   variable is an error that names the nearest known one.

It reads the file and looks whether TLS files are readable; it opens no socket and creates nothing.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from ingester.config import Config
from ingester.config_check import checked, normalised
from ingester.errors import ConfigError

__all__ = [
    "COMMAND_VARIABLES",
    "SETTINGS",
    "Loaded",
    "Setting",
    "find_file",
    "format_value",
    "load",
    "parse_bytes",
]

DEFAULT_FILE = Path("config.toml")
DEFAULT_ORIGIN = "default"

_PREFIX = "INGESTER_"

# Variables that are read by commands and are no settings.
COMMAND_VARIABLES = frozenset({
    "INGESTER_CONFIG",
    "INGESTER_AUTH_KEY",
    "INGESTER_API_KEY",
    "INGESTER_TOKEN",
})

# Names a deliberate fault for the fault tests (`actors/journal.py`); never suggested to anyone.
_FAULT_VARIABLE = "INGESTER_FAULT"

_BYTES = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
_BYTE_UNITS = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "tb": 1000**4,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
    "tib": 1024**4,
}
_TRUTHS = {"true": True, "yes": True, "on": True, "1": True} | {
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


class Setting(Struct, frozen=True, kw_only=True):
    """One key of one section, read from the structs in `config.py`."""

    section: str
    key: str
    type: Any
    default: object

    @property
    def name(self) -> str:
        return f"{self.section}.{self.key}"

    @property
    def variable(self) -> str:
        return f"{_PREFIX}{self.section}_{self.key}".upper()

    @property
    def in_bytes(self) -> bool:
        return self.type is int and "bytes" in self.key.split("_")


class Loaded(Struct, frozen=True, kw_only=True):
    """The configuration, and for every `section.key` where its value came from."""

    config: Config
    origins: Mapping[str, str]
    path: Path | None


def _settings() -> dict[str, Setting]:
    found = (
        Setting(section=section.name, key=field.name, type=field.type, default=field.default)
        for section in msgspec.structs.fields(Config)
        for field in msgspec.structs.fields(section.type)
    )
    return {setting.name: setting for setting in found}


SETTINGS: Mapping[str, Setting] = _settings()
_SECTIONS = tuple(section.name for section in msgspec.structs.fields(Config))


def find_file(option: Path | None, env: Mapping[str, str]) -> Path | None:
    """The file to read: the option, the variable, `./config.toml` when present, or none."""
    if option is not None:
        return option
    if named := env.get("INGESTER_CONFIG"):
        return Path(named)
    return DEFAULT_FILE if DEFAULT_FILE.is_file() else None


def load(path: Path | None, env: Mapping[str, str], overrides: Mapping[str, object]) -> Loaded:
    """Merge and check. `overrides` come from the command line, keyed `section.key`."""
    values: dict[str, object] = {}
    origins = dict.fromkeys(SETTINGS, DEFAULT_ORIGIN)
    if path is not None:
        _take_file(path, values, origins)
    _take_environment(env, values, origins)
    for name, value in overrides.items():
        values[name] = _value(SETTINGS[name], value, "the command line")
        origins[name] = "command line"
    sections: dict[str, dict[str, object]] = {section: {} for section in _SECTIONS}
    for name, value in values.items():
        sections[SETTINGS[name].section][SETTINGS[name].key] = normalised(name, value)
    config = Config(**{
        section.name: section.type(**sections[section.name])
        for section in msgspec.structs.fields(Config)
    })
    return Loaded(config=checked(config, origins), origins=origins, path=path)


def parse_bytes(text: str) -> int | None:
    """`"64MiB"`, `"1.5 GB"`, `"4096"` as a number of bytes; None when it is none of these."""
    found = _BYTES.fullmatch(text)
    if found is None or found[2].lower() not in _BYTE_UNITS:
        return None
    factor = _BYTE_UNITS[found[2].lower()]
    return round(float(found[1]) * factor) if "." in found[1] else int(found[1]) * factor


def format_value(setting: Setting, value: object) -> str:
    """The value as it would stand in the file; sizes with the largest unit that fits exactly."""
    if setting.in_bytes and isinstance(value, int) and value >= 1024:
        for unit in ("GiB", "MiB", "KiB"):
            count, rest = divmod(value, _BYTE_UNITS[unit.lower()])
            if count and not rest:
                return f'"{count}{unit}"'
    if isinstance(value, tuple):
        return "[" + ", ".join(_quoted(str(item)) for item in value) + "]"
    return _quoted(value) if isinstance(value, str) else str(value).lower()


def _quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are a subset of TOML's."""
    return msgspec.json.encode(text).decode().replace("\x7f", "\\u007f")


def _take_file(path: Path, values: dict[str, object], origins: dict[str, str]) -> None:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), "is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), f"is not valid TOML: {error}") from error
    for section, table in document.items():
        if section not in _SECTIONS:
            raise ConfigError(f"[{section}]", _unknown_section(section, path))
        if not isinstance(table, dict):
            raise ConfigError(section, f"must be a table in {path}: write [{section}]")
        for key, value in table.items():
            name = f"{section}.{key}"
            if name not in SETTINGS:
                raise ConfigError(name, _unknown_key(section, key, path))
            values[name] = _value(SETTINGS[name], value, str(path))
            origins[name] = str(path)


def _take_environment(
    env: Mapping[str, str], values: dict[str, object], origins: dict[str, str]
) -> None:
    by_variable = {setting.variable: setting for setting in SETTINGS.values()}
    for variable, text in env.items():
        if not variable.startswith(_PREFIX) or variable in {*COMMAND_VARIABLES, _FAULT_VARIABLE}:
            continue
        setting = by_variable.get(variable)
        if setting is None:
            nearest = _nearest(variable, [*by_variable, *COMMAND_VARIABLES])
            raise ConfigError(
                variable,
                f"is no setting; the nearest is {nearest}. Variables are"
                f" {_PREFIX}<SECTION>_<KEY>; unset it if it is not meant for ingester",
            )
        values[setting.name] = _value(setting, text, f"the variable {variable}")
        origins[setting.name] = f"environment {variable}"


def _value(setting: Setting, value: object, origin: str) -> object:
    """`value` in the setting's type, or the error that says what would work."""
    parsed: object = None
    if setting.type is bool:
        parsed = _TRUTHS.get(value.strip().lower()) if isinstance(value, str) else value
        wanted = "true or false"
        fits = isinstance(parsed, bool)
    elif setting.type is int:
        parsed = _whole_number(value, in_bytes=setting.in_bytes)
        wanted = (
            'a number of bytes such as 1048576 or "64MiB"'
            if setting.in_bytes
            else f"a whole number such as {setting.default}"
        )
        fits = isinstance(parsed, int)
    elif setting.type is str:
        parsed = value.strip() if isinstance(value, str) else value
        wanted = f'text such as "{setting.default}"' if setting.default else "text"
        fits = isinstance(parsed, str)
    else:
        assert setting.type == tuple[str, ...]
        if isinstance(value, dict):  # retention_days = { events = 365 }
            value = [f"{name}={item}" for name, item in value.items()]
        if isinstance(value, str):
            value = [item.strip() for item in value.split(",") if item.strip()]
        fits = isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
        parsed = tuple(value) if isinstance(value, (list, tuple)) else value
        wanted = 'a list of texts, ["a", "b"] in the file or a,b in a variable'
    if not fits:
        raise ConfigError(setting.name, f"must be {wanted}, got {value!r} (from {origin})")
    return parsed


def _whole_number(value: object, *, in_bytes: bool) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        return None
    if in_bytes and (size := parse_bytes(value)) is not None:
        return size
    try:
        return int(value)
    except ValueError:
        return None


def _unknown_section(section: str, path: Path) -> str:
    owners = [setting.section for setting in SETTINGS.values() if setting.key == section]
    if owners:
        return f"is no section; {section!r} belongs under [{owners[0]}] in {path}"
    return f"is no section (in {path}); the nearest is [{_nearest(section, _SECTIONS)}]"


def _unknown_key(section: str, key: str, path: Path) -> str:
    elsewhere = [setting.section for setting in SETTINGS.values() if setting.key == key]
    if elsewhere:
        return f"is no setting (in {path}); {key} belongs under [{elsewhere[0]}]"
    known = [setting.key for setting in SETTINGS.values() if setting.section == section]
    nearest = difflib.get_close_matches(key, known, n=1)
    name = f"{section}.{nearest[0]}" if nearest else _nearest(f"{section}.{key}", SETTINGS)
    return f"is no setting (in {path}); the nearest is {name}"


def _nearest(name: str, known: Mapping[str, object] | list[str] | tuple[str, ...]) -> str:
    """The most similar known name; there is always one to name."""
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]
