"""Exchange: what a door is given and what it gives back.

A door is a `Handler`: one async function from `Request` to `Response`. It knows no socket, no
framing and no keep-alive; the intake server (`actors/intake.py`) does. A door that must refuse
raises a `RequestError` or returns a `Response` of its own; both are answered the same way.

1. `repr` of a request shows neither target nor headers: both carry keys.
2. A body is read at most once, by `whole_nowait` or by `receive`, and only while the handler runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
from msgspec import Struct

from ingester.messages import ErrorBody
from ingester.protocol.http1 import RequestHead

__all__ = [
    "Answer",
    "BodyStream",
    "Handler",
    "Request",
    "Response",
    "Shortcut",
    "Take",
    "error_response",
    "without_body",
]

JSON_TYPE = b"application/json"

# Clients of these expect no body, whatever is wrong (contract 3).
_BODILESS = ("/v1/", "/test/v1/")


class Response(Struct, gc=False):
    """One answer. The server adds `Ingester-Request-Id`, `Date` and `Content-Length`.

    `close` ends the connection behind it. `door` is a label for the counters. `request_number` 0
    means the request's own; a repeat under an `Idempotency-Key` carries the first one's.
    """

    status: int
    body: bytes = b""
    content_type: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    close: bool = False
    door: str = ""
    request_number: int = 0

    def __repr__(self) -> str:
        return f"Response({self.status}, {len(self.body)} bytes)"


class BodyStream(Protocol):
    """The body of one request, on its way in."""

    @property
    def received_bytes(self) -> int:
        """Body bytes handed out so far, framing not counted."""

    def whole_nowait(self) -> bytes | None:
        """The whole body when all of it is here already (b"" for none), and consumes it.

        None: it is not all here, is over `body_bytes_max`, malformed, or `receive` was called;
        `receive` tells which.
        """

    async def receive(self) -> bytes:
        """The next piece, at most 64 KiB; b"" at the end and ever after.

        Sends `100 Continue` when the client waits for it. While this waits, and only then, the
        stall timer and the minimum rate apply. Raises `ClientGone`, `RequestStalled`,
        `MalformedRequest` or `BodyTooLarge`.
        """


class Request(Struct, gc=False):
    """One request. `number` becomes its id; `listener` is "intake" or "test"."""

    head: RequestHead
    number: int
    client_address: str
    listener: str
    body: BodyStream

    def __repr__(self) -> str:
        return f"Request({self.head.method}, number {self.number}, {self.listener})"


Handler = Callable[[Request], Awaitable[Response]]

# A shortcut spares the usual small request its task: it is asked about a head and gives back who
# takes the request, or None for one that is the handler's. `take(number, address, body, answer)`
# has the client's address and the whole body, does not wait, and sees to it that `answer` is called
# exactly once, later, from the event loop. What it raises is answered like a fault of the handler.
Answer = Callable[[Response], None]
Take = Callable[[int, str, bytes, Answer], None]
Shortcut = Callable[[RequestHead], Take | None]


def error_response(
    status: int, sentence: str, *, retry_after_s: int | None = None, close: bool = False
) -> Response:
    """`{"error": sentence}`, with `Retry-After` when given."""
    return Response(
        status=status,
        body=msgspec.json.encode(ErrorBody(error=sentence)),
        content_type=JSON_TYPE,
        headers=() if retry_after_s is None else ((b"Retry-After", b"%d" % retry_after_s),),
        close=close,
    )


def without_body(path: str, response: Response) -> Response:
    """What was not answered by a door, as the door of `path` would."""
    if path.startswith(_BODILESS):
        response.body = response.content_type = b""
    return response
