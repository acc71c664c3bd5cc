"""Answers about destinations, routes and deliveries. No secret stands in any but
`DestinationSecret`.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from ingester.delivery.bodies import DestinationType, KeyMode
from ingester.delivery.routing import RouteRule
from ingester.store.control import DeliveryState

__all__ = [
    "Attempt",
    "Delivery",
    "DeliveryDetail",
    "DeliveryPage",
    "Destination",
    "DestinationList",
    "DestinationSecret",
    "Reached",
    "ResendAnswer",
    "RouteList",
    "RouteRow",
    "RouteTest",
    "Verified",
    "VerifyRequest",
]


class Destination(Struct, frozen=True, kw_only=True):
    """A destination. Fields that its type has not are null; secrets read `REDACTED`. `file`: where
    it is declared; such a one can be enabled and disabled here, and nothing else.
    """

    id: str
    name: str
    type: DestinationType
    file: str | None
    enabled: bool
    disabled_at: str | None
    disabled_reason: str | None
    failing_since: str | None
    last_success_at: str | None
    pending: int
    created_at: str
    url: str | None
    headers: dict[str, str] | None
    secret: str | None
    gzip: bool | None
    api_token: str | None
    alert_source_config_id: str | None
    metadata: dict[str, Any] | None
    base_url: str | None
    key_mode: KeyMode | None


class DestinationList(Struct, frozen=True, kw_only=True):
    destinations: list[Destination]


class DestinationSecret(Struct, frozen=True, kw_only=True):
    """The signing secret, shown here only; `old_until` is when the one before ends."""

    id: str
    secret: str
    old_until: str | None


class VerifyRequest(Struct, frozen=True, kw_only=True):
    """What was sent; credentials read `REDACTED`."""

    method: str
    url: str
    headers: dict[str, str]
    body: str


class Verified(Struct, frozen=True, kw_only=True):
    """What came back from a sample. `ok`: the status was 2xx."""

    ok: bool
    id: str
    request: VerifyRequest
    status: int | None
    latency_ms: float
    body: str
    error: str | None


class RouteRow(Struct, frozen=True, kw_only=True):
    id: str
    destination: str
    allow: list[RouteRule]
    ignore: list[RouteRule]
    created_at: str


class RouteList(Struct, frozen=True, kw_only=True):
    routes: list[RouteRow]


class Reached(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    type: DestinationType
    enabled: bool


class RouteTest(Struct, frozen=True, kw_only=True):
    """Destinations that a route would add to those that a rule, alert or monitor names."""

    destinations: list[Reached]


class Delivery(Struct, frozen=True, kw_only=True):
    """One message for one destination. `attempts` since it was last (re)sent; `event_id` is the
    same for every retry and every destination.
    """

    id: str
    incident_id: str
    event_id: str
    kind: str
    destination: str
    destination_name: str
    state: DeliveryState
    attempts: int
    created_at: str
    next_at: str | None
    finished_at: str | None
    status: int | None
    error: str | None


class DeliveryPage(Struct, frozen=True, kw_only=True):
    deliveries: list[Delivery]
    cursor: str | None


class Attempt(Struct, frozen=True, kw_only=True):
    """One attempt; `answer` is the beginning of what came back."""

    time: str
    status: int | None
    latency_ms: float
    error: str | None
    answer: str


class DeliveryDetail(Struct, frozen=True, kw_only=True):
    """A delivery with its body and the log of all its attempts."""

    delivery: Delivery
    body: str
    attempt_log: list[Attempt]


class ResendAnswer(Struct, frozen=True, kw_only=True):
    """How many are sent again; of `disabled` ones the destination is disabled."""

    resent: int
    disabled: int
