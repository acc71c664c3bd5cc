"""Means of the actors' tests: small requests as a door makes them, uploads as the lane does."""

from __future__ import annotations

import json
from collections.abc import Sequence

import trio

from ingester.doors.bulk_lane import BulkUpload, open_pieces
from ingester.protocol.event_lines import EventRules
from ingester.protocol.events import EventDecoder
from ingester.protocol.forms import Origin, row_target
from ingester.protocol.inflate import Encoding, InflateLimits, make_inflater
from ingester.protocol.requests import (
    ENTRY_VERSION,
    JournalEntry,
    SmallRequest,
    decode_entry,
    entry_to_bytes,
)

__all__ = ["event_line", "payload_of", "small_request", "upload_of"]


ORIGIN = Origin("natero", "test", "source:1")


def event_line(number: int, size: int = 0) -> bytes:
    """One valid event, at least `size` bytes long."""
    event = {
        "accountId": "acme",
        "userId": f"user-{number % 7}",
        "createdAt": 1_700_000_000_000 + number,
        "action": "open",
        "sessionId": f"s-{number}",
        "n": number,
        "pad": "",
    }
    short = json.dumps(event).encode()
    if size > len(short):
        event["pad"] = "p" * (size - len(short))
    return json.dumps(event).encode()


def small_request(
    number: int, body: bytes | None = None, *, key: str | None = None
) -> SmallRequest:
    """A request whose number is `number`; one event unless a body is given."""
    entry = JournalEntry(
        version=ENTRY_VERSION,
        door="natero",
        source="test",
        credential="source:1",
        request_number=number,
        received_at_us=1_700_000_000_000_000 + number,
        encoding="identity",
        encoding_name="identity",
        is_plain=True,
        lenient_session=False,
        line_bytes_max=1024 * 1024,
        depth_max=128,
        rejects_max=10_000,
        idempotency_key=key,
        fingerprint=b"0123456789abcdef" if key is not None else None,
        body=event_line(number) if body is None else body,
    )
    return decode_entry(entry)


def payload_of(request: SmallRequest) -> bytes:
    return entry_to_bytes(request.entry)


def upload_of(
    number: int,
    *,
    encoding: Encoding = "identity",
    rejects_max: int = 10_000,
    output_bytes_max: int = 0,
    content_length: int | None = None,
) -> tuple[BulkUpload, trio.MemorySendChannel[bytes]]:
    """An upload and where its pieces are sent."""
    send, receive = open_pieces()
    upload = BulkUpload(
        request_number=number,
        received_at_us=1_700_000_000_000_000 + number,
        origin=ORIGIN,
        encoding_name=encoding,
        content_length=content_length,
        inflater=make_inflater(
            encoding, InflateLimits(output_bytes_max=output_bytes_max, ratio_max=1_000_000)
        ),
        decoder=EventDecoder(
            EventRules(1024 * 1024, 128, False),
            rejects_max=rejects_max,
            is_plain=encoding == "identity",
        ),
        target=row_target(ORIGIN),
        digest=None,
        pieces=receive,
        idempotency_key=None,
        done=trio.Event(),
    )
    return upload, send


def body_of(lines: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)
