"""Answers are framed by us alone, in one write."""

from __future__ import annotations

import pytest

from ingester.protocol.http1 import response_bytes


def test_answer_is_head_and_body() -> None:
    assert response_bytes(200, ((b"A", b"b"),), b"hi", keep_alive=True) == (
        b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 2\r\n\r\nhi"
    )


def test_first_lines_stand_first() -> None:
    assert response_bytes(200, (), b"", keep_alive=True, first_lines=b"X: y\r\n") == (
        b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 0\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("keep_alive", "minor_version", "line"),
    [
        (True, 1, b""),
        (True, 0, b"Connection: keep-alive\r\n"),
        (False, 1, b"Connection: close\r\n"),
        (False, 0, b"Connection: close\r\n"),
    ],
)
def test_connection_header_says_only_what_is_not_the_default(
    keep_alive: bool, minor_version: int, line: bytes
) -> None:
    answer = response_bytes(200, (), b"", keep_alive=keep_alive, minor_version=minor_version)
    assert answer == b"HTTP/1.1 200 OK\r\n" + line + b"Content-Length: 0\r\n\r\n"


def test_answer_to_head_has_the_length_and_no_body() -> None:
    answer = response_bytes(200, (), b"hi", keep_alive=True, head_only=True)
    assert answer == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


def test_no_content_has_neither_length_nor_body() -> None:
    assert response_bytes(204, (), b"", keep_alive=True) == b"HTTP/1.1 204 No Content\r\n\r\n"


def test_unknown_status_is_still_a_status_line() -> None:
    assert response_bytes(499, (), b"", keep_alive=True).startswith(b"HTTP/1.1 499 Unknown\r\n")


@pytest.mark.parametrize("value", [b"a\r\nB: c", b"a\nb", b"a\rb"])
def test_value_with_a_line_break_is_a_fault(value: bytes) -> None:
    with pytest.raises(ValueError, match="line break in the value of X"):
        response_bytes(200, ((b"X", value),), b"", keep_alive=True)
