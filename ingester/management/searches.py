"""Saved searches: their routes, what these take and answer. A viewer may save searches and change
their own; a token that only reads may not.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from ingester.errors import Forbidden, InvalidField, QueryError
from ingester.lql import EVENTS, LOGS, parse
from ingester.management.answers import Deleted, time_text
from ingester.management.calls import Call, Nothing
from ingester.management.requests import Name, given
from ingester.management.route import Route, change, get
from ingester.store.control import SavedSearchInfo
from ingester.store.control.saved_searches import Searched

__all__ = ["SEARCH_ROUTES", "CreateSavedSearch", "PatchSavedSearch"]

_TAKEN = "There is a saved search of that name."

Lql = Annotated[str, Meta(max_length=4_096, description="a query in LQL")]
When = Annotated[str, Meta(max_length=100, description='as a search takes it; "" for none')]
Columns = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=400)], ...],
    Meta(max_length=20, description="fields shown as columns, as a query names them"),
]


class CreateSavedSearch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A query under a name; `since` and `until` stay as relative as they are given."""

    name: Name
    query: Lql = ""
    on: Searched = "logs"
    since: When = ""
    until: When = ""
    columns: Columns = ()


class PatchSavedSearch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left out stays."""

    name: Name | UnsetType = UNSET
    query: Lql | UnsetType = UNSET
    since: When | UnsetType = UNSET
    until: When | UnsetType = UNSET
    columns: Columns | UnsetType = UNSET


class SavedSearchesQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Those over logs, those over events, or all."""

    on: Searched | None = None


class SavedSearch(Struct, frozen=True, kw_only=True):
    """A saved search. `created_by` and administrators may change it."""

    id: str
    name: str
    query: str
    on: Searched
    since: str
    until: str
    columns: list[str]
    created_by: str
    created_at: str
    updated_at: str


class SavedSearchList(Struct, frozen=True, kw_only=True):
    """By name."""

    saved_searches: list[SavedSearch]


def list_saved_searches(call: Call[Nothing, SavedSearchesQuery]) -> SavedSearchList:
    found = call.control.list_searches(call.query.on)
    return SavedSearchList(saved_searches=[_row(info) for info in found])


def get_saved_search(call: Call[Nothing, Nothing]) -> SavedSearch:
    return _row(call.control.saved_search(call.names["id"]))


def create_saved_search(call: Call[CreateSavedSearch, Nothing]) -> SavedSearch:
    body = call.body
    _refuse_token(call)
    _check(body.query, body.on)
    return _row(
        call.control.create_search(
            searched=body.on,
            name=body.name,
            query=body.query,
            since=body.since,
            until=body.until,
            columns=body.columns,
            actor=call.actor.name,
        )
    )


def patch_saved_search(call: Call[PatchSavedSearch, Nothing]) -> SavedSearch:
    found = call.control.saved_search(call.names["id"])
    _refuse_token(call)
    fields: dict[str, Any] = given(call.body)
    if "query" in fields:
        _check(fields["query"], found.searched)
    return _row(
        call.control.change_search(
            call.names["id"],
            **fields,
            actor=call.actor.name,
            is_admin=call.actor.role == "admin",
        )
    )


def delete_saved_search(call: Call[Nothing, Nothing]) -> Deleted:
    call.control.saved_search(call.names["id"])
    _refuse_token(call)
    call.control.delete_search(
        call.names["id"], actor=call.actor.name, is_admin=call.actor.role == "admin"
    )
    return Deleted(id=call.names["id"])


def _refuse_token(call: Call[Any, Any]) -> None:
    """Viewers are people here. Raises Forbidden."""
    if call.actor.role != "admin" and call.actor.session is None:
        raise Forbidden("a read token changes nothing; sign in to save searches")


def _check(query: str, searched: Searched) -> None:
    """A search that cannot be run is not kept. Raises InvalidField."""
    try:
        parse(query, schema=LOGS if searched == "logs" else EVENTS)
    except QueryError as error:
        raise InvalidField("query", f"query: {error}") from None


def _row(info: SavedSearchInfo) -> SavedSearch:
    return SavedSearch(
        id=info.id,
        name=info.name,
        query=info.query,
        on=info.searched,
        since=info.since,
        until=info.until,
        columns=list(info.columns),
        created_by=info.created_by,
        created_at=time_text(info.created_at),
        updated_at=time_text(info.updated_at),
    )


SEARCH_ROUTES: tuple[Route, ...] = (
    get(
        "/saved-searches",
        list_saved_searches,
        SavedSearchList,
        "List saved searches.",
        query=SavedSearchesQuery,
        role="viewer",
    ),
    change(
        "POST",
        "/saved-searches",
        create_saved_search,
        SavedSearch,
        "Save a search.",
        CreateSavedSearch,
        role="viewer",
        status=201,
        conflict=_TAKEN,
    ),
    get("/saved-searches/{id}", get_saved_search, SavedSearch, "One saved search.", role="viewer"),
    change(
        "PATCH",
        "/saved-searches/{id}",
        patch_saved_search,
        SavedSearch,
        "Change a saved search: one's own, or as an administrator.",
        PatchSavedSearch,
        role="viewer",
        conflict=_TAKEN,
    ),
    change(
        "DELETE",
        "/saved-searches/{id}",
        delete_saved_search,
        Deleted,
        "Delete a saved search: one's own, or as an administrator.",
        role="viewer",
    ),
)
