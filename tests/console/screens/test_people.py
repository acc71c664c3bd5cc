"""Members, invitations, passwords: from the first link to the last sign-out."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.console.screens.conftest import setup_link
from tests.console.screens.site import PASSWORD, Site, assert_accessible
from tests.system.server import running


def test_the_first_link_leads_to_the_first_event(site: Site, tmp_path: Path) -> None:
    browser: Browser = site.browser
    with running(tmp_path) as server, browser.new_context() as context:
        page = context.new_page()
        page.goto(setup_link(server))
        assert_accessible(page)
        site.shot(page, "setup-light")
        page.get_by_label("E-mail address").fill("first@example.org")
        page.get_by_label("New password").fill(PASSWORD)
        page.get_by_role("button", name="Set up").click()
        expect(page).to_have_url(f"{server.ready['console']}/welcome")
        expect(page.get_by_role("heading", level=1)).to_have_text("Send your first event")
        page.goto("/".join(setup_link_parts(server.ready["console"])))
        expect(page.get_by_role("button", name="Set up")).to_be_visible()


def setup_link_parts(console: str) -> tuple[str, str]:
    return console, "setup?token=used"


def test_a_member_is_invited_promoted_and_deleted(site: Site) -> None:
    with site.page("/settings/members") as page:
        page.get_by_role("button", name="Invite Member").click()
        page.get_by_label("E-mail address").fill("mia@example.org")
        page.get_by_role("button", name="Create invitation").click()
        dialog = page.get_by_role("dialog", name="Invitation for mia@example.org")
        link = dialog.locator("code").inner_text()
        dialog.get_by_role("button", name="Done").click()
        row = page.get_by_role("row", name="mia@example.org")
        expect(row).to_contain_text("invited until")
        with site.page(link, who=None) as invited:
            invited.get_by_label("New password").fill("short")
            invited.get_by_label("New password").evaluate("node => node.minLength = 0")
            invited.get_by_role("button", name="Save and sign in").click()
            expect(invited.get_by_role("alert")).to_contain_text("8 to")
            invited.get_by_label("New password").fill(PASSWORD)
            invited.get_by_role("button", name="Save and sign in").click()
            expect(invited.get_by_role("link", name="mia@example.org")).to_be_visible()
            invited.goto("/settings/you")
            invited.get_by_label("Present password").fill("not it at all")
            invited.get_by_label("New password").fill("another good one")
            invited.get_by_role("button", name="Change password").click()
            expect(invited.get_by_role("alert")).to_be_visible()
            invited.get_by_label("Present password").fill(PASSWORD)
            invited.get_by_role("button", name="Change password").click()
            expect(invited.get_by_text("The password is changed.")).to_be_visible()
            page.reload()
            row.get_by_role("button", name="Actions for").click()
            page.get_by_role("menuitem", name="Make an admin").click()
            expect(row).to_contain_text("admin")
            row.get_by_role("button", name="Actions for").click()
            page.get_by_role("menuitem", name="Delete").click()
            page.get_by_role("button", name="Delete", exact=True).click()
            expect(row).to_have_count(0)
            invited.goto("/logs")
            expect(invited).to_have_title("Sign in · ingester")


def test_the_last_administrator_stays(site: Site) -> None:
    with site.page("/settings/members") as page:
        row = page.get_by_role("row", name="ada@example.org")
        row.get_by_role("button", name="Actions for").click()
        page.get_by_role("menuitem", name="Make a viewer").click()
        expect(page.get_by_text("last administrator")).to_be_visible()
