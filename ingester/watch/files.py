"""Files that declare rules, alerts, monitors and destinations: TOML, read whole or not at all.

`[[rules]]`, `[[alerts]]`, `[[monitors]]` and `[[destinations]]` hold what the API takes;
`destinations` of the first three are names or ids. A file that cannot be taken is refused with its
name and the place in it; what the store holds from earlier stays. What a file has declared and no
longer does is removed, destinations with their routes and deliveries.

SQL is not run here: a query that cannot be run shows with its alert or monitor.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, structs

from ..delivery.settings import DestinationSettings
from ..errors import ConfigError, RequestError
from ..store.control import ControlStore, WatchKind
from ..store.control.destinations import DeclaredDestination, checked_destination
from ..store.control.watches import DeclaredWatch
from .settings import Alert, Monitor, Rule, check_settings

__all__ = ["Declared", "read_files", "sync_files"]

_KINDS: Mapping[str, tuple[WatchKind, type[Rule] | type[Alert] | type[Monitor]]] = {
    "rules": ("rule", Rule),
    "alerts": ("alert", Alert),
    "monitors": ("monitor", Monitor),
}
_SECTIONS = (*_KINDS, "destinations")


class Declared(Struct, frozen=True):
    """What all files declare: with each watch the file and the place."""

    watches: tuple[tuple[str, str, WatchKind, Rule | Alert | Monitor], ...]
    destinations: tuple[DeclaredDestination, ...]


def read_files(paths: Sequence[str]) -> Declared:
    """Raises ConfigError that names the file and the place."""
    watches: list[tuple[str, str, WatchKind, Rule | Alert | Monitor]] = []
    destinations: list[DeclaredDestination] = []
    seen: dict[tuple[str, str], str] = {}
    for path in paths:
        for section, place, table in _tables(path):
            try:
                if section == "destinations":
                    made = _destination(table, path)
                    destinations.append(made)
                    name = made.name
                else:
                    kind, settings = _KINDS[section]
                    watch = msgspec.convert(table, settings)
                    check_settings(watch)
                    watches.append((path, place, kind, watch))
                    name = watch.name
            except (msgspec.ValidationError, RequestError) as error:
                raise _wrong(path, f"{place}: {error}") from None
            if (section, name) in seen:
                raise _wrong(
                    path, f"{place}: {name!r} is declared twice, also {seen[section, name]}"
                )
            seen[section, name] = f"in {path}, {place}"
    return Declared(tuple(watches), tuple(destinations))


def sync_files(control: ControlStore, paths: Sequence[str], *, console_base: str) -> int:
    """Make the store hold what the files declare, and nothing that they declared before; how many
    were added, changed or removed. Raises ConfigError.
    """
    declared = read_files(paths)
    names = {made.name for made in declared.destinations}
    staying = [
        info for info in control.list_destinations() if info.file is None or info.name in names
    ]
    names |= {text for info in staying for text in (info.name, info.id)}
    for path, place, _, watch in declared.watches:
        for one in watch.destinations:
            if one not in names:
                raise _wrong(path, f"{place}.destinations: there is no destination {one!r}")
    taken = control.undeclared_watches()
    for path, place, kind, watch in declared.watches:
        if (kind, watch.name) in taken:
            raise _wrong(
                path, f"{place}: there is a {kind} {watch.name!r} already that no file declares"
            )
    try:
        changed = control.declare_destinations(declared.destinations)
        ids = {info.name: info.id for info in control.list_destinations()}
        changed += control.declare_watches(
            [
                DeclaredWatch(kind, watch.name, msgspec.json.encode(_with_ids(watch, ids)), path)
                for path, _, kind, watch in declared.watches
            ],
            console_base=console_base,
        )
    except RequestError as error:
        raise ConfigError("watch.files", str(error)) from error
    return changed


def _tables(path: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Section, place and table of everything that a file declares."""
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise _wrong(path, f"cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _wrong(path, str(error)) from None
    for section, tables in document.items():
        if section not in _SECTIONS:
            raise _wrong(path, f"{section}: declare {', '.join(f'[[{s}]]' for s in _SECTIONS)}")
        if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
            raise _wrong(path, f"{section}: write [[{section}]] before each")
        for number, table in enumerate(tables, 1):
            name = table.get("name")
            place = f"{section} {number}" + (f" ({name!r})" if isinstance(name, str) else "")
            yield section, place, table


def _destination(table: Mapping[str, Any], path: str) -> DeclaredDestination:
    fields = dict(table)
    name, type_ = fields.pop("name", None), fields.pop("type", "webhook")
    if not isinstance(name, str) or not name:
        raise msgspec.ValidationError("a destination needs a name")
    if "old_secrets" in fields:
        raise msgspec.ValidationError("Object contains unknown field `old_secrets`")
    unknown = set(fields) - {one.name for one in structs.fields(DestinationSettings)}
    if unknown:
        raise msgspec.ValidationError(f"Object contains unknown field `{min(unknown)}`")
    settings = msgspec.convert(fields, DestinationSettings)
    kind, settings = checked_destination(name, str(type_), settings)
    return DeclaredDestination(name=name, type=kind, settings=settings, file=path)


def _with_ids(watch: Rule | Alert | Monitor, ids: Mapping[str, str]) -> Rule | Alert | Monitor:
    return structs.replace(
        watch, destinations=tuple(ids.get(one, one) for one in watch.destinations)
    )


def _wrong(path: str, detail: str) -> ConfigError:
    return ConfigError("watch.files", f"{path}: {detail}")
