"""The table of destinations, routes and deliveries. A viewer may read; secrets read `REDACTED`."""

from __future__ import annotations

from ingester.management import deliveries, delivery_answers, delivery_requests
from ingester.management.answers import Deleted
from ingester.management.route import Route, change, get

__all__ = ["DELIVERY_ROUTES"]

_TAKEN = "A destination of that name exists, or `secret.key` cannot be used."
_UNREADABLE = "`secret.key` is missing or another one, so the stored secrets cannot be read."
_DECLARED = "It is declared in a file, where it is changed."

_DESTINATIONS = (
    get(
        "/destinations",
        deliveries.list_destinations,
        delivery_answers.DestinationList,
        "List destinations of incidents.",
        role="viewer",
    ),
    change(
        "POST",
        "/destinations",
        deliveries.create_destination,
        delivery_answers.Destination,
        "Make a destination.",
        delivery_requests.CreateDestination,
        status=201,
        conflict=_TAKEN,
    ),
    get(
        "/destinations/{id}",
        deliveries.get_destination,
        delivery_answers.Destination,
        "One destination.",
        role="viewer",
    ),
    change(
        "PATCH",
        "/destinations/{id}",
        deliveries.patch_destination,
        delivery_answers.Destination,
        "Change a destination, or enable it again.",
        delivery_requests.PatchDestination,
        conflict=f"{_TAKEN} {_UNREADABLE} {_DECLARED}",
    ),
    change(
        "DELETE",
        "/destinations/{id}",
        deliveries.delete_destination,
        Deleted,
        "Delete a destination with its routes and deliveries.",
        conflict=_DECLARED,
    ),
    change(
        "POST",
        "/destinations/{id}/rotate",
        deliveries.rotate_destination,
        delivery_answers.DestinationSecret,
        "A new signing secret; both sign until the overlap is over.",
        delivery_requests.RotateSecret,
        conflict=f"{_UNREADABLE} {_DECLARED}",
    ),
    change(
        "POST",
        "/destinations/{id}/verify",
        deliveries.verify_destination,
        delivery_answers.Verified,
        "Send a sample on the way that all deliveries take; it opens no incident.",
        conflict=_UNREADABLE,
    ),
)

_ROUTES = (
    get(
        "/routes",
        deliveries.list_routes,
        delivery_answers.RouteList,
        "List routes.",
        role="viewer",
    ),
    change(
        "POST",
        "/routes",
        deliveries.create_route,
        delivery_answers.RouteRow,
        "Make a route to a destination.",
        delivery_requests.CreateRoute,
        status=201,
    ),
    change(
        "POST",
        "/routes/test",
        deliveries.test_route,
        delivery_answers.RouteTest,
        "Who would get this? Nothing is sent.",
        delivery_requests.TestRoute,
        role="viewer",
    ),
    get(
        "/routes/{id}",
        deliveries.get_route,
        delivery_answers.RouteRow,
        "One route.",
        role="viewer",
    ),
    change(
        "PATCH",
        "/routes/{id}",
        deliveries.patch_route,
        delivery_answers.RouteRow,
        "Change the rules of a route.",
        delivery_requests.PatchRoute,
    ),
    change("DELETE", "/routes/{id}", deliveries.delete_route, Deleted, "Delete a route."),
)

_DELIVERIES = (
    get(
        "/deliveries",
        deliveries.list_deliveries,
        delivery_answers.DeliveryPage,
        "Deliveries, newest first; `state=dead` are those that were given up.",
        query=delivery_requests.DeliveriesQuery,
        role="viewer",
    ),
    change(
        "POST",
        "/deliveries/resend",
        deliveries.resend_failed,
        delivery_answers.ResendAnswer,
        "Send all again that were given up since a time.",
        delivery_requests.ResendFailed,
    ),
    get(
        "/deliveries/{id}",
        deliveries.get_delivery,
        delivery_answers.DeliveryDetail,
        "One delivery with its body and attempts.",
        role="viewer",
    ),
    change(
        "POST",
        "/deliveries/{id}/resend",
        deliveries.resend_delivery,
        delivery_answers.Delivery,
        "Send one delivery again: the same bytes under the same id.",
        conflict="Its destination is disabled.",
    ),
)

DELIVERY_ROUTES: tuple[Route, ...] = (*_DESTINATIONS, *_ROUTES, *_DELIVERIES)
