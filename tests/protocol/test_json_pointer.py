"""JSON pointers, by the examples of RFC 6901 and the traps beside them."""

from __future__ import annotations

import json

import pytest

from ingester.protocol.json_pointer import parse_pointer

DOCUMENT = json.dumps({
    "foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5,
    'k"l': 6, " ": 7, "m~n": 8, "deep": {"er": [{"x": None}]},
}).encode()  # fmt: skip


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/foo", '["bar", "baz"]'), ("/foo/0", '"bar"'), ("/", "0"), ("/a~1b", "1"),
        ("/c%d", "2"), ("/e^f", "3"), ("/g|h", "4"), ("/i\\j", "5"), ('/k"l', "6"), ("/ ", "7"),
        ("/m~0n", "8"), ("/deep/er/0/x", "null"), ("/foo/2", None), ("/foo/-", None),
        ("/foo/00", None), ("/foo/x", None), ("/nothing", None), ("/foo/0/x", None),
        ("/deep/er/0/x/y", None), ("/~01", None), ("/foo/99999999999999999999", None),
    ],
)  # fmt: skip
def test_pointers(pointer: str, value: str | None) -> None:
    found = parse_pointer(pointer).find(DOCUMENT)
    assert found == (None if value is None else value.encode())


def test_the_last_of_duplicate_keys_is_followed_past_numbers_of_any_size() -> None:
    text = b'{"a":{"b":1},"big":1e999,"a":{"b":2,"big":' + b"9" * 9000 + b"}}"
    assert parse_pointer("/a/b").find(text) == b"2"
    assert parse_pointer("/a/b").find(b"5") is None


@pytest.mark.parametrize("text", ["", "foo", "/a~2b", "/a~"])
def test_what_is_no_pointer(text: str) -> None:
    with pytest.raises(ValueError, match="JSON pointer"):
        parse_pointer(text)
