"""Pages over TCP: who gets them, the policy they are sent with, the files that they load."""

from __future__ import annotations

import gzip
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ingester.console.screens import SCREENS
from ingester.console.shell import safe_next
from tests.console.fakes import Console, served
from tests.console.test_auth import ADMIN, READER, send_form, set_up

PAGE = "Accept: text/html,application/xhtml+xml"


@pytest.fixture
async def console(tmp_path: Path) -> AsyncIterator[Console]:
    async with served(tmp_path) as console:
        yield console


@pytest.mark.parametrize("screen", SCREENS, ids=lambda screen: screen.name)
async def test_a_screen_is_for_its_role(console: Console, screen: object) -> None:
    path = screen.path.replace("{id}", "x").replace("{path}", "a/b")  # type: ignore[attr-defined]
    nobody = await console.get(path, headers=[PAGE])
    assert (nobody.status, nobody.headers["location"]) == (303, f"/login?next={path}")
    admin = await console.get(path, headers=[PAGE, ADMIN])
    assert admin.status == 200
    assert 'data-role="admin"' in admin.body.decode()
    reader = await console.get(path, headers=[PAGE, READER])
    is_theirs = screen.role == "viewer"  # type: ignore[attr-defined]
    assert reader.status == (200 if is_theirs else 403)
    assert 'data-role="viewer"' in reader.body.decode()
    assert (await console.get(path, method="POST", headers=[PAGE, ADMIN])).status == 405


async def test_a_viewer_sees_no_entry_of_what_is_for_administrators(console: Console) -> None:
    path = "/settings/you"
    admin = (await console.get(path, headers=[ADMIN])).body.decode()
    reader = (await console.get(path, headers=[READER])).body.decode()
    for entry in ("/settings/members", "/settings/audit", "/settings/events"):
        assert f'href="{entry}"' in admin
        assert f'href="{entry}"' not in reader
    assert 'href="/settings/rejected"' in reader


async def test_the_policy_of_a_page_lets_it_load_our_files_only(console: Console) -> None:
    first = await console.get("/logs", headers=[ADMIN])
    second = await console.get("/logs", headers=[ADMIN])
    policy = first.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; ")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "require-trusted-types-for 'script'; trusted-types 'none'" in policy
    assert policy != second.headers["content-security-policy"], "the nonce is used once"
    text = first.body.decode()
    assert re.search(r"https?://(?!intake\.example)|\son\w+=|<style|style=", text) is None
    assert set(re.findall(r"<script[^>]*>", text)) == {
        tag
        for tag in re.findall(r'<script type="module" src="/static/[0-9a-f]{16}/[\w/.]+">', text)
    }
    assert first.headers["cache-control"] == "no-store"


async def test_files_are_kept_for_ever_and_packed(console: Console) -> None:
    text = (await console.get("/logs", headers=[ADMIN])).body.decode()
    path = re.search(r"/static/[0-9a-f]{16}/app\.css", text)
    assert path is not None
    plain = await console.get(path[0])
    packed = await console.get(path[0], headers=["Accept-Encoding: gzip, br"])
    assert (plain.status, plain.headers["content-type"]) == (200, "text/css; charset=utf-8")
    assert plain.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"] == "Accept-Encoding"
    assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) * 3 < len(plain.body)
    other = path[0].replace(path[0].split("/")[2], "0" * 16)
    for missing in (other, f"{path[0]}x", path[0].replace("app.css", "../app.py")):
        answer = await console.get(missing)
        assert answer.status == 404
        assert answer.headers["cache-control"] == "no-store"


async def test_an_error_of_a_page_is_a_page_and_else_json(console: Console) -> None:
    page = await console.get("/nothing", headers=[PAGE, ADMIN])
    assert (page.status, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert b"There is nothing at this address" in page.body
    assert b"Pipeline" in page.body
    assert (await console.get("/nothing")).document["error"]
    assert (await console.get("/api/v1/nothing", headers=[PAGE, ADMIN])).document["error"]
    nobody = await console.get("/nothing", headers=[PAGE])
    assert b"Pipeline" not in nobody.body


async def test_a_link_in_a_mail_is_asked_for_again_from_here(console: Console) -> None:
    """The strict cookie does not come with it; sending to the form would ask who is signed in."""
    answer = await console.get("/incidents/7?a=1&b=2", headers=[PAGE, "Sec-Fetch-Site: cross-site"])
    assert answer.status == 200
    assert b'http-equiv="refresh"' in answer.body
    assert b'href="/incidents/7?a=1&amp;b=2"' in answer.body
    again = await console.get("/incidents/7?a=1&b=2", headers=[PAGE, "Sec-Fetch-Site: none"])
    assert again.headers["location"] == "/login?next=/incidents/7%3Fa%3D1%26b%3D2"


async def test_signing_in_goes_on_to_a_path_of_ours_only(console: Console) -> None:
    await set_up(console)
    fields = {"email": "ada@example.org", "password": "correct horse battery"}
    for asked, location in (
        ("/logs?q=a", "/logs?q=a"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("/a\r\nSet-Cookie: x=y", "/"),
        ("/ö", "/"),
        ("", "/"),
    ):
        answer = await send_form(console, "/login", next=asked, **fields)
        assert (answer.status, answer.headers["location"]) == (303, location), asked
    assert safe_next("/" + "a" * 2_000) == ""


async def test_signing_out_ends_the_session_and_needs_a_page_of_ours(console: Console) -> None:
    cookie = f"Cookie: {await set_up(console)}"
    assert (await console.get("/logs", headers=[cookie])).status == 200
    foreign = await send_form(console, "/logout", cookie, "Origin: http://evil.example")
    assert foreign.status == 403
    answer = await send_form(console, "/logout", cookie)
    assert (answer.status, answer.headers["location"]) == (303, "/login?signed_out")
    assert "max-age=0" in answer.headers["set-cookie"].lower()
    assert (await console.get("/logs", headers=[cookie])).status == 303
    assert (await send_form(console, "/logout")).status == 303


async def test_the_theme_is_in_the_page_that_is_sent(console: Console) -> None:
    for cookie, shown in (("dark", ' data-theme="dark"'), ('"><script>', ""), ("", "")):
        answer = await console.get("/login", headers=[f"Cookie: ingester_theme={cookie}"])
        assert f'<html lang="en"{shown}>' in answer.body.decode()
