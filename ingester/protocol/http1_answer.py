"""Answers: status, headers and body as the bytes of one write.

1. Whoever frames the body is here and nowhere else: `Content-Length` is always sent, except
   where RFC 9110 section 8.6 forbids it (1xx, 204).
2. A header that would end its line early is a fault of ours and raises; an answer is never
   split by a value that came from a client.

It knows no policy: which headers an answer carries is the server's choice. `Server` is not sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

__all__ = ["CONTINUE", "response_bytes"]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_STATUS_LINES: dict[int, bytes] = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii")
    for status in HTTPStatus
}


def response_bytes(
    status: int,
    headers: Sequence[tuple[bytes, bytes]],
    body: bytes,
    *,
    keep_alive: bool,
    minor_version: int = 1,
    head_only: bool = False,
    first_lines: bytes = b"",
) -> bytes:
    """The whole answer.

    `head_only`: an answer to HEAD, with the length its body would have. `first_lines` are header
    lines already written, each with its CRLF.
    """
    parts = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status, first_lines]
    for name, value in headers:
        if b"\n" in value or b"\r" in value:
            raise ValueError(f"line break in the value of {name.decode('latin-1')}")
        parts.append(b"%b: %b\r\n" % (name, value))
    if not keep_alive:
        parts.append(b"Connection: close\r\n")
    elif minor_version == 0:
        parts.append(b"Connection: keep-alive\r\n")
    if status == 204:
        parts.append(b"\r\n")
    elif head_only:
        parts.append(b"Content-Length: %d\r\n\r\n" % len(body))
    else:
        parts.append(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
    return b"".join(parts)
