"""Form fields (`application/x-www-form-urlencoded`) as one JSON object.

Why it exists: Python's `logging.handlers.HTTPHandler` and simple tools post a form where JSON is
meant. JSON is tried first by whoever calls this; the fields become an object of strings, the last
of equal names counts, `+` is a space and `%XX` a byte of UTF-8.

It refuses to see a form in what starts like JSON: curl calls any `-d` a form, and a typing error in
JSON must be told as one. A body without a single `=` is no form either.
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import msgspec

from ..errors import MalformedBody
from .event_lines import GZIP_HEAD, ZSTD_HEAD
from .json_text import WHITE_SPACE
from .log_values import LEVEL_NAMES, MESSAGE_NAMES, TIME_NAMES, LogNames
from .value_framer import BOM

__all__ = ["FORM_NAMES", "form_object", "starts_like_json"]

# What a `LogRecord` calls them.
FORM_NAMES = LogNames((*LEVEL_NAMES, "levelname"), MESSAGE_NAMES, (*TIME_NAMES, "created"))

_JSON_STARTS = b'{["'


def starts_like_json(body: bytes | bytearray) -> bool | None:
    """Whether `body` is meant as JSON by its first byte that is not blank; None without one."""
    text = body.removeprefix(BOM).lstrip(WHITE_SPACE)
    return text[0] in _JSON_STARTS if text else None


def form_object(body: bytes) -> bytes | None:
    """The fields as a compact JSON object, or None if `body` is no form. Raises MalformedBody."""
    body = body.strip(WHITE_SPACE)
    if b"=" not in body or starts_like_json(body) or body.startswith((GZIP_HEAD, ZSTD_HEAD)):
        return None
    fields: dict[str, str] = {}
    for part in body.split(b"&"):
        if not part:
            continue
        name, _, value = part.partition(b"=")
        try:
            fields[_decoded(name)] = _decoded(value)
        except UnicodeDecodeError:
            number = len(fields) + 1
            raise MalformedBody(f"field {number} of the form is not UTF-8") from None
    return msgspec.json.encode(fields)


def _decoded(text: bytes) -> str:
    return unquote_to_bytes(text.replace(b"+", b" ")).decode()
