"""Conditions over an arriving batch: the compiled SQL, run on rows that lie in memory.

An in-memory database of its own, as `lql_match` has one: a batch is registered as the relation
that conditions name, and nothing stored can be reached from it. One thread at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..lql.paths import location
from ..lql.sql import Fragment, joined, sql
from .database import mapped_errors

__all__ = ["LIST", "RuleRows"]

# Stands for a value that only the whole condition can judge: there is a list on the way to it.
LIST = "["

_ROW = "its_row"


class RuleRows:
    """Use as a context manager, or `close` it."""

    def __init__(self, relation: str, attributes: str) -> None:
        self._relation = relation
        self._attributes = Fragment(attributes)
        self._connection = duckdb.connect(
            config={"threads": "1", "memory_limit": "512MB", "enable_external_access": "false"}
        )

    def __enter__(self) -> RuleRows:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def which(self, rows: pa.Table, conditions: Sequence[Fragment]) -> list[npt.NDArray[np.int64]]:
        """For each condition the rows that satisfy it; one statement for all of them."""
        if not conditions or not rows.num_rows:
            return [np.empty(0, np.int64) for _ in conditions]
        numbered = rows.append_column(_ROW, pa.array(np.arange(rows.num_rows)))
        listed = joined(", ", [sql("coalesce({}, false)", each) for each in conditions])
        found = self._arrow(f"SELECT {listed.sql} FROM {self._relation}", numbered, listed.params)
        return [
            np.flatnonzero(column.combine_chunks().to_numpy(zero_copy_only=False))
            for column in found.columns
        ]

    def values(
        self, rows: pa.Table, paths: Sequence[tuple[tuple[str, ...], bool]]
    ) -> list[pa.Array]:
        """For each path the JSON text of what it leads to; NULL when it leads nowhere, `LIST` when
        a list is on it. With a flag: else of the key spelt like the whole path.
        """
        places: list[str] = []
        for keys, has_flat in paths:
            places += [_place(keys), *([_place(_flat(keys))] if has_flat else [])]
        columns, at = [], 1
        for keys, has_flat in paths:
            flat = _value(self._attributes, _flat(keys), at + 1, None) if has_flat else None
            columns.append(_value(self._attributes, keys, at, flat))
            at += 1 + has_flat
        listed = joined(", ", columns)
        extract = sql("json_extract({}, {})", self._attributes, places)
        statement = sql(
            "SELECT {} FROM (SELECT {} AS l, {} FROM {})",
            listed,
            extract,
            self._attributes,
            Fragment(self._relation),
        )
        found = self._arrow(statement.sql, rows, statement.params)
        return [column.combine_chunks() for column in found.columns]

    def spelled(self, doubles: Sequence[float]) -> list[str]:
        """Numbers as JSON texts are written here."""
        with mapped_errors(0):
            row = self._connection.execute(
                "SELECT list_transform(?::DOUBLE[], lambda x: to_json(x)::VARCHAR)", [[*doubles]]
            ).fetchone()
        assert row is not None
        return [*row[0]]

    def _arrow(self, statement: str, rows: pa.Table, params: Sequence[object]) -> pa.Table:
        with mapped_errors(0):
            self._connection.register(self._relation, rows)
            try:
                return self._connection.execute(statement, list(params)).to_arrow_table()
            finally:
                self._connection.unregister(self._relation)


def _flat(keys: tuple[str, ...]) -> tuple[str, ...]:
    return (".".join(keys),)


def _place(keys: tuple[str, ...]) -> str:
    place = location(keys)
    assert place is not None
    return place


def _value(document: Fragment, keys: tuple[str, ...], at: int, absent: Fragment | None) -> Fragment:
    """What `lql.paths.any_value` looks at first, of the `at`-th extraction."""
    direct = Fragment(f"l[{at}]::VARCHAR")
    prefixes = ["$", *(_place(keys[:n]) for n in range(1, len(keys) + 1))]
    return sql(
        "CASE WHEN NOT starts_with({}, '[') THEN {} "
        "WHEN contains({}, '[') AND list_contains(json_type({}, {}), 'ARRAY') THEN '[' {} END",
        direct,
        direct,
        document,
        document,
        prefixes,
        Fragment("") if absent is None else sql("ELSE {}", absent),
    )
