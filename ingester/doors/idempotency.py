"""Idempotency keys: a repeat stores nothing and carries the first answer (contract section 3).

A key is scoped by door and credential, and remembered for `idempotency_hours` or until newer ones
push it out. Only acknowledged requests are remembered. A repeat that arrives while the first is
under way waits for it; if the first fails, the waiter takes over.

The truth is the `requests` table and the journal; this is their summary, rebuilt at start.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import trio
from msgspec import Struct

from ..messages import RequestRecord

__all__ = ["Claim", "IdempotencyKeys", "Remembered", "is_well_formed"]


class Remembered(Struct, frozen=True):
    """The first request under a key. `sequence` is its place in the journal, 0 when it is
    queryable already.
    """

    request_number: int
    accepted: int
    rejected: int
    fingerprint: bytes
    received_at_us: int
    sequence: int = 0
    deduplicated: int = 0


class IdempotencyKeys:
    """What is remembered, and what is in flight."""

    def __init__(self, *, keys_max: int, hours: int) -> None:
        self._keys_max = keys_max
        self._lifetime_us = hours * 3_600_000_000
        self._remembered: OrderedDict[bytes, Remembered] = OrderedDict()
        self._in_flight: dict[bytes, trio.Event] = {}
        self.repeat_count = 0

    async def join(self, door: str, credential: str, key: str, now_us: int) -> Claim | Remembered:
        """The first answer if there is one, else the right to give it."""
        digest = _digest(door, credential, key)
        while (event := self._in_flight.get(digest)) is not None:
            await event.wait()
        remembered = self._remembered.get(digest)
        if remembered is not None:
            if now_us - remembered.received_at_us < self._lifetime_us:
                self.repeat_count += 1
                return remembered
            del self._remembered[digest]
        self._in_flight[digest] = trio.Event()
        return Claim(self, digest)

    def restore(self, records: list[RequestRecord]) -> None:
        """Remember what the store holds, oldest first."""
        for record in records:
            assert record.idempotency_key is not None
            assert record.fingerprint is not None
            digest = _digest(record.door, record.credential, record.idempotency_key)
            self._remember(digest, _remembered(record))

    def statistics(self) -> dict[str, int]:
        return {
            "keys": len(self._remembered),
            "in_flight": len(self._in_flight),
            "repeats_total": self.repeat_count,
        }

    def _remember(self, digest: bytes, remembered: Remembered) -> None:
        self._remembered[digest] = remembered
        self._remembered.move_to_end(digest)
        while len(self._remembered) > self._keys_max:
            self._remembered.popitem(last=False)

    def _release(self, digest: bytes) -> None:
        self._in_flight.pop(digest).set()


class Claim:
    """The right to be the first under a key. Use as a context manager.

    Leaving it without `settle` lets a waiting repeat take over.
    """

    def __init__(self, keys: IdempotencyKeys, digest: bytes) -> None:
        self._keys = keys
        self._digest = digest

    def settle(self, record: RequestRecord, sequence: int = 0) -> None:
        self._keys._remember(self._digest, _remembered(record, sequence))

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_: object) -> None:
        self._keys._release(self._digest)


def is_well_formed(key: bytes) -> bool:
    """1–128 visible ASCII characters."""
    return 1 <= len(key) <= 128 and all(0x21 <= byte <= 0x7E for byte in key)


def _remembered(record: RequestRecord, sequence: int = 0) -> Remembered:
    return Remembered(
        record.request_number,
        record.accepted,
        record.rejected,
        record.fingerprint or b"",
        record.received_at_us,
        sequence,
        record.deduplicated,
    )


def _digest(door: str, credential: str, key: str) -> bytes:
    text = f"{door}\0{credential}\0{key}".encode()
    return hashlib.blake2b(text, digest_size=16).digest()
