"""JSON pointers (RFC 6901) into a text that is sound JSON.

They are followed text by text, so that nothing but what lies on the way is decoded: a number no
double can hold, beside the way, does not matter. Of duplicate keys the last one is followed.
"""

from __future__ import annotations

import re

import msgspec
from msgspec import Struct

__all__ = ["Pointer", "parse_pointer"]

_INDEX = re.compile("0|[1-9][0-9]{0,8}")
_STRAY_TILDE = re.compile("~(?![01])")

_raw_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_raw_list = msgspec.json.Decoder(list[msgspec.Raw])


class Pointer(Struct, frozen=True):
    """The way from the whole value to one within; at least one step."""

    tokens: tuple[str, ...]

    def find(self, text: bytes) -> bytes | None:
        """What it points at, as sent; None if there is nothing."""
        for token in self.tokens:
            if text[0] == 0x7B:
                raw = _raw_object.decode(text).get(token)
                if raw is None:
                    return None
            elif text[0] == 0x5B and _INDEX.fullmatch(token):
                elements = _raw_list.decode(text)
                if int(token) >= len(elements):
                    return None
                raw = elements[int(token)]
            else:
                return None
            text = bytes(raw)
        return text


def parse_pointer(text: str) -> Pointer:
    """`/org/id` as a pointer. Raises ValueError with a hint."""
    if not text.startswith("/"):
        raise ValueError("a JSON pointer starts with a slash, as in /org/id")
    if _STRAY_TILDE.search(text):
        raise ValueError("in a JSON pointer ~ is written ~0, and / within a name ~1")
    tokens = (token.replace("~1", "/").replace("~0", "~") for token in text[1:].split("/"))
    return Pointer(tuple(tokens))
