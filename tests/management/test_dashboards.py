"""Dashboards: kept with a revision, so that nobody overwrites what they have not seen."""

from __future__ import annotations

import pytest

from ingester.management.widgets import BUILT_IN
from ingester.store.control import ControlStore
from tests.management.desk import VIEWER, Desk

METRIC = {"kind": "number", "source": {"from": "metric", "metric_id": "m", "value": "last"}}


class Dashboards(Desk):
    base = "/api/v1/dashboards"


@pytest.fixture
def desk(control: ControlStore) -> Dashboards:
    return Dashboards(control)


def test_a_dashboard_is_made_read_changed_and_deleted(desk: Dashboards) -> None:
    made = desk.document("POST", body={"name": "Shop", "since": "now-7d", "widgets": [METRIC]})
    assert (made["id"], made["revision"], made["widget_count"]) == ("dsh_1", 1, 1)
    assert desk.document("GET", "/dsh_1") == made
    changed = desk.document("PATCH", "/dsh_1", {"revision": 1, "name": "The shop"})
    assert (changed["name"], changed["revision"]) == ("The shop", 2)
    assert (changed["since"], changed["widgets"]) == ("now-7d", made["widgets"])
    assert desk.document("DELETE", "/dsh_1") == {"deleted": True, "id": "dsh_1"}
    assert desk.refused("GET", "/dsh_1") == (404, None)
    actions = [entry.action for entry in desk.control.audit(limit=10)]
    assert actions == ["dashboard deleted", "dashboard changed", "dashboard created"]


def test_a_change_of_an_older_revision_is_refused_and_says_whose_is_newer(desk: Dashboards) -> None:
    desk.document("POST", body={"name": "Shop"})
    desk.document("PATCH", "/dsh_1", {"revision": 1, "widgets": [METRIC]})
    late = desk.ask("PATCH", "/dsh_1", {"revision": 1, "widgets": []})
    assert late.status == 409
    assert "changed by local" in str(late.document["error"])
    assert "revision 2 now, yours is 1" in str(late.document["error"])
    assert desk.document("GET", "/dsh_1")["widget_count"] == 1
    assert desk.refused("PATCH", "/dsh_1", {"widgets": []}) == (422, "revision")


def test_built_in_dashboards_are_listed_first_and_cannot_be_changed(desk: Dashboards) -> None:
    desk.document("POST", body={"name": "A"})
    listed = desk.document("GET")["dashboards"]
    assert [row["id"] for row in listed] == ["custom-metrics", "product-usage", "dsh_1"]
    assert [row["built_in"] for row in listed] == [True, True, False]
    for one in BUILT_IN:
        path = f"/{one.id}"
        whole = desk.document("GET", path)
        assert (whole["name"], whole["updated_by"]) == (one.name, None)
        assert desk.refused("PATCH", path, {"revision": 1, "name": "x"})[0] == 409
        assert desk.refused("DELETE", path)[0] == 409
        # What it shows can be copied.
        copied = {key: whole[key] for key in ("since", "until", "refresh_seconds", "widgets")}
        desk.document("POST", body={"name": f"Copy of {one.name}", **copied})


def test_names_are_unique(desk: Dashboards) -> None:
    desk.document("POST", body={"name": "A"})
    desk.document("POST", body={"name": "B"})
    assert desk.refused("POST", "", {"name": "A"})[0] == 409
    assert desk.refused("PATCH", "/dsh_2", {"revision": 1, "name": "A"})[0] == 409
    assert desk.refused("POST", "", {"name": "Product usage"})[0] == 409
    desk.document("PATCH", "/dsh_2", {"revision": 1, "name": "B", "description": "same name"})


def test_widgets_get_ids_that_no_other_has(desk: Dashboards) -> None:
    widgets = [METRIC, {**METRIC, "id": "w1"}, METRIC]
    made = desk.document("POST", body={"name": "A", "widgets": widgets})
    assert [widget["id"] for widget in made["widgets"]] == ["w2", "w1", "w3"]
    twice = [{**METRIC, "id": "x"}, {**METRIC, "id": "x"}]
    assert desk.refused("POST", "", {"name": "B", "widgets": twice}) == (422, "widgets[0].id")


@pytest.mark.parametrize(
    ("widget", "field"),
    [
        ({"source": {"from": "events", "q": "action:"}}, "widgets[0].source.q"),
        ({"source": {"from": "events", "q": "c:count(*)"}}, "widgets[0].source.q"),
        ({"source": {"from": "logs", "group_by": "a b"}}, "widgets[0].source.group_by"),
        ({"source": {"from": "metric", "metric_id": "m", "filter": '"'}},
         "widgets[0].source.filter"),
        ({"kind": "logs", "source": {"from": "sql", "sql": "SELECT 1"}}, "widgets[0].kind"),
        ({"kind": "table", "source": {"from": "metrics"}}, "widgets[0].kind"),
        ({"source": {"from": "else"}}, "widgets[0].source.from"),
        ({"source": {"from": "events"}, "width": 13}, "widgets[0].width"),
        ({"source": {"from": "events"}, "more": 1}, "widgets[0].more"),
    ],
)  # fmt: skip
def test_what_could_not_be_shown_is_refused_at_its_place(
    desk: Dashboards, widget: dict[str, object], field: str
) -> None:
    status, named = desk.refused("POST", "", {"name": "A", "widgets": [widget]})
    assert status == 422
    assert named == field


def test_a_viewer_reads_and_changes_nothing(desk: Dashboards) -> None:
    desk.document("POST", body={"name": "A"})
    assert desk.ask("GET", actor=VIEWER).status == 200
    assert desk.ask("GET", "/dsh_1", actor=VIEWER).status == 200
    for method, path in (("POST", ""), ("PATCH", "/dsh_1"), ("DELETE", "/dsh_1")):
        body = {"name": "B", "revision": 1} if method == "PATCH" else {"name": "B"}
        assert desk.ask(method, path, body, actor=VIEWER).status == 403
