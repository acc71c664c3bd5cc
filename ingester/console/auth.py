"""Who sent a console request: bearer token, session cookie, or the control socket.

1. Over TCP a request is nobody's until a token or a session says otherwise; no other header counts.
2. A request that changes something on the strength of a cookie must come from our own pages:
   `Sec-Fetch-Site` says so, else `Origin` names our host (browsers send one or both; a client that
   sends neither is no browser, and `SameSite=Strict` keeps the cookie out of foreign requests).
3. The session is a cookie with `HttpOnly`, `SameSite=Strict`, and `Secure` over https.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from quart import Request, Response

from ingester.console.guard import is_local_admin
from ingester.console.services import Services
from ingester.errors import Forbidden
from ingester.management import Actor, Answer
from ingester.management.calls import LOCAL_ADMIN
from ingester.protocol.forwarded import client_address, is_in, parse_networks

__all__ = ["actor_of", "address_of", "refuse_cross_site", "set_session"]

COOKIE = "ingester_session"

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES = frozenset({"same-origin", "none"})


async def actor_of(request: Request, services: Services) -> Actor:
    """Raises Unauthorized (a key nobody has) or Forbidden (a foreign page, a wrong scope)."""
    if is_local_admin(request.scope):
        return LOCAL_ADMIN
    authorization = request.headers.get("Authorization")
    secret = request.cookies.get(COOKIE)
    if authorization is None and secret:
        refuse_cross_site(request, services)
    value = None if authorization is None else authorization.encode("utf-8", "surrogateescape")
    return await services.authenticate(value, secret, address_of(request, services))


def refuse_cross_site(request: Request, services: Services) -> None:
    """Raises Forbidden when an unsafe request comes from a page that is not ours."""
    if request.method in _SAFE_METHODS:
        return
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        if site not in _OWN_SITES:
            raise Forbidden("this request comes from a page of another site")
        return
    origin = request.headers.get("Origin")
    if origin is None:
        return
    ours = {request.headers.get("Host", "").lower(), urlsplit(services.public_url()).netloc.lower()}
    try:
        theirs = urlsplit(origin).netloc.lower()
    except ValueError:
        theirs = ""
    if not theirs or theirs not in ours:
        raise Forbidden("this request comes from a page of another site")


def address_of(request: Request, services: Services) -> str:
    """The client's address; a trusted proxy says whose it is."""
    peer = (request.scope.get("client") or ("local",))[0]
    trusted = parse_networks("intake.trusted_proxies", services.trusted_proxies())
    values = [value.encode("latin-1") for value in request.headers.getlist("X-Forwarded-For")]
    return client_address(peer, values, trusted)


def set_session(response: Response, answer: Answer, request: Request, services: Services) -> None:
    """Keep the session in the browser, or remove it."""
    secret = answer.session_secret or ""
    response.set_cookie(
        COOKIE,
        secret,
        max_age=answer.session_seconds if secret else 0,
        path="/",
        secure=_is_secure(request, services),
        httponly=True,
        samesite="Strict",
    )


def _is_secure(request: Request, services: Services) -> bool:
    """Whether the browser speaks https: to us, to a trusted proxy, or at the public address."""
    if request.scheme == "https":
        return True
    trusted = parse_networks("intake.trusted_proxies", services.trusted_proxies())
    peer = (request.scope.get("client") or ("",))[0]
    forwarded = request.headers.get("X-Forwarded-Proto", "").split(",")[0].strip().lower()
    if forwarded == "https" and is_in(peer, trusted):
        return True
    public = urlsplit(services.public_url())
    return public.scheme == "https" and public.netloc == request.headers.get("Host", "")
