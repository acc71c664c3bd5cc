"""Alerts: from a metric to a webhook through the console, and what stands on the way."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.console.screens.receiver import Receiver, receiving
from tests.console.screens.site import VIEWER, Site, assert_accessible, write_query
from tests.system.server import wait_until

WINDOW_S = 10
KEYS = {
    "id",
    "createdAt",
    "updatedAt",
    "idempotencyId",
    "status",
    "acknowledged",
    "acknowledgedAt",
    "incidentUrl",
    "labels",
    "affectedMonitors",
}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture(scope="module")
def metric_key(site: Site) -> str:
    return str(site.api("POST", "/connections", {"name": "alerts"})["api_key"])


@pytest.fixture(scope="module")
def log_key(site: Site) -> str:
    body = {"service": "checkout", "environment": "production"}
    return str(site.api("POST", "/tokens", body)["token"])


def send_points(site: Site, key: str, points: Sequence[tuple[float, float]]) -> None:
    """Of the metric `queue_depth`: seconds from now, value."""
    now = time.time()
    metrics = [
        {
            "metricId": "queue_depth",
            "metricName": "Queue depth",
            "value": value,
            "timestamp": int((now + at) * 1000),
        }
        for at, value in points
    ]
    body = json.dumps({"projectId": "default", "metrics": metrics}).encode()
    site.send("/api/webhooks/custom", body, {"Authorization": f"Bearer {key}"})


def send_log(site: Site, key: str, **log: object) -> None:
    body = json.dumps(log).encode()
    site.send("/api/v1/webhook/event/log", body, {"Authorization": f"Bearer {key}"})


def choose(page: Page, name: str, action: str) -> None:
    """An action of a row's menu."""
    page.get_by_role("button", name=f"Actions for {name}", exact=True).click()
    page.get_by_role("menuitem", name=action, exact=True).click()


def add_webhook(page: Page, name: str, url: str, headers: str = "") -> None:
    page.goto("/alerts/settings")
    page.get_by_role("button", name="Add webhook").click()
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("URL", exact=True).fill(url)
    page.get_by_label("Headers").fill(headers)
    page.get_by_role("button", name="Add destination").click()
    expect(page.get_by_role("row").filter(has_text=name)).to_contain_text(url)


def open_incidents(site: Site, title: str) -> list[Any]:
    found = site.api("GET", "/incidents?status=opened")["incidents"]
    return [one for one in found if title in one["title"]]


def test_a_webhook_is_added_at_the_bottom_and_verified(site: Site, receiver: Receiver) -> None:
    before = site.api("GET", "/incidents")["incidents"]
    with site.page("/alerts/settings") as page:
        add_webhook(page, "On call", receiver.url, "Authorization: Bearer sesame\nX-Team: shop")
        choose(page, "On call", "Verify")
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("It arrived: 200", use_inner_text=True)
        request = dialog.get_by_role("group", name="Copy the request")
        expect(request).to_contain_text(f"POST {receiver.url}")
        expect(request).to_contain_text('"status": "opened"')
        expect(request).not_to_contain_text("sesame")
        expect(dialog.get_by_role("group", name="Copy the answer")).to_contain_text("thank you")
        assert_accessible(page)
        site.shot(page, "alert-verify-light")
    assert receiver.bodies[-1].keys() == KEYS
    assert receiver.bodies[-1]["id"].startswith("sample-")
    assert site.api("GET", "/incidents")["incidents"] == before


def test_a_metric_a_monitor_an_incident_and_the_webhook_that_tells_of_it(
    site: Site, receiver: Receiver, metric_key: str
) -> None:
    past = [(-at * WINDOW_S, 500.0 if at == 60 else 5.0) for at in range(90, 2, -1)]
    send_points(site, metric_key, past)
    with site.page("/alerts/settings") as page:
        add_webhook(page, "Pager", receiver.url)
        page.goto("/alerts/monitors?new&kind=metric&query=queue_depth")
        expect(page.get_by_label("Metric", exact=True)).to_have_value("queue_depth")
        page.get_by_label("Aggregate").select_option("max")
        page.get_by_label("Threshold").fill("100")
        page.get_by_label("Unit of Window").select_option("seconds")
        page.get_by_label("Window", exact=True).fill(str(WINDOW_S))
        test = page.get_by_role("region", name="Back-test")
        expect(test).to_contain_text("Would have fired 1 time", use_inner_text=True)
        expect(test.get_by_role("img", name="Value of each window; 1 firing")).to_be_visible()
        expect(test.locator("canvas")).to_be_visible()
        page.get_by_label("Pager").check()
        assert_accessible(page)
        site.shot(page, "monitor-backtest-light")
        page.get_by_role("button", name="Create monitor").click()
        expect(page.get_by_role("row").filter(has_text="queue_depth").first).to_be_visible()
        send_points(site, metric_key, [(0, 700.0)])
        opened = receiver.wait_for("the opened incident", status="opened", labels=[])
        assert opened["affectedMonitors"][0]["monitor"]["type"] == "METRIC"
        page.goto(opened["incidentUrl"])
        expect(page.locator(".timeline-opened")).to_have_count(1)
        expect(page.locator(".timeline-sent")).to_contain_text("Told Pager")
        site.shot(page, "incident-light")
        shown = page.get_by_role("link", name="Show the metric").get_attribute("href")
        assert shown is not None
        assert shown.startswith("/custom-metrics/queue_depth?project=default&")
        page.get_by_role("button", name="Resolve…").click()
        page.get_by_role("dialog").get_by_role("button", name="Resolve").click()
        receiver.wait_for("the resolved incident", status="resolved", id=opened["id"])
        expect(page.locator(".timeline-resolved")).to_have_count(1)


def test_an_incident_is_labelled_taken_and_silenced(site: Site, log_key: str) -> None:
    site.api("POST", "/rules", {"name": "cards", "lql": '"card refused"'})
    send_log(site, log_key, level="error", message="card refused")
    wait_until(lambda: open_incidents(site, "cards"), 15, "an incident of the rule")
    with site.page("/alerts") as page:
        page.get_by_label("Find in titles, names and labels").fill("cards")
        expect(page.locator("tbody tr")).to_have_count(1)
        page.get_by_role("link", name="cards").click()
        # Nobody was there to be told; what it fired for is a click away.
        expect(page.get_by_role("region", name="About")).to_contain_text("nobody")
        page.get_by_role("link", name="Show the logs").click()
        expect(page.locator(".log-line").first).to_contain_text("card refused")
        page.go_back()
        page.get_by_role("button", name="Change").last.click()
        page.get_by_role("textbox", name="Labels").fill("known, money")
        page.get_by_role("button", name="Save").click()
        expect(page.locator(".chip").filter(has_text="money")).to_be_visible()
        page.get_by_role("button", name="Change").first.click()
        page.get_by_role("button", name="Take it: ada@example.org").click()
        expect(page.get_by_role("region", name="About")).to_contain_text("ada@example.org")
        expect(page.locator(".timeline-changed")).to_have_count(2)
        page.get_by_role("button", name="Silence…").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("Covers 1 open incident now")
        dialog.get_by_label("Reason").fill("known")
        assert_accessible(page)
        site.shot(page, "silence-light")
        dialog.get_by_role("button", name="Silence", exact=True).click()
        expect(page.get_by_text("Silenced").first).to_be_visible()
        page.goto("/alerts/silences")
        expect(page.get_by_role("row").filter(has_text="known")).to_contain_text("Active")
        page.get_by_role("button", name="Actions for").click()
        page.get_by_role("menuitem", name="End now").click()
        expect(page.get_by_text("Nothing is silenced")).to_be_visible()


def test_a_label_is_made_renamed_and_deleted(site: Site) -> None:
    with site.page("/alerts/settings") as page:
        labels = page.get_by_role("region", name="Labels").first
        dialog = page.get_by_role("dialog")
        for name in ("storage", "night"):
            labels.get_by_role("button", name="Add label").click()
            dialog.get_by_label("Name").fill(name)
            dialog.get_by_role("button", name="Add label").click()
            expect(labels.get_by_role("row").filter(has_text=name)).to_be_visible()
        choose(page, "night", "Rename…")
        dialog.get_by_label("Name").fill("storage")
        dialog.get_by_role("button", name="Rename").click()
        expect(dialog.get_by_role("alert")).to_contain_text("there is a label named 'storage'")
        dialog.get_by_label("Name").fill("by night")
        dialog.get_by_role("button", name="Rename").click()
        expect(labels.get_by_role("row").filter(has_text="by night")).to_be_visible()
        choose(page, "by night", "Delete…")
        dialog.get_by_role("button", name="Delete").click()
        expect(labels.get_by_role("row").filter(has_text="night")).to_have_count(0)
    assert "storage" in [one["name"] for one in site.api("GET", "/labels")["labels"]]


def test_an_alert_is_tried_before_it_is_saved(site: Site, log_key: str) -> None:
    send_log(site, log_key, level="error", message="tried")
    with site.page("/alerts/alerts?new&kind=sql") as page:
        page.get_by_label("Name", exact=True).fill("tried alert")
        write_query(
            page, "SELECT service, count(*) AS n FROM logs WHERE message = 'tried' GROUP BY 1"
        )
        page.get_by_role("button", name="Run now").click()
        test = page.get_by_role("region", name="Test run")
        expect(test).to_contain_text("Would fire: 1 row", timeout=20_000)
        expect(test.get_by_role("cell", name="checkout")).to_be_visible()
        site.shot(page, "alert-test-light")
        write_query(page, "SELECT nothing FROM nowhere")
        page.get_by_role("button", name="Run now").click()
        expect(test.get_by_role("alert")).to_contain_text("nowhere", timeout=20_000)
        assert_accessible(page)


def test_a_query_that_is_wrong_is_underlined_at_its_column(site: Site) -> None:
    with site.page("/alerts/rules?new&query=level:error%20(") as page:
        expect(page.locator(".cm-lintRange-error")).to_be_visible()
        expect(page.locator("[data-field=lql] .field-error")).to_contain_text("column")
        write_query(page, "level:error")
        expect(page.get_by_role("region", name="Matches")).to_contain_text("match")
        expect(page.locator(".cm-lintRange-error")).to_have_count(0)
        page.get_by_label("Name", exact=True).fill("from a form")
        page.get_by_role("button", name="Create rule").click()
        expect(page.get_by_role("row").filter(has_text="from a form")).to_contain_text(
            "level:error"
        )
        choose(page, "from a form", "Delete…")
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.get_by_role("row").filter(has_text="from a form")).to_have_count(0)


def test_what_a_file_declares_is_marked_and_cannot_be_changed(site: Site) -> None:
    with site.page("/alerts/rules") as page:
        row = page.get_by_role("row").filter(has_text="declared rule")
        expect(row).to_contain_text("file: watch.toml")
        page.get_by_role("button", name="Actions for declared rule").click()
        expect(page.get_by_role("menuitem", name="Delete…")).to_have_count(0)
        page.get_by_role("menuitem", name="Look at the form").click()
        expect(page.get_by_label("Name", exact=True)).to_be_disabled()
        expect(page.get_by_role("button", name="Save")).to_have_count(0)


def test_pairs_of_incident_io_are_shown_as_json_and_sent_as_an_object(site: Site) -> None:
    with site.page("/alerts/settings?add=incident_io") as page:
        page.get_by_label("Name", exact=True).fill("pages")
        page.get_by_label("API token").fill("io-token")
        page.get_by_label("Metadata", exact=True).fill("priority=high,service=logflare")
        shown = page.get_by_label("Metadata as JSON")
        expect(shown).to_contain_text('"priority": "high"')
        expect(shown).to_contain_text('"data": […]')
        page.get_by_label("Alert source config ID").fill("01HX")
        page.get_by_role("button", name="Add destination").click()
        expect(page.get_by_role("row").filter(has_text="pages")).to_contain_text("01HX")
        assert "io-token" not in page.content()
        choose(page, "pages", "Edit…")
        form = page.get_by_role("dialog")
        expect(form.get_by_label("API token")).to_have_value("REDACTED")
        expect(form.get_by_label("Metadata", exact=True)).to_have_value(
            "priority=high,service=logflare"
        )
        form.get_by_role("button", name="Save").click()
        expect(form).to_have_count(0)
    (made,) = [
        one for one in site.api("GET", "/destinations")["destinations"] if one["name"] == "pages"
    ]
    assert made["metadata"] == {"priority": "high", "service": "logflare"}


def test_a_dry_run_tells_where_a_route_leads(site: Site) -> None:
    with receiving() as receiver, site.page("/alerts/settings") as page:
        site.api("POST", "/destinations", {"name": "routed", "url": receiver.url})
        page.reload()
        page.get_by_role("button", name="Add route").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Destination").select_option(label="routed")
        dialog.get_by_role("button", name="Add condition").first.click()
        dialog.get_by_label("How").select_option("prefix")
        dialog.get_by_label("Text").fill("check")
        assert_accessible(page)
        dialog.get_by_role("button", name="Add route").click()
        expect(dialog).to_have_count(0)
        routes = page.get_by_role("region", name="Routes", exact=True)
        expect(routes.get_by_role("row").filter(has_text="routed")).to_contain_text("check")
        dry = page.get_by_role("region", name="Who would get this?")
        dry.get_by_label("Service").fill("checkout")
        dry.get_by_role("button", name="Try").click()
        expect(dry.get_by_role("status")).to_contain_text("routed")
        dry.get_by_label("Service").fill("mail")
        dry.get_by_role("button", name="Try").click()
        expect(dry.get_by_role("status")).to_contain_text("No route leads anywhere")
        choose(page, "routed", "Delete…")
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.get_by_text("No routes")).to_be_visible()


def test_what_was_given_up_is_sent_again_and_a_secret_is_rotated(site: Site, log_key: str) -> None:
    with receiving() as receiver, site.page("/alerts/settings") as page:
        receiver.status = 410
        made = site.api("POST", "/destinations", {"name": "gone", "url": receiver.url})
        rule = {"name": "gone rule", "lql": '"tell gone"', "destinations": [made["id"]]}
        site.api("POST", "/rules", rule)
        send_log(site, log_key, level="error", message="tell gone")
        page.goto(f"/alerts/deliveries?destination={made['id']}")
        row = page.locator("tbody tr").first
        expect(row).to_contain_text("Given up")
        row.get_by_role("button", name="Open", exact=True).click()
        expect(page.get_by_role("region", name="Attempts")).to_contain_text("410")
        assert_accessible(page)
        site.shot(page, "deliveries-light")
        page.goto("/alerts/settings")
        expect(page.get_by_role("row").filter(has_text="gone").first).to_contain_text("Disabled")
        receiver.status = 200
        choose(page, "gone", "Enable again")
        expect(page.get_by_role("row").filter(has_text="gone").first).not_to_contain_text(
            "Disabled"
        )
        choose(page, "gone", "Resend failed…")
        page.get_by_role("dialog").get_by_role("button", name="Resend").click()
        expect(page.get_by_text("1 sent again.")).to_be_visible()
        wait_until(lambda: len(receiver.bodies) >= 2, 15, "the same body once more")
        assert receiver.bodies[0] == receiver.bodies[1]
        choose(page, "gone", "Rotate secret…")
        page.get_by_role("dialog").get_by_role("button", name="Rotate").click()
        expect(page.get_by_role("dialog").locator(".secret")).to_contain_text("whsec_")


def test_a_viewer_looks_and_the_server_refuses_the_rest(site: Site) -> None:
    with site.page("/alerts/monitors", who=VIEWER) as page:
        for path in ("monitors", "alerts", "rules", "silences", "deliveries", "settings"):
            page.goto(f"/alerts/{path}")
            expect(page.get_by_role("heading", level=1).last).to_be_visible()
            expect(page.locator("#screen .card, #screen .empty").first).to_be_visible()
            for name in ("New", "Add", "Resend", "Delete"):
                assert page.get_by_role("button", name=name).count() == 0, (path, name)
        status = page.evaluate(
            "async () => (await fetch('/api/v1/rules', {method: 'POST', body:"
            ' \'{"name": "v", "lql": "level:error"}\'})).status'
        )
        assert status == 403


@pytest.mark.parametrize(
    ("path", "name", "ready"),
    [
        ("/alerts", "alerts", "table, .empty"),
        ("/alerts/monitors", "alerts-monitors", "table, .empty"),
        ("/alerts/monitors?new&kind=logs&query=level:error", "alerts-monitor-new", "canvas"),
        ("/alerts/alerts", "alerts-alerts", "table, .empty"),
        ("/alerts/alerts?new", "alerts-alert-new", ".cm-content"),
        ("/alerts/rules", "alerts-rules", "table, .empty"),
        ("/alerts/silences", "alerts-silences", "table, .empty"),
        ("/alerts/deliveries", "alerts-deliveries", "table, .empty"),
        ("/alerts/settings?add=webhook", "alerts-settings", "input[name=url]"),
    ],
)
def test_the_screens_are_sound_in_both_themes_and_narrow(
    site: Site, path: str, name: str, ready: str
) -> None:
    site.looks(path, name, ready=ready)
