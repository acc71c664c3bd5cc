"""Settings › Integrations: a token is made and used, a webhook connected, a source mapped."""

from __future__ import annotations

import json
import subprocess
from urllib.error import HTTPError

import pytest
from playwright.sync_api import Page, expect

from tests.console.screens.site import VIEWER, Site, assert_accessible, copied
from tests.system.server import wait_until


def ran(command: str) -> str:
    """A command of a page, as pasted."""
    done = subprocess.run(
        ["sh", "-e", "-c", command], capture_output=True, text=True, timeout=20, check=True
    )
    return done.stdout


def code_of(page: Page, label: str) -> str:
    """The text of a box with a command, without its button's."""
    return page.get_by_role("group", name=label).evaluate(
        "node => [...node.childNodes].filter(one => one.nodeType === 3)"
        ".map(one => one.data).join('')"
    )


def test_a_token_is_made_used_copied_rotated_and_deleted(site: Site) -> None:
    with site.page("/settings/events") as page:
        page.get_by_role("button", name="Add Token").first.click()
        page.get_by_label("Service Name").fill("payment-webhook")
        page.get_by_label("Environment").fill("production")
        site.shot(page, "token-add-light")
        page.get_by_role("button", name="Create Token").click()
        dialog = page.get_by_role("dialog", name="Your token")
        expect(dialog).to_be_visible()
        assert_accessible(page)
        site.shot(page, "token-made-light")
        assert json.loads(ran(code_of(page, "Copy curl for the log door"))) == {
            "success": True,
            "logsStored": 1,
        }
        dialog.get_by_role("button", name="Done").click()
        row = page.get_by_role("row", name="payment-webhook")
        expect(row).to_contain_text("production")
        first = copied(page, row.get_by_role("button", name="Copy token"))
        assert first.startswith("ingl_")
        found = wait_until(
            lambda: site.server.query(
                "SELECT message, level, environment FROM logs WHERE service = 'payment-webhook'"
            ),
            10,
            "the log",
        )
        assert found == [
            {"message": "Payment succeeded", "level": "info", "environment": "production"}
        ]
        page.reload()
        expect(row).not_to_contain_text("never")
        row.get_by_role("button", name="Open").click()
        expect(page.get_by_text("requests", exact=True)).to_be_visible()
        site.shot(page, "tokens-light")
        row.get_by_role("button", name="Actions for").click()
        page.get_by_role("menuitem", name="Rotate").click()
        page.get_by_label("Old keys keep working for").select_option("0")
        page.get_by_role("button", name="Rotate", exact=True).click()
        expect(dialog).to_be_visible()
        dialog.get_by_role("button", name="Done").click()
        with pytest.raises(HTTPError) as caught:
            send_log(site, first)
        assert caught.value.code == 401
        row.get_by_role("button", name="Actions for").click()
        page.get_by_role("menuitem", name="Delete").click()
        expect(page.get_by_text("This cannot be undone.")).to_be_visible()
        page.get_by_role("button", name="Delete", exact=True).click()
        expect(row).to_have_count(0)


def send_log(site: Site, token: str) -> bytes:
    headers = {"Authorization": f"Bearer {token}"}
    return site.send("/api/v1/webhook/event/log", b'{"message": "x"}', headers)


def test_a_webhook_is_connected_and_its_three_values_are_copied(site: Site) -> None:
    with site.page("/settings") as page:
        card = page.get_by_role("article").filter(has_text="Custom Webhooks")
        card.get_by_role("link", name="Connect").click()
        page.get_by_label("Name").fill("Cron Job Metrics")
        page.get_by_role("button", name="Create").click()
        dialog = page.get_by_role("dialog", name="Cron Job Metrics")
        values = [
            copied(page, dialog.get_by_role("button", name=label))
            for label in ("Copy webhook URL", "Copy API key", "Copy project ID")
        ]
        assert values[0] == f"{site.intake}/api/webhooks/custom"
        assert values[1].startswith("ingm_")
        assert values[2] == "default"
        assert_accessible(page)
        site.shot(page, "connection-made-light")
        answer = json.loads(ran(code_of(page, "Copy curl for a metric")))
        assert answer == {"success": True, "metricsStored": 1}
        dialog.get_by_role("button", name="Done").click()
        expect(page.get_by_role("row", name="Cron Job Metrics")).to_contain_text("default")
        # A name that is taken is told at the field.
        page.get_by_role("button", name="Connect").first.click()
        page.get_by_label("Name").fill("Cron Job Metrics")
        page.get_by_role("button", name="Create").click()
        expect(page.get_by_role("alert")).to_be_visible()


def test_a_source_is_made_and_its_map_is_tried_before_it_is_kept(site: Site) -> None:
    with site.page("/settings/sources?add=1") as page:
        page.get_by_label("Name").fill("shop-map")
        page.get_by_role("button", name="Create Source").click()
        dialog = page.get_by_role("dialog", name="shop-map")
        assert ran(code_of(page, "Copy curl for an event")) == ""
        dialog.get_by_role("button", name="Done").click()
        row = page.get_by_role("row", name="shop-map")
        row.get_by_role("button", name="Open").click()
        page.get_by_role("tab", name="Field map").click()
        expect(page.get_by_text("missing_field")).to_be_visible()
        for label, place in {
            "Account": "/organization/id",
            "User": "/actor/login",
            "Action": "/type",
            "Session": "=none",
            "Time": "/created_at",
        }.items():
            page.get_by_label(label, exact=True).fill(place)
        result = page.get_by_role("region", name="Result of the dry run")
        expect(result).to_contain_text("PushEvent")
        expect(result).to_contain_text("2026-09-21 14:13:20")
        assert_accessible(page)
        site.shot(page, "source-map-light")
        assert site.api("GET", "/sources/shop-map")["map"] is None
        page.get_by_label("Time", exact=True).fill("created_at")
        expect(page.get_by_role("alert")).to_contain_text("pointer")
        page.get_by_label("Time", exact=True).fill("/created_at")
        page.get_by_role("button", name="Save map").click()
        expect(page.get_by_text("The field map is saved.")).to_be_visible()
        assert site.api("GET", "/sources/shop-map")["map"]["user_id"] == "/actor/login"


@pytest.mark.parametrize(
    ("path", "name", "ready"),
    [
        ("/settings", "integrations", ".integration"),
        ("/settings/events", "events", "table"),
        ("/settings/webhooks", "webhooks", "table"),
        ("/settings/sources", "sources", "table"),
        ("/settings/members", "members", "table"),
        ("/settings/audit", "audit", "table"),
        ("/settings/you", "you", "form"),
    ],
)
def test_settings_look_sound(site: Site, path: str, name: str, ready: str) -> None:
    if not site.api("GET", "/sources")["sources"]:
        site.server.create_source("shop")
    names = {row["name"] for row in site.api("GET", "/connections")["connections"]}
    if "Nightly jobs" not in names:
        site.api("POST", "/connections", {"name": "Nightly jobs"})
    site.looks(path, name, ready=f"main {ready}")


def test_a_viewer_sees_no_button_that_adds(site: Site) -> None:
    with site.page("/settings", who=VIEWER) as page:
        expect(page.get_by_role("article").first).to_be_visible()
        for name in ("Add Token", "Connect", "Add Source", "Manage"):
            expect(page.get_by_role("link", name=name)).to_have_count(0)
        expect(page.get_by_text("You are signed in as a viewer")).to_be_visible()
        assert_accessible(page)
