"""Chunked framing is read strictly; a fault stands behind the good bytes before it."""

from __future__ import annotations

import pytest

from ingester.protocol.http1 import PIECE_BYTES_MAX, RequestHead, RequestReader
from tests.protocol.http1_events import (
    HEAD_EVENT,
    LIMITS,
    NEXT,
    drain,
    events_in_every_cut,
    post,
)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b"\r\n"),
        (400, b"g\r\n"),
        (400, b"-1\r\n"),
        (400, b"+1\r\n"),
        (400, b"0x1\r\n"),
        (400, b"1_0\r\n"),
        (400, b" 1\r\n"),
        (400, b"1 \r\nx\r\n"),
        (400, b"1\nx\r\n0\r\n\r\n"),
        (400, b"00000000000000001\r\nx\r\n0\r\n\r\n"),
        (400, b"1;" + b"x" * 300 + b"\r\n"),
        (400, b"1;a\nb\r\nx\r\n"),
        (400, b"1;a\x00\r\nx\r\n"),
        (400, b"0" * 400),
        (400, b"0\r\nX : y\r\n\r\n"),
        (400, b"0\r\n folded\r\n\r\n"),
        (400, b"0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (431, b"0\r\n" + b"X: y\r\n" * 21 + b"\r\n"),
        (431, b"0\r\nX: " + b"y" * 3000 + b"\r\n\r\n"),
        (431, b"0\r\nX: " + b"y" * 3000),
    ],
)
def test_chunked_body_is_refused(status: int, body: bytes) -> None:
    data = post(b"Transfer-Encoding: chunked", body=body)
    assert events_in_every_cut(data, NEXT) == [HEAD_EVENT, status]


@pytest.mark.parametrize("end", [b"xx", b"\n0", b"\rx", b"0\r\n\r\n"])
def test_chunk_longer_than_its_size_is_refused_behind_its_good_bytes(end: bytes) -> None:
    data = post(b"Transfer-Encoding: chunked", body=b"1\r\nx" + end)
    assert events_in_every_cut(data, NEXT) == [HEAD_EVENT, b"x", 400]


def test_large_chunk_is_returned_in_bounded_pieces() -> None:
    size = 600_000
    reader = RequestReader(LIMITS)
    reader.receive_data(post(b"Transfer-Encoding: chunked", body=b"%x\r\n" % size))
    assert isinstance(reader.next_event(), RequestHead)
    reader.receive_data(b"z" * size + b"\r\n0\r\n\r\n")
    assert reader.take_whole(1000) is None
    assert reader.remaining_bytes is None
    pieces = drain(reader)
    assert pieces.pop() == "end"
    assert max(map(len, pieces)) == PIECE_BYTES_MAX
    assert b"".join(pieces) == b"z" * size


@pytest.mark.parametrize("sixteen", [b"FFFFFFFFFFFFFFFF", b"0000000000000001"])
def test_sixteen_digit_chunk_size_is_read(sixteen: bytes) -> None:
    data = post(b"Transfer-Encoding: chunked", body=sixteen + b"\r\nx")
    assert events_in_every_cut(data) == [HEAD_EVENT, b"x"]
