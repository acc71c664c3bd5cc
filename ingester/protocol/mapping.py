"""Events of any shape: where a source's setting `map` finds their five properties.

Why it exists: what webhooks send is rarely shaped as contract 3.1 wants. A map names a place in the
line for each property (a JSON pointer, `/org/id`) or a constant (`=web`), and the unit of times.

1. A property the map does not name is read as always: camelCase, else snake_case, at the top.
2. What is found obeys contract 3.1. An integer where the map points is an id too: its digits; and
   `created_at` is converted from `time_unit` to milliseconds, fractions cut.
3. `read_event` is the reference; `read_events` reads a regular chunk at once and gives up (None)
   where a close look may come to anything else than five good properties.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Literal, get_args

import msgspec
from msgspec import UNSET

from ..errors import ConfigError
from ..messages import LineReject, RejectReason
from .body_decoder import refused
from .event_lines import (
    CREATED_AT_MS_END,
    NAME_CHARACTERS_MAX,
    Event,
    EventRules,
    too_long,
)
from .json_pointer import Pointer, parse_pointer
from .json_text import WHITE_SPACE, JsonFault, any_value, json_fault, kind_of, kind_of_text
from .log_times import rfc3339_us

__all__ = ["EventMap", "TimeUnit", "compile_map"]

TimeUnit = Literal["s", "ms", "us", "ns", "rfc3339"]

# Settings, and what contract 3.1 calls them.
_FIELDS = {
    "account_id": "accountId",
    "user_id": "userId",
    "created_at": "createdAt",
    "action": "action",
    "session_id": "sessionId",
}
_NO_SESSION = (UNSET, None, "")
_PER_MS = {"s": 0.001, "ms": 1, "us": 1000, "ns": 1_000_000}

_Fault = tuple[RejectReason, str]


class EventMap:
    """A compiled map; made by `compile_map`."""

    def __init__(
        self, places: Mapping[str, Pointer], constants: Mapping[str, str], unit: TimeUnit
    ) -> None:
        self._places = places
        self._constants = constants
        self._unit = unit
        self._decoder, self._getters = _chunk_decoder(places, constants)

    def read_event(self, line: bytes, line_number: int, rules: EventRules) -> Event | LineReject:
        """One line (or value of several lines), looked at exactly."""
        if len(line) > rules.line_bytes_max:
            return too_long(line, len(line), line_number, rules)
        fault = json_fault(line, rules.depth_max)
        text = line.strip(WHITE_SPACE)
        if fault is None and text[0] != 0x7B:
            fault = JsonFault("not_an_object", f"{kind_of_text(text)}, not an object")
        if fault is not None:
            return refused(line, line_number, fault)
        values: list[Any] = []
        for setting, name in _FIELDS.items():
            value = self._value_of(text, setting)
            outcome: Any
            if setting == "created_at":
                outcome = self._millis(value)
            elif setting == "session_id" and rules.lenient_session and value in _NO_SESSION:
                outcome = None
            else:
                outcome = _name(value, setting in self._places)
            if isinstance(outcome, tuple):
                reason, detail = outcome
                pointer = self._places.get(setting)
                at = f" (/{'/'.join(pointer.tokens)})" if pointer else ""
                return refused(line, line_number, JsonFault(reason, f"{name}{at} {detail}"), name)
            values.append(outcome)
        account, user, created, action, session = values
        return Event(account, user, created, action, session)

    def read_events(self, chunk: bytes, line_count: int, rules: EventRules) -> list[Event] | None:
        """All lines of a regular chunk (`chunk_shape`)."""
        try:
            rows = self._decoder.decode_lines(chunk)
            if len(rows) != line_count:
                return None
            columns = [self._column(rows, setting) for setting in _FIELDS]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, AttributeError):
            return None
        times: list[Any] = []
        for value in columns[2]:
            millis = self._millis(value)
            if isinstance(millis, tuple):
                return None
            times.append(millis)
        for place, setting in ((0, "account_id"), (1, "user_id"), (3, "action")):
            if not self._are_names(columns[place], setting):
                return None
        sessions = columns[4]
        if rules.lenient_session:
            sessions = [None if value in _NO_SESSION else value for value in sessions]
            given = [value for value in sessions if value is not None]
        else:
            given = sessions
        if not self._are_names(given, "session_id"):
            return None
        columns = [columns[0], columns[1], times, columns[3], sessions]
        if self._places:
            columns = [*map(_as_texts, columns[:2]), times, *map(_as_texts, columns[3:])]
        return list(map(Event, *columns))

    def _value_of(self, text: bytes, setting: str) -> Any:
        if setting in self._constants:
            return self._constants[setting]
        if setting in self._places:
            found = self._places[setting].find(text)
        else:
            name = _FIELDS[setting]
            found = Pointer((name,)).find(text)
            if found is None and name != setting:
                found = Pointer((setting,)).find(text)
        return UNSET if found is None else any_value(found)

    def _column(self, rows: list[Any], setting: str) -> list[Any]:
        if setting in self._constants:
            return [self._constants[setting]] * len(rows)
        return self._getters[setting](rows)

    def _are_names(self, values: Sequence[Any], setting: str) -> bool:
        kinds = set(map(type, values))
        if kinds <= {str}:
            sizes = set(map(len, values))
            return not sizes or (min(sizes) > 0 and max(sizes) <= NAME_CHARACTERS_MAX)
        return (
            kinds <= {str, int}
            and setting in self._places
            and all(not isinstance(_name(value, True), tuple) for value in values)
        )

    def _millis(self, value: Any) -> float | _Fault:
        """Epoch milliseconds of a time in the map's unit."""
        if value is UNSET:
            return "missing_field", "is missing"
        if self._unit == "rfc3339":
            if not isinstance(value, str):
                return "wrong_type", f"must be an RFC 3339 time, got {kind_of(value)}"
            micros = rfc3339_us(value)
            if micros is None:
                return "wrong_type", "must be an RFC 3339 time, as 2026-01-31T08:00:00Z"
            millis: float = micros // 1000
        else:
            if isinstance(value, bool) or not isinstance(value, int | float):
                is_time = isinstance(value, str) and rfc3339_us(value) is not None
                hint = "; with time_unit=rfc3339 in the map such times are read" if is_time else ""
                return "wrong_type", f"must be a number, got {kind_of(value)}{hint}"
            per_ms = _PER_MS[self._unit]
            if not 0 <= value < CREATED_AT_MS_END * per_ms:
                return "out_of_range", f"must be an epoch in {self._unit} from 1970 to 9999"
            if self._unit == "s":
                # By way of microseconds: 0.123 s is a little less than 123 ms as a double.
                millis = value * 1000 if isinstance(value, int) else round(value * 1e6) // 1000
            else:
                millis = value if self._unit == "ms" else value // per_ms
        if not 0 <= millis < CREATED_AT_MS_END:
            return "out_of_range", "must be a time from 1970 to 9999"
        return float(millis)


def compile_map(settings: Mapping[str, str]) -> EventMap:
    """The setting `map` of a source. Raises ConfigError naming the key."""
    places: dict[str, Pointer] = {}
    constants: dict[str, str] = {}
    unit: TimeUnit = "ms"
    for key, value in settings.items():
        if key == "time_unit":
            if value not in get_args(TimeUnit):
                raise ConfigError("map.time_unit", f"one of {', '.join(get_args(TimeUnit))}")
            unit = value  # type: ignore[assignment]
        elif key not in _FIELDS:
            raise ConfigError(f"map.{key}", f"one of {', '.join([*_FIELDS, 'time_unit'])}")
        elif value.startswith("="):
            if key == "created_at":
                raise ConfigError("map.created_at", "a time cannot be a constant")
            if not 1 <= len(value) - 1 <= NAME_CHARACTERS_MAX:
                raise ConfigError(f"map.{key}", f"1 to {NAME_CHARACTERS_MAX} characters after =")
            constants[key] = value[1:]
        else:
            try:
                places[key] = parse_pointer(value)
            except ValueError as error:
                raise ConfigError(f"map.{key}", f"{error}; or a constant after =") from None
    return EventMap(places, constants, unit)


def _name(value: Any, may_be_integer: bool) -> str | _Fault:
    if value is UNSET:
        return "missing_field", "is missing"
    if may_be_integer and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return "wrong_type", f"must be a string, got {kind_of(value)}"
    if not value:
        return "missing_field", "is empty"
    if len(value) > NAME_CHARACTERS_MAX:
        return "too_long", f"has {len(value)} characters, at most {NAME_CHARACTERS_MAX} are taken"
    return value


def _as_texts(values: list[Any]) -> list[Any]:
    if set(map(type, values)) <= {str}:
        return values
    return [str(value) if type(value) is int else value for value in values]


def _chunk_decoder(
    places: Mapping[str, Pointer], constants: Mapping[str, str]
) -> tuple[msgspec.json.Decoder[Any], dict[str, Callable[[list[Any]], list[Any]]]]:
    """A decoder of nested structs that holds just what is pointed at, and how to get at it."""
    tree: dict[str, Any] = {}
    getters: dict[str, Callable[[list[Any]], list[Any]]] = {}
    for setting, name in _FIELDS.items():
        if setting in constants:
            continue
        if setting in places:
            getters[setting] = _getter(_graft(tree, places[setting].tokens))
        else:
            ways = [_graft(tree, (spelling,)) for spelling in dict.fromkeys((name, setting))]
            getters[setting] = _getter(*ways)
    return msgspec.json.Decoder(_struct_of(tree)), getters


def _graft(tree: dict[str, Any], tokens: tuple[str, ...]) -> str:
    """Add a way to the tree; the attributes along it. One way may go on where another ends."""
    names = []
    for token in tokens:
        branch = tree.setdefault(token, {})
        names.append(f"f{list(tree).index(token)}")
        tree = branch
    return ".".join(names)


def _struct_of(tree: dict[str, Any]) -> Any:
    """Leaves are anything; a branch must be an object, or the chunk is looked at closely."""
    fields: list[tuple[str, Any, Any]] = []
    names: dict[str, str] = {}
    for place, (token, branch) in enumerate(tree.items()):
        names[f"f{place}"] = token
        fields.append((f"f{place}", _struct_of(branch) if branch else Any, UNSET))
    return msgspec.defstruct("Line", fields, rename=names, gc=False)


def _getter(first: str, second: str = "") -> Callable[[list[Any]], list[Any]]:
    get = attrgetter(first)
    if not second:
        return lambda rows: list(map(get, rows))
    other = attrgetter(second)

    def either(rows: list[Any]) -> list[Any]:
        values = list(map(get, rows))
        if UNSET not in values:
            return values
        return [other(r) if v is UNSET else v for v, r in zip(values, rows, strict=True)]

    return either
