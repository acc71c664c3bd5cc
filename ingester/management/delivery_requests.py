"""Request bodies and queries of destinations, routes and deliveries."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from ingester.delivery.bodies import DestinationType, KeyMode
from ingester.delivery.routing import RouteRule
from ingester.management.requests import Count, Limit, Name, Time
from ingester.store.control import DeliveryState

__all__ = [
    "CreateDestination",
    "CreateRoute",
    "DeliveriesQuery",
    "PatchDestination",
    "PatchRoute",
    "ResendFailed",
    "RotateSecret",
    "TestRoute",
]

Url = Annotated[str, Meta(max_length=4096)]
Value = Annotated[str, Meta(max_length=4096)]
Headers = dict[str, str]
Metadata = dict[str, Any]
DestinationId = Annotated[str, Meta(pattern=r"^dst_[1-9][0-9]{0,17}\Z")]
DeliveryId = Annotated[str, Meta(pattern=r"^dlv_[1-9][0-9]{0,17}\Z")]
Rules = Annotated[tuple[RouteRule, ...], Meta(max_length=200)]
Texts = Annotated[tuple[Name, ...], Meta(max_length=200)]


class CreateDestination(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new destination. `webhook` and `generic` have `url`, `headers`, `secret` and `gzip`;
    `incident_io` has the others and needs the first two of them.
    """

    name: Name
    type: DestinationType = "webhook"
    url: Url | None = None
    headers: Headers | None = None
    secret: Value | None = None
    gzip: bool | None = None
    api_token: Value | None = None
    alert_source_config_id: Value | None = None
    metadata: Metadata | None = None
    base_url: Url | None = None
    key_mode: KeyMode | None = None


class PatchDestination(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a destination; what is left out stays, and so does what says `REDACTED`. The
    type cannot be changed.
    """

    name: Name | UnsetType = UNSET
    type: DestinationType | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    url: Url | UnsetType | None = UNSET
    headers: Headers | UnsetType | None = UNSET
    secret: Value | UnsetType | None = UNSET
    gzip: bool | UnsetType | None = UNSET
    api_token: Value | UnsetType | None = UNSET
    alert_source_config_id: Value | UnsetType | None = UNSET
    metadata: Metadata | UnsetType | None = UNSET
    base_url: Url | UnsetType | None = UNSET
    key_mode: KeyMode | UnsetType | None = UNSET


class RotateSecret(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new signing secret, made here when none is given; the old one signs beside it until the
    overlap is over (0: now).
    """

    overlap_seconds: Count = 86_400
    secret: Value | None = None


class CreateRoute(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new route. Nothing in `allow`: everything that `ignore` does not keep out."""

    destination: DestinationId
    allow: Rules = ()
    ignore: Rules = ()


class PatchRoute(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rules of a route; a list that is left out stays."""

    allow: Rules | None = None
    ignore: Rules | None = None


class TestRoute(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An incident that might be: who would get it?"""

    services: Texts = ()
    monitors: Texts = ()
    tables: Texts = ()
    labels: Texts = ()


class DeliveriesQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A page of deliveries, newest first; `cursor` is the id of the last one of the page before."""

    state: DeliveryState | None = None
    destination: DestinationId | None = None
    incident: Name | None = None
    since: Time | None = None
    limit: Limit = 100
    cursor: DeliveryId | None = None


class ResendFailed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that were given up since then, of one destination or of all."""

    failed_since: Time
    destination: DestinationId | None = None
