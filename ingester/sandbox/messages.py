"""What server and child tell each other: one request down, frames up.

The request is JSON on the child's standard input, behind its length. The answer on its standard
output is frames of one kind byte, a length of four bytes (big endian) and that many bytes:

    H  head, JSON (`Head`): the result begins, nothing was refused
    D  data: bytes of the result in its format
    Z  end: the result is complete
    E  error, JSON (`Failure`): instead of a head, or in the middle

A stream that ends otherwise is a child that died.
"""

from __future__ import annotations

import struct
from typing import Literal, get_args

import msgspec
from msgspec import Struct

from ..errors import IngesterError, RequestError
from .pruning import FileSpan

__all__ = [
    "CONTENT_TYPES",
    "EXPORT_FORMATS",
    "FORMATS",
    "FRAME_HEADER",
    "Failure",
    "Format",
    "Frames",
    "Head",
    "QueryCut",
    "QueryRefused",
    "QueryRequest",
    "QueryTimeout",
    "frame",
    "maybe_format",
    "pack_request",
]

Format = Literal["json", "csv", "ndjson", "parquet", "arrow"]
FORMATS: tuple[Format, ...] = get_args(Format)
# What an export is written in.
EXPORT_FORMATS: tuple[Format, ...] = ("parquet", "csv", "ndjson")
CONTENT_TYPES: dict[Format, str] = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8; header=present",
    "ndjson": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.stream",
}

FRAME_HEADER = struct.Struct(">cI")
_LENGTH = struct.Struct(">I")
# Above what the child writes at once; a longer one is not from our child.
_FRAME_BYTES_MAX = 64 * 1024 * 1024


class QueryRefused(RequestError):
    """Not one SELECT over the public tables, wrong, or too large; `column` is 1-based."""

    def __init__(self, sentence: str, column: int | None = None) -> None:
        super().__init__(sentence)
        self.column = column


class QueryTimeout(RequestError):
    """Ended at its deadline."""

    status_hint = 408


class QueryCut(IngesterError):
    """The result ends in the middle: what was sent already is not all of it."""


class QueryRequest(Struct, frozen=True, kw_only=True):
    """One query. `files` are the Parquet files of every table that it may name, absolute paths;
    `spans` what is known of the times in some of them.
    """

    sql: str
    format: Format = "json"
    files: dict[str, list[str]] = {}
    spans: dict[str, FileSpan] = {}
    cpu_seconds_max: int = 60
    memory_bytes_max: int = 256 * 1024 * 1024
    threads: int = 1
    rows_max: int = 1_000_000
    result_bytes_max: int = 1024 * 1024 * 1024
    is_for_spreadsheets: bool = False

    def __repr__(self) -> str:
        count = sum(map(len, self.files.values()))
        return f"QueryRequest({len(self.sql)} characters, {self.format}, {count} files)"


class Head(Struct, frozen=True):
    """A result begins."""

    columns: list[str]
    types: list[str]


class Failure(Struct, frozen=True, kw_only=True):
    """No result, or no more of it. `is_fault`: ours, not the query's."""

    sentence: str
    column: int | None = None
    is_fault: bool = False


def maybe_format(name: str) -> Format | None:
    return next((known for known in FORMATS if known == name), None)


def pack_request(request: QueryRequest) -> bytes:
    body = msgspec.json.encode(request)
    return _LENGTH.pack(len(body)) + body


def frame(kind: bytes, body: bytes = b"") -> bytes:
    return FRAME_HEADER.pack(kind, len(body)) + body


class Frames:
    """Frames out of bytes, as they come."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> None:
        self._held += data

    def next_nowait(self) -> tuple[bytes, bytes] | None:
        """The next whole frame, its kind and body; None when more bytes are needed."""
        if len(self._held) < FRAME_HEADER.size:
            return None
        kind, size = FRAME_HEADER.unpack_from(self._held)
        if size > _FRAME_BYTES_MAX:
            raise QueryCut("the query process wrote what is no answer")
        end = FRAME_HEADER.size + size
        if len(self._held) < end:
            return None
        body = bytes(self._held[FRAME_HEADER.size : end])
        del self._held[:end]
        return kind, body
