"""One attempt as data: to whom, and what came back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from ingester.delivery.bodies import DestinationType
from ingester.delivery.settings import DestinationSettings

__all__ = ["Exchange", "Target"]


class Target(Struct, frozen=True, kw_only=True):
    """A destination as the client needs it."""

    type: DestinationType
    settings: DestinationSettings


class Exchange(Struct, frozen=True, kw_only=True):
    """What came back. `status` None: nothing did, and `error` says why. `sent_headers` are shown
    without credentials.
    """

    status: int | None
    headers: Mapping[str, str]
    answer: bytes
    latency_ms: float
    error: str | None = None
    sent_headers: Sequence[tuple[str, str]] = ()
