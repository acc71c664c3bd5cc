"""Dashboards: made, filled, arranged by keys and by dragging, saved without overwriting others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from tests.console.screens.site import VIEWER, Site
from tests.console.screens.usage import HOSTILE, send_metrics, send_usage

EVENTS = {"from": "events", "q": "source:dashed"}
NUMBER = {"kind": "number", "title": "All of them", "width": 3, "height": 1, "source": EVENTS}
BARS = {
    "kind": "bar", "title": "Top", "width": 3, "source": {**EVENTS, "group_by": "account_id"},
}  # fmt: skip
TABLE = {
    "kind": "table", "title": "Counted", "width": 6,
    "source": {"from": "sql", "sql": "SELECT action, count(*) AS n FROM events "
               "WHERE created_at >= $since AND created_at < $until GROUP BY ALL"},
}  # fmt: skip
LIST = {"kind": "logs", "title": "Newest", "width": 6, "source": EVENTS}


@pytest.fixture(scope="module", autouse=True)
def _usage(site: Site) -> None:
    send_usage(site, "dashed")
    send_metrics(site, "dashboards", "dash")


@contextmanager
def dashboard(site: Site, name: str, *widgets: object) -> Iterator[dict[str, Any]]:
    body = {"name": name, "widgets": widgets, "since": "now-30d"}
    made = site.api("POST", "/dashboards", body)
    yield made
    site.api("DELETE", f"/dashboards/{made['id']}")


def test_a_dashboard_is_made_filled_and_saved(site: Site) -> None:
    with site.page("/dashboards") as page:
        page.get_by_role("button", name="New dashboard").first.click()
        page.get_by_label("Name", exact=True).fill("Made by hand")
        page.get_by_role("button", name="Create", exact=True).click()
        page.get_by_role("button", name="Add widget").first.click()
        dialog = page.get_by_role("dialog", name="Add widget")
        dialog.get_by_label("Title").fill("Queue")
        dialog.get_by_label("Data of").select_option(label="A metric")
        dialog.get_by_label("Metric", exact=True).select_option(
            label="Queue length (dash / queue_length)"
        )
        dialog.get_by_label("Shown as").select_option(label="Number")
        expect(dialog.locator(".stat-value")).to_contain_text("jobs")
        dialog.get_by_role("button", name="Add widget").click()
        expect(page.get_by_role("region", name="Queue")).to_be_visible()
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_text("The dashboard is saved.")).to_be_visible()
        page.reload()
        expect(page.get_by_role("region", name="Queue").locator(".stat-value")).to_be_visible()
        expect(page.get_by_text("Complete up to")).to_be_visible()
        dashboard_id = page.url.split("?")[0].rsplit("/", 1)[1]
    kept = site.api("GET", f"/dashboards/{dashboard_id}")
    assert [widget["source"]["metric_id"] for widget in kept["widgets"]] == ["queue_length"]
    assert kept["revision"] == 2
    site.api("DELETE", f"/dashboards/{dashboard_id}")


def test_widgets_of_every_kind_show_what_there_is(site: Site) -> None:
    with dashboard(site, "Kinds", NUMBER, BARS, TABLE, LIST) as made:
        with site.page(f"/dashboards/{made['id']}") as page:
            number = page.get_by_role("region", name="All of them", exact=True)
            expect(number.locator(".stat-value")).to_have_text("6,150")
            expect(page.get_by_role("region", name="Top").get_by_text("acme")).to_be_visible()
            counted = page.get_by_role("region", name="Counted", exact=True).first
            expect(counted.get_by_role("cell", name="moduleEnd")).to_be_visible()
            newest = page.get_by_role("region", name="Newest", exact=True)
            expect(newest.locator("li").first).to_be_visible()
        site.looks(f"/dashboards/{made['id']}", "dashboard", ready=".stat-value")


def test_widgets_are_arranged_by_keys_and_by_dragging(site: Site) -> None:
    with (
        dashboard(site, "Arranged", NUMBER, BARS, TABLE) as made,
        site.page(f"/dashboards/{made['id']}?edit=1") as page,
    ):
        expect(page.get_by_role("region", name="Top")).to_be_visible()
        handle = page.get_by_role("button", name="Move or resize All of them")
        handle.focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator(".widget-head h2")).to_have_text(["Top", "All of them", "Counted"])
        expect(page.get_by_text("Place 2 of 3")).to_be_attached()
        expect(handle).to_be_focused()
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("Shift+ArrowDown")
        expect(page.get_by_text("4 of 12 columns wide, 2 high")).to_be_attached()
        box = page.get_by_role("region", name="Counted", exact=True).first.bounding_box()
        assert box is not None
        page.get_by_role("button", name="Move or resize Top").hover()
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] * 0.8, steps=8)
        expect(page.locator(".widget-behind")).to_be_visible()
        page.mouse.up()
        expect(page.locator(".widget-head h2")).to_have_text(["All of them", "Counted", "Top"])
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_text("The dashboard is saved.")).to_be_visible()
        kept = site.api("GET", f"/dashboards/{made['id']}")["widgets"]
        assert [widget["title"] for widget in kept] == ["All of them", "Counted", "Top"]
        assert (kept[0]["width"], kept[0]["height"]) == (4, 2)


def test_two_who_edit_do_not_overwrite_each_other_silently(site: Site) -> None:
    with (
        dashboard(site, "Shared", NUMBER, BARS) as made,
        site.page(f"/dashboards/{made['id']}?edit=1") as page,
    ):
        expect(page.get_by_role("region", name="Top")).to_be_visible()
        site.api(
            "PATCH", f"/dashboards/{made['id']}", {"revision": 1, "description": "from elsewhere"}
        )
        page.get_by_role("button", name="Actions for Top").click()
        page.get_by_role("menuitem", name="Remove").click()
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("alert")).to_contain_text("was changed by")
        page.get_by_role("button", name="Load that one").click()
        expect(page.get_by_text("from elsewhere")).to_be_visible()
        expect(page.get_by_role("region", name="Top")).to_be_visible()


def test_another_screen_adds_a_widget_by_the_address(site: Site) -> None:
    with dashboard(site, "Target", NUMBER) as made:
        with site.page(f"/dashboards?add={quote(json.dumps(BARS))}") as page:
            dialog = page.get_by_role("dialog", name="Add to a dashboard")
            dialog.get_by_label("Dashboard").select_option(value=made["id"])
            expect(dialog.get_by_text("acme")).to_be_visible()
            dialog.get_by_role("button", name="Add").click()
            page.wait_for_url("**/dashboards/dsh_*")
            expect(page.get_by_role("region", name="Top")).to_be_visible()
        assert site.api("GET", f"/dashboards/{made['id']}")["widget_count"] == 2
        with site.page("/dashboards?add=no%20json") as page:
            expect(page.get_by_text("holds no widget")).to_be_visible()


def test_a_link_carries_the_times_that_are_shown(site: Site) -> None:
    with (
        dashboard(site, "Linked", NUMBER) as made,
        site.page(f"/dashboards/{made['id']}?since=now-7d") as page,
    ):
        page.get_by_role("button", name="Share").click()
        page.get_by_role("menuitem", name="Copy link to these times").click()
        expect(page.get_by_text("The link is copied.")).to_be_visible()
        link = str(page.evaluate("() => navigator.clipboard.readText()"))
        assert f"/dashboards/{made['id']}?since=20" in link
        page.goto(link)
        expect(page.locator(".stat-value").first).to_be_visible()


def test_a_new_metric_appears_on_the_built_in_dashboard(site: Site) -> None:
    with site.page("/dashboards/custom-metrics") as page:
        expect(page.get_by_role("region", name="Queue length (jobs)").first).to_be_visible()
        expect(page.get_by_text("Complete up to")).to_be_visible()
        expect(page.get_by_role("button", name="Edit")).to_have_count(0)
    site.looks("/dashboards/custom-metrics", "dashboard-metrics", ready=".u-over")
    site.looks("/dashboards/product-usage", "dashboard-usage", ready=".u-over")
    site.looks("/dashboards", "dashboards", ready="tbody tr")


def test_hostile_titles_and_data_are_text(site: Site) -> None:
    hostile = {
        **TABLE, "title": HOSTILE,
        "source": {"from": "sql", "sql": "SELECT '<script>alert(1)</script>' AS \"<b>x</b>\""},
    }  # fmt: skip
    with dashboard(site, HOSTILE, hostile) as made, site.page(f"/dashboards/{made['id']}") as page:
        expect(page.get_by_role("heading", level=1)).to_contain_text("<img src=x")
        expect(page.get_by_role("cell", name="<script>")).to_be_visible()
        expect(page.get_by_role("columnheader", name="<b>x</b>")).to_be_visible()
        assert page.locator("main img, main b, script:not([src])").count() == 0


def test_a_viewer_looks_and_changes_nothing(site: Site) -> None:
    with (
        dashboard(site, "Read only", NUMBER) as made,
        site.page(f"/dashboards/{made['id']}?edit=1", who=VIEWER) as page,
    ):
        expect(page.locator(".stat-value").first).to_be_visible()
        for name in ("Edit", "Save", "Add widget", "More"):
            expect(page.get_by_role("button", name=name, exact=True)).to_have_count(0)
        page.goto("/dashboards")
        expect(page.get_by_role("link", name="Read only")).to_be_visible()
        expect(page.get_by_role("button", name="New dashboard")).to_have_count(0)
