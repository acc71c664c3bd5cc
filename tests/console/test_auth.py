"""The console over TCP: tokens, sessions, foreign pages, the forms without script."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.console.fakes import Answer, Console, ask, served
from tests.console.test_tls import connect_tls, pair, trusting

PASSWORD = "correct horse battery"
ADMIN = "Authorization: Bearer admin-key"
READER = "Authorization: Bearer read-key"


@pytest.fixture
async def console(tmp_path: Path) -> AsyncIterator[Console]:
    async with served(tmp_path) as console:
        yield console


async def set_up(console: Console) -> str:
    """The cookie of the first administrator."""
    invitation = console.services.control.ensure_admin()
    assert invitation is not None
    body = {"token": invitation.token, "email": "ada@example.org", "password": PASSWORD}
    answer = await post(console, "/api/v1/setup", body)
    assert answer.status == 200
    return cookie_of(answer)


def cookie_of(answer: Answer) -> str:
    return answer.headers["set-cookie"].partition(";")[0]


async def post(console: Console, path: str, body: object, *headers: str) -> Answer:
    data = json.dumps(body).encode()
    return await console.get(path, method="POST", body=data, headers=headers)


async def send_form(console: Console, path: str, *headers: str, **fields: str) -> Answer:
    data = urlencode(fields).encode()
    kind = "Content-Type: application/x-www-form-urlencoded"
    return await console.get(path, method="POST", body=data, headers=[kind, *headers])


async def test_an_admin_token_may_all_and_a_read_token_reads(console: Console) -> None:
    for header, status in ((ADMIN, 201), (READER, 403)):
        assert (await post(console, "/api/v1/sources", {"name": "s"}, header)).status == status
    for header, status in ((ADMIN, 200), (READER, 403)):
        for path in ("/api/v1/sources", "/api/v1/tokens", "/api/v1/members", "/api/v1/audit"):
            assert (await console.get(path, headers=[header])).status == status
        assert (await console.get("/api/v1/status", headers=[header])).status == 200
        answer = await post(console, "/api/v1/query", {"sql": "select"}, header)
        assert answer.status == 200
    answer = await console.get("/api/v1/status", headers=["Authorization: Bearer nope"])
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")


async def test_an_api_key_leaves_foreign_pages_no_say(console: Console) -> None:
    """A page cannot send a header of ours, so a token needs no look at where it comes from."""
    answer = await post(
        console, "/api/v1/sources", {"name": "s"}, ADMIN, "Sec-Fetch-Site: cross-site"
    )
    assert answer.status == 201


async def test_a_session_is_a_strict_private_cookie(console: Console) -> None:
    invitation = console.services.control.ensure_admin()
    assert invitation is not None
    body = {"token": invitation.token, "email": "ada@example.org", "password": PASSWORD}
    answer = await post(console, "/api/v1/setup", body)
    attributes = {part.strip().lower() for part in answer.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= attributes
    assert "secure" not in attributes
    cookie = f"Cookie: {cookie_of(answer)}"
    me = await console.get("/api/v1/session", headers=[cookie])
    assert (me.document["email"], me.document["role"]) == ("ada@example.org", "admin")
    gone = await console.get("/api/v1/session", method="DELETE", headers=[cookie])
    assert gone.status == 200
    assert "max-age=0" in gone.headers["set-cookie"].lower()
    assert (await console.get("/api/v1/session", headers=[cookie])).status == 401


@pytest.mark.parametrize(
    ("proxies", "url", "headers", "is_secure"),
    [
        (["127.0.0.1"], "", ["X-Forwarded-Proto: https"], True),
        ([], "", ["X-Forwarded-Proto: https"], False),
        ([], "https://localhost", [], True),
        ([], "https://elsewhere", [], False),
    ],
)
async def test_the_cookie_is_secure_where_the_browser_speaks_https(
    console: Console, proxies: list[str], url: str, headers: list[str], is_secure: bool
) -> None:
    await set_up(console)
    console.services.proxies, console.services.url = proxies, url
    body = {"email": "ada@example.org", "password": PASSWORD}
    answer = await post(console, "/api/v1/session", body, *headers)
    assert ("; Secure" in answer.headers["set-cookie"]) == is_secure


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 201),
        (["Sec-Fetch-Site: same-origin"], 201),
        (["Sec-Fetch-Site: none"], 201),
        (["Sec-Fetch-Site: same-site"], 403),
        (["Sec-Fetch-Site: cross-site"], 403),
        (["Sec-Fetch-Site: cross-site", "Origin: http://localhost"], 403),
        (["Origin: http://localhost"], 201),
        (["Origin: http://evil.example"], 403),
        (["Origin: null"], 403),
        (["Origin: http://[bad"], 403),
        (["Origin: http://localhost.evil.example"], 403),
        (["Origin: https://console.example"], 201),
    ],
)
async def test_a_session_changes_nothing_for_a_foreign_page(
    console: Console, headers: list[str], status: int
) -> None:
    cookie = f"Cookie: {await set_up(console)}"
    console.services.url = "https://console.example"
    answer = await post(console, "/api/v1/sources", {"name": "s"}, cookie, *headers)
    assert answer.status == status
    # Reading is not a change; the browser keeps the answer from the foreign page.
    assert (await console.get("/api/v1/sources", headers=[cookie, *headers])).status == 200


async def test_nobody_is_signed_in_from_a_foreign_page(console: Console) -> None:
    await set_up(console)
    body = {"email": "ada@example.org", "password": PASSWORD}
    foreign = "Sec-Fetch-Site: cross-site"
    assert (await post(console, "/api/v1/session", body, foreign)).status == 403
    assert (await send_form(console, "/login", foreign, **body)).status == 403


async def test_a_viewers_session_reads_only(console: Console) -> None:
    await set_up(console)
    control = console.services.control
    bob = control.create_member("bob@example.org", "viewer")
    body = {"token": bob.token, "password": PASSWORD}
    cookie = f"Cookie: {cookie_of(await post(console, '/api/v1/invites/accept', body))}"
    assert (await console.get("/api/v1/status", headers=[cookie])).status == 200
    assert (await console.get("/api/v1/tokens", headers=[cookie])).status == 403
    changed = {"old_password": PASSWORD, "new_password": "another password"}
    assert (await post(console, "/api/v1/session/password", changed, cookie)).status == 200
    control.change_role(bob.member.id, "admin")
    assert (await console.get("/api/v1/tokens", headers=[cookie])).status == 200
    control.change_role(bob.member.id, "viewer")
    control.delete_member(bob.member.id)
    assert (await console.get("/api/v1/status", headers=[cookie])).status == 401


async def test_a_wrong_password_and_a_made_up_cookie_open_nothing(console: Console) -> None:
    await set_up(console)
    body = {"email": "ada@example.org", "password": "wrong wrong"}
    answer = await post(console, "/api/v1/session", body)
    assert answer.status == 401
    assert "set-cookie" not in answer.headers
    cookie = "Cookie: ingester_session=made-up"
    assert (await console.get("/api/v1/status", headers=[cookie])).status == 401


@pytest.mark.parametrize("path", ["/login", "/setup?token=abc", "/invite?token=abc"])
async def test_forms_are_labelled_and_load_nothing(console: Console, path: str) -> None:
    answer = await console.get(path)
    text = answer.body.decode()
    assert answer.status == 200
    assert re.search(r"<script|src=|https?://|@import|url\(", text) is None
    assert "form-action 'self'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["referrer-policy"] == "same-origin"
    visible = re.findall(r'<input id="(\w+)"', text)
    assert visible
    assert re.findall(r'<label for="(\w+)"', text) == visible
    assert ('value="abc"' in text) == ("token" in path)


async def test_what_a_form_shows_again_is_escaped(console: Console) -> None:
    sneaky = '"><script>alert(1)</script>'
    answer = await console.get("/invite?" + urlencode({"token": sneaky}))
    assert b"<script>" not in answer.body
    answer = await send_form(console, "/login", email=sneaky, password="x")
    assert answer.status == 401
    assert b"<script>" not in answer.body
    assert b'role="alert"' in answer.body


async def test_the_forms_set_up_invite_and_sign_in(console: Console) -> None:
    control = console.services.control
    invitation = control.ensure_admin()
    assert invitation is not None
    answer = await send_form(
        console, "/setup", token=invitation.token, email="ada@example.org", password="short"
    )
    assert answer.status == 422
    assert "8 to" in answer.body.decode()
    assert invitation.token in answer.body.decode()
    answer = await send_form(
        console, "/setup", token=invitation.token, email="ada@example.org", password=PASSWORD
    )
    assert (answer.status, answer.headers["location"]) == (303, "/welcome")
    bob = control.create_member("bob@example.org", "viewer")
    answer = await send_form(console, "/invite", token=bob.token, password=PASSWORD)
    assert answer.status == 303
    answer = await send_form(
        console, "/login", "Origin: http://localhost", email="BOB@example.org", password=PASSWORD
    )
    assert answer.status == 303
    cookie = f"Cookie: {cookie_of(answer)}"
    me = await console.get("/api/v1/session", headers=[cookie])
    assert me.document["email"] == "bob@example.org"


async def test_the_address_of_a_client_behind_a_trusted_proxy_counts(console: Console) -> None:
    forwarded = "X-Forwarded-For: 203.0.113.7"
    await console.get("/api/v1/projects", headers=[ADMIN, forwarded])
    console.services.proxies = ["127.0.0.0/8"]
    await console.get("/api/v1/projects", headers=[ADMIN, forwarded])
    assert console.services.addresses == ["127.0.0.1", "203.0.113.7"]


async def test_over_tls_the_cookie_is_secure(tmp_path: Path) -> None:
    async with served(tmp_path, tls=pair("first")) as console:
        invitation = console.services.control.ensure_admin()
        assert invitation is not None
        body = {"token": invitation.token, "email": "ada@example.org", "password": PASSWORD}
        async with await connect_tls(console, trusting("first")) as stream:
            answer = await ask(stream, "POST", "/api/v1/setup", json.dumps(body).encode())
    assert "; Secure" in answer.headers["set-cookie"]
