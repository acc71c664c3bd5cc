"""Small requests: the journal entry that freezes one, and its rows.

Why it exists: a small request is acknowledged once its entry is in the journal, and its rows reach
the store later, perhaps after a crash. The entry holds every outcome that must not be decided
again: source, form, rules, receive time, request number, idempotency key, the lines left out as
duplicates, the body as received. The same `decode_entry` turns an entry into rows on both paths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from ..messages import LineReject, RejectReason, RequestRecord
from .body_decoder import BodyLimits
from .chunk_shape import ChunkShape
from .dedup import dedup_field_of, dedup_scope
from .event_lines import EventRules, decode_line
from .event_runs import decode_chunk
from .forms import (
    Form,
    HonestEventForm,
    HonestLogForm,
    LogForm,
    MetricForm,
    Rules,
    make_decoder,
    table_of_form,
)
from .inflate import Encoding, InflateLimits, inflate_whole
from .log_requests import LogRows, maybe_one_log, read_honest_logs, read_log_door
from .metrics import MetricRules, decode_metrics

__all__ = [
    "ENTRY_VERSION",
    "JournalEntry",
    "SmallRequest",
    "decode_body",
    "decode_entry",
    "decode_single_events",
    "dedup_scope_of",
    "entry_from_bytes",
    "entry_to_bytes",
    "is_single_event",
    "without_lines",
]

ENTRY_VERSION = 1

# The body was within the limits when it was acknowledged, whatever they are now.
_NOT_LIMITED = InflateLimits(output_bytes_max=0, ratio_max=1 << 62)
# A decoder call holds the interpreter lock: no longer than for this many bytes at a time.
_TURN_BYTES = 256 * 1024
_LF = 0x0A


class JournalEntry(Struct, frozen=True, array_like=True, gc=False):
    """One acknowledged request. `encoding` is how `body` is to be inflated; `encoding_name` what
    the client called it; `is_plain` whether it named none (contract 3.5, `wrong_encoding`);
    `duplicates` the lines that were left out as repeats by `dedup_field`.
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
    form: Form | None = None
    value_bytes_max: int = 16 * 1024 * 1024
    duplicates: tuple[int, ...] = ()
    dedup_field: str | None = None

    def __repr__(self) -> str:
        return f"JournalEntry({self.request_number:016x}, {len(self.body)} bytes)"

    @property
    def rules(self) -> Rules:
        return Rules(self.line_bytes_max, self.depth_max, self.rejects_max, self.value_bytes_max)


class SmallRequest(Struct, gc=False):
    """An entry and what its lines came to. `lines[i]` is accepted event or log i as sent.

    `rows` are what was read of metrics, of events that a map was applied to, and of logs that did
    not come one a request. Of others it is not kept: thousands of requests wait for the loader at a
    time, which decodes their lines again by the thousand for less than it costs to keep and free
    the objects. Requests read back from the journal keep their events: those are loaded at once.
    `digests` are the ids of accepted rows, one behind the other, where the source has a
    `dedup_field`.
    """

    entry: JournalEntry
    row_count: int
    rows: Sequence[Any]
    lines: Sequence[bytes]
    line_numbers: Sequence[int]
    rejects: Sequence[LineReject]
    reasons: Mapping[RejectReason, int]
    rejected_count: int
    bytes_raw: int
    digests: bytes = b""

    def __repr__(self) -> str:
        return f"SmallRequest({self.row_count} rows, {self.rejected_count} rejects)"

    def record(self) -> RequestRecord:
        entry = self.entry
        return RequestRecord(
            request_number=entry.request_number,
            received_at_us=entry.received_at_us,
            door=entry.door,
            source=entry.source,
            credential=entry.credential,
            accepted=self.row_count,
            rejected=self.rejected_count,
            bytes_in=len(entry.body),
            bytes_raw=self.bytes_raw,
            encoding=entry.encoding_name,
            idempotency_key=entry.idempotency_key,
            fingerprint=entry.fingerprint,
            deduplicated=len(entry.duplicates),
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
    raw = inflate_whole(entry.body, entry.encoding, _NOT_LIMITED)
    form = entry.form
    if form is None or isinstance(form, HonestEventForm):
        request = _decode_events(entry, raw, keep_events=True)
    else:
        request = decode_body(entry, raw)
    request = without_lines(request, entry.duplicates)
    if entry.dedup_field is not None:
        found = map(dedup_field_of(entry.dedup_field).digest, request.lines)
        request.digests = b"".join(digest for digest in found if digest is not None)
    return request


def is_single_event(entry: JournalEntry) -> bool:
    """Whether `decode_single_events` may take it: one event by itself, of a source without map."""
    body = entry.body
    return (
        entry.form is None
        and entry.encoding == "identity"
        and entry.dedup_field is None
        and not entry.duplicates
        and body[:1] == b"{"
        and _LF not in body[:-1]
    )


def decode_single_events(entries: Sequence[JournalEntry]) -> list[SmallRequest]:
    """What `decode_entry` makes of each, in one decode for all where none was refused (half its
    cost). A decoder call holds the interpreter lock: no more than a thousand.
    """
    all_rules = {(e.line_bytes_max, e.depth_max, e.lenient_session) for e in entries}
    if len(all_rules) == 1:
        rules = EventRules(*all_rules.pop())
        lines = [entry.body.rstrip(b" \t\r\n") for entry in entries]
        shape = ChunkShape(rules.line_bytes_max, rules.depth_max)
        refused: list[int] = []
        found = decode_chunk(
            b"\n".join([*lines, b""]), shape, rules, 1, lambda _, number: refused.append(number)
        )
        if len(found.events) == len(entries) and not refused:
            return [
                SmallRequest(
                    entry, 1, (event,), (line,), _FIRST_LINE, (), _NO_REASONS, 0, len(entry.body)
                )
                for entry, event, line in zip(entries, found.events, lines, strict=True)
            ]
    return [decode_entry(entry) for entry in entries]


def dedup_scope_of(entry: JournalEntry) -> str:
    """Among which rows the ids of this request count."""
    assert entry.dedup_field is not None
    return dedup_scope(table_of_form(entry.form), entry.source, entry.dedup_field)


def decode_body(entry: JournalEntry, raw: bytes) -> SmallRequest:
    """Rows and rejects of `raw`, the inflated body.

    Raises MalformedBody or BodyTooLarge on the doors that refuse a body for one fault.
    """
    form = entry.form
    if form is None or isinstance(form, HonestEventForm):
        is_mapped = isinstance(form, HonestEventForm) and form.map is not None
        return _decode_events(entry, raw, keep_events=is_mapped)
    if isinstance(form, MetricForm):
        rules = MetricRules(entry.depth_max, form.future_seconds_max)
        found = decode_metrics(
            raw, rules, project_id=form.project_id, received_at_us=entry.received_at_us
        )
        metrics = found.metrics
        return SmallRequest(entry, len(metrics), metrics, (), (), (), _NO_REASONS, 0, len(raw))
    text = maybe_one_log(raw, entry.value_bytes_max, entry.depth_max)
    if text is not None:
        return SmallRequest(entry, 1, (), (text,), _FIRST_LINE, (), _NO_REASONS, 0, len(raw))
    limits = BodyLimits(entry.line_bytes_max, entry.value_bytes_max, entry.depth_max)
    return _of_logs(entry, _read_logs(entry, form, raw, limits), len(raw))


def without_lines(request: SmallRequest, line_numbers: Sequence[int]) -> SmallRequest:
    """`request` without some of its accepted lines: repeats of what is there already."""
    if not line_numbers:
        return request
    dropped = set(line_numbers)
    kept = [place for place, n in enumerate(request.line_numbers) if n not in dropped]
    return SmallRequest(
        request.entry,
        len(kept),
        [request.rows[place] for place in kept] if request.rows else (),
        [request.lines[place] for place in kept],
        [request.line_numbers[place] for place in kept],
        request.rejects,
        request.reasons,
        request.rejected_count,
        request.bytes_raw,
    )


def _read_logs(
    entry: JournalEntry, form: LogForm | HonestLogForm, raw: bytes, limits: BodyLimits
) -> LogRows:
    received_at_us, is_plain = entry.received_at_us, entry.is_plain
    if isinstance(form, LogForm):
        return read_log_door(
            raw, limits, received_at_us=received_at_us, is_plain=is_plain, is_form=form.is_form
        )
    return read_honest_logs(
        raw,
        limits,
        received_at_us=received_at_us,
        rejects_max=entry.rejects_max,
        is_plain=is_plain,
        is_form=form.is_form,
    )


def _of_logs(entry: JournalEntry, found: LogRows, byte_count: int) -> SmallRequest:
    return SmallRequest(
        entry,
        len(found.rows),
        found.rows,
        found.texts,
        found.line_numbers,
        found.rejects,
        found.reasons,
        found.rejected_count,
        byte_count,
    )


def _decode_events(entry: JournalEntry, raw: bytes, *, keep_events: bool) -> SmallRequest:
    form = entry.form
    is_mapped = isinstance(form, HonestEventForm) and form.map is not None
    if raw[:1] == b"{" and len(raw) <= entry.line_bytes_max and not is_mapped:
        # The usual small request: one event. Costs under 2 µs. A refusal is left to the
        # general way, which knows how many are kept.
        line = raw.rstrip(b" \t\r\n")
        if _LF not in line:
            rules = EventRules(entry.line_bytes_max, entry.depth_max, entry.lenient_session)
            outcome = decode_line(line, 1, rules)
            if not isinstance(outcome, LineReject):
                rows = (outcome,) if keep_events else ()
                return SmallRequest(
                    entry, 1, rows, (line,), _FIRST_LINE, (), _NO_REASONS, 0, len(raw)
                )
    decoder = make_decoder(
        form,
        entry.rules,
        received_at_us=entry.received_at_us,
        is_plain=entry.is_plain,
        lenient_session=entry.lenient_session,
    )
    events: list[Any] = []
    lines: list[bytes] = []
    numbers: list[int] = []
    batches: list[Any] = []
    for start in range(0, len(raw), _TURN_BYTES):
        batches += decoder.feed(raw[start : start + _TURN_BYTES])
    batches += (batch for batch in decoder.finish() if batch is not None)
    for batch in batches:
        if keep_events:
            events += batch.events
        data = batch.data
        spans = zip(batch.starts.tolist(), batch.lengths.tolist(), strict=True)
        lines += [data[start : start + length] for start, length in spans]
        numbers += batch.line_numbers.tolist()
    return SmallRequest(
        entry,
        len(lines),
        events,
        lines,
        numbers,
        decoder.rejects,
        decoder.reasons,
        decoder.rejected_count,
        len(raw),
    )
