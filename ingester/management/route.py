"""One route: what validates, what is answered, who may ask. The tables are made of these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from msgspec import Struct, structs

from ingester.management.calls import Call, NeededRole, Nothing

__all__ = ["Method", "Route", "change", "get", "key_change"]

Method = Literal["GET", "POST", "PATCH", "DELETE"]


class Route(Struct, frozen=True, kw_only=True):
    """One route. `{name}` in the pattern is one path segment. `changes_keys`: the doors must read
    their key tables again after it. `conflict`: what a 409 means, "" for none.
    """

    method: Method
    pattern: str
    summary: str
    function: Callable[[Call[Any, Any]], Struct]
    answer: type[Struct]
    request: type[Struct] = Nothing
    query: type[Struct] = Nothing
    role: NeededRole = "admin"
    status: int = 200
    changes_keys: bool = False
    conflict: str = ""


_API = "/api/v1"


def get(
    path: str,
    function: Callable[[Call[Any, Any]], Struct],
    answer: type[Struct],
    summary: str,
    *,
    query: type[Struct] = Nothing,
    role: NeededRole = "admin",
) -> Route:
    return Route(
        method="GET",
        pattern=_API + path,
        summary=summary,
        function=function,
        answer=answer,
        query=query,
        role=role,
    )


def key_change(
    method: Method,
    path: str,
    function: Callable[[Call[Any, Any]], Struct],
    answer: type[Struct],
    summary: str,
    request: type[Struct] = Nothing,
    *,
    status: int = 200,
    conflict: str = "",
) -> Route:
    """A route after which the doors look again."""
    made = change(
        method, path, function, answer, summary, request, status=status, conflict=conflict
    )
    return structs.replace(made, changes_keys=True)


def change(
    method: Method,
    path: str,
    function: Callable[[Call[Any, Any]], Struct],
    answer: type[Struct],
    summary: str,
    request: type[Struct] = Nothing,
    *,
    role: NeededRole = "admin",
    status: int = 200,
    conflict: str = "",
) -> Route:
    return Route(
        method=method,
        pattern=_API + path,
        summary=summary,
        function=function,
        answer=answer,
        request=request,
        role=role,
        status=status,
        conflict=conflict,
    )
