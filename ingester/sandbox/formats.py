"""Results in their formats: rows in, bytes out, in the child.

`json` is one document `{"columns": […], "types": […], "rows": [[…], …]}`: arrays, because columns
may share a name. In the objects of `ndjson` the last of them wins. `csv` is RFC 4180 with a header
line. `parquet` and `arrow` (IPC stream) keep DuckDB's types.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from .messages import Format
from .values import Row, converted, csv_field, maybe_converters

__all__ = ["BinaryResult", "TextResult", "make_text_result"]

Write = Callable[[bytes], None]

# Rows of one row group of a Parquet result, and what they may weigh.
_GROUP_ROWS_MAX = 32_768
_GROUP_BYTES_MAX = 8 * 1024 * 1024


class TextResult(Protocol):
    """Begun with the names and types of the columns; what each call returns is written on."""

    def begin(self) -> bytes: ...

    def rows(self, rows: Sequence[Row]) -> bytes: ...

    def end(self) -> bytes: ...


def make_text_result(
    format_name: Format, columns: list[str], types: list[str], *, is_for_spreadsheets: bool = False
) -> TextResult:
    if format_name == "csv" and is_for_spreadsheets:
        return _SpreadsheetCsv(columns, types)
    kinds: dict[str, Callable[[list[str], list[str]], TextResult]] = {
        "json": _Json,
        "ndjson": _Ndjson,
        "csv": _Csv,
    }
    return kinds[format_name](columns, types)


class _Json:
    def __init__(self, columns: list[str], types: list[str]) -> None:
        self._head = msgspec.json.encode({"columns": columns, "types": types, "rows": []})
        self._converters = maybe_converters(types)
        self._is_first = True

    def begin(self) -> bytes:
        return self._head.removesuffix(b"]}")

    def rows(self, rows: Sequence[Row]) -> bytes:
        body = msgspec.json.encode(converted(rows, self._converters))[1:-1]
        separator = b"" if self._is_first else b","
        self._is_first = False
        return separator + body

    def end(self) -> bytes:
        return b"]}"


class _Ndjson:
    def __init__(self, columns: list[str], types: list[str]) -> None:
        self._columns = columns
        self._converters = maybe_converters(types)
        self._encoder = msgspec.json.Encoder()

    def begin(self) -> bytes:
        return b""

    def rows(self, rows: Sequence[Row]) -> bytes:
        names = self._columns
        return self._encoder.encode_lines([
            dict(zip(names, row, strict=True)) for row in converted(rows, self._converters)
        ])

    def end(self) -> bytes:
        return b""


class _Csv:
    def __init__(self, columns: list[str], types: list[str]) -> None:
        self._columns = columns
        self._converters = maybe_converters(types)

    def begin(self) -> bytes:
        return self._lines([self._columns])

    def rows(self, rows: Sequence[Row]) -> bytes:
        return self._lines(converted(rows, self._converters))

    def end(self) -> bytes:
        return b""

    def _lines(self, rows: Sequence[Row]) -> bytes:
        text = "".join(",".join(map(csv_field, row)) + "\r\n" for row in rows)
        return text.encode("utf-8", "replace")


class _SpreadsheetCsv(_Csv):
    def _lines(self, rows: Sequence[Row]) -> bytes:
        text = "".join(
            ",".join(csv_field(value, is_for_spreadsheets=True) for value in row) + "\r\n"
            for row in rows
        )
        return text.encode("utf-8", "replace")


class BinaryResult:
    """Arrow batches as Parquet or as an Arrow stream. pyarrow is imported by whoever makes one,
    before the process is confined.
    """

    def __init__(self, format_name: Format, schema: Any, write: Write) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._pa = pa
        self._file = pa.PythonFile(_Sink(write), mode="w")
        self._is_parquet = format_name == "parquet"
        self._held: list[Any] = []
        self._held_rows = self._held_bytes = 0
        if self._is_parquet:
            self._writer: Any = pq.ParquetWriter(self._file, schema, compression="zstd")
        else:
            self._writer = pa.ipc.new_stream(self._file, schema)

    def add(self, batch: Any) -> None:
        if not self._is_parquet:
            self._writer.write_batch(batch)
            return
        self._held.append(batch)
        self._held_rows += batch.num_rows
        self._held_bytes += batch.nbytes
        if self._held_rows >= _GROUP_ROWS_MAX or self._held_bytes >= _GROUP_BYTES_MAX:
            self._flush()

    def end(self) -> None:
        self._flush()
        self._writer.close()
        self._file.flush()

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(self._pa.Table.from_batches(self._held))
            self._held = []
            self._held_rows = self._held_bytes = 0


class _Sink:
    """A file that can only be written, for pyarrow."""

    closed = False

    def __init__(self, write: Write) -> None:
        self._write = write
        self._written = 0

    def write(self, data: bytes) -> int:
        self._write(bytes(data))
        self._written += len(data)
        return len(data)

    def tell(self) -> int:
        return self._written

    def flush(self) -> None: ...

    def close(self) -> None: ...

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False
