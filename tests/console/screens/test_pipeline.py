"""Pipeline: the picture of the actors lives, and its tables say the same."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.console.screens.site import VIEWER, Site, assert_accessible
from tests.system.client import event_line


def test_the_picture_follows_what_comes_in(site: Site) -> None:
    keys = site.server.create_source("piped")
    with site.page("/pipeline", who=VIEWER) as page:
        picture = page.locator(".picture svg")
        expect(picture.get_by_text("Journal", exact=True)).to_be_visible()
        for number in range(40):
            site.send(keys.path, event_line(f"p{number}"))
        actors = page.get_by_role("region", name="Actors")
        expect(actors.get_by_role("row").filter(has_text="Journal")).to_contain_text("working")
        expect(page.get_by_role("region", name="Channels")).to_contain_text(
            "journalled, not loaded"
        )
        expect(page.get_by_role("region", name="Storage")).to_contain_text("Open parts")
        expect(page.get_by_text("everything is kept")).to_be_visible()
        # The words of the picture are in its label too.
        label = picture.get_attribute("aria-label")
        assert label is not None
        assert "Journal: " in label
        assert_accessible(page)


def test_the_status_tells_what_the_picture_shows(site: Site) -> None:
    actors = site.api("GET", "/status")["actors"]
    channels = actors["channels"]
    assert channels["capacity"]["by_edge"]["door-bulk"] == 0
    assert channels["blocked_seconds_total"]["by_edge"].keys() == {
        "door-bulk",
        "socket-decode",
        "decode-insert",
        "door-memory",
    }
    assert actors["journal"]["backlog_bytes_max"] > 0
    assert actors["bulk"]["workers"] > 0
    assert actors["disk"]["reserve_bytes"] > 0


def test_the_screen_is_sound_in_both_themes_and_narrow(site: Site) -> None:
    site.looks("/pipeline", "pipeline", ready=".picture svg")
