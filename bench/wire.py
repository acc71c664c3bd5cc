"""The bytes of HTTP/1.1 as the load clients need them: a request head, an answer, no more.

Not a parser for the world: it reads the answers of our own servers (a head that ends with an
empty line, then `Content-Length` bytes). Chunked answers are refused.
"""

from __future__ import annotations

import re
import socket

from msgspec import Struct

__all__ = ["Answer", "answer_length", "read_answer", "request_head"]

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CONTENT_CODING = {"none": "", "gzip": "gzip", "deflate": "deflate", "zstd": "zstd"}


class Answer(Struct):
    """One answer; `accepted` and `rejected` are -1 where the header is missing."""

    status: int
    accepted: int
    rejected: int


def request_head(target: str, encoding: str, content_length: int | None, token: str = "") -> bytes:
    """The head of a POST; without a length the body is chunked, without a token there is no key."""
    lines = [f"POST {target} HTTP/1.1", "Host: 127.0.0.1"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if coding := _CONTENT_CODING[encoding]:
        lines.append(f"Content-Encoding: {coding}")
    if content_length is None:
        lines.append("Transfer-Encoding: chunked")
    else:
        lines.append(f"Content-Length: {content_length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def answer_length(received: bytes | bytearray) -> int:
    """Bytes of the first answer in `received`, head and body; 0 while the head is not whole."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return 0
    found = _LENGTH.search(received, 0, end + 2)
    if found is None:
        raise ValueError("an answer without Content-Length")
    return end + 4 + int(found[1])


def _header_number(head: bytes, name: bytes) -> int:
    found = re.search(rb"\r\n" + name + rb":[ \t]*(\d+)", head, re.IGNORECASE)
    return int(found[1]) if found else -1


def read_answer(connection: socket.socket) -> Answer:
    """One whole answer from a blocking socket."""
    received = bytearray()
    while not (length := answer_length(received)) or len(received) < length:
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError("closed before the answer was whole")
        received += piece
    head = bytes(received[: received.find(b"\r\n\r\n")])
    return Answer(
        status=int(head.split(b" ", 2)[1]),
        accepted=_header_number(head, b"ingester-accepted"),
        rejected=_header_number(head, b"ingester-rejected"),
    )
