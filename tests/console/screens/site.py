"""A real server with a signed-in browser page: what the tests of screens share.

A `Site` is one server, set up through its one-time link, and one chromium. Pages are made for an
administrator or a viewer, in the dark or the light, as wide as asked. What a page writes to its
console as an error, and what the policy refused, fails the test that used it.
"""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, ConsoleMessage, Error, Locator, Page, Route, expect

from tests.system.server import Server

__all__ = [
    "ADMIN",
    "PASSWORD",
    "VIEWER",
    "Site",
    "Theme",
    "assert_accessible",
    "assert_fits",
    "copied",
    "drag",
    "held",
    "write_query",
]

Theme = Literal["light", "dark"]

ADMIN = "ada@example.org"
VIEWER = "vic@example.org"
PASSWORD = "correct horse battery"
NARROW = 375

# Colours depend on the theme and places on the width: two pages have both of each.
_LOOKS: tuple[tuple[Theme, int], ...] = (("light", 1280), ("dark", NARROW))
_LOOKS_SHOWN: tuple[tuple[Theme, int], ...] = (("light", 1280), ("dark", 1280), ("light", NARROW))

_AXE = Path(__file__).parents[1] / "vendor" / "axe.min.js"
_IMPACTS = ("serious", "critical")
# A refused request is an answer that tests ask for; the browser notes it as an error.
_EXPECTED = re.compile(r"Failed to load resource: the server responded with a status of 4\d\d")


@dataclass
class Site:
    """`server` is set up; `token` administers; `shots` is where pictures go, if anywhere."""

    server: Server
    browser: Browser
    shots: Path | None
    token: str = ""
    cookies: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.server.ready["console"]

    @property
    def intake(self) -> str:
        return self.server.ready["intake"]

    @contextmanager
    def page(
        self,
        path: str = "/",
        *,
        who: str | None = ADMIN,
        theme: Theme = "light",
        width: int = 1280,
        height: int = 860,
    ) -> Iterator[Page]:
        """A page in a browser profile of its own; `who` None is nobody."""
        context = self.browser.new_context(
            base_url=self.url,
            viewport={"width": width, "height": height},
            color_scheme=theme,
            permissions=["clipboard-read", "clipboard-write"],
            locale="en-GB",
        )
        if who is not None:
            context.add_cookies([
                {"name": "ingester_session", "value": self.cookies[who], "url": self.url}
            ])
        page = context.new_page()
        page.set_default_timeout(15_000)
        faults: list[str] = []
        page.on("console", lambda message: _note(message, faults))
        page.on("pageerror", lambda error: faults.append(str(error)))
        try:
            page.goto(path)
            yield page
            assert not faults, faults
        finally:
            context.close()

    def shot(self, page: Page, name: str, *, whole: bool = True) -> None:
        """A picture for a reader, where `--screenshots` says: of the whole page, or of what the
        window shows.
        """
        if self.shots is not None:
            page.wait_for_timeout(150)  # uPlot draws in the next frames
            page.screenshot(path=self.shots / f"{name}.png", full_page=whole)

    def looks(
        self, path: str, name: str, *, ready: str, who: str = ADMIN, whole: bool = True
    ) -> None:
        """The screen at `path` in both themes and at 375 px: sound for axe, nothing cut off, and a
        picture of each. `ready` is a selector of what must be there.
        """
        for theme, width in _LOOKS_SHOWN if self.shots is not None else _LOOKS:
            with self.page(path, who=who, theme=theme, width=width) as page:
                expect(page.locator(ready).first).to_be_visible()
                assert_accessible(page)
                assert_fits(page)
                self.shot(page, f"{name}-{theme}{'' if width > NARROW else '-375'}", whole=whole)

    def api(self, method: str, path: str, body: object = None) -> Any:
        """The JSON API as an administrator."""
        return self._ask(f"{self.url}/api/v1{path}", method, body)

    def send(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
        """A request to the intake door; HTTPError for a refusal."""
        request = urllib.request.Request(
            f"{self.intake}{path}", data=body, headers=dict(headers or {}), method="POST"
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return bytes(answer.read())

    def _ask(self, url: str, method: str, body: object) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(url, data=data, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())


def assert_accessible(page: Page) -> None:
    """No serious violation that axe-core finds. What is about to be replaced is pale."""
    expect(page.locator(".stale")).to_have_count(0)
    # By the debugger, not as a script of the page: the policy would refuse that.
    page.evaluate(f"(() => {{ {_AXE.read_text('utf-8')} }})()")
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    bad = [
        f"{one['id']}: {one['help']}: {[node['html'][:160] for node in one['nodes'][:5]]}"
        for one in found["violations"]
        if one["impact"] in _IMPACTS
    ]
    assert not bad, "\n".join(bad)


def assert_fits(page: Page) -> None:
    """Nothing makes the page wider than its window."""
    width, shown = page.evaluate(
        "() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert width <= shown, f"{page.url} is {width} px wide in a window of {shown}"


def write_query(page: Page, text: str, label: str = "Query") -> None:
    """Put a text into the editor. Not over a selection: what Chromium inserts there by itself has
    a style, which the policy refuses and the browser notes as an error.
    """
    page.get_by_role("textbox", name=label).click()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.press("Delete")
    page.keyboard.type(text)


def drag(page: Page, plot: Locator, begin: float, end: float) -> None:
    """Over a plot, between two shares of its width."""
    box = plot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * begin, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * end, box["y"] + 50, steps=4)
    page.mouse.up()


@contextmanager
def held(page: Page, pattern: str) -> Iterator[None]:
    """Requests whose address fits wait as long as the block lasts: what a slow server would do."""
    waiting: list[Route] = []

    def wait(route: Route) -> None:
        waiting.append(route)

    page.route(pattern, wait)
    try:
        yield
    finally:
        page.unroute(pattern, wait)
        for route in waiting:
            with suppress(Error):  # superseded meanwhile
                route.continue_()


def copied(page: Page, button: Locator) -> str:
    """What a copy button has put into the clipboard."""
    page.evaluate("() => navigator.clipboard.writeText('')")
    button.click()
    expect(page.get_by_role("button", name="Copied").first).to_be_visible()
    page.wait_for_function("async () => (await navigator.clipboard.readText()) !== ''")
    return str(page.evaluate("() => navigator.clipboard.readText()"))


def _note(message: ConsoleMessage, faults: list[str]) -> None:
    if message.type == "error" and not _EXPECTED.search(message.text):
        faults.append(f"{message.text} {message.location}")
