"""The ASGI layer between Hypercorn and the application: heads, bodies, trust, the last message.

Quart on trio has four habits that do harm on an open socket. It parses the request target with a
function that raises on `http://[::1/`. It counts only unread bytes of a chunked body. It waits
60 s for a body without regard to what is buffered. And when the client leaves it cancels the
handler even after the answer was given, in the middle of Hypercorn's own closing, so that the
descriptor is never closed. Here each is met before the application is called.

Invariants:

1. The application sees a whole body within the limits, in one message, or is not called.
2. Once its final body message was sent, `receive` never returns: `http.disconnect` is withheld.
   What still arrives is read away, so that the reading task never waits for a full queue.
3. `scope["ingester.listener"]` says which socket a request came by. It is set here for every
   request, from the listener that accepted it; no header can influence it.
4. A refusal closes the connection.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
import trio

from ingester.console.connection import ConsoleCounters, ConsoleLimits

__all__ = ["LISTENER_KEY", "Guard", "Listener", "is_local_admin"]

Listener = Literal["console", "control"]
Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

LISTENER_KEY = "ingester.listener"

_VERSIONS = frozenset({"1.0", "1.1"})


def is_local_admin(scope: Any) -> bool:
    """Whether the request came by the control socket, which only our own user can open."""
    return bool(scope.get(LISTENER_KEY) == "control")


class Refusal(Exception):
    """Not an error of ours: the request ends here with this answer."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Guard:
    """The application as one listener serves it."""

    def __init__(
        self,
        app: Application,
        *,
        listener: Listener,
        limits: ConsoleLimits,
        counters: ConsoleCounters,
    ) -> None:
        self._app = app
        self._listener = listener
        self._limits = limits
        self._counters = counters
        self._body_bytes_max = (
            limits.control_body_bytes_max if listener == "control" else limits.body_bytes_max
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # there is no lifespan and no WebSocket
        try:
            checked = check_head(scope, self._limits)
            body = await self._read_body(scope["headers"], receive)
        except Refusal as refusal:
            self._counters.answered(self._listener, refusal.status)
            await _answer_refusal(refusal, receive, send)
            return
        if body is None:
            return  # the client left
        exchange = _Exchange(
            body, receive, send, lambda status: self._counters.answered(self._listener, status)
        )
        await self._app(
            {**scope, **checked, LISTENER_KEY: self._listener}, exchange.receive, exchange.send
        )

    async def _read_body(
        self, headers: list[tuple[bytes, bytes]], receive: Receive
    ) -> bytes | None:
        """The whole body; None when the client left before its end."""
        too_large = Refusal(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"a request body has at most {self._body_bytes_max} bytes here",
        )
        for name, value in headers:
            if name == b"content-length" and int(value) > self._body_bytes_max:
                raise too_large
        pieces: list[bytes] = []
        size = 0
        with trio.move_on_after(self._limits.body_seconds_max):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                piece = message.get("body", b"")
                size += len(piece)
                if size > self._body_bytes_max:
                    raise too_large
                pieces.append(piece)
                if not message.get("more_body", False):
                    return b"".join(pieces)
        raise Refusal(
            HTTPStatus.REQUEST_TIMEOUT,
            f"the request body did not arrive within {self._limits.body_seconds_max:g} seconds",
        )


def check_head(scope: Scope, limits: ConsoleLimits) -> Scope:
    """The corrected parts of the scope (an absolute-form target becomes a path), or a refusal."""
    if scope["http_version"] not in _VERSIONS:
        raise Refusal(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "this port speaks HTTP/1.1")
    target = bytes(scope["raw_path"])
    if len(target) + len(scope["query_string"]) > limits.target_bytes_max:
        raise Refusal(
            HTTPStatus.REQUEST_URI_TOO_LONG,
            f"a request target has at most {limits.target_bytes_max} bytes here",
        )
    head_bytes = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    if head_bytes > 2 * limits.head_bytes_max:
        raise Refusal(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"the request headers have more than {2 * limits.head_bytes_max} bytes",
        )
    names = {name for name, _ in scope["headers"]}
    if not all(_is_host(value) for name, value in scope["headers"] if name == b"host"):
        raise Refusal(HTTPStatus.BAD_REQUEST, "the Host header is no name of a host")
    if b"content-length" in names and b"transfer-encoding" in names:
        raise Refusal(
            HTTPStatus.BAD_REQUEST, "a request has Content-Length or Transfer-Encoding, not both"
        )
    if target.startswith(b"/"):
        return {}
    return _origin_form(scope["path"], target)


def _is_host(value: bytes) -> bool:
    """Whether the router can read it; where it cannot, it raises out of the application."""
    try:
        value.decode("latin-1").encode("idna")
    except UnicodeError:
        return False
    return True


def _origin_form(path: str, target: bytes) -> Scope:
    """RFC 9112, 3.2.2: a server must accept `GET http://host/path`."""
    malformed = Refusal(HTTPStatus.BAD_REQUEST, "the request target is not a path")
    if not target.lower().startswith((b"http://", b"https://")):
        raise malformed
    try:
        urlsplit(target.decode("latin-1"))
    except ValueError:
        raise malformed from None
    raw = target.split(b"/", 3)
    decoded = path.split("/", 3)
    return {
        "raw_path": b"/" + (raw[3] if len(raw) > 3 else b""),
        "path": "/" + (decoded[3] if len(decoded) > 3 else ""),
    }


class _Exchange:
    """`receive` and `send` of one request as the application gets them."""

    def __init__(
        self, body: bytes, receive: Receive, send: Send, answered: Callable[[int], None]
    ) -> None:
        self._body: bytes | None = body
        self._receive = receive
        self._send = send
        self._answered = answered
        self._complete = False

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        while True:
            message = await self._receive()
            if message["type"] != "http.disconnect":
                continue
            if not self._complete:
                return message
            await trio.sleep_forever()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._answered(int(message["status"]))
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self._complete = True
        await self._send(message)


async def _answer_refusal(refusal: Refusal, receive: Receive, send: Send) -> None:
    body = msgspec.json.encode({"error": str(refusal)})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    async with trio.open_nursery() as nursery:
        # The reading task may wait for room in the queue of a body nobody wants any more.
        nursery.start_soon(_drain, receive)
        await send({
            "type": "http.response.start",
            "status": int(refusal.status),
            "headers": headers,
        })
        await send({"type": "http.response.body", "body": body, "more_body": False})
        nursery.cancel_scope.cancel()


async def _drain(receive: Receive) -> None:
    while True:
        await receive()
