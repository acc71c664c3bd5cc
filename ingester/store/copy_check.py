"""Whether the rows of a copied store add up, by its Parquet files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import duckdb

from .check import check_copied_part
from .check_files import footer_problem
from .schema import PART_DDL, parquet_relation

__all__ = ["copy_problems"]

_MEMORY = "128MiB"


def copy_problems(
    files: Mapping[int, Mapping[str, Sequence[str]]],
    rows: Mapping[int, Mapping[str, int]],
    directory: Path,
    *,
    sealed: Sequence[tuple[str, int]],
    temporary: Path,
) -> list[str]:
    """By part and table: its files below `directory`, and how many rows they must have. `sealed`:
    files and their rows. Uploads lie under `files/uploads`.
    """
    problems = [
        f"{name}: {problem}"
        for name, row_count in sealed
        if (problem := footer_problem(directory / name, row_count)) is not None
    ]
    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": 1,
        "memory_limit": _MEMORY,
        "temp_directory": str(temporary),
    }
    with closing(duckdb.connect(":memory:", config=config)) as connection:
        for number, tables in files.items():
            name = f"part_{number:06d}"
            connection.execute(f"ATTACH ':memory:' AS {name}")
            for statement in PART_DDL:
                connection.execute(statement.format(part=name))
            for table, paths in tables.items():
                relation = parquet_relation([directory / path for path in paths])
                connection.execute(f"DROP TABLE {name}.{table}")
                connection.execute(f"CREATE VIEW {name}.{table} AS FROM {relation}")
            for table, expected in rows[number].items():
                ((found,),) = connection.execute(f"SELECT count(*) FROM {name}.{table}").fetchall()
                if found != expected:
                    problems.append(f"{table} of part {number} has {found} rows, not {expected}")
            problems += check_copied_part(connection, number, directory / "files" / "uploads")
    return problems
