"""The table of rules, alerts, monitors, incidents, labels and silences. A viewer may read, test and
back-test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from ingester.management import incidents, watches
from ingester.management import watch_answers as answers
from ingester.management import watch_requests as requests
from ingester.management.answers import Deleted
from ingester.management.calls import Call
from ingester.management.route import Route, change, get
from ingester.watch.settings import Alert, Monitor, Rule

__all__ = ["WATCH_ROUTES"]

_DECLARED = "It is declared in a file, or another one has this name."


def _five(
    path: str,
    what: str,
    functions: tuple[Callable[[Call[Any, Any]], Struct], ...],
    kinds: tuple[type[Struct], ...],
    conflict: str,
) -> tuple[Route, ...]:
    """List, create, get, patch, delete: their functions, and list, row, body, patch."""
    listed, create, one, patch, delete = functions
    list_kind, row, body, patch_body = kinds
    article = "an" if what[0] in "aeiou" else "a"
    return (
        get(path, listed, list_kind, f"List {what}s.", role="viewer"),
        change(
            "POST",
            path,
            create,
            row,
            f"Make {article} {what}.",
            body,
            status=201,
            conflict=conflict,
        ),
        get(f"{path}/{{id}}", one, row, f"One {what}.", role="viewer"),
        change(
            "PATCH",
            f"{path}/{{id}}",
            patch,
            row,
            f"Change {article} {what}.",
            patch_body,
            conflict=conflict,
        ),
        change(
            "DELETE",
            f"{path}/{{id}}",
            delete,
            Deleted,
            f"Delete {article} {what}.",
            conflict=conflict,
        ),
    )


_RULES = _five(
    "/rules",
    "rule",
    (
        watches.list_rules,
        watches.create_rule,
        watches.get_rule,
        watches.patch_rule,
        watches.delete_rule,
    ),
    (answers.RuleList, answers.RuleRow, Rule, requests.PatchRule),
    _DECLARED,
)

# A path of one more fixed segment comes before the one with a variable in its place.
_ALERTS = (
    change(
        "POST",
        "/alerts/test",
        watches.test_unsaved_alert,
        answers.AlertTest,
        "What an alert that need not be saved would find in its last window.",
        requests.TestAlert,
        role="viewer",
    ),
    *_five(
        "/alerts",
        "alert",
        (
            watches.list_alerts,
            watches.create_alert,
            watches.get_alert,
            watches.patch_alert,
            watches.delete_alert,
        ),
        (answers.AlertList, answers.AlertRow, Alert, requests.PatchAlert),
        _DECLARED,
    ),
    change(
        "POST",
        "/alerts/{id}/test",
        watches.test_alert,
        answers.AlertTest,
        "What an alert would find in its last window; nothing is told.",
        role="viewer",
    ),
    get(
        "/alerts/{id}/runs",
        watches.list_alert_runs,
        answers.AlertRuns,
        "The last runs of an alert, newest first.",
        query=requests.RunsQuery,
        role="viewer",
    ),
)

_MONITORS = (
    change(
        "POST",
        "/monitors/backtest",
        watches.backtest_unsaved_monitor,
        answers.BacktestAnswer,
        "What a monitor that need not be saved would have done over stored data.",
        requests.BacktestMonitor,
        role="viewer",
    ),
    *_five(
        "/monitors",
        "monitor",
        (
            watches.list_monitors,
            watches.create_monitor,
            watches.get_monitor,
            watches.patch_monitor,
            watches.delete_monitor,
        ),
        (answers.MonitorList, answers.MonitorRow, Monitor, requests.PatchMonitor),
        _DECLARED,
    ),
    change(
        "POST",
        "/monitors/{id}/backtest",
        watches.backtest_monitor,
        answers.BacktestAnswer,
        "What a monitor would have done over stored data; nothing is told.",
        requests.BacktestSpan,
        role="viewer",
    ),
)

_INCIDENTS = (
    get(
        "/incidents",
        incidents.list_incidents,
        answers.IncidentPage,
        "List incidents, newest first.",
        query=requests.IncidentsQuery,
        role="viewer",
    ),
    get(
        "/incidents/{id}",
        incidents.get_incident,
        answers.IncidentRow,
        "One incident.",
        role="viewer",
    ),
    get(
        "/incidents/{id}/history",
        incidents.get_incident_history,
        answers.IncidentHistory,
        "The revisions of an incident, oldest first.",
        role="viewer",
    ),
    change(
        "PATCH",
        "/incidents/{id}",
        incidents.patch_incident,
        answers.IncidentRow,
        "Set labels or owner of an incident, or resolve it.",
        requests.PatchIncident,
    ),
)

_LABELS = _five(
    "/labels",
    "label",
    (
        incidents.list_labels,
        incidents.create_label,
        incidents.get_label,
        incidents.patch_label,
        incidents.delete_label,
    ),
    (answers.LabelList, answers.LabelRow, requests.CreateLabel, requests.CreateLabel),
    "There is a label of that name.",
)

_SILENCES = (
    get(
        "/silences",
        incidents.list_silences,
        answers.SilenceList,
        "List silences that have not ended, newest first.",
        query=requests.SilencesQuery,
        role="viewer",
    ),
    change(
        "POST",
        "/silences",
        incidents.create_silence,
        answers.SilenceRow,
        "Tell nothing of what matches, for a while.",
        requests.CreateSilence,
        status=201,
    ),
    change(
        "POST",
        "/silences/preview",
        incidents.preview_silence,
        answers.SilencePreview,
        "Which open incidents a silence would cover.",
        requests.PreviewSilence,
        role="viewer",
    ),
    get(
        "/silences/{id}",
        incidents.get_silence,
        answers.SilenceRow,
        "One silence.",
        role="viewer",
    ),
    change(
        "PATCH",
        "/silences/{id}",
        incidents.patch_silence,
        answers.SilenceRow,
        "Let a silence end at another time, or now.",
        requests.PatchSilence,
    ),
    change("DELETE", "/silences/{id}", incidents.delete_silence, Deleted, "Delete a silence."),
)

WATCH_ROUTES: tuple[Route, ...] = (
    *_RULES,
    *_ALERTS,
    *_MONITORS,
    *_INCIDENTS,
    *_LABELS,
    *_SILENCES,
)
