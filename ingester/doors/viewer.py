"""Instrumentation viewer: the last requests of the test door, in memory only.

What it shows is meant for the one who instruments a product: what was received, line by line with
the verdict, and the usual mistakes by name. Keys are masked before anything is kept, also where a
proxy repeats the path in a header.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from ..messages import LineReject, RejectReason, request_id_text
from ..protocol.http1 import RequestHead
from ..protocol.inflate import ENCODING_NAMES, parse_content_encoding

__all__ = ["LINES_SHOWN_MAX", "Viewer", "ViewerReject", "ViewerRequest", "warnings_of"]

LINES_SHOWN_MAX = 100
_LINE_BYTES_MAX = 2000
_HEADER_BYTES_MAX = 500
# Of a request's events, and the same again of its rejects: the ring of 500 is 32 MB when full.
_SHOWN_CHARACTERS_MAX = 32 * 1024
_ENCODING_BYTES_SHOWN = 40
_MASK = "***"
_MASKED_NAMES = re.compile(rb"auth|cookie|token|secret|password|api-?key|signature")
# A path segment this long may be a key.
_KEY_CHARACTERS_MIN = 8
# Before 2001 in milliseconds, but a plausible date in seconds.
_SECONDS_LOOK_BELOW = 1_000_000_000_000


class ViewerReject(Struct, frozen=True, kw_only=True):
    """A refused line; `column` 0 where no place in it is meant."""

    line: int
    column: int
    field: str | None
    reason: RejectReason
    detail: str
    excerpt: str


class ViewerRequest(Struct, frozen=True, kw_only=True):
    """A request of the test door. `source` null: its path names no key pair. Headers that may hold
    a key, and keys in the path, are masked; events are shown as they came, the first hundred, with
    the numbers of their lines.
    """

    request_id: str
    received_at: str
    method: str
    path: str
    client_address: str
    source: str | None
    status: int
    headers: list[list[str]]
    bytes_in: int
    bytes_raw: int
    accepted: int
    rejected: int
    events: list[str]
    event_lines: list[int]
    rejects: list[ViewerReject]
    warnings: list[str]


class Viewer:
    """A ring of request documents."""

    def __init__(self, requests_max: int) -> None:
        self._ring: deque[dict[str, object]] = deque(maxlen=requests_max or None)
        self._is_off = requests_max == 0
        self.request_count = 0

    def add(
        self,
        *,
        number: int,
        head: RequestHead,
        client_address: str,
        source: str | None,
        status: int,
        bytes_in: int,
        bytes_raw: int,
        accepted: int,
        rejected: int,
        lines: Sequence[bytes],
        line_numbers: Sequence[int],
        rejects: Sequence[LineReject],
        warnings: Sequence[str],
    ) -> None:
        self.request_count += 1
        if self._is_off:
            return
        keys = [part for part in head.path.split("/") if len(part) >= _KEY_CHARACTERS_MIN]
        events = _texts(lines)
        shown = ViewerRequest(
            request_id=request_id_text(number),
            received_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            method=head.method,
            path=_header_text(b"", head.path.encode("latin-1", "replace"), keys),
            client_address=client_address,
            source=source,
            status=status,
            headers=[
                [name.decode("latin-1"), _header_text(name, value, keys)]
                for name, value in head.headers
            ],
            bytes_in=bytes_in,
            bytes_raw=bytes_raw,
            accepted=accepted,
            rejected=rejected,
            events=events,
            event_lines=list(line_numbers[: len(events)]),
            rejects=[
                ViewerReject(
                    line=reject.line_number,
                    column=reject.column,
                    field=reject.field,
                    reason=reject.reason,
                    detail=reject.detail,
                    excerpt=excerpt,
                )
                for reject, excerpt in zip(
                    rejects, _texts([reject.line for reject in rejects]), strict=False
                )
            ],
            warnings=list(warnings),
        )
        self._ring.append(msgspec.to_builtins(shown))

    def documents(self) -> list[dict[str, object]]:
        """Newest first."""
        return list(reversed(self._ring))


def warnings_of(
    head: RequestHead,
    created_at_ms: Sequence[float],
    rejects: Sequence[LineReject],
    now_ms: float,
    *,
    refusal: str = "",
) -> list[str]:
    """The classic mistakes, in plain sentences; `refusal` is why the body was refused."""
    warnings: list[str] = []
    if head.method == "PUT":
        warnings.append("PUT is refused; with curl -T, add -X POST and no slash after the keys")
    elif head.method != "POST":
        warnings.append(f"{head.method} is refused; events are sent with POST")
    named = head.get(b"content-encoding")
    if named is not None and parse_content_encoding(named) is None:
        text = named[:_ENCODING_BYTES_SHOWN].decode("latin-1")
        warnings.append(
            f"Content-Encoding {text!r} is not known here, so the body was read as plain text;"
            f" known are {', '.join(ENCODING_NAMES)}"
        )
    if refusal:
        warnings.append(f"the body was refused: {refusal}")
    if any(0 < value < _SECONDS_LOOK_BELOW for value in created_at_ms):
        warnings.append("createdAt looks like seconds; milliseconds are expected")
    if any(value > now_ms + 86_400_000 for value in created_at_ms):
        warnings.append("createdAt is more than a day ahead")
    return [*warnings, *_line_warnings(rejects)]


def _line_warnings(rejects: Sequence[LineReject]) -> Iterator[str]:
    reasons = {reject.reason for reject in rejects}
    if "several_values" in reasons:
        yield "several events on a line; with curl, use --data-binary instead of -d"
    if "not_an_object" in reasons and any(r.line.startswith(b"[") for r in rejects):
        yield "a JSON array; send one event per line, without brackets and commas"
    if "wrong_encoding" in reasons:
        yield "a compressed body without Content-Encoding"
    missing = {r.field for r in rejects if r.reason == "missing_field" and r.field is not None}
    if missing:
        yield f"lines lack {', '.join(sorted(missing))}: every event needs all five properties"
    if any(r.field == "createdAt" and r.reason == "wrong_type" for r in rejects):
        yield "createdAt must be a number of milliseconds since 1970, not a text"


def _header_text(name: bytes, value: bytes, keys: Sequence[str]) -> str:
    if _MASKED_NAMES.search(name):
        return _MASK
    text = value.decode("latin-1")
    for key in keys:
        text = text.replace(key, _MASK)
    return text[:_HEADER_BYTES_MAX]


def _texts(lines: Sequence[bytes]) -> list[str]:
    """The first lines, as many as are shown."""
    texts: list[str] = []
    left = _SHOWN_CHARACTERS_MAX
    for line in lines[:LINES_SHOWN_MAX]:
        text = line[:_LINE_BYTES_MAX].decode("utf-8", "backslashreplace")
        left -= len(text)
        if left < 0:
            break
        texts.append(text)
    return texts
