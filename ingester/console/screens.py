"""The table of screens: which page is where, who may see it, what it is made of.

A screen is a row here, a template `templates/<template>.html` and a module
`static/screens/<name>.js` (with `static/screens/<name>.css` where it needs one). The console
registers the pages from this table.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from ingester.management.calls import NeededRole

__all__ = ["ALERTS", "SCREENS", "SECTIONS", "SETTINGS", "Entry", "Screen", "Section"]

Section = Literal[
    "logs",
    "explorer",
    "dashboards",
    "metrics",
    "accounts",
    "alerts",
    "pipeline",
    "settings",
]


class Screen(Struct, frozen=True, kw_only=True):
    """A page behind the session. `{id}` in the path is one segment, `{path}` the rest of it.

    `section` is what the navigation marks. `template` "screen" is a heading and a place for the
    module; one of its own can show more without script.
    """

    path: str
    name: str
    title: str
    section: Section
    role: NeededRole = "viewer"
    template: str = "screen"


class Entry(Struct, frozen=True, kw_only=True):
    """A place in a navigation. `role`: who sees it there."""

    path: str
    title: str
    name: str
    role: NeededRole = "viewer"


SECTIONS: tuple[Entry, ...] = (
    Entry(path="/logs", title="Logs", name="logs"),
    Entry(path="/explorer", title="Explorer", name="explorer"),
    Entry(path="/dashboards", title="Dashboards", name="dashboards"),
    # `/metrics` is for Prometheus.
    Entry(path="/custom-metrics", title="Metrics", name="metrics"),
    Entry(path="/accounts", title="Accounts", name="accounts"),
    Entry(path="/alerts", title="Alerts", name="alerts"),
    Entry(path="/pipeline", title="Pipeline", name="pipeline"),
    Entry(path="/settings", title="Settings", name="settings"),
)

SETTINGS: tuple[Entry, ...] = (
    Entry(path="/settings", title="Integrations", name="integrations"),
    Entry(path="/settings/events", title="Event Ingestion", name="tokens", role="admin"),
    Entry(path="/settings/webhooks", title="Custom Webhooks", name="connections", role="admin"),
    Entry(path="/settings/sources", title="Product events", name="sources", role="admin"),
    Entry(path="/settings/rejected", title="Rejected lines", name="rejected"),
    Entry(path="/settings/refused", title="Refused requests", name="refused", role="admin"),
    Entry(path="/viewer", title="Instrumentation viewer", name="viewer"),
    Entry(path="/settings/members", title="Members", name="members", role="admin"),
    Entry(path="/settings/audit", title="Audit", name="audit", role="admin"),
    Entry(path="/settings/you", title="Your account", name="you"),
    Entry(path="/welcome", title="Send your first event", name="welcome", role="admin"),
)


# The tabs of the section alerts.
ALERTS: tuple[Entry, ...] = (
    Entry(path="/alerts", title="Incidents", name="incidents"),
    Entry(path="/alerts/monitors", title="Monitors", name="monitors"),
    Entry(path="/alerts/alerts", title="Alerts", name="alerts"),
    Entry(path="/alerts/rules", title="Rules", name="rules"),
    Entry(path="/alerts/silences", title="Silences", name="silences"),
    Entry(path="/alerts/deliveries", title="Deliveries", name="deliveries"),
    Entry(path="/alerts/settings", title="Alert settings", name="destinations"),
)


def _tab(section: Literal["settings", "alerts"], entry: Entry) -> Screen:
    """A screen of a section that has a navigation, and a template, of its own."""
    return Screen(
        path=entry.path,
        name=entry.name,
        title=entry.title,
        section=section,
        role=entry.role,
        template=section,
    )


SCREENS: tuple[Screen, ...] = (
    Screen(path="/logs", name="logs", title="Logs", section="logs"),
    Screen(path="/explorer", name="explorer", title="Data Explorer", section="explorer"),
    Screen(path="/dashboards", name="dashboards", title="Dashboards", section="dashboards"),
    Screen(path="/dashboards/{id}", name="dashboard", title="Dashboard", section="dashboards"),
    Screen(path="/custom-metrics", name="metrics", title="Metrics", section="metrics"),
    Screen(path="/custom-metrics/{path}", name="metric", title="Metric", section="metrics"),
    Screen(path="/accounts", name="accounts", title="Accounts and users", section="accounts"),
    *(_tab("alerts", entry) for entry in ALERTS),
    # Sent out in every incident (`delivery/incident.py`).
    Screen(
        path="/incidents/{id}",
        name="incident",
        title="Incident",
        section="alerts",
        template="alerts",
    ),
    Screen(path="/pipeline", name="pipeline", title="Pipeline", section="pipeline"),
    *(_tab("settings", entry) for entry in SETTINGS),
)
