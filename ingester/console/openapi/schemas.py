"""Schemas of the types that validate, under `#/components/schemas/`.

1. A type has one schema, wherever it is used; two types of one name would be a fault of ours.
2. Patterns are told in the dialect of JSON Schema (ECMA-262), not in Python's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

__all__ = ["Json", "Schemas"]

Json = dict[str, Any]

_REF = "#/components/schemas/{name}"


class Schemas:
    """The schemas of `types`, which must name every type that is asked for later."""

    def __init__(self, types: Iterable[Any]) -> None:
        # A list, because unions and generics are compared, not hashed.
        self._types: list[Any] = []
        for one in types:
            if one not in self._types:
                self._types.append(one)
        schemas, components = msgspec.json.schema_components(self._types, ref_template=_REF)
        self._schemas = [_portable(schema) for schema in schemas]
        self.components: Json = {name: _portable(one) for name, one in components.items()}
        assert not any("." in name for name in self.components), "two types of one name"

    def of(self, one: Any) -> Json:
        """A reference to the schema of a type, or the schema of a plain one."""
        return dict(self._schemas[self._types.index(one)])

    def properties(self, one: type[msgspec.Struct]) -> Iterable[tuple[str, Json, bool]]:
        """Name, schema and whether it is required, of every field as a parameter: one that is there
        is never null.
        """
        schema = self.components[self.of(one)["$ref"].rpartition("/")[2]]
        for name, found in schema["properties"].items():
            yield name, _not_null(found), name in schema.get("required", ())

    def without_unused(self, document: Mapping[str, Any]) -> Json:
        """The components that `document` refers to, directly or not."""
        used: set[str] = set()
        waiting = list(_references(document))
        while waiting:
            name = waiting.pop()
            if name not in used:
                used.add(name)
                waiting += _references(self.components[name])
        return {name: one for name, one in self.components.items() if name in used}


def _portable(value: Any) -> Any:
    """The schema with `\\Z` of Python's patterns as `$`, and descriptions in one line."""
    if isinstance(value, list):
        return [_portable(item) for item in value]
    if not isinstance(value, dict):
        return value
    portable = {name: _portable(item) for name, item in value.items()}
    pattern = portable.get("pattern")
    if isinstance(pattern, str) and pattern.endswith(r"\Z"):
        portable["pattern"] = pattern[:-2] + "$"
    description = portable.get("description")
    if isinstance(description, str):
        portable["description"] = " ".join(description.split())
    return portable


def _not_null(schema: Json) -> Json:
    choices = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if len(choices) != 1:
        return schema
    rest = {name: one for name, one in schema.items() if name != "anyOf"}
    if rest.get("default", 0) is None:
        del rest["default"]
    return {**rest, **choices[0]}


def _references(value: Any) -> Iterable[str]:
    if isinstance(value, list):
        for item in value:
            yield from _references(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name == "$ref" and item.startswith(_REF.format(name="")):
                yield item.rpartition("/")[2]
            else:
                yield from _references(item)
