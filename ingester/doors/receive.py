"""Receiving a body: from an admitted request to a committed or journalled one.

The lane is chosen by received *and* decoded size: up to `small_body_bytes_max` of both goes the
small way (decoded whole, journalled as received, acknowledged after the sync), anything larger is
streamed. A megabyte of gzip may be a gigabyte of lines: an inflate that passes the bound is
dropped, and the body starts again in the bulk lane with what was read so far. Those bytes stay
within the budget while the upload waits for a worker, or many waiting uploads would hold as many
megabytes that nobody counts.
"""

from __future__ import annotations

import hashlib
import time

import msgspec
import trio
from msgspec import Struct

from ..config import IntakeConfig
from ..errors import Overloaded
from ..flow import ByteBudget, Reservation
from ..messages import LineReject, RequestRecord
from ..protocol.forms import MetricForm, Origin, Rules, make_decoder, row_target
from ..protocol.inflate import Encoding, InflateLimits, make_inflater
from ..protocol.metric_bodies import MetricDecoder
from ..protocol.requests import (
    ENTRY_VERSION,
    JournalEntry,
    SmallRequest,
    decode_body,
    entry_to_bytes,
    without_lines,
)
from .admission import Admission
from .bulk_lane import (
    FIRST_REJECTS_MAX,
    BulkUpload,
    RefusedBy,
    open_pieces,
    refuse_if_rejected,
)
from .dedup import DedupWindow, claim_small
from .exchange import Request

__all__ = [
    "INLINE_BYTES_MAX",
    "AdmittedRequest",
    "new_entry",
    "now_us",
    "read_fingerprint",
    "receive_body",
    "rules_of",
    "wait_queryable",
]

# Below this a body is decoded where it is; above it, in a thread by turns (decoding 64 KiB of
# events is estimated at 0.2 ms).
INLINE_BYTES_MAX = 64 * 1024
# Inflated bytes decoded at once: 0.97 CPU-s per million events, with 256 KiB 1.04.
_BULK_PIECE_BYTES = 512 * 1024
# The same for inflating: a megabyte of empty gzip members takes 0.15 s, of zstd frames 0.5 s.
_INLINE_INFLATE_BYTES_MAX = 16 * 1024

FINGERPRINT_BYTES = 16

# For memory to read a small body into.
BUDGET_SECONDS_MAX = 5


class AdmittedRequest(Struct, frozen=True):
    """An authenticated request, before its body was looked at.

    `first_rejects` is filled as it is: a door may tell them. `dedup` is what its rows are held
    against, if its source wants that: `admission.dedup.window_of(source, table)`.
    """

    request: Request
    origin: Origin
    encoding: Encoding
    encoding_name: str
    is_plain: bool
    idempotency_key: str | None
    received_at_us: int
    refused_by: RefusedBy = "nothing"
    dedup: DedupWindow | None = None
    first_rejects: list[LineReject] = []

    @property
    def credential(self) -> str:
        return self.origin.credential


async def receive_body(asked: AdmittedRequest, admission: Admission) -> tuple[RequestRecord, int]:
    """Take the body to a safe place. Returns the record and its journal sequence (0: bulk, which
    is queryable already). Raises RequestError, Overloaded, ClientGone, StoreFailed.
    """
    small_max = admission.config.small_body_bytes_max
    whole = asked.request.body.whole_nowait()
    announced = asked.request.head.content_length
    if whole is not None and len(whole) <= small_max:
        reserved = _reservation(asked, len(whole), small_max)
        # A share of its own: senders that are slow cannot hold up those who have sent all.
        budget = admission.whole_budget
        if not budget.reserve_nowait(reserved):
            reserved = await _reserve(budget, reserved)
        with budget.reserved(reserved) as reservation:
            return await _receive_small(asked, admission, whole, reservation)
    if whole is not None or (announced is not None and announced > small_max):
        return await _receive_bulk(asked, admission, [whole] if whole else []), 0
    expected = small_max if announced is None else announced
    reserved = await _reserve(admission.budget, _reservation(asked, expected, small_max))
    with admission.budget.reserved(reserved) as reservation:
        pieces: list[bytes] = []
        size = 0
        while piece := await asked.request.body.receive():
            pieces.append(piece)
            size += len(piece)
            if size > small_max:
                reservation.shrink(size)
                return await _receive_bulk(asked, admission, pieces), 0
        return await _receive_small(asked, admission, b"".join(pieces), reservation)


async def wait_queryable(sequence: int, admission: Admission) -> bool:
    """Wait until the loader has stored `sequence`, at most `wait_seconds_max`."""
    with trio.move_on_after(admission.config.wait_seconds_max) as scope:
        await admission.applied.wait_reached(sequence)
    return not scope.cancelled_caught


async def _reserve(budget: ByteBudget, byte_count: int) -> int:
    """Who waits has a place that others may need: not for long."""
    with trio.move_on_after(BUDGET_SECONDS_MAX):
        return await budget.reserve(byte_count)
    raise Overloaded("the memory for bodies is full; send again shortly", retry_after_s=1)


def _reservation(asked: AdmittedRequest, byte_count: int, small_max: int) -> int:
    """Bytes a small body may hold: as received and as decoded."""
    decoded = byte_count if asked.encoding == "identity" else small_max
    return byte_count + decoded


async def _receive_small(
    asked: AdmittedRequest, admission: Admission, body: bytes, reservation: Reservation
) -> tuple[RequestRecord, int]:
    raw: bytes | None = body
    if asked.encoding != "identity":
        if len(body) <= _INLINE_INFLATE_BYTES_MAX:
            raw = _inflate_small(asked, admission, body)
        else:
            raw = await trio.to_thread.run_sync(
                _inflate_small, asked, admission, body, limiter=admission.decode_turn
            )
        if raw is None:
            reservation.shrink(len(body))
            return await _receive_bulk(asked, admission, [body]), 0
    assert raw is not None
    entry = new_entry(
        admission.config,
        asked.origin,
        asked.request.number,
        asked.received_at_us,
        body,
        encoding=asked.encoding,
        encoding_name=asked.encoding_name,
        is_plain=asked.is_plain,
        idempotency_key=asked.idempotency_key,
        fingerprint=_fingerprint(raw) if asked.idempotency_key is not None else None,
        dedup_field=None if asked.dedup is None else asked.dedup.field_name,
    )
    if len(raw) <= INLINE_BYTES_MAX:
        decoded = decode_body(entry, raw)
    else:
        decoded = await trio.to_thread.run_sync(
            decode_body, entry, raw, limiter=admission.decode_turn
        )
    asked.first_rejects.extend(decoded.rejects[:FIRST_REJECTS_MAX])
    refuse_if_rejected(asked.refused_by, decoded.row_count, decoded.rejected_count, decoded.rejects)
    if asked.dedup is None:
        sequence = await admission.small.append(entry_to_bytes(entry), decoded)
    else:
        decoded, sequence = await _append_once(asked.dedup, admission, decoded)
    admission.count(entry.source, decoded.row_count, decoded.reasons)
    if isinstance(entry.form, MetricForm):
        admission.metric_labels.see(entry.source, decoded.rows)
    return decoded.record(), sequence


async def _append_once(
    window: DedupWindow, admission: Admission, decoded: SmallRequest
) -> tuple[SmallRequest, int]:
    """Journal a request without its repeats. From the last look at the ids on to the journal's
    gate there is no wait; then its claim ends with its journal group, whether the client is still
    there or not.
    """
    entry = decoded.entry
    turn = admission.decode_turn if decoded.bytes_raw > INLINE_BYTES_MAX else None
    claim, places = await claim_small(window, decoded.lines, entry.received_at_us, turn=turn)
    try:
        if places:
            numbers = decoded.line_numbers
            entry = msgspec.structs.replace(entry, duplicates=tuple(numbers[n] for n in places))
            decoded = without_lines(decoded, entry.duplicates)
            decoded.entry = entry
        decoded.digests = bytes(claim.fresh)
        payload = entry_to_bytes(entry)
    except BaseException:
        claim.settle(is_durable=False)
        raise

    def settled(failure: str | None) -> None:
        claim.settle(is_durable=failure is None)

    return decoded, await admission.small.append(payload, decoded, settled)


def new_entry(
    config: IntakeConfig,
    origin: Origin,
    request_number: int,
    received_at_us: int,
    body: bytes,
    *,
    encoding: Encoding = "identity",
    encoding_name: str = "identity",
    is_plain: bool = True,
    idempotency_key: str | None = None,
    fingerprint: bytes | None = None,
    dedup_field: str | None = None,
) -> JournalEntry:
    """What the journal freezes of a small request."""
    # By position: with names it takes 0.7 µs instead of 0.1.
    return JournalEntry(
        ENTRY_VERSION,
        origin.door,
        origin.source,
        origin.credential,
        request_number,
        received_at_us,
        encoding,
        encoding_name,
        is_plain,
        origin.lenient_session,
        config.line_bytes_max,
        config.depth_max,
        config.rejects_per_request_max,
        idempotency_key,
        fingerprint,
        body,
        origin.form,
        config.value_bytes_max,
        (),
        dedup_field,
    )


def _inflate_small(asked: AdmittedRequest, admission: Admission, body: bytes) -> bytes | None:
    """The decoded body, or None when it is larger than the small lane takes."""
    config = admission.config
    inflater = make_inflater(asked.encoding, _limits(admission))
    pieces: list[bytes] = []
    for piece in inflater.feed(body):
        pieces.append(piece)
        if inflater.output_bytes > config.small_body_bytes_max:
            return None
    inflater.finish()
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def _receive_bulk(
    asked: AdmittedRequest, admission: Admission, prefix: list[bytes]
) -> RequestRecord:
    config = admission.config
    send, receive = open_pieces()
    upload = BulkUpload(
        request_number=asked.request.number,
        received_at_us=asked.received_at_us,
        origin=asked.origin,
        encoding_name=asked.encoding_name,
        content_length=asked.request.head.content_length,
        inflater=make_inflater(asked.encoding, _limits(admission, _BULK_PIECE_BYTES)),
        decoder=make_decoder(
            asked.origin.form,
            rules_of(config),
            received_at_us=asked.received_at_us,
            is_plain=asked.is_plain,
            lenient_session=asked.origin.lenient_session,
            keep_going=asked.refused_by != "any_rejected",
        ),
        target=row_target(asked.origin),
        digest=hashlib.sha256() if asked.idempotency_key is not None else None,
        pieces=receive,
        idempotency_key=asked.idempotency_key,
        done=trio.Event(),
        refused_by=asked.refused_by,
        is_plain=asked.encoding == "identity",
        first_rejects=asked.first_rejects,
    )
    if asked.dedup is not None:
        # Here and not in the worker, which others can use meanwhile.
        upload.dedup = await asked.dedup.claim_upload(
            asked.received_at_us, seconds_max=config.wait_seconds_max
        )
    record = await admission.bulk.send(upload, send, prefix, asked.request.body)
    admission.count(record.source, record.accepted, upload.decoder.reasons)
    if isinstance(upload.decoder, MetricDecoder):
        admission.metric_labels.see(record.source, upload.decoder.metrics)
    return record


async def read_fingerprint(asked: AdmittedRequest, admission: Admission) -> bytes:
    """Read and decode a body for its fingerprint only: a repeat under an idempotency key."""
    inflater = make_inflater(asked.encoding, _limits(admission))
    digest = hashlib.sha256()

    def take(piece: bytes) -> None:
        for raw in inflater.feed(piece):
            digest.update(raw)

    while piece := await asked.request.body.receive():
        # A piece of 64 KiB may inflate to 64 MiB.
        await trio.to_thread.run_sync(take, piece, limiter=admission.decode_turn)
    inflater.finish()
    return digest.digest()[:FINGERPRINT_BYTES]


def rules_of(config: IntakeConfig) -> Rules:
    return Rules(
        config.line_bytes_max,
        config.depth_max,
        config.rejects_per_request_max,
        config.value_bytes_max,
    )


def _limits(admission: Admission, piece_bytes: int = 256 * 1024) -> InflateLimits:
    config = admission.config
    return InflateLimits(
        output_bytes_max=config.body_bytes_max, ratio_max=config.ratio_max, piece_bytes=piece_bytes
    )


def _fingerprint(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()[:FINGERPRINT_BYTES]


def now_us() -> int:
    return time.time_ns() // 1000
