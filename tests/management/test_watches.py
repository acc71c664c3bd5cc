"""Routes of rules, alerts, monitors, incidents, labels and silences over one control store."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from ingester.store.control import ControlStore
from tests.management.desk import VIEWER, Desk
from tests.watch.test_incidents import data, firer

LOG_COUNT = {"kind": "logs", "lql": "level:error"}


def fire(control: ControlStore, *names: str) -> None:
    with control.watching(now_s=time.time(), console_base="") as transaction:
        for name in names:
            made = firer(name, destinations=())
            transaction.book.fire(made, title=name, data=data())


@pytest.mark.parametrize(
    ("kind", "body", "change"),
    [
        ("rule", {"lql": "disk"}, {"lql": "disk full", "enabled": False}),
        (
            "alert",
            {"language": "lql", "query": "x", "cron": "* * * * *"},
            {"cron": "@daily", "description": "d"},
        ),
        (
            "monitor",
            {"target": LOG_COUNT, "operator": ">", "threshold": 3},
            {"datapoints": [2, 3], "recovery": 1, "group_by": ["service"]},
        ),
    ],
)
def test_five_routes_of_each(
    desk: Desk, kind: str, body: dict[str, Any], change: dict[str, Any]
) -> None:
    path = f"/{kind}s"
    made = desk.document("POST", path, {"name": "one", **body})
    assert (made["name"], made["file"]) == ("one", None)
    assert desk.ask("POST", path, {"name": "one", **body}).status == 409
    changed = desk.document("PATCH", f"{path}/{made['id']}", change)
    assert json.loads(json.dumps({name: changed[name] for name in change})) == change
    assert desk.document("GET", f"{path}/{made['id']}") == changed
    (listed,) = desk.document("GET", path)[f"{kind}s"]
    assert listed == changed
    assert desk.ask("PATCH", f"{path}/{made['id']}", {"colour": 1}).status == 422
    assert desk.ask("PATCH", f"{path}/{made['id']}", {"name": ""}).status == 422
    assert desk.ask("DELETE", f"{path}/{made['id']}", actor=VIEWER).status == 403
    desk.document("DELETE", f"{path}/{made['id']}")
    assert desk.ask("GET", f"{path}/{made['id']}").status == 404


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/rules", {"lql": ""}, "lql"),
        ("/rules", {"lql": "c:count(*)"}, "lql"),
        ("/rules", {"lql": "x", "on": "metrics"}, "on"),
        ("/rules", {"lql": "x", "destinations": ["dst_1"]}, "destinations"),
        ("/rules", {"lql": "x", "resolve_after_s": 0}, "resolve_after_s"),
        ("/alerts", {"query": "SELECT 1", "cron": "61 * * * *"}, "cron"),
        ("/alerts", {"query": " ", "cron": "* * * * *"}, "query"),
        ("/alerts", {"language": "lql", "query": "m.x:", "cron": "* * * * *"}, "query"),
        ("/monitors", {"target": LOG_COUNT}, "operator"),
        ("/monitors", {"target": LOG_COUNT, "threshold": 1}, "operator"),
        (
            "/monitors",
            {"target": LOG_COUNT, "operator": ">", "threshold": 1, "datapoints": [3, 2]},
            "datapoints",
        ),
        (
            "/monitors",
            {"target": LOG_COUNT, "operator": ">", "threshold": 1, "recovery": 2},
            "recovery",
        ),
        (
            "/monitors",
            {"target": LOG_COUNT, "operator": ">", "threshold": 1, "group_by": ["t"]},
            "group_by",
        ),
        (
            "/monitors",
            {"target": {"kind": "logs", "lql": "m.x:"}, "operator": ">", "threshold": 1},
            "target.lql",
        ),
        ("/monitors", {"target": {"kind": "metric"}, "no_data": "alert"}, "metric_id"),
        ("/silences", {"matchers": []}, "matchers"),
        (
            "/silences",
            {"matchers": [{"field": "label", "match": "regex", "value": "("}]},
            "matchers[0].value",
        ),
        (
            "/silences/preview",
            {"matchers": [{"field": "label", "match": "regex", "value": "a{2,1}"}]},
            "matchers[0].value",
        ),
        ("/labels", {"name": ""}, "name"),
    ],
)
def test_a_refusal_names_the_field(desk: Desk, path: str, body: dict[str, Any], field: str) -> None:
    name = {} if path.startswith("/silences") else {"name": "x"}
    answer = desk.ask("POST", path, {**name, **body})
    assert answer.status == 422, answer.document
    assert field in str(answer.document["field"])


def test_what_needs_stored_data_says_so_without_it(desk: Desk) -> None:
    monitor = {"name": "m", "target": LOG_COUNT, "no_data": "alert"}
    assert desk.ask("POST", "/monitors/backtest", {"monitor": monitor}).status == 503
    alert = {"name": "a", "query": "SELECT 1", "cron": "* * * * *"}
    assert desk.ask("POST", "/alerts/test", alert).status == 503


def test_incidents_are_paged_changed_and_told_of(desk: Desk) -> None:
    fire(desk.control, "a", "b", "c")
    page = desk.document("GET", "/incidents?limit=2")
    assert [one["id"] for one in page["incidents"]] == ["inc_3", "inc_2"]
    rest = desk.document("GET", f"/incidents?limit=2&before={page['next']}")
    assert [one["id"] for one in rest["incidents"]] == ["inc_1"]
    assert rest["next"] is None
    changed = desk.document("PATCH", "/incidents/inc_1", {"labels": ["sev1"], "owner": "ada"})
    assert changed["url"] == "https://c.example/incidents/inc_1"
    assert [label["name"] for label in changed["labels"]] == ["sev1"]
    assert (changed["acknowledged"], changed["acknowledged_at"]) == (False, None)
    resolved = desk.document("PATCH", "/incidents/inc_1", {"status": "resolved"})
    assert resolved["resolved_at"]
    assert resolved["owner"] == "ada"
    history = desk.document("GET", "/incidents/inc_1/history")["revisions"]
    assert [one["kind"] for one in history] == ["opened", "changed", "resolved"]
    assert desk.document("GET", "/incidents?status=resolved")["incidents"][0]["id"] == "inc_1"
    assert desk.ask("GET", "/incidents/inc_9").status == 404
    assert desk.ask("PATCH", "/incidents/inc_1", {"owner": "x"}, actor=VIEWER).status == 403
    assert desk.ask("PATCH", "/incidents/inc_1", {"status": "opened"}).status == 422


def test_silences_and_labels(desk: Desk) -> None:
    fire(desk.control, "cpu", "mem")
    matchers = [{"field": "monitor", "value": "cpu"}]
    covered = desk.document("POST", "/silences/preview", {"matchers": matchers})["incidents"]
    assert [one["title"] for one in covered] == ["cpu"]
    made = desk.document("POST", "/silences", {"matchers": matchers, "reason": "r"})
    assert made["active"]
    assert desk.document("GET", "/incidents/inc_1")["silenced"]
    assert not desk.document("GET", "/incidents/inc_2")["silenced"]
    assert not desk.document("PATCH", f"/silences/{made['id']}", {})["active"]
    assert desk.document("GET", "/silences")["silences"] == []
    assert len(desk.document("GET", "/silences?ended=true")["silences"]) == 1
    desk.document("DELETE", f"/silences/{made['id']}")
    label = desk.document("POST", "/labels", {"name": "sev1"})
    assert desk.ask("POST", "/labels", {"name": "sev1"}).status == 409
    desk.document("PATCH", "/incidents/inc_1", {"labels": ["sev1", "sev2"]})
    assert desk.document("GET", f"/labels/{label['id']}")["incidents"] == 1
    desk.document("PATCH", f"/labels/{label['id']}", {"name": "sev0"})
    desk.document("DELETE", f"/labels/{label['id']}")
    labels = desk.document("GET", "/incidents/inc_1")["labels"]
    assert [one["name"] for one in labels] == ["sev2"]
