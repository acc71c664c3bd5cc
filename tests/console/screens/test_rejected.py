"""Rejected lines: found by reason, looked at, tried, replayed after a fix."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.console.screens.site import VIEWER, Site, assert_accessible
from tests.system.client import event_line
from tests.system.server import wait_until

HOSTILE = (
    '{"a": "<script>window.hacked=1</script>\u202e\u001b[31m", "b": <img src=x onerror=hacked=1>}'
)


@pytest.fixture(scope="module")
def source(site: Site) -> str:
    """A source with a good line and bad ones of several kinds."""
    keys = site.server.create_source("broken-shop")
    no_session = json.dumps({**json.loads(event_line("a")), "sessionId": ""}).encode()
    long = b'{"accountId": "' + b"x" * 900_000 + b'"'
    lines = [event_line("a"), no_session, HOSTILE.encode(), b"[1, 2]", long]
    site.send(keys.path, b"\n".join(lines))
    wait_until(lambda: counts(site), 10, "the rejects")
    return keys.name


def counts(site: Site) -> Any:
    return site.api("GET", "/rejects/counts?source=broken-shop")["counts"]


def test_bad_lines_are_shown_with_their_reasons_and_inert(site: Site, source: str) -> None:
    with site.page(f"/settings/rejected?source={source}") as page:
        table = page.get_by_role("region", name="Rejected lines", exact=True)
        for reason in ("missing_field", "invalid_json", "not_an_object"):
            expect(table.get_by_text(reason, exact=True).first).to_be_visible()
        closed = table.get_by_role("button", name="Open")
        while closed.count():
            closed.first.click()
        expect(table.get_by_text("characters before …")).to_be_visible()
        expect(table.get_by_text("Only its first 64 KiB are kept.")).to_be_visible()
        expect(table.locator("mark").first).to_be_visible()
        shown = table.inner_text()
        assert "<script>" in shown
        assert "\\u202e" in shown
        assert "\u202e" not in shown
        assert page.evaluate("() => window.hacked") is None
        assert page.locator("main img, main script").count() == 0
        assert_accessible(page)
        assert len(shown) < 20_000, "a line of a megabyte is not put into the page"


def test_a_line_is_checked_edited_and_replayed_once(site: Site, source: str) -> None:
    with site.page(f"/settings/rejected?source={source}&reason=missing_field") as page:
        table = page.get_by_role("region", name="Rejected lines", exact=True)
        table.get_by_role("button", name="Open").first.click()
        page.get_by_role("button", name="Replay…", exact=True).click()
        dialog = page.get_by_role("dialog", name="Replay a line")
        dialog.get_by_role("button", name="Check").click()
        expect(dialog.get_by_role("status")).to_contain_text("missing_field")
        line = dialog.get_by_label("The line to send")
        line.fill(line.input_value().replace('"sessionId": ""', '"sessionId": "s9"'))
        dialog.get_by_role("button", name="Check").click()
        expect(dialog.get_by_role("status")).to_have_text("It would be taken. ")
        assert_accessible(page)
        site.shot(page, "replay-light")
        dialog.get_by_role("button", name="Replay", exact=True).click()
        expect(page.get_by_text("The line was replayed.")).to_be_visible()
        expect(table.get_by_text("replayed", exact=True)).to_be_visible()
    [row] = [row for row in counts(site) if row["reason"] == "missing_field"]
    assert row["replayed"] == 1


def test_a_viewer_looks_and_cannot_replay(site: Site, source: str) -> None:
    with site.page(f"/settings/rejected?source={source}", who=VIEWER) as page:
        table = page.get_by_role("region", name="Rejected lines", exact=True)
        table.get_by_role("button", name="Open").first.click()
        expect(page.get_by_role("button", name="Copy line")).to_be_visible()
        for name in ("Replay…", "Replay these…", "Replay all…"):
            expect(page.get_by_role("button", name=name, exact=True)).to_have_count(0)


def test_rejected_lines_look_sound(site: Site, source: str) -> None:
    site.looks(f"/settings/rejected?source={source}", "rejected", ready="mark, .excerpt-text")


def test_refused_requests_are_listed_with_why(site: Site) -> None:
    with pytest.raises(OSError, match="401"):
        site.send("/api/v1/webhook/event/log", b"{}", {"Authorization": "Bearer ingl_nobody"})
    with site.page("/settings/refused") as page:
        expect(page.get_by_text("/api/v1/webhook/event/log").first).to_be_visible()
        expect(page.get_by_text("401").first).to_be_visible()
    site.looks("/settings/refused", "refused", ready="table")
