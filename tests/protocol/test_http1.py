"""The reader gives one verdict per byte sequence, however the bytes are cut."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.protocol.http1 import END_OF_STREAM, HeadCache, RequestHead, RequestReader
from tests.protocol.http1_events import (
    AFTER,
    HEAD_EVENT,
    LIMITS,
    NEXT,
    drain,
    events_in_every_cut,
    events_of,
    joined,
    post,
)


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (post(), b""),
        (post(b"Content-Length: 0"), b""),
        (post(b"Content-Length: 5", body=b"hello"), b"hello"),
        (post(b"Content-Length: 0005", body=b"\r\n\r\n!"), b"\r\n\r\n!"),
        (post(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), b""),
        (post(b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"), b"hello"),
        (
            post(b"transfer-encoding:  CHUNKED ", body=b"2\r\nhe\r\n003\r\nllo\r\n0\r\n\r\n"),
            b"hello",
        ),
        (
            post(b"Transfer-Encoding: chunked", body=b"a;x=y\r\n0123456789\r\n00;z\r\n\r\n"),
            b"0123456789",
        ),
        (
            post(b"Transfer-Encoding: chunked", body=b'A ; x="q"\r\n0123456789\r\n0\r\n\r\n'),
            b"0123456789",
        ),
        (
            post(b"Transfer-Encoding: chunked", body=b"1\r\nx\r\n0\r\nHost: evil\r\nA: b\r\n\r\n"),
            b"x",
        ),
        (post(b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAAA",
              b"Content-Length: 5", body=b"hello"), b"hello"),
        (post(b"Upgrade: websocket", b"Connection: upgrade", b"Sec-WebSocket-Key: x",
              b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"), b"hello"),
        (b"\r\n\r\n" + post(b"Content-Length: 1", body=b"x"), b"x"),
    ],
)  # fmt: skip
def test_body_is_read_and_next_request_starts_behind_it(data: bytes, body: bytes) -> None:
    expected = [HEAD_EVENT, *([body] if body else []), "end", *AFTER]
    assert events_in_every_cut(data, NEXT) == expected


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (b"GET / HTTP/1.1", ("GET", "/", "")),
        (b"GET /?? HTTP/1.1", ("GET", "/", "?")),
        (b"GET http://other.example/x%2fy?q=%zz HTTP/1.1", ("GET", "/x%2fy", "q=%zz")),
        (b"GET HTTP://other.example HTTP/1.1", ("GET", "/", "")),
        (b"GET http://other.example?x HTTP/1.1", ("GET", "/", "x")),
        (b"GET /%ff%00%zz HTTP/1.1", ("GET", "/%ff%00%zz", "")),
        (b"GET //a/../b;c HTTP/1.1", ("GET", "//a/../b;c", "")),
        (b"OPTIONS * HTTP/1.1", ("OPTIONS", "*", "")),
        (b"FOO /x HTTP/1.1", ("FOO", "/x", "")),
        (b"get /x HTTP/1.1", ("get", "/x", "")),
        (b"ANNOUNCE /x HTTP/1.1", ("ANNOUNCE", "/x", "")),
        (b"QUERY /x HTTP/1.0", ("QUERY", "/x", "")),
    ],
)
def test_request_line_is_accepted(line: bytes, event: tuple[str, str, str]) -> None:
    assert events_in_every_cut(line + b"\r\nHost: a\r\n\r\n", NEXT) == [event, "end", *AFTER]


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (400, b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
        (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (505, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
        (505, b"GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
        (505, b"GET / HTTP/0.9\r\nHost: a\r\n\r\n"),
        (505, b"GET /\r\nHost: a\r\n\r\n"),
        (505, b"GET /\r\n\r\n"),
        (505, b"GET / HTTP/2.0\r\nno colon\r\n\r\n"),
        (431, post(*[b"no colon"] * 20)),
        (400, post(b"Host: a", b"no colon")),
        (400, b"GET http://[::1/\x7f HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET / HTTP/11\r\nHost: a\r\n\r\n"),
        (400, b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
        (400, b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET / http/1.1\r\nHost: a\r\n\r\n"),
        (400, b" GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET http://u@h/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        (400, b"\r\n" * 5 + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET / HTTP/1.1\nHost: a\n\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n"),
        (400, post(host=False)),
        (400, post(b"Host: a")),
        (400, post(b"Host: b")),
        (400, post(b"Host: b", b"Host: b", version=b"1.0", host=False)),
        (400, post(b"Host: a b", host=False)),
        (400, post(b"Host: a/b", host=False)),
        (400, post(b"Host: u@a", host=False)),
        (400, post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")),
        (400, post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n")),
        (400, post(b"Content-Length: 5", b"Content-Length: 6", body=b"hello!")),
        (400, post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello")),
        (400, post(b"Content-Length: 5, 5", body=b"hello")),
        (400, post(b"Content-Length: +3", body=b"abc")),
        (400, post(b"Content-Length: -3", body=b"abc")),
        (400, post(b"Content-Length: 0x3", body=b"abc")),
        (400, post(b"Content-Length: 3 3", body=b"abc")),
        (400, post(b"Content-Length: ", body=b"abc")),
        (400, post(b"Content-Length: \xb2")),
        (400, post(b"Content-Length: 99999999999999999999")),
        (400, post(b"Transfer-Encoding: chunked", version=b"1.0")),
        (400, post(b"Transfer-Encoding: gzip")),
        (400, post(b"Transfer-Encoding: identity")),
        (400, post(b"Transfer-Encoding: xchunked")),
        (400, post(b"Transfer-Encoding: chunked, gzip")),
        (400, post(b"Transfer-Encoding: chunked, chunked")),
        (400, post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked")),
        (400, post(b"Transfer-Encoding: ,chunked")),
        (400, post(b"Transfer-Encoding: chunked;q=1")),
        (400, post(b'Transfer-Encoding: "chunked"')),
        (400, post(b"Transfer-Encoding:")),
        (400, post(b"Transfer-Encoding: \x0bchunked")),
        (400, post(b"Transfer-Encoding : chunked")),
        (400, post(b"Transfer-Encoding\r\n : chunked")),
        (501, post(b"Transfer-Encoding: gzip, chunked")),
        (501, post(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked")),
        (400, post(b"X: a\r\n folded")),
        (400, post(b" X: a")),
        (400, post(b"X : a")),
        (400, post(b": a")),
        (400, post(b"no colon")),
        (400, post(b"X: a\x00b")),
        (400, post(b"X: a\x7fb")),
        (400, post(b"X\x00: a")),
        (417, post(b"Expect: something")),
        (417, post(b"Expect: 100-continue, more")),
        (414, b"GET /" + b"a" * 300 + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
        (414, b"GET /" + b"a" * 5000),
        (431, post(b"X: " + b"a" * 5000)),
        (431, post(*[b"X: a"] * 20)),
        (431, b"GET / HTTP/1.1\r\nX: " + b"a" * 5000),
        (431, b"G" * 5000),
        (400, b"GET / HTTP/1.1\nX: " + b"a" * 5000),
    ],
)
def test_head_is_refused(status: int, data: bytes) -> None:
    assert events_in_every_cut(data, NEXT) == [status]


def test_head_of_exactly_the_limit_is_read_and_one_byte_more_is_not() -> None:
    for extra, refused in ((0, False), (1, True)):
        frame = b"GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n"
        filler = b"a" * (LIMITS.head_bytes_max - len(frame) + extra)
        events = events_in_every_cut(frame.replace(b"X: ", b"X: " + filler))
        assert events == ([431] if refused else [("GET", "/", ""), "end"])


def test_target_of_exactly_the_limit_is_read() -> None:
    target = b"/" + b"a" * (LIMITS.target_bytes_max - 1)
    events = events_in_every_cut(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert events == [("GET", target.decode(), ""), "end"]


def test_header_fields_are_kept_in_order_lower_case_and_stripped() -> None:
    reader = RequestReader(LIMITS)
    reader.receive_data(post(b"X-A: \t one \t", b"x-b:\xff", b"X-a: two", b"Empty:"))
    head = reader.next_event()
    assert isinstance(head, RequestHead)
    assert head.headers == (
        (b"host", b"a"), (b"x-a", b"one"), (b"x-b", b"\xff"), (b"x-a", b"two"), (b"empty", b""),
    )  # fmt: skip
    assert head.get(b"x-a") == b"one"
    assert head.get(b"absent") is None
    assert head.target == b"/a?b=c"


def test_head_on_which_the_readers_differ_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = post(b"Content-Length: 0")
    for seen in (b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n", b"\x00"):

        class Other:
            def __init__(self, fields: Any) -> None:
                self._parser = httptools.HttpRequestParser(fields)

            def feed_data(self, data: bytes, seen: bytes = seen) -> None:
                self._parser.feed_data(seen)

        fake = SimpleNamespace(**{**vars(httptools), "HttpRequestParser": Other})
        monkeypatch.setattr("ingester.protocol.http1_head.httptools", fake)
        assert events_of([data]) == [400]


def test_repr_of_a_head_shows_no_target_and_no_value() -> None:
    reader = RequestReader(LIMITS)
    reader.receive_data(post(b"Authorization: Bearer secret"))
    assert repr(reader.next_event()) == "RequestHead(POST, 2 headers)"


@pytest.mark.parametrize(
    ("version", "connection", "keep_alive"),
    [
        (b"1.1", None, True),
        (b"1.1", b"close", False),
        (b"1.1", b"Keep-Alive, Close", False),
        (b"1.1", b"upgrade", True),
        (b"1.0", None, False),
        (b"1.0", b"keep-alive", True),
        (b"1.0", b"close, keep-alive", False),
    ],
)
def test_keep_alive_follows_version_and_connection_options(
    version: bytes, connection: bytes | None, keep_alive: bool
) -> None:
    headers = [] if connection is None else [b"Connection: " + connection]
    reader = RequestReader(LIMITS)
    reader.receive_data(post(*headers, version=version))
    head = reader.next_event()
    assert isinstance(head, RequestHead)
    assert head.keep_alive is keep_alive
    assert head.minor_version == int(version[-1:])


@pytest.mark.parametrize(("version", "expected"), [(b"1.1", True), (b"1.0", False)])
def test_expect_continue_counts_in_http_1_1_only(version: bytes, expected: bool) -> None:
    reader = RequestReader(LIMITS)
    reader.receive_data(post(b"Expect: 100-Continue", b"Content-Length: 1", version=version))
    head = reader.next_event()
    assert isinstance(head, RequestHead)
    assert head.expect_continue is expected


def test_http_1_0_needs_no_host() -> None:
    data = post(b"Connection: keep-alive", version=b"1.0", host=False)
    assert events_in_every_cut(data, NEXT) == [HEAD_EVENT, "end", *AFTER]


def test_whole_body_is_taken_from_the_buffer() -> None:
    for data, body in [
        (post(), b""),
        (post(b"Content-Length: 5", body=b"hello"), b"hello"),
        (post(b"Transfer-Encoding: chunked", body=b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"), b"hello"),
    ]:
        for limit in (0, 5):
            reader = RequestReader(LIMITS)
            reader.receive_data(data + NEXT)
            assert isinstance(reader.next_event(), RequestHead)
            assert reader.take_whole(limit) == body
            assert reader.between_messages
            assert drain(reader) == AFTER


@pytest.mark.parametrize(
    "data",
    [
        post(b"Content-Length: 5", body=b"hello"),
        post(b"Transfer-Encoding: chunked", body=b"2\r\nhe\r\n3\r\nllo\r\n0\r\nX: y\r\n\r\n"),
    ],
)
def test_taking_a_body_that_is_not_whole_changes_nothing(data: bytes) -> None:
    for cut in range(data.index(b"\r\n\r\n") + 4, len(data)):
        reader = RequestReader(LIMITS)
        reader.receive_data(data[:cut])
        assert isinstance(reader.next_event(), RequestHead)
        assert reader.take_whole() is None
        assert reader.take_whole() is None
        first = drain(reader)
        reader.receive_data(data[cut:] + NEXT)
        assert joined(first + drain(reader)) == [b"hello", "end", *AFTER]


def test_taking_a_body_over_the_limit_leaves_it() -> None:
    for data in (
        post(b"Content-Length: 5", body=b"hello"),
        post(b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
    ):
        reader = RequestReader(LIMITS)
        reader.receive_data(data)
        assert isinstance(reader.next_event(), RequestHead)
        assert reader.take_whole(4) is None
        assert joined(drain(reader)) == [b"hello", "end"]


def test_taking_a_malformed_body_leaves_the_fault_to_the_next_event() -> None:
    reader = RequestReader(LIMITS)
    reader.receive_data(post(b"Transfer-Encoding: chunked", body=b"2\r\nhe\r\nx\r\n"))
    assert isinstance(reader.next_event(), RequestHead)
    assert reader.take_whole() is None
    assert not reader.between_messages
    assert drain(reader) == [b"he", 400]
    assert reader.take_whole() is None


def test_buffered_rest_of_a_body_is_discarded() -> None:
    reader = RequestReader(LIMITS)
    reader.receive_data(post(b"Content-Length: 5", body=b"hel"))
    assert isinstance(reader.next_event(), RequestHead)
    assert not reader.discard_buffered()
    assert reader.remaining_bytes == 2
    reader.receive_data(b"lo" + NEXT)
    assert reader.discard_buffered()
    assert reader.remaining_bytes == 0
    assert drain(reader) == AFTER
    assert not reader.has_buffered


def test_discarding_a_malformed_body_reports_no_end() -> None:
    reader = RequestReader(LIMITS)
    reader.receive_data(post(b"Transfer-Encoding: chunked", body=b"x\r\n"))
    assert isinstance(reader.next_event(), RequestHead)
    assert not reader.discard_buffered()


@pytest.mark.parametrize(
    "data",
    [
        b"GE",
        post(b"Content-Length: 5", body=b"hell"),
        post(b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n"),
    ],
)
def test_end_of_stream_inside_a_request_is_never_its_end(data: bytes) -> None:
    reader = RequestReader(LIMITS)
    reader.receive_data(data)
    reader.receive_eof()
    assert drain(reader)[-1] == 400


def test_end_of_stream_between_requests_is_said() -> None:
    reader = RequestReader(LIMITS)
    reader.receive_data(NEXT)
    reader.receive_eof()
    assert drain(reader) == AFTER
    assert reader.next_event() is END_OF_STREAM


def test_cached_heads_are_shared_and_bounded() -> None:
    cache = HeadCache(heads_max=3)
    readers = [RequestReader(LIMITS, cache) for _ in range(2)]
    heads = []
    for reader in readers:
        reader.receive_data(post())
        heads.append(reader.next_event())
    assert heads[0] is heads[1]
    for number in range(10):
        reader = RequestReader(LIMITS, cache)
        reader.receive_data(post(b"X: %d" % number))
        reader.next_event()
    assert len(cache) == 3
    cache.put(b"x" * 1025, heads[0])  # type: ignore[arg-type]
    assert len(cache) == 3


_token = st.sampled_from(
    [b"GET / HTTP/1.1\r\n", b"POST /a HTTP/1.1\r\n", b"Host: a\r\n", b"\r\n", b"\r", b"\n", b" ",
     b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"3\r\n", b"abc", b"0\r\n\r\n",
     b"0\r\n", b"X: y\r\n", b"Upgrade: h2c\r\nConnection: upgrade\r\n", b"Content-Length: 0\r\n",
     b"A" * 700, b"GET /" + b"a" * 300, b":", b"\x00", NEXT,
     b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
     b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(_token, max_size=14), st.randoms(use_true_random=False))
def test_verdict_never_depends_on_the_cuts(tokens: list[bytes], randomness: Any) -> None:
    data = b"".join(tokens)
    whole = events_of([data])
    assert events_of([data[i : i + 1] for i in range(len(data))]) == whole
    cuts = sorted(randomness.randrange(len(data) + 1) for _ in range(4))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert events_of(pieces) == whole


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.binary(max_size=60), st.booleans()), min_size=1, max_size=5),
    st.integers(1, 40),
)
def test_requests_written_are_the_requests_read(
    bodies: list[tuple[bytes, bool]], step: int
) -> None:
    data, expected = b"", []
    for body, chunked in bodies:
        if chunked:
            chunks = [body[i : i + 7] for i in range(0, len(body), 7)]
            framed = b"".join(b"%X\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
            data += post(b"Transfer-Encoding: chunked", body=framed + b"0\r\n\r\n")
        else:
            data += post(b"Content-Length: %d" % len(body), body=body)
        expected += [HEAD_EVENT, *([body] if body else []), "end"]
    assert events_of([data[i : i + step] for i in range(0, len(data), step)]) == expected
