"""The query process: made ready, asked once, and gone.

Started by `process.py`. It imports and opens what every query needs, then waits on standard input,
which is what makes it a warm spare. With the request it is confined to the files that this names
(`confine.py`), parses, checks the tree (`allowed.py`), makes views over the files that the
statement may need (`pruning.py`), runs it and writes the result as frames (`messages.py`). The
client's SQL is looked at after that and not before.

Errors become sentences without a path in them. Whatever happens otherwise ends the process, which
the server tells from a result because it has no end.
"""

from __future__ import annotations

import datetime
import decimal
import os
import re
import select
import sys
import threading
import types
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from ..process_memory import forget_loading
from ..store.rollup_schema import ROLLUP_VIEW_NAMES, exported_table_ddl, rollup_view_ddl
from ..store.schema import PART_DDL, VIEW_NAMES, parquet_relation, view_select
from .allowed import refuse_unless_allowed
from .confine import confine
from .formats import BinaryResult, make_text_result
from .messages import (
    FRAME_HEADER,
    Failure,
    Head,
    QueryRefused,
    QueryRequest,
    frame,
)
from .pruning import bounds_of, evaluation, may_hold

__all__ = ["main"]

# A result up to this size is sent when it is complete, so that what goes wrong up to there has
# its status: a million rows of one number have 10 MB.
_HOLD_BYTES = 16 * 1024 * 1024
_FRAME_BYTES = 256 * 1024
_FETCH_ROWS = 2_048
_BASE = "base"
# The descriptor of the pipe to the server, out of the way of what is opened later.
_OUTPUT = 100
# What DuckDB's conversions import at the first value of a type; later no file can be read.
_IMPORTED = (datetime, decimal, uuid)
# For DuckDB beside results: parsed trees, file footers.
_READY_MEMORY = "64MiB"
_LINE = re.compile(r"\n+LINE (\d+): (.*)\n( *)\^")
_KIND = re.compile(r"^[A-Z][\w-]*(?: [\w-]+){0,3} Error: ")
_PATH = re.compile(r"(?:/[^\s'\",;()/]+){2,}")
# An error may repeat the query's own text or a value, which may be of any size.
_SENTENCE_CHARACTERS_MAX = 500
# Errors that tell of files.
_FILE_ERRORS = (duckdb.IOException, duckdb.PermissionException, duckdb.HTTPException)


def main() -> None:
    _take_output()
    try:
        connection = _ready_connection()
        catalogue = _catalogue(connection)
        if not select.select([sys.stdin], [], [], 0)[0]:
            forget_loading()  # a spare: 60 MB resident otherwise
        request = _read_request()
        if request is None:
            return  # a spare that is not needed any more
        _answer(connection, catalogue, request)
    except BrokenPipeError:
        os._exit(0)
    # No clean-up: the memory of a large query takes its time, and nothing is to be kept.
    os._exit(0)


def _take_output() -> None:
    """The pipe is ours alone: DuckDB prints a progress bar when it feels like it."""
    os.dup2(1, _OUTPUT)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _answer(connection: Any, catalogue: frozenset[str], request: QueryRequest) -> None:
    output = _Output(request.result_bytes_max)
    try:
        _prepare(connection, request)
        _run(connection, catalogue, request, output)
    except QueryRefused as error:
        output.fail(Failure(sentence=_cut(str(error)), column=error.column))
    except (duckdb.OutOfMemoryException, MemoryError):
        output.fail(Failure(sentence=_memory_sentence(request)))
    except (duckdb.FatalException, duckdb.InternalException) as error:
        output.fail(Failure(sentence=_sentence(error)))
    except duckdb.Error as error:
        if "Memory allocation failure" in str(error):
            output.fail(Failure(sentence=_memory_sentence(request)))
            return
        output.fail(Failure(sentence=_sentence(error), column=_column(str(error), request.sql)))
    except RecursionError:
        output.fail(Failure(sentence="the query is nested too deeply"))
    except BrokenPipeError:
        raise
    except Exception as error:
        if "Out of Memory" in str(error) or "malloc" in str(error):
            output.fail(Failure(sentence=_memory_sentence(request)))
        else:
            output.fail(Failure(sentence=_cut(f"{type(error).__name__}: {error}"), is_fault=True))


def _ready_connection() -> Any:
    """An instance with the tables of a part, empty: they give the views their types."""
    sys.modules["pytz"] = _make_pytz()
    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": 1,
            "memory_limit": _READY_MEMORY,
            "temp_directory": "",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "allow_unsigned_extensions": False,
            "python_enable_replacements": False,
        },
    )
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_progress_bar = false")
    connection.execute(f"CREATE SCHEMA {_BASE}")
    for statement in PART_DDL:
        statement = statement.replace("{part}", _BASE)
        connection.execute(re.sub(r" USING COMPRESSION \w+", "", statement))
    for statement in exported_table_ddl(_BASE):
        connection.execute(statement)
    return connection


def _catalogue(connection: Any) -> frozenset[str]:
    """Names that are found without a schema."""
    rows = connection.execute(
        "SELECT lower(view_name) FROM duckdb_views() WHERE schema_name IN ('main', 'pg_catalog') "
        "UNION SELECT lower(table_name) FROM duckdb_tables() "
        "WHERE schema_name IN ('main', 'pg_catalog')"
    ).fetchall()
    return frozenset(row[0] for row in rows)


def _read_request() -> QueryRequest | None:
    size = _read_exactly(4)
    if size is None:
        return None
    body = _read_exactly(int.from_bytes(size, "big"))
    return None if body is None else msgspec.json.decode(body, type=QueryRequest)


def _read_exactly(size: int) -> bytes | None:
    pieces = bytearray()
    while len(pieces) < size:
        piece = os.read(0, size - len(pieces))
        if not piece:
            return None
        pieces += piece
    return bytes(pieces)


def _prepare(connection: Any, request: QueryRequest) -> None:
    """The walls up, and views of rollups; nothing of the client's was looked at yet."""
    if request.format in {"parquet", "arrow"}:
        import pyarrow as pa
        import pyarrow.parquet

        pa.set_cpu_count(1)
        pa.set_memory_pool(pa.system_memory_pool())
    paths = [path for files in request.files.values() for path in files]
    connection.execute(f"SET memory_limit = '{request.memory_bytes_max // 1024}KiB'")
    # Not as a parameter: the first of those makes DuckDB import pandas, where that is installed.
    connection.execute(f"SET allowed_paths = {_list_literal(paths)}")
    connection.execute("SET enable_external_access = false")
    confine(paths, memory_bytes=request.memory_bytes_max, cpu_seconds=request.cpu_seconds_max)
    # Threads are confined with the one that starts them, so they start now.
    threading.Thread(target=_end_with_server, daemon=True).start()
    connection.execute(f"SET threads = {request.threads}")
    files = {name: [Path(path) for path in found] for name, found in request.files.items()}
    for statement in rollup_view_ddl(lambda table: _relation(table, files), "memory.main"):
        connection.execute(statement)
    connection.execute("SET lock_configuration = true")


def _make_views(connection: Any, request: QueryRequest, tree: Mapping[str, Any]) -> None:
    """Of the tables of rows, over the files in which the statement may find any."""
    for name in VIEW_NAMES:
        found = request.files.get(name, [])
        if any(path in request.spans for path in found):
            found = _without_needless(connection, request, tree, name)
        select = view_select(name, [_BASE], [Path(path) for path in found])
        connection.execute(f"CREATE OR REPLACE VIEW memory.main.{name} AS {select}")


def _without_needless(
    connection: Any, request: QueryRequest, tree: Mapping[str, Any], table: str
) -> list[str]:
    files = request.files[table]
    bounds = bounds_of(tree, table)
    if not bounds:
        return files
    template = connection.execute(
        "SELECT json_serialize_sql('SELECT TRY_CAST(NULL AS TIMESTAMP)')"
    ).fetchone()[0]
    try:
        asked = evaluation(msgspec.json.decode(template), bounds)
        ((text,),) = connection.execute(
            "SELECT json_deserialize_sql(?::JSON)", [msgspec.json.encode(asked).decode()]
        ).fetchall()
        (values,) = connection.execute(text).fetchall()
    except duckdb.Error:
        return files  # what is wrong with it the query itself will tell
    return [
        path
        for path in files
        if (span := request.spans.get(path)) is None or may_hold(span, bounds, values)
    ]


def _relation(table: str, files: Mapping[str, Sequence[Path]]) -> str:
    """An exported table of rollups; empty where the query does not name it. The empty one in front
    gives the types.
    """
    found = files.get(table)
    rows = f"SELECT * FROM {_BASE}.{table}"
    return f"({rows} UNION ALL SELECT * FROM {parquet_relation(found)})" if found else f"({rows})"


def _list_literal(texts: Sequence[str]) -> str:
    return "[" + ", ".join("'" + text.replace("'", "''") + "'" for text in texts) + "]"


def _end_with_server() -> None:
    """Standard input is open as long as somebody waits for the result."""
    while os.read(0, 1):
        pass
    os._exit(0)


def _run(
    connection: Any, catalogue: frozenset[str], request: QueryRequest, output: _Output
) -> None:
    tree = msgspec.json.decode(
        connection.execute("SELECT json_serialize_sql(?)", [request.sql]).fetchone()[0]
    )
    if tree["error"]:
        raise _refused(tree, request.sql)
    refuse_unless_allowed(
        tree, request.sql, tables=VIEW_NAMES + ROLLUP_VIEW_NAMES, catalogue=catalogue
    )
    statements = connection.extract_statements(request.sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise QueryRefused("one SELECT is taken")
    _make_views(connection, request, tree)
    connection.execute(statements[0])
    description = connection.description or []
    columns, type_names = [d[0] for d in description], [str(d[1]) for d in description]
    output.begin(Head(columns, type_names))
    counted = _Counted(request.rows_max)
    if request.format in {"parquet", "arrow"}:
        _write_binary(connection, request, output, counted)
    else:
        result = make_text_result(
            request.format,
            columns,
            type_names,
            is_for_spreadsheets=request.is_for_spreadsheets,
        )
        output.write(result.begin())
        while rows := connection.fetchmany(_FETCH_ROWS):
            counted.add(len(rows))
            output.write(result.rows(rows))
        output.write(result.end())
    output.end()


def _write_binary(
    connection: Any, request: QueryRequest, output: _Output, counted: _Counted
) -> None:
    reader = connection.to_arrow_reader(_FETCH_ROWS)
    result = BinaryResult(request.format, reader.schema, output.write)
    for batch in reader:
        counted.add(batch.num_rows)
        result.add(batch)
    result.end()


class _Counted:
    def __init__(self, rows_max: int) -> None:
        self._rows_max = rows_max
        self._rows = 0

    def add(self, count: int) -> None:
        self._rows += count
        if self._rows > self._rows_max:
            raise QueryRefused(f"more than {self._rows_max:,} rows; add a LIMIT")


class _Output:
    """Frames to the server, the first ones held until it is known that there is a result."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._written = 0
        self._held = bytearray()
        self._data = bytearray()
        self._is_sending = False

    def begin(self, head: Head) -> None:
        self._held += frame(b"H", msgspec.json.encode(head))

    def write(self, data: bytes) -> None:
        self._written += len(data)
        if self._written > self._bytes_max:
            mebibytes = self._bytes_max // 1024**2
            raise QueryRefused(
                f"the result is larger than {mebibytes:,} MiB; ask for fewer rows or columns"
            )
        self._data += data
        if self._is_sending and len(self._data) >= _FRAME_BYTES:
            self._send_data()
        elif not self._is_sending and len(self._data) >= _HOLD_BYTES:
            self._is_sending = True
            self._send(self._held)
            self._send_data()

    def end(self) -> None:
        if not self._is_sending:
            self._send(self._held)
        self._send_data()
        self._send(frame(b"Z"))

    def fail(self, failure: Failure) -> None:
        self._send(frame(b"E", msgspec.json.encode(failure)))

    def _send_data(self) -> None:
        data, self._data = self._data, bytearray()
        view = memoryview(data)
        for start in range(0, len(data), _FRAME_BYTES):
            piece = view[start : start + _FRAME_BYTES]
            self._send(FRAME_HEADER.pack(b"D", len(piece)))
            self._send(piece)

    def _send(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(_OUTPUT, view) :]


def _refused(tree: dict[str, Any], sql: str) -> QueryRefused:
    """The sentence of a text that is no SELECT, from DuckDB's parser."""
    message = str(tree.get("error_message", ""))
    if tree.get("error_type") == "not implemented" or "CTE needs a SELECT" in message:
        return QueryRefused("only SELECT is taken")
    column = None
    position = str(tree.get("position", ""))
    if position.isdecimal():
        column = len(sql.encode()[: int(position)].decode("utf-8", "ignore")) + 1
    return QueryRefused(_KIND.sub("", _first_line(message)), column)


def _sentence(error: Exception) -> str:
    """DuckDB's own, unless it may name a file of ours."""
    if isinstance(error, _FILE_ERRORS):
        return "the query cannot be run: it may not use files"
    return _PATH.sub("…", _KIND.sub("", _cut(_first_line(str(error)))))


def _cut(sentence: str) -> str:
    if len(sentence) <= _SENTENCE_CHARACTERS_MAX:
        return sentence
    return sentence[:_SENTENCE_CHARACTERS_MAX] + "…"


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0]


def _memory_sentence(request: QueryRequest) -> str:
    mebibytes = request.memory_bytes_max // 1024**2
    return f"the query needs more than its {mebibytes:,} MiB of memory; let it look at less"


def _column(message: str, sql: str) -> int | None:
    """Where DuckDB's excerpt points: it shows one line, cut on both sides."""
    found = _LINE.search(message)
    lines = sql.split("\n")
    if found is None or int(found[1]) > len(lines):
        return None
    line = lines[int(found[1]) - 1]
    excerpt, caret = found[2], len(found[3]) - len(f"LINE {found[1]}: ")
    if excerpt.startswith("..."):
        excerpt, caret = excerpt[3:], caret - 3
    at = line.find(excerpt.removesuffix("..."))
    if at < 0 or caret < 0:
        return None
    return sum(len(other) + 1 for other in lines[: int(found[1]) - 1]) + at + caret + 1


def _make_pytz() -> types.ModuleType:
    """What DuckDB wants of pytz for a TIMESTAMP WITH TIME ZONE; the session's zone is UTC."""
    module: Any = types.ModuleType("pytz")
    module.timezone = lambda _name: _Utc()
    module.utc = _Utc()
    return module  # type: ignore[no-any-return]


class _Utc(datetime.tzinfo):
    def utcoffset(self, when: datetime.datetime | None) -> datetime.timedelta:
        return datetime.timedelta(0)

    def dst(self, when: datetime.datetime | None) -> datetime.timedelta:
        return datetime.timedelta(0)

    def tzname(self, when: datetime.datetime | None) -> str:
        return "UTC"

    def localize(self, when: datetime.datetime) -> datetime.datetime:
        return when.replace(tzinfo=datetime.UTC)


if __name__ == "__main__":
    main()
