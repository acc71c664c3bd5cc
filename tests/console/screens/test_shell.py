"""The frame of every screen: sign-in, navigation, theme, keys, refusals; and the house's rules."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from ingester.console.screens import SCREENS, Screen
from tests.console.screens.site import ADMIN, PASSWORD, VIEWER, Site, assert_accessible, assert_fits


def test_who_is_not_signed_in_comes_back_to_where_they_wanted(site: Site) -> None:
    with site.page("/alerts?x=1", who=None) as page:
        expect(page).to_have_title("Sign in · ingester")
        assert_accessible(page)
        site.shot(page, "login-light")
        page.get_by_label("E-mail address").fill(ADMIN)
        page.get_by_label("Password").fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_be_visible()
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        expect(page).to_have_url(f"{site.url}/alerts?x=1")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_text("You are signed out.")).to_be_visible()
        page.goto("/alerts")
        expect(page).to_have_title("Sign in · ingester")


def test_a_viewer_is_told_why_a_page_is_not_theirs(site: Site) -> None:
    with site.page("/settings/members", who=VIEWER) as page:
        expect(page.get_by_role("heading", level=1)).to_have_text("This page is for administrators")
        assert_accessible(page)
        site.shot(page, "forbidden-light")
        page.goto("/settings")
        expect(page.get_by_role("link", name="Members")).to_have_count(0)
    with site.page("/nothing/here") as page:
        expect(page.get_by_role("heading", level=1)).to_have_text(
            "There is nothing at this address"
        )


@pytest.mark.parametrize("screen", SCREENS, ids=lambda screen: screen.name)
def test_a_screen_without_data_is_sound_fits_and_says_where_it_is(
    site: Site, screen: Screen
) -> None:
    path = screen.path.replace("{id}", "none").replace("{path}", "none")
    with site.page(path, width=375) as page:
        expect(page.locator("#screen > .loading")).to_have_count(0)
        expect(page).to_have_title(f"{screen.title} · ingester")
        expect(page.locator("h1")).to_have_count(1)
        assert_accessible(page)
        assert_fits(page)


def test_a_link_from_another_site_comes_with_the_session(site: Site) -> None:
    """The cookie is strict: the first request comes without it."""
    with site.page("/login") as page:
        link = f'<a href="{site.url}/incidents/7?a=1">an incident</a>'
        page.route(
            "http://mail.example/**",
            lambda route: route.fulfill(
                body=f"<!doctype html><title>Mail</title>{link}", content_type="text/html"
            ),
        )
        page.goto("http://mail.example/")
        page.get_by_role("link").click()
        expect(page).to_have_title("Incident · ingester")
        expect(page).to_have_url(f"{site.url}/incidents/7?a=1")


def test_the_theme_follows_the_system_until_it_is_chosen(site: Site) -> None:
    background = "() => getComputedStyle(document.documentElement).backgroundColor"
    with site.page("/pipeline", theme="dark") as page:
        dark = page.evaluate(background)
        page.get_by_role("button", name="Light theme").click()
        light = page.evaluate(background)
        assert dark != light
        page.reload()
        assert page.evaluate(background) == light
        expect(page.get_by_role("button", name="Dark theme")).to_be_visible()


def test_the_menu_of_a_small_screen_opens_and_leads_on(site: Site) -> None:
    with site.page("/pipeline", width=375) as page:
        link = page.get_by_role("link", name="Dashboards")
        expect(link).not_to_be_visible()
        toggle = page.get_by_role("button", name="Menu")
        expect(toggle).to_have_attribute("aria-expanded", "false")
        toggle.click()
        expect(toggle).to_have_attribute("aria-expanded", "true")
        assert_accessible(page)
        site.shot(page, "menu-light-375")
        link.click()
        expect(page).to_have_url(f"{site.url}/dashboards")


def test_without_script_a_screen_says_where_else_its_content_is(site: Site) -> None:
    with site.browser.new_context(java_script_enabled=False, base_url=site.url) as context:
        context.add_cookies([
            {"name": "ingester_session", "value": site.cookies[ADMIN], "url": site.url}
        ])
        page = context.new_page()
        page.goto("/logs")
        expect(page.locator("noscript p")).to_be_visible()
        page.get_by_role("link", name="Pipeline").click()
        expect(page).to_have_url(f"{site.url}/pipeline")


def test_the_keyboard_gets_about(site: Site) -> None:
    with site.page("/pipeline") as page:
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        page.keyboard.press("g")
        page.keyboard.press("d")
        expect(page).to_have_url(f"{site.url}/dashboards")
