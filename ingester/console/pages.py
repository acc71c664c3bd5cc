"""Routes of what people see: screens, forms, and the files that pages load.

1. A screen is for whoever is signed in; others are sent to the form and come back afterwards. The
   role is looked at before anything is shown.
2. Forms work without script: they go the same way as the API's bodies.
3. The session's cookie is `SameSite=Strict`, so that a link in a mail comes without it. Such a page
   is asked for once more, from a page of ours, before anyone is sent to the form.
4. An error of a page is a page; of everything else it stays JSON.
"""

from __future__ import annotations

import contextlib
from urllib.parse import quote

import msgspec
import trio
from quart import Response, g, request
from quart_trio import QuartTrio

from ingester.console.assets import Assets
from ingester.console.auth import actor_of, address_of, refuse_cross_site, set_session
from ingester.console.screens import SCREENS, Screen
from ingester.console.services import Services
from ingester.console.shell import THEME_COOKIE, FormName, Pages, new_nonce, page_policy, safe_next
from ingester.errors import NotFound, Overloaded, RequestError, StoreBusy, Unauthorized
from ingester.management.calls import NOBODY

__all__ = ["OPEN_PAGES", "add_pages", "error_page", "harden_page", "wants_page"]

HTML = "text/html"
_FOREVER = "public, max-age=31536000, immutable"
_HOME = "/logs"
_FORMS: tuple[tuple[FormName, str, tuple[str, ...]], ...] = (
    ("login", "/api/v1/session", ("email", "password")),
    ("setup", "/api/v1/setup", ("token", "email", "password")),
    ("invite", "/api/v1/invites/accept", ("token", "password")),
)

# Endpoints that look themselves at who asks, or need not.
OPEN_PAGES = frozenset(
    {"index", "asset", "send logout"}
    | {f"{what} {name}" for what in ("show", "send") for name, _, _ in _FORMS}
    | {f"screen {screen.path}" for screen in SCREENS}
)


def add_pages(app: QuartTrio, services: Services) -> Pages:
    assets = Assets()
    pages = Pages(assets)
    _add_files(app, assets)
    _add_screens(app, services, pages)
    for name, path, fields in _FORMS:
        _add_form(app, services, pages, name, path, fields)
    _add_logout(app, services)
    return pages


def wants_page() -> bool:
    """Whether a browser shows the answer: its navigations accept HTML by name."""
    return HTML in request.headers.get("Accept", "") and not request.path.startswith("/api/")


async def error_page(services: Services, pages: Pages, status: int, sentence: str) -> Response:
    """With the navigation of whoever is signed in, also where no route has asked for that."""
    actor = NOBODY
    with contextlib.suppress(RequestError, StoreBusy, Overloaded):
        actor = await actor_of(request, services)
    return html(pages.error(status, sentence, actor, nonce=nonce(), theme=theme()), status)


def harden_page(response: Response) -> None:
    headers = response.headers
    headers["Content-Security-Policy"] = page_policy(nonce())
    # With no-referrer a browser would send `Origin: null` with our own forms.
    headers["Referrer-Policy"] = "same-origin"
    headers["Cross-Origin-Opener-Policy"] = "same-origin"


def html(page: str, status: int = 200) -> Response:
    return Response(page, status=status, content_type="text/html; charset=utf-8")


def nonce() -> str:
    """Of this request."""
    if "nonce" not in g:
        g.nonce = new_nonce()
    return str(g.nonce)


def theme() -> str:
    return request.cookies.get(THEME_COOKIE, "")


def _add_files(app: QuartTrio, assets: Assets) -> None:
    @app.get("/static/<version>/<path:path>", endpoint="asset")
    async def asset(version: str, path: str) -> Response:
        found = assets.maybe_asset(version, path)
        if found is None:
            raise NotFound("there is no such file in this version; reload the page")
        body, headers = found.body, {"Cache-Control": _FOREVER, "Vary": "Accept-Encoding"}
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            packed = await trio.to_thread.run_sync(lambda: found.packed)
            if packed is not None:
                body, headers["Content-Encoding"] = packed, "gzip"
        return Response(body, content_type=found.content_type, headers=headers)


def _add_screens(app: QuartTrio, services: Services, pages: Pages) -> None:
    @app.get("/", endpoint="index")
    async def index() -> Response:
        return _to(_HOME)

    def add(screen: Screen) -> None:
        async def show(**_names: str) -> Response:
            try:
                g.actor = await actor_of(request, services)
            except Unauthorized:
                g.actor = NOBODY
            if g.actor.role is None:
                return _to_form(pages)
            if screen.role == "admin" and g.actor.role != "admin":
                return await error_page(services, pages, 403, _FOR_ADMINISTRATORS)
            intake_url = services.intake_url()
            page = pages.screen(
                screen, g.actor, nonce=nonce(), theme=theme(), intake_url=intake_url
            )
            return html(page)

        app.add_url_rule(
            screen.path.replace("{path}", "<path:path>").replace("{", "<").replace("}", ">"),
            endpoint=f"screen {screen.path}",
            view_func=show,
            methods=["GET"],
        )

    for screen in SCREENS:
        add(screen)


def _add_form(
    app: QuartTrio,
    services: Services,
    pages: Pages,
    name: FormName,
    path: str,
    fields: tuple[str, ...],
) -> None:
    async def show() -> Response:
        page = pages.form(
            name,
            nonce=nonce(),
            theme=theme(),
            token=request.args.get("token", ""),
            next_path=safe_next(request.args.get("next", "")),
            told="You are signed out." if "signed_out" in request.args else "",
        )
        return html(page)

    async def send() -> Response:
        refuse_cross_site(request, services)
        form = await request.form
        sent = {field: form.get(field, "") for field in fields}
        next_path = safe_next(form.get("next", ""))
        body = msgspec.json.encode(sent)
        address = address_of(request, services)
        answer = await services.manage("POST", path, {}, body, NOBODY, address)
        if answer.session_secret is None:
            page = pages.form(
                name,
                nonce=nonce(),
                theme=theme(),
                token=sent.get("token", ""),
                email=sent.get("email", ""),
                next_path=next_path,
                error=str(answer.document.get("error", "")),
            )
            return html(page, answer.status)
        response = _to("/welcome" if name == "setup" else next_path or "/")
        set_session(response, answer, request, services)
        return response

    app.add_url_rule(f"/{name}", endpoint=f"show {name}", view_func=show, methods=["GET"])
    app.add_url_rule(f"/{name}", endpoint=f"send {name}", view_func=send, methods=["POST"])


def _add_logout(app: QuartTrio, services: Services) -> None:
    @app.post("/logout", endpoint="send logout")
    async def logout() -> Response:
        refuse_cross_site(request, services)
        response = _to("/login?signed_out")
        try:
            actor = await actor_of(request, services)
        except RequestError:
            return response
        if actor.session is not None:
            address = address_of(request, services)
            answer = await services.manage("DELETE", "/api/v1/session", {}, b"", actor, address)
            set_session(response, answer, request, services)
        return response


_FOR_ADMINISTRATORS = "You are signed in as a viewer. An administrator can change your role."


def _to_form(pages: Pages) -> Response:
    path = request.full_path.rstrip("?")
    if request.headers.get("Sec-Fetch-Site") == "cross-site" and safe_next(path):
        return html(pages.bounce(path))
    return _to(f"/login?next={quote(path, safe='/')}" if safe_next(path) else "/login")


def _to(path: str) -> Response:
    return Response(b"", status=303, headers={"Location": path})
