"""A query process that answers many queries: what is asked of a text, without a start for each.

The request's `sql` is a JSON array of texts. Everything else is the real process: made ready, the
walls raised once, and each text parsed, checked and run as the only one would be. Frames of the
answers follow each other; each ends with one Z or E.
"""

from __future__ import annotations

import os

import msgspec
from msgspec import structs

from ingester.sandbox import child

__all__ = ["main"]


def main() -> None:
    child._take_output()
    connection = child._ready_connection()
    catalogue = child._catalogue(connection)
    request = child._read_request()
    assert request is not None
    child._prepare(connection, request)
    child._prepare = lambda *_: None
    for sql in msgspec.json.decode(request.sql, type=list[str]):
        child._answer(connection, catalogue, structs.replace(request, sql=sql))
    os._exit(0)
