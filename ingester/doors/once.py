"""Receiving a request once: under an `Idempotency-Key`, a repeat stores nothing (contract 3).

Doors differ in what they answer; whether a request is the first under its key, waits for the first,
or is a repeat of it, is the same for all.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from msgspec import Struct

from ..errors import RequestError
from ..protocol.http1 import RequestHead
from .admission import Admission
from .idempotency import Remembered, is_well_formed
from .receive import AdmittedRequest, read_fingerprint, receive_body, wait_queryable

__all__ = ["KeyReused", "Stored", "idempotency_key", "queryable_headers", "receive_once"]

Headers = tuple[tuple[bytes, bytes], ...]

# RFC 7240, 2: blanks around `=`, a quoted value, and parameters, which mean nothing here.
_PREFERENCE = re.compile(rb'\s*wait\s*=\s*("?)query\1\s*(;.*)?', re.IGNORECASE)


class KeyReused(RequestError):
    """The same key came with another body before."""

    status_hint = 422


class Stored(Struct, frozen=True):
    """What was stored, now or before. `sequence` is its place in the journal, 0 when it is
    queryable already; `request_number` 0 means the request's own.
    """

    accepted: int
    rejected: int
    deduplicated: int
    sequence: int
    request_number: int = 0

    @property
    def is_repeat(self) -> bool:
        return self.request_number > 0

    def headers(self) -> Headers:
        return (
            (b"Ingester-Accepted", b"%d" % self.accepted),
            (b"Ingester-Rejected", b"%d" % self.rejected),
        )


def idempotency_key(head: RequestHead) -> str | None:
    """Raises RequestError for one that is not 1–128 visible ASCII characters."""
    key = head.get(b"idempotency-key")
    if key is None:
        return None
    if not is_well_formed(key):
        raise RequestError("an Idempotency-Key has 1 to 128 visible ASCII characters")
    return key.decode()


async def receive_once(asked: AdmittedRequest, admission: Admission) -> Stored:
    """Take the body to a safe place, unless it is there. Raises KeyReused, and what `receive_body`
    raises.
    """
    key, origin, address = asked.idempotency_key, asked.origin, asked.request.client_address
    if key is None:
        admission.refuse_if_closed(asked.credential)
        record, sequence = await receive_body(asked, admission)
    else:
        first = await admission.idempotency.join(
            origin.door, origin.credential, key, asked.received_at_us
        )
        if isinstance(first, Remembered):
            if await read_fingerprint(asked, admission) != first.fingerprint:
                raise KeyReused("the Idempotency-Key was used before with another body")
            admission.usage.count(origin.credential, address=address)
            return Stored(
                first.accepted,
                first.rejected,
                first.deduplicated,
                first.sequence,
                first.request_number,
            )
        with first:
            admission.refuse_if_closed(asked.credential)
            record, sequence = await receive_body(asked, admission)
            first.settle(record, sequence)
    admission.usage.count(
        origin.credential, accepted=record.accepted, rejected=record.rejected, address=address
    )
    return Stored(record.accepted, record.rejected, record.deduplicated, sequence)


async def queryable_headers(head: RequestHead, admission: Admission, stored: Stored) -> Headers:
    """Waits, if asked to, until the rows can be queried, and says whether they can."""
    if not _wants_queryable(head):
        return ()
    is_queryable = not stored.sequence or await wait_queryable(stored.sequence, admission)
    return ((b"Ingester-Queryable", b"true" if is_queryable else b"false"),)


def _wants_queryable(head: RequestHead) -> bool:
    """`?wait=query` or `Prefer: wait=query`, which may stand in a list (RFC 7240)."""
    return (bool(head.query) and ("wait", "query") in parse_qsl(head.query)) or any(
        _PREFERENCE.fullmatch(preference)
        for name, value in head.headers
        if name == b"prefer"
        for preference in value.split(b",")
    )
