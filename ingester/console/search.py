"""Routes of searches, series and live tails, as `ingester.search` lists them.

A search ends when its client leaves: the handler is cancelled, which interrupts the statement.
"""

from __future__ import annotations

from quart import Response, request
from quart_trio import QuartTrio

from ingester.console.services import Services
from ingester.management.dispatch import decode_query
from ingester.search import ROUTES, SearchRoute
from ingester.search.requests import TailQuery

__all__ = ["add_search_routes"]


def add_search_routes(app: QuartTrio, services: Services) -> None:
    def _tail(route: SearchRoute, query: TailQuery) -> Response:
        stream = services.searches.tail(route, query, request.headers.get("Last-Event-ID"))
        # Not held back by a proxy that collects answers.
        return Response(
            stream, content_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )

    def add(route: SearchRoute) -> None:
        async def search(**names: str) -> Response:
            query = decode_query(request.args.to_dict(), route.query)
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
