"""Cross-origin rules of the intake door (Fetch standard), off unless origins are named.

An allowed origin may send to the intake routes from a browser and read the answers. Credentials
are never allowed: keys are sent in the path or in `Authorization`, by the page itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from ingester.protocol.http1_head import RequestHead

__all__ = ["CorsRules"]

_PREFLIGHT = (
    (b"Ingester-Accepted", b"0"),
    (b"Ingester-Rejected", b"0"),
    (b"Access-Control-Allow-Methods", b"GET, HEAD, POST"),
    (
        b"Access-Control-Allow-Headers",
        b"Authorization, Content-Type, Content-Encoding, Idempotency-Key, Prefer",
    ),
    (b"Access-Control-Max-Age", b"600"),
)
_EXPOSED = (
    b"Access-Control-Expose-Headers",
    b"Ingester-Request-Id, Ingester-Accepted, Ingester-Rejected, Ingester-Queryable, Retry-After, "
    b"X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset",
)
_VARY = (b"Vary", b"Origin")

Headers = tuple[tuple[bytes, bytes], ...]


class CorsRules:
    """`origins` as browsers send them (`https://app.example`), or `*` for any."""

    __slots__ = ("_any", "_origins")

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = frozenset(origin.encode("ascii", "replace") for origin in origins)
        self._any = b"*" in self._origins

    def preflight(self, head: RequestHead) -> Headers | None:
        """Headers of the 204 to a preflight of an allowed origin; None: an ordinary request."""
        if head.method != "OPTIONS" or head.get(b"access-control-request-method") is None:
            return None
        allowed = self._allowed(head)
        return None if allowed is None else (allowed, *_PREFLIGHT, _VARY)

    def headers(self, head: RequestHead) -> Headers:
        """What every other answer carries in addition."""
        allowed = self._allowed(head)
        return (_VARY,) if allowed is None else (allowed, _EXPOSED, _VARY)

    def _allowed(self, head: RequestHead) -> tuple[bytes, bytes] | None:
        origin = head.get(b"origin")
        if origin is None:
            return None
        if self._any:
            return (b"Access-Control-Allow-Origin", b"*")
        if origin in self._origins:
            return (b"Access-Control-Allow-Origin", origin)
        return None
