"""Small requests: the journal entry that freezes one, and its rows.

Why it exists: a small request is acknowledged once its entry is in the journal, and its rows reach
the store later, perhaps after a crash. The entry holds every outcome that must not be decided
again: source, rules, receive time, request number, idempotency key, the body as received. The same
`decode_entry` turns an entry into rows on both paths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from ..messages import LineReject, RejectReason, RequestRecord
from .event_lines import EventRules, decode_line
from .events import EventBatch, EventDecoder
from .inflate import Encoding, InflateLimits, inflate_whole

__all__ = [
    "ENTRY_VERSION",
    "JournalEntry",
    "SmallRequest",
    "decode_body",
    "decode_entry",
    "entry_from_bytes",
    "entry_to_bytes",
]

ENTRY_VERSION = 1

# The body was within the limits when it was acknowledged, whatever they are now.
_NOT_LIMITED = InflateLimits(output_bytes_max=0, ratio_max=1 << 62)
# A decoder call holds the interpreter lock: no longer than for this many bytes at a time.
_TURN_BYTES = 256 * 1024
_LF = 0x0A


class JournalEntry(Struct, frozen=True, array_like=True, gc=False):
    """One acknowledged request. `encoding` is how `body` is to be inflated; `encoding_name` what
    the client called it; `is_plain` whether it named none (contract 3.5, `wrong_encoding`).
    """

    version: int
    door: str
    source: str
    credential: str
    request_number: int
    received_at_us: int
    encoding: Encoding
    encoding_name: str
    is_plain: bool
    lenient_session: bool
    line_bytes_max: int
    depth_max: int
    rejects_max: int
    idempotency_key: str | None
    fingerprint: bytes | None
    body: bytes

    def __repr__(self) -> str:
        return f"JournalEntry({self.request_number:016x}, {len(self.body)} bytes)"

    @property
    def rules(self) -> EventRules:
        return EventRules(self.line_bytes_max, self.depth_max, self.lenient_session)


class SmallRequest(Struct, gc=False):
    """An entry and what its lines came to. `lines[i]` is accepted event i as sent.

    The decoded properties are not kept: thousands of requests wait for the loader at a time, which
    decodes their lines again by the hundred for less than it costs to keep and free the objects.
    """

    entry: JournalEntry
    lines: Sequence[bytes]
    line_numbers: Sequence[int]
    rejects: Sequence[LineReject]
    reasons: Mapping[RejectReason, int]
    rejected_count: int
    bytes_raw: int

    def __repr__(self) -> str:
        return f"SmallRequest({len(self.lines)} events, {self.rejected_count} rejects)"

    def record(self) -> RequestRecord:
        entry = self.entry
        return RequestRecord(
            request_number=entry.request_number,
            received_at_us=entry.received_at_us,
            door=entry.door,
            source=entry.source,
            credential=entry.credential,
            accepted=len(self.lines),
            rejected=self.rejected_count,
            bytes_in=len(entry.body),
            bytes_raw=self.bytes_raw,
            encoding=entry.encoding_name,
            idempotency_key=entry.idempotency_key,
            fingerprint=entry.fingerprint,
        )


# What requests of one event have in common: thousands of them wait for the loader at a time.
_FIRST_LINE = (1,)
_NO_REASONS: Mapping[RejectReason, int] = {}

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(JournalEntry)


def entry_to_bytes(entry: JournalEntry) -> bytes:
    return _encoder.encode(entry)


def entry_from_bytes(payload: bytes) -> JournalEntry:
    entry = _decoder.decode(payload)
    assert entry.version == ENTRY_VERSION, f"journal entry version {entry.version}"
    return entry


def decode_entry(entry: JournalEntry) -> SmallRequest:
    """An entry read back from the journal. Its body was accepted once, so it inflates."""
    return decode_body(entry, inflate_whole(entry.body, entry.encoding, _NOT_LIMITED))


def decode_body(entry: JournalEntry, raw: bytes) -> SmallRequest:
    """Rows and rejects of `raw`, the inflated body."""
    if raw[:1] == b"{" and len(raw) <= entry.line_bytes_max:
        # The usual small request: one event. Costs under 2 µs. A refusal is left to the
        # general way, which knows how many are kept.
        line = raw.rstrip(b" \t\r\n")
        if _LF not in line:
            outcome = decode_line(line, 1, entry.rules)
            if not isinstance(outcome, LineReject):
                return SmallRequest(entry, (line,), _FIRST_LINE, (), _NO_REASONS, 0, len(raw))
    decoder = EventDecoder(entry.rules, rejects_max=entry.rejects_max, is_plain=entry.is_plain)
    lines: list[bytes] = []
    numbers: list[int] = []
    batches: list[EventBatch] = []
    for start in range(0, len(raw), _TURN_BYTES):
        batches += decoder.feed(raw[start : start + _TURN_BYTES])
    for batch in batches + decoder.finish():
        data = batch.data
        spans = zip(batch.starts.tolist(), batch.lengths.tolist(), strict=True)
        lines += [data[start : start + length] for start, length in spans]
        numbers += batch.line_numbers.tolist()
    return SmallRequest(
        entry,
        lines,
        numbers,
        decoder.rejects,
        decoder.reasons,
        decoder.rejected_count,
        len(raw),
    )
