"""Routes of destinations, routing and deliveries."""

from __future__ import annotations

import time
from typing import Any, TypeVar

import msgspec

from ingester.delivery import signing
from ingester.delivery.exchange import Target
from ingester.delivery.notice import sample_body, sample_event_id
from ingester.delivery.routing import Facts
from ingester.delivery.settings import DestinationSettings, redacted, target_url
from ingester.errors import InvalidField, NotFound, StoreBusy
from ingester.management import delivery_answers as answers
from ingester.management.answers import Deleted, maybe_time_text, time_text
from ingester.management.calls import Call, Nothing
from ingester.management.delivery_requests import (
    CreateDestination,
    CreateRoute,
    DeliveriesQuery,
    PatchDestination,
    PatchRoute,
    ResendFailed,
    RotateSecret,
    TestRoute,
)
from ingester.management.requests import given
from ingester.store.control import DeliveryInfo, DestinationInfo, RouteInfo

T = TypeVar("T")


def create_destination(call: Call[CreateDestination, Nothing]) -> answers.Destination:
    fields = msgspec.structs.asdict(call.body)
    name, type_ = fields.pop("name"), fields.pop("type")
    settings = DestinationSettings(**fields)
    info = call.control.create_destination(name, type_, settings, actor=call.actor.name)
    return _destination(_rung(call, info))


def list_destinations(call: Call[Nothing, Nothing]) -> answers.DestinationList:
    return answers.DestinationList(
        destinations=[_destination(info) for info in call.control.list_destinations()]
    )


def get_destination(call: Call[Nothing, Nothing]) -> answers.Destination:
    return _destination(call.control.destination(call.names["id"]))


def patch_destination(call: Call[PatchDestination, Nothing]) -> answers.Destination:
    info = call.control.patch_destination(call.names["id"], given(call.body), actor=call.actor.name)
    return _destination(_rung(call, info))


def delete_destination(call: Call[Nothing, Nothing]) -> Deleted:
    call.control.delete_destination(call.names["id"], actor=call.actor.name)
    return _rung(call, Deleted(id=call.names["id"]))


def rotate_destination(call: Call[RotateSecret, Nothing]) -> answers.DestinationSecret:
    secret = call.body.secret or signing.new_secret()
    info = call.control.rotate_destination_secret(
        call.names["id"],
        secret,
        overlap_seconds=call.body.overlap_seconds,
        actor=call.actor.name,
    )
    old = info.settings.old_secrets
    return _rung(
        call,
        answers.DestinationSecret(
            id=info.id, secret=secret, old_until=time_text(old[0].until_s) if old else None
        ),
    )


def verify_destination(call: Call[Nothing, Nothing]) -> answers.Verified:
    """A sample on the way that all deliveries take. It is in no list."""
    info = call.control.destination(call.names["id"])
    if call.delivery is None:
        raise StoreBusy("samples are sent by a running server; start it and try again")
    settings = call.control.destination_settings(info.id)
    now_ms = int(time.time() * 1000)
    # Seconds since the epoch: a number that no other sample had.
    number = now_ms // 1000
    body = sample_body(
        info.type,
        number=number,
        name=info.name,
        at_ms=now_ms,
        console_base=call.links.console(),
        metadata=settings.metadata or {},
        instance_id=call.control.instance_id(),
    )
    target = Target(type=info.type, settings=settings)
    exchange = call.delivery.send(target, sample_event_id(number, now_ms), body)
    return answers.Verified(
        ok=exchange.status is not None and 200 <= exchange.status < 300,
        id=f"sample-{number}",
        request=answers.VerifyRequest(
            method="POST",
            url=target_url(info.type, redacted(settings)),
            headers=dict(exchange.sent_headers),
            body=body.decode(),
        ),
        status=exchange.status,
        latency_ms=round(exchange.latency_ms, 1),
        body=exchange.answer.decode("utf-8", "replace"),
        error=exchange.error,
    )


def create_route(call: Call[CreateRoute, Nothing]) -> answers.RouteRow:
    body = call.body
    return _route(
        call.control.create_route(
            body.destination, allow=body.allow, ignore=body.ignore, actor=call.actor.name
        )
    )


def list_routes(call: Call[Nothing, Nothing]) -> answers.RouteList:
    return answers.RouteList(routes=[_route(info) for info in call.control.list_routes()])


def get_route(call: Call[Nothing, Nothing]) -> answers.RouteRow:
    return _route(call.control.route(call.names["id"]))


def patch_route(call: Call[PatchRoute, Nothing]) -> answers.RouteRow:
    return _route(
        call.control.patch_route(
            call.names["id"],
            allow=call.body.allow,
            ignore=call.body.ignore,
            actor=call.actor.name,
        )
    )


def delete_route(call: Call[Nothing, Nothing]) -> Deleted:
    call.control.delete_route(call.names["id"], actor=call.actor.name)
    return Deleted(id=call.names["id"])


def test_route(call: Call[TestRoute, Nothing]) -> answers.RouteTest:
    facts: Facts = {
        "service": frozenset(call.body.services),
        "monitor": frozenset(call.body.monitors),
        "table": frozenset(call.body.tables),
        "label": frozenset(call.body.labels),
    }
    return answers.RouteTest(
        destinations=[
            answers.Reached(
                id=info.id, name=info.name, type=info.type, enabled=info.disabled_at is None
            )
            for info in call.control.would_reach(facts)
        ]
    )


def list_deliveries(call: Call[Nothing, DeliveriesQuery]) -> answers.DeliveryPage:
    query = call.query
    found = call.control.list_deliveries(
        limit=query.limit,
        before=query.cursor,
        state=query.state,
        destination=query.destination,
        incident=query.incident,
        since_s=None if query.since is None else query.since.timestamp(),
    )
    return answers.DeliveryPage(
        deliveries=[_delivery(info) for info in found],
        cursor=found[-1].id if len(found) == query.limit else None,
    )


def get_delivery(call: Call[Nothing, Nothing]) -> answers.DeliveryDetail:
    info, attempts, body = call.control.delivery(call.names["id"])
    return answers.DeliveryDetail(
        delivery=_delivery(info),
        body=body.decode("utf-8", "replace"),
        attempt_log=[
            answers.Attempt(
                time=time_text(one.time),
                status=one.status,
                latency_ms=round(one.latency_ms, 1),
                error=one.error,
                answer=one.answer,
            )
            for one in attempts
        ],
    )


def resend_delivery(call: Call[Nothing, Nothing]) -> answers.Delivery:
    info = call.control.resend_delivery(call.names["id"], actor=call.actor.name)
    return _delivery(_rung(call, info))


def resend_failed(call: Call[ResendFailed, Nothing]) -> answers.ResendAnswer:
    body = call.body
    if body.destination is not None:
        try:
            call.control.destination(body.destination)
        except NotFound as error:
            raise InvalidField("destination", str(error)) from None
    since_s = body.failed_since.timestamp()
    if since_s > time.time():
        raise InvalidField("failed_since", "failed_since must be in the past")
    found = call.control.resend_failed(since_s, destination=body.destination, actor=call.actor.name)
    return _rung(call, answers.ResendAnswer(resent=found.resent, disabled=found.disabled))


def _rung(call: Call[Any, Any], value: T) -> T:
    """`value`, after the delivery actor was told to look."""
    if call.delivery is not None:
        call.delivery.ring()
    return value


def _destination(info: DestinationInfo) -> answers.Destination:
    settings = info.settings
    return answers.Destination(
        id=info.id,
        name=info.name,
        type=info.type,
        file=info.file,
        enabled=info.disabled_at is None,
        disabled_at=maybe_time_text(info.disabled_at),
        disabled_reason=info.disabled_reason,
        failing_since=maybe_time_text(info.failing_since),
        last_success_at=maybe_time_text(info.last_success_at),
        pending=info.pending_count,
        created_at=time_text(info.created_at),
        url=settings.url,
        headers=settings.headers,
        secret=settings.secret,
        gzip=settings.gzip,
        api_token=settings.api_token,
        alert_source_config_id=settings.alert_source_config_id,
        metadata=settings.metadata,
        base_url=settings.base_url,
        key_mode=settings.key_mode,
    )


def _route(info: RouteInfo) -> answers.RouteRow:
    return answers.RouteRow(
        id=info.id,
        destination=info.destination,
        allow=list(info.allow),
        ignore=list(info.ignore),
        created_at=time_text(info.created_at),
    )


def _delivery(info: DeliveryInfo) -> answers.Delivery:
    return answers.Delivery(
        id=info.id,
        incident_id=info.incident_id,
        event_id=info.event_id,
        kind=info.kind,
        destination=info.destination,
        destination_name=info.destination_name,
        state=info.state,
        attempts=info.attempt_count,
        created_at=time_text(info.created_at),
        next_at=maybe_time_text(info.next_at),
        finished_at=maybe_time_text(info.finished_at),
        status=info.status,
        error=info.error,
    )
