"""Routes of searches, series and live tails, as `ingester.search` lists them.

1. A search ends when its client leaves: the handler is cancelled, which interrupts the statement.
2. A live tail ends soon after its token or session has: who asks is looked at again and again.
3. A parameter that is given twice is refused: which of them counts would be a guess.
"""

from __future__ import annotations

from typing import cast

from quart import Request, Response, request
from quart_trio import QuartTrio

from ingester.console.auth import actor_of
from ingester.console.services import Services
from ingester.errors import InvalidField, RequestError
from ingester.management.dispatch import decode_query
from ingester.search import ROUTES, SearchRoute
from ingester.search.requests import TailQuery

__all__ = ["add_search_routes", "parameters"]


def add_search_routes(app: QuartTrio, services: Services) -> None:
    def _tail(route: SearchRoute, query: TailQuery) -> Response:
        # The object behind Quart's proxy, which is of no use once the handler has returned.
        asked = cast(Request, request._get_current_object())  # type: ignore[attr-defined]

        async def is_allowed() -> bool:
            try:
                return (await actor_of(asked, services)).role is not None
            except RequestError:
                return False

        last = asked.headers.get("Last-Event-ID")
        stream = services.searches.tail(route, query, last, is_allowed=is_allowed)
        # Not held back by a proxy that collects answers.
        return Response(
            stream, content_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )

    def add(route: SearchRoute) -> None:
        async def search(**names: str) -> Response:
            query = decode_query(parameters(), route.query)
            if isinstance(query, TailQuery):
                return _tail(route, query)
            body = await services.searches.answer(route, query, names)
            return Response(body, content_type="application/json")

        app.add_url_rule(
            # The id of a metric is any text, a slash may be in it.
            route.pattern
            .replace("{metricId}", "<path:metricId>")
            .replace("{", "<")
            .replace("}", ">"),
            endpoint=f"{route.method} {route.pattern}",
            view_func=search,
            methods=[route.method],
        )

    for route in ROUTES:
        add(route)


def parameters() -> dict[str, str]:
    """Of the request's query string, each given once. Raises InvalidField."""
    for name, values in request.args.lists():
        if len(values) > 1:
            raise InvalidField(name, f"{name} is given {len(values)} times")
    return request.args.to_dict()
