"""The instrumentation viewer: requests appear as they come, with verdicts and plain hints."""

from __future__ import annotations

import contextlib
import gzip
import json
from urllib.error import HTTPError

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.console.screens.site import VIEWER, Site, assert_accessible, copied
from tests.console.screens.test_integrations import code_of, ran
from tests.system.client import event_line
from tests.system.server import SourceKeys

GOOD = event_line("a")


@pytest.fixture(scope="module")
def keys(site: Site) -> SourceKeys:
    return site.server.create_source("viewed")


def send(site: Site, keys: SourceKeys, body: bytes, **headers: str) -> None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    site.send(f"/test{keys.path}", body, named)


def newest(page: Page, what: str) -> Locator:
    """The newest request, which is shown unless another was chosen."""
    request = page.get_by_role("region", name="Request", exact=True)
    expect(request).to_contain_text(what)
    return request


def test_its_own_instructions_work_and_nothing_is_stored(site: Site, keys: SourceKeys) -> None:
    with site.page(f"/viewer?source={keys.name}") as page:
        how = page.get_by_role("button", name="How to send")
        command = page.get_by_role("group", name="Copy plain curl")
        expect(how.or_(command).first).to_be_visible()
        if not command.is_visible():
            how.click()
        expect(command).to_contain_text(keys.auth_key)
        site.shot(page, "viewer-start-light")
        for label in ("Copy plain curl", "Copy compressed curl"):
            text = code_of(page, label)
            assert f"/test/v1/{keys.auth_key}/" in text
            assert ran(text) == ""
        page.keyboard.press("Escape")
        request = newest(page, "gzip")
        expect(request).to_contain_text("unpacked")
        expect(request).to_contain_text("acme · ada · login")
    found = site.server.query(f"SELECT count(*) AS n FROM events WHERE source = '{keys.name}'")
    assert found == [{"n": 0}]


def test_bad_lines_have_their_reason_and_column(site: Site, keys: SourceKeys) -> None:
    bad = b'{"accountId": "a", "userId": nope}'
    with site.page(f"/viewer?source={keys.name}") as page:
        send(site, keys, GOOD + b"\n\n" + bad + b'\n{"accountId": "a"}\n')
        request = newest(page, "2 rejected")
        lines = request.get_by_role("listitem")
        expect(lines).to_have_count(3)
        expect(lines.nth(0)).to_contain_text("accepted")
        expect(lines.nth(1)).to_contain_text("invalid_json")
        expect(lines.nth(1)).to_contain_text("column 31")
        expect(lines.nth(1).locator("mark")).to_have_text("o")
        expect(lines.nth(2)).to_contain_text("missing_field")
        assert keys.auth_key not in page.content()
        assert keys.api_key not in page.content()
        assert_accessible(page)
        site.shot(page, "viewer-light")
        curl = copied(page, request.get_by_role("button", name="Copy as curl"))
        assert "$AUTH_KEY/$API_KEY" in curl
        assert "/test/v1/" in curl
        assert "nope" in curl


@pytest.mark.parametrize(
    ("body", "headers", "hint"),
    [
        (b"[" + GOOD + b"]", {}, "A JSON array; send one event per line"),
        (GOOD + GOOD, {}, "use --data-binary instead of -d"),
        (event_line("a", createdAt=1_700_000_000), {}, "looks like seconds"),
        (gzip.compress(GOOD), {}, "without Content-Encoding"),
        (GOOD, {"Content_Encoding": "br"}, "Content-Encoding 'br' is not known here"),
        (GOOD, {"Content_Encoding": "gzip"}, "The body was refused"),
        (b'{"accountId": "a"}', {}, "Lines lack userId"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_classic_mistakes_are_named(
    site: Site, keys: SourceKeys, body: bytes, headers: dict[str, str], hint: str
) -> None:
    with site.page(f"/viewer?source={keys.name}") as page:
        with contextlib.suppress(HTTPError):  # a body that is not what it says is refused
            send(site, keys, body, **headers)
        expect(page.get_by_text(hint).first).to_be_visible()


def test_put_to_a_folder_is_named(site: Site, keys: SourceKeys) -> None:
    with site.page("/viewer") as page:
        ran(f"echo x | curl -s -T - {site.intake}/test{keys.path}/x || true")
        expect(page.get_by_text("with curl -T, add -X POST").first).to_be_visible()


def test_pausing_holds_what_comes_and_resuming_shows_it(site: Site, keys: SourceKeys) -> None:
    with site.page("/viewer") as page:
        send(site, keys, event_line("a", action="before-the-pause"))
        newest(page, "before-the-pause")
        page.get_by_role("button", name="Pause").click()
        before = page.locator(".viewer-row").count()
        send(site, keys, GOOD)
        send(site, keys, GOOD)
        expect(page.get_by_role("button", name="Resume (2 waiting)")).to_be_visible()
        assert page.locator(".viewer-row").count() == before
        page.get_by_role("button", name="Resume").click()
        expect(page.locator(".viewer-row")).to_have_count(before + 2)


def test_hostile_requests_are_inert(site: Site, keys: SourceKeys) -> None:
    sneaky = "<img src=x onerror=hacked=1>"
    event = {**json.loads(GOOD), "action": sneaky, "x": "\u202e javascript:alert(1)"}
    with site.page(f"/viewer?source={keys.name}", who=VIEWER) as page:
        send(site, keys, json.dumps(event).encode(), User_Agent=sneaky, X_Odd=sneaky)
        request = newest(page, sneaky)
        expect(request.get_by_role("listitem").first).to_contain_text(sneaky)
        request.get_by_role("listitem").first.click()
        expect(request).to_contain_text("\\u202e")
        assert page.evaluate("() => window.hacked") is None
        assert page.locator("main img, main script").count() == 0
        assert page.locator('main a[href^="javascript"]').count() == 0


def test_the_viewer_looks_sound(site: Site, keys: SourceKeys) -> None:
    send(site, keys, GOOD + b"\nnope\n")
    site.looks("/viewer", "viewer", ready=".viewer-request")
