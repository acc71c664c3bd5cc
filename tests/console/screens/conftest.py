"""One server and one browser for all tests of screens in a process.

Debian's `chromium-headless-shell` does it, or else its `chromium`, which starts a whole browser
around the page: 25 CPU-seconds for the tests of the explorer, without it 15 (measured 2026-11-22).
Where both are absent these tests are skipped with that reason; with REQUIRE_CHROMIUM=1 in the
environment that is a failure.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.console.screens.site import ADMIN, PASSWORD, VIEWER, Site
from tests.system.server import Server

# What a file declares is shown, and not to be changed there.
_WATCH_FILE = """
[[rules]]
name = "declared rule"
lql = "level:emergency service:nobody"
"""

_BROWSERS = ("chromium-headless-shell", "chromium")
_ABSENT = "no chromium is here (apt-get install chromium-headless-shell)"


@pytest.fixture(scope="package")
def site(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Site]:
    chromium = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if chromium is None:
        if os.environ.get("REQUIRE_CHROMIUM") == "1":
            pytest.fail(_ABSENT)
        pytest.skip(_ABSENT)
    folder = tmp_path_factory.mktemp("screens")
    # The browser must not take the processor from the server that it looks at.
    niced = folder / "chromium"
    niced.write_text(f'#!/bin/sh\nexec nice -n 19 {chromium} "$@"\n')
    niced.chmod(0o755)
    shots = request.config.getoption("--screenshots")
    if shots is not None:
        Path(shots).mkdir(parents=True, exist_ok=True)
    arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with (
        started(folder) as server,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=niced, args=arguments) as browser,
    ):
        # The browser shares two processors with the server and whatever else runs.
        expect.set_options(timeout=12_000)
        site = Site(server, browser, None if shots is None else Path(shots))
        set_up(site)
        yield site


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Server]:
    """A server with more time to start: a browser and others start beside it."""
    server = Server(folder / "data", folder / "data.log", _environment(folder))
    try:
        server.start(90)
        yield server
    finally:
        server.kill()


def _environment(folder: Path) -> dict[str, str]:
    """Receivers of the tests are on loopback; windows are judged without much delay."""
    declared = folder / "watch.toml"
    declared.write_text(_WATCH_FILE)
    return {
        "INGESTER_DELIVERY_ALLOW_NETWORKS": "127.0.0.0/8",
        "INGESTER_WATCH_DELAY_SECONDS": "1",
        "INGESTER_WATCH_FILES": str(declared),
    }


def set_up(site: Site) -> None:
    """The first administrator by the link, a viewer by an invitation, a token for the API."""
    link = setup_link(site.server)
    fields = {"token": link.partition("token=")[2], "email": ADMIN, "password": PASSWORD}
    site.cookies[ADMIN] = send_form(f"{site.url}/setup", fields)
    made = site.server.command("token", "create", "--scope", "admin")
    site.token = made["token"]
    invited = site.api("POST", "/members", {"email": VIEWER, "role": "viewer"})
    fields = {"token": invited["link"].partition("token=")[2], "password": PASSWORD}
    site.cookies[VIEWER] = send_form(f"{site.url}/invite", fields)


def setup_link(server: Server) -> str:
    told = (Path(server.data_dir) / "first-run.txt").read_text()
    found = re.search(r"http://\S+/setup\?token=\S+", told)
    assert found is not None
    return found[0]


def send_form(url: str, fields: dict[str, str]) -> str:
    """The session's secret out of the answer's cookie."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_args: object) -> None:
            return None

    request = urllib.request.Request(url, data=urlencode(fields).encode())
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.build_opener(Stay).open(request, timeout=20)
    with caught.value as answer:
        assert answer.code == 303, answer.read()
        cookie = str(answer.headers["Set-Cookie"])
    return cookie.partition("=")[2].partition(";")[0]
