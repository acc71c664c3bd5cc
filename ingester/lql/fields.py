"""Fields: from the steps of a name to a column or a path, and back to text."""

from __future__ import annotations

from .ast import Column, Field, Path
from .lexer import Step, unquoted_key
from .schema import Schema

__all__ = ["display_name", "resolve", "spelling"]


def resolve(steps: tuple[Step, ...], schema: Schema) -> Field:
    """A bare name that is a column, else a path into the attributes."""
    first = steps[0]
    if not first.is_quoted:
        if len(steps) == 1 and first.key in schema.columns:
            return Column(first.key)
        if len(steps) > 1 and first.key in schema.attribute_names:
            steps = steps[1:]
    is_exact = len(steps) > 1 and any(step.is_quoted for step in steps)
    return Path(tuple(step.key for step in steps), is_exact)


def spelling(field: Field) -> str:
    """How a query writes a field."""
    return field.name if isinstance(field, Column) else "m." + _steps(field)


def display_name(field: Field) -> str:
    """How a result names a field: a path is `metadata.…` whichever spelling was used."""
    return field.name if isinstance(field, Column) else "metadata." + _steps(field)


def _steps(path: Path) -> str:
    return ".".join(
        key if unquoted_key(key) and not path.is_exact else f"`{key}`" for key in path.keys
    )
