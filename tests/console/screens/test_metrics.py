"""Metrics, accounts and users: what was sent is listed, seen as a series, put on a dashboard."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import expect

from tests.console.screens.site import VIEWER, Site, held
from tests.console.screens.usage import HOSTILE, send_metrics, send_usage


@pytest.fixture(scope="module", autouse=True)
def _sent(site: Site) -> None:
    send_usage(site, "people")
    send_metrics(site, "metric screens", "shop")


def send(site: Site, connection: str, project: str, **point: object) -> None:
    made = site.api("POST", "/connections", {"name": connection, "project_id": project})
    body = json.dumps({"projectId": project, "metrics": [point]}).encode()
    headers = {"Authorization": f"Bearer {made['api_key']}"}
    site.send("/api/webhooks/custom?wait=query", body, headers)


def test_a_metric_that_was_sent_is_listed_plotted_and_put_on_a_dashboard(site: Site) -> None:
    send(site, "one more", "eu-west", metricId="a/b c?", metricName="Odd id", value=7, unit="°C")
    with site.page("/custom-metrics") as page:
        page.get_by_label("Search metrics").fill("odd")
        row = page.get_by_role("row").filter(has_text="Odd id")
        expect(row).to_contain_text("7 °C")
        expect(page.get_by_role("row")).to_have_count(2)
        row.get_by_role("link", name="Odd id", exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Odd id")
        expect(page.locator("dd.stat-value").first).to_contain_text("7")
        expect(page.locator(".u-over").first).to_be_visible()
        expect(page.get_by_text("Complete up to")).to_be_visible()
        page.get_by_role("link", name="+ Dashboard").click()
        dialog = page.get_by_role("dialog", name="Add to a dashboard")
        dialog.get_by_label("Dashboard").select_option(label="A new dashboard")
        dialog.get_by_label("Its name").fill("From a metric")
        dialog.get_by_role("button", name="Add").click()
        page.wait_for_url("**/dashboards/dsh_*")
        widget = page.get_by_role("region", name="Odd id", exact=True)
        expect(widget.locator(".u-over")).to_be_visible()
    listed = site.api("GET", "/dashboards")["dashboards"]
    (made,) = [one for one in listed if one["name"] == "From a metric"]
    (kept,) = site.api("GET", f"/dashboards/{made['id']}")["widgets"]
    assert (kept["source"]["metric_id"], kept["source"]["project"]) == ("a/b c?", "eu-west")
    site.api("DELETE", f"/dashboards/{made['id']}")


def test_a_series_has_every_value_and_groups_of_its_metadata(site: Site) -> None:
    with site.page("/custom-metrics/queue_length?project=shop") as page:
        expect(page.locator(".u-over").first).to_be_visible()
        legend = page.locator(".u-legend")
        with held(page, "**/timeseries?*percentiles=*"):
            page.get_by_label("Value").select_option(value="p95")
            page.get_by_label("Group by").fill("metadata.host")
            expect(legend).to_contain_text("Queue length (avg)")
        # What came meanwhile has not undone what is being typed.
        expect(legend).to_contain_text("Queue length (p95)")
        expect(page.get_by_text("Percentiles are told of raw points")).to_be_visible()
        page.keyboard.press("Enter")
        expect(legend).to_contain_text("web-1")
        assert "value=p95" in page.url
        page.get_by_label("Filter (LQL)").fill("m.host:")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("column 8")
        page.get_by_label("Filter (LQL)").fill("m.host:web-1")
        page.get_by_label("Filter (LQL)").press("Enter")
        expect(page.get_by_role("alert")).to_have_count(0)
        page.get_by_role("link", name="+ Monitor").click()
        expect(page.get_by_label("Aggregate")).to_have_value("p95")
        expect(page.get_by_role("textbox", name="Only points with")).to_have_text("m.host:web-1")
        expect(page.get_by_label("Group by")).to_have_value("metadata.host")
    with site.page("/custom-metrics/no_such_metric") as page:
        expect(page.get_by_text("There is no such metric")).to_be_visible()


def test_a_changed_unit_is_warned_of(site: Site) -> None:
    send(site, "warned 1", "warned", metricId="w", metricName="Warned", value=1, unit="s")
    send(site, "warned 2", "warned", metricId="w", metricName="Warned", value=2, unit="ms")
    with site.page("/custom-metrics?q=warned") as page:
        expect(page.get_by_text("1 warning")).to_be_visible()
        expect(page.locator("main")).to_contain_text("unit")


def test_hostile_metrics_and_people_are_text(site: Site) -> None:
    send(
        site, "hostile", "hostile", metricId=HOSTILE, metricName=HOSTILE, value=1,
        unit="<b>x</b>", metadata={"<script>": "</script><img src=x onerror=alert(1)>"},
    )  # fmt: skip
    with site.page("/custom-metrics?q=hostile", width=375) as page:
        page.get_by_role("link", name="<img").first.click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("<img src=x")
        expect(page.get_by_role("region", name="Points")).to_contain_text("<script>")
        assert page.locator("main img, main b, script:not([src])").count() == 0
        assert "\u202e" not in page.locator("main").inner_text()


def test_accounts_and_users_are_found_and_their_activity_is_seen(site: Site) -> None:
    with site.page("/accounts") as page:
        table = page.get_by_role("region", name="Accounts")
        expect(table.get_by_role("row").filter(has_text="globex").first).to_contain_text("1,259")
        page.get_by_label("Search").fill("Initech inc")
        expect(table.locator("tbody tr").filter(has_text="globex")).to_have_count(0)
        row = table.get_by_role("row").filter(has_text="people")
        row.get_by_role("button", name="Open").click()
        expect(table.locator(".u-over")).to_be_visible()
        expect(table.locator("dd", has_text="Initech Inc.")).to_be_visible()
        site.shot(page, "account-open-light")
        table.get_by_role("button", name="Users").click()
        users = page.get_by_role("region", name="Users")
        expect(users.locator("tbody tr").first).to_contain_text("initech-")
        assert "account=initech" in page.url
        page.get_by_label("Search").fill("nobody at all")
        expect(page.get_by_text("Nobody fits")).to_be_visible()
    site.looks("/accounts", "accounts", ready="tbody .spark")
    site.looks("/accounts?view=users", "users", ready="tbody tr")


def test_the_metric_screens_look_right(site: Site) -> None:
    site.looks("/custom-metrics?q=shop", "metrics", ready="tbody .spark")
    site.looks("/custom-metrics/queue_length?project=shop", "metric", ready=".u-over")


def test_a_viewer_sees_metrics_and_adds_nothing(site: Site) -> None:
    for path in ("/custom-metrics", "/custom-metrics/queue_length"):
        with site.page(path, who=VIEWER) as page:
            expect(page.get_by_text("Queue length").first).to_be_visible()
            expect(page.get_by_role("link", name="+ Dashboard")).to_have_count(0)
            expect(page.get_by_role("link", name="+ Monitor")).to_have_count(0)
