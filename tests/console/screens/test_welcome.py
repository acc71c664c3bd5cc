"""First run: each door's command is pasted as it stands, and the page says that it arrived."""

from __future__ import annotations

import json
import time

import pytest
from playwright.sync_api import Page, expect

from tests.console.screens.site import Site, assert_accessible
from tests.console.screens.test_integrations import code_of, ran

WAYS = {
    "Logs": ("Copy: One event", "Create a token", "Payment succeeded"),
    "Metrics": ("Copy: One metric", "Create a connection", "Daily Signups"),
    "Product events": ("Copy: One event", "Create a source", "login by ada of acme"),
    "Anything": ("Copy: Two lines", "Create a token", "two"),
}


def chosen_way(page: Page, way: str) -> str:
    """The command of a way in; a key is made where there is none."""
    label, make, _ = WAYS[way]
    page.get_by_role("tab", name=way, exact=True).click()
    command = page.get_by_role("group", name=label)
    button = page.get_by_role("button", name=make)
    expect(command.or_(button).first).to_be_visible()
    if button.is_visible():
        button.click()
    expect(command).to_be_visible()
    expect(page.get_by_text("Waiting for the first request")).to_be_visible()
    # The page has looked at how things stand before something is sent.
    page.wait_for_load_state("networkidle")
    return code_of(page, label)


@pytest.mark.parametrize("way", WAYS)
def test_what_was_sent_is_seen_to_arrive(site: Site, way: str) -> None:
    with site.page("/welcome") as page:
        command = chosen_way(page, way)
        assert_accessible(page)
        ran(command)
        arrived = page.get_by_text("It arrived").first
        expect(arrived).to_be_visible(timeout=15_000)
        expect(page.get_by_role("status").filter(has=arrived)).to_contain_text(WAYS[way][2])
        site.shot(page, f"welcome-{way.split()[0].lower()}-light")


def test_an_old_date_is_told_with_a_link_that_shows_it(site: Site) -> None:
    """As in the samples of documents: their rows are dated years ago."""
    with site.page("/welcome?door=metrics") as page:
        command = chosen_way(page, "Metrics")
        ran(command.replace('"unit": "count"', '"unit": "count", "timestamp": 1234567890000'))
        expect(page.get_by_text("It is dated 2009-02-13 23:31:30")).to_be_visible(timeout=15_000)
        href = page.get_by_role("link", name="Show it there").get_attribute("href")
        assert href == (
            "/custom-metrics?since=2009-02-13T23:30:30.000Z&until=2009-02-13T23:32:30.000Z"
        )


def test_a_refused_request_is_told_with_its_reason(site: Site) -> None:
    with site.page("/welcome?door=metrics") as page:
        command = chosen_way(page, "Metrics")
        answer = json.loads(ran(command.replace('"value": 42', '"value": "42"')))
        assert "error" in answer
        expect(page.get_by_text("The server refused a request (400)")).to_be_visible(timeout=15_000)
        expect(page.get_by_text("metrics[0].value must be a number").first).to_be_visible()


def test_the_page_looks_sound(site: Site) -> None:
    site.looks("/welcome", "welcome", ready=".steps")


def test_lines_that_do_not_fit_are_told(site: Site) -> None:
    with site.page("/welcome?door=events") as page:
        command = chosen_way(page, "Product events")
        ran(command.replace('"action"', '"verb"'))
        link = page.get_by_role("link", name="See why")
        expect(link).to_be_visible(timeout=15_000)
        for _ in range(40):
            link.click() if link.is_visible() else page.reload()
            expect(page.get_by_role("heading", level=1)).to_have_text("Rejected lines")
            if page.get_by_text("missing_field").count():
                break
            time.sleep(0.25)
        expect(page.get_by_text("missing_field").first).to_be_visible()
