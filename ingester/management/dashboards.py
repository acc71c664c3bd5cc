"""Routes of dashboards: those that are built in, and those that were made."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from ingester.errors import Conflict
from ingester.management import widgets
from ingester.management.answers import Deleted, time_text
from ingester.management.calls import Call, Nothing
from ingester.management.requests import Name, given
from ingester.management.route import Route, change, get
from ingester.management.widgets import BUILT_IN, BuiltIn, DashboardSettings, named_widgets
from ingester.store.control import DashboardInfo

__all__ = [
    "DASHBOARD_ROUTES",
    "CreateDashboard",
    "Dashboard",
    "DashboardList",
    "DashboardRow",
    "PatchDashboard",
]


class CreateDashboard(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new dashboard. `since` and `until`: the span it opens with."""

    name: Name
    description: widgets.Description = ""
    since: widgets.TimeText = "now-24h"
    until: widgets.TimeText = "now"
    refresh_seconds: widgets.RefreshSeconds = 0
    widgets: widgets.Widgets = ()


class PatchDashboard(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left out stays. `revision`: the one that the change was made from."""

    revision: Annotated[int, Meta(ge=1)]
    name: Name | UnsetType = UNSET
    description: widgets.Description | UnsetType = UNSET
    since: widgets.TimeText | UnsetType = UNSET
    until: widgets.TimeText | UnsetType = UNSET
    refresh_seconds: widgets.RefreshSeconds | UnsetType = UNSET
    widgets: widgets.Widgets | UnsetType = UNSET


class DashboardRow(Struct, frozen=True, kw_only=True):
    """A dashboard in a list. Of a built-in one nobody is known who has changed it, or when."""

    id: str
    name: str
    description: str
    widget_count: int
    built_in: bool
    revision: int
    created_at: str | None
    updated_at: str | None
    updated_by: str | None


class DashboardList(Struct, frozen=True, kw_only=True):
    """Those that are built in, then the others by name."""

    dashboards: list[DashboardRow]


class Dashboard(DashboardRow, frozen=True, kw_only=True):
    """A dashboard with all that it shows."""

    since: str
    until: str
    refresh_seconds: int
    widgets: list[widgets.Widget]


def list_dashboards(call: Call[Nothing, Nothing]) -> DashboardList:
    made = call.control.list_dashboards()
    rows = [DashboardRow(**_told(one, one.settings)) for one in BUILT_IN]
    rows += [DashboardRow(**_told(info, _settings(info))) for info in made]
    return DashboardList(dashboards=rows)


def get_dashboard(call: Call[Nothing, Nothing]) -> Dashboard:
    one = _maybe_built_in(call.names["id"])
    if one is not None:
        return _whole(one, one.settings)
    info = call.control.dashboard(call.names["id"])
    return _whole(info, _settings(info))


def create_dashboard(call: Call[CreateDashboard, Nothing]) -> Dashboard:
    fields: dict[str, Any] = msgspec.structs.asdict(call.body)
    name = _free_name(fields.pop("name"))
    settings = DashboardSettings(**{**fields, "widgets": named_widgets(call.body.widgets)})
    info = call.control.create_dashboard(name, msgspec.json.encode(settings), actor=call.actor.name)
    return _whole(info, settings)


def patch_dashboard(call: Call[PatchDashboard, Nothing]) -> Dashboard:
    _refuse_built_in(call.names["id"])
    info = call.control.dashboard(call.names["id"])
    fields: dict[str, Any] = given(call.body)
    revision = fields.pop("revision")
    name = _free_name(fields.pop("name", info.name))
    if "widgets" in fields:
        fields["widgets"] = named_widgets(fields["widgets"])
    settings = msgspec.structs.replace(_settings(info), **fields)
    changed = call.control.change_dashboard(
        info.id, name, msgspec.json.encode(settings), revision=revision, actor=call.actor.name
    )
    return _whole(changed, settings)


def delete_dashboard(call: Call[Nothing, Nothing]) -> Deleted:
    _refuse_built_in(call.names["id"])
    call.control.delete_dashboard(call.names["id"], actor=call.actor.name)
    return Deleted(id=call.names["id"])


def _settings(info: DashboardInfo) -> DashboardSettings:
    return msgspec.json.decode(info.settings, type=DashboardSettings)


def _maybe_built_in(dashboard_id: str) -> BuiltIn | None:
    return next((one for one in BUILT_IN if one.id == dashboard_id), None)


def _refuse_built_in(dashboard_id: str) -> None:
    one = _maybe_built_in(dashboard_id)
    if one is not None:
        raise Conflict(f"dashboard '{one.name}' is built in: make a copy and change that")


def _free_name(name: str) -> str:
    if any(name == one.name for one in BUILT_IN):
        raise Conflict(f"there is a dashboard named {name!r} already, a built-in one")
    return name


def _told(one: DashboardInfo | BuiltIn, settings: DashboardSettings) -> dict[str, Any]:
    made = one if isinstance(one, DashboardInfo) else None
    return {
        "id": one.id,
        "name": one.name,
        "description": settings.description,
        "widget_count": len(settings.widgets),
        "built_in": made is None,
        "revision": 1 if made is None else made.revision,
        "created_at": None if made is None else time_text(made.created_at),
        "updated_at": None if made is None else time_text(made.updated_at),
        "updated_by": None if made is None else made.updated_by,
    }


def _whole(one: DashboardInfo | BuiltIn, settings: DashboardSettings) -> Dashboard:
    return Dashboard(
        **_told(one, settings),
        since=settings.since,
        until=settings.until,
        refresh_seconds=settings.refresh_seconds,
        widgets=list(settings.widgets),
    )


_TAKEN = "A dashboard of that name exists."

DASHBOARD_ROUTES: tuple[Route, ...] = (
    get("/dashboards", list_dashboards, DashboardList, "List dashboards.", role="viewer"),
    change(
        "POST",
        "/dashboards",
        create_dashboard,
        Dashboard,
        "Make a dashboard.",
        CreateDashboard,
        status=201,
        conflict=_TAKEN,
    ),
    get("/dashboards/{id}", get_dashboard, Dashboard, "One dashboard.", role="viewer"),
    change(
        "PATCH",
        "/dashboards/{id}",
        patch_dashboard,
        Dashboard,
        "Change a dashboard.",
        PatchDashboard,
        conflict=f"{_TAKEN} Or somebody has changed it since that revision, or it is built in.",
    ),
    change(
        "DELETE",
        "/dashboards/{id}",
        delete_dashboard,
        Deleted,
        "Delete a dashboard.",
        conflict="It is built in.",
    ),
)
