"""Events of a byte sequence, in every kind of cut."""

from __future__ import annotations

from typing import Any

import pytest

from ingester.errors import MalformedRequest
from ingester.protocol.http1 import (
    END_OF_MESSAGE,
    END_OF_STREAM,
    NEED_DATA,
    HeadCache,
    HeadLimits,
    RequestHead,
    RequestReader,
)
from tests.helpers import sliced

__all__ = [
    "AFTER",
    "HEAD_EVENT",
    "LIMITS",
    "NEXT",
    "drain",
    "events_in_every_cut",
    "events_of",
    "joined",
    "post",
]

LIMITS = HeadLimits(head_bytes_max=2048, target_bytes_max=256, header_count_max=20)

NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"


def drain(reader: RequestReader) -> list[Any]:
    events: list[Any] = []
    while True:
        try:
            event = reader.next_event()
        except MalformedRequest as error:
            events.append(error.status_hint)
            with pytest.raises(MalformedRequest):
                reader.next_event()
            return events
        if event is NEED_DATA or event is END_OF_STREAM:
            return events
        if isinstance(event, RequestHead):
            events.append((event.method, event.path, event.query))
        elif event is END_OF_MESSAGE:
            events.append("end")
        else:
            events.append(event)


def joined(events: list[Any]) -> list[Any]:
    """Adjacent body pieces made one."""
    result: list[Any] = []
    for event in events:
        if isinstance(event, bytes) and result and isinstance(result[-1], bytes):
            result[-1] += event
        else:
            result.append(event)
    return result


def events_of(
    pieces: list[bytes], limits: HeadLimits = LIMITS, cache: HeadCache | None = None
) -> list[Any]:
    reader = RequestReader(limits, cache)
    events: list[Any] = []
    for piece in pieces:
        reader.receive_data(piece)
        new = drain(reader)
        events += new
        if new and isinstance(new[-1], int):
            break  # refused: nothing is fed to it any more
    return joined(events)


def events_in_every_cut(data: bytes, tail: bytes = b"") -> list[Any]:
    cache = HeadCache()
    seen = [events_of(pieces, cache=cache) for pieces in sliced(data, trailing=[tail])]
    assert all(events == seen[0] for events in seen)
    return seen[0]


def post(*headers: bytes, body: bytes = b"", version: bytes = b"1.1", host: bool = True) -> bytes:
    lines = [b"POST /a?b=c HTTP/" + version, *([b"Host: a"] if host else []), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


HEAD_EVENT = ("POST", "/a", "b=c")
AFTER = [("GET", "/next", ""), "end"]
