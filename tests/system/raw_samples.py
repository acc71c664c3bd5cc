"""Bytes for the doors' sockets: shapes that smuggle, upgrades, broken framing, and their mutations.

`shapes` carries a request within the body of another, where it must never be taken for one: by no
reading of RFC 9112 that a server may choose. `plain_samples` are those shapes with a harmless
request inside, to be mutated: there a changed length may make a next request of it by right.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

__all__ = ["mutated", "plain_samples", "shapes"]


def _post(target: bytes, *headers: bytes, version: bytes = b"1.1") -> bytes:
    lines = [b"POST " + target + b" HTTP/" + version, b"Host: a", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def shapes(target: bytes, inner: bytes) -> Iterator[tuple[str, bytes]]:
    """By name. `target` takes bodies; `inner` is the request that must not be served."""
    size = len(inner)
    length = b"Content-Length: %d" % size
    whole = _chunk(inner) + b"0\r\n\r\n"
    size_line = b"%x\r\n" % size
    chunked = b"Transfer-Encoding: chunked"
    yield "unread", _post(b"/nowhere", length) + inner
    yield "unread chunks", _post(b"/nowhere", chunked) + whole
    yield "read", _post(target, length) + inner
    yield "read chunks", _post(target, chunked) + whole
    yield "body of a GET", b"GET /healthz HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n%b" % (length, inner)
    yield "continue", _post(b"/nowhere", length, b"Expect: 100-continue") + inner
    # Length and chunks: of each the reading by the other would find the request.
    by_length = b"Content-Length: %d" % len(size_line)
    by_chunks = b"Content-Length: %d" % (5 + size)
    for name, first, second in [("CL.TE", by_length, chunked), ("TE.CL", chunked, by_length)]:
        yield name, _post(target, first, second) + whole
        yield f"{name} ended", _post(target, *[
            by_chunks if one is by_length else one for one in (first, second)
        ]) + b"0\r\n\r\n" + inner  # fmt: skip
    for odd in (
        b"xchunked",
        b"chunked\x0b",
        b"\x0bchunked",
        b"chunked, identity",
        b"identity, chunked",
        b"chunked, chunked",
        b"gzip, chunked",
        b"identity",
        b"chunke",
        b"chunked;q=1",
        b'"chunked"',
        b"",
        b",",
        b"\x00chunked",
    ):
        yield f"coding {odd!r}", _post(target, b"Transfer-Encoding: " + odd, length) + inner
        yield f"coding {odd!r} alone", _post(target, b"Transfer-Encoding: " + odd) + whole
    for line in (
        b"Transfer-Encoding : chunked",
        b" Transfer-Encoding: chunked",
        b"Transfer-Encoding\t: chunked",
        b"Transfer-Encoding:\r\n chunked",
        b"X: y\r\n Transfer-Encoding: chunked",
        b"X: y\nTransfer-Encoding: chunked",
        b"X: y\rTransfer-Encoding: chunked",
        b"Transfer\x00-Encoding: chunked",
        b"Transfer_Encoding: chunked",
        b"Content_Length: 0",
        b"Content-Length\x00: 0",
        b"Content\tLength: 0",
        b"X: y\nContent-Length: 0",
        b"X: y\rContent-Length: 0",
        b"X: \x00\r\nX: \x7f",
        b"X\x80: y",
        b": y",
        b"nocolon",
    ):
        yield f"line {line!r}", _post(target, line, length) + inner
    for text in (
        b"+%d" % size,
        b"-%d" % size,
        b"0x%x" % size,
        b"%d.0" % size,
        b"%de0" % size,
        b"%d %d" % (size, size),
        b"%d, %d" % (size, size),
        b"%d, 0" % size,
        b"0, %d" % size,
        b"0%d" % size,
        b"",
        b"\xb2",
        b"18446744073709551616",
        b"99999999999999999999999",
        b"%d\x00" % size,
        b"%d;" % size,
    ):
        yield f"length {text!r}", _post(target, b"Content-Length: " + text) + inner
    for pair in ((size, 0), (0, size), (size, size), (5, size)):
        lines = [b"Content-Length: %d" % number for number in pair]
        yield f"lengths {pair}", _post(target, *lines) + inner
    for start in (
        b"0x%x\r\n" % size,
        b"+%x\r\n" % size,
        b"-%x\r\n" % size,
        b" %x\r\n" % size,
        b"%x \r\n" % size,
        b"%x\n" % size,
        b"%x\r" % size,
        b"\r\n%x\r\n" % size,
        b"%x;a=b\r\n" % size,
        b"%x;%b\r\n" % (size, b"x" * 20_000),
        b"f" * 17 + b"\r\n",
        b"ffffffffffffffff\r\n",
        b"%x;\n\r\n" % size,
        b"%x\x00\r\n" % size,
        b"g\r\n",
        b"\r\n",
        b"00000000000000000000%x\r\n" % size,
    ):
        yield f"chunk {start[:30]!r}", _post(target, chunked) + start + inner + b"\r\n0\r\n\r\n"
    yield "chunk without end", _post(target, chunked) + b"3\r\nabcd\r\n" + inner
    yield "trailers", _post(target, chunked) + b"0\r\nX: y\r\n " + inner
    yield "chunks over HTTP/1.0", _post(target, chunked, version=b"1.0") + b"0\r\n\r\n" + inner
    for version in (b"2.0", b"1.2", b"1.1 ", b"1.1\x00", b"11", b"0.9", b"1,1"):
        yield f"version {version!r}", _post(target, length, version=version) + inner
    for upgrade in (
        (b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAAA"),
        (b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: ****"),
        (
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ),
        (
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: AA==",
            b"Sec-WebSocket-Extensions: permessage-deflate; =;;",
        ),
        (b"Upgrade: TLS/1.0, HTTP/2.0", b"Connection: upgrade, close"),
    ):
        name = upgrade[0].decode()
        yield f"{name}", _post(target, *upgrade, length) + inner
        yield f"{name} in chunks", _post(target, *upgrade, chunked) + whole
    yield "preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00" + inner
    yield "CONNECT", b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n" + inner
    yield "hello of TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9 + b"\r\n\r\n" + inner
    yield "two hosts", _post(target, b"Host: b", length) + inner
    yield "no host", b"POST %b HTTP/1.1\r\n%b\r\n\r\n%b" % (target, length, inner)
    yield "HTTP/0.9", b"GET /healthz\r\n\r\n" + inner
    yield "frames of WebSocket", b"\x81\x85\x00\x00\x00\x00hello" * 20 + b"\r\n\r\n" + inner


def plain_samples(target: bytes) -> list[bytes]:
    """To be mutated. What is inside is nothing that could harm or be counted."""
    inner = b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n"
    return [data for _, data in shapes(target, inner) if len(data) < 4_000] + [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://[::1/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /%ff%00/..;/%2e%2e/ HTTP/1.1\r\nHost: [::1\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n" * 3,
        b"GET /healthz?a=%zz&b=\xff HTTP/1.1\r\nHost: a\r\nCookie: \xff=;;\r\nRange: x=9-1\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
        b"",
    ]


_PARTS = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b",", b";", b"0\r\n\r\n", b"\xff",
    b"Content-Length: 7\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n",
    b"Expect: 100-continue\r\n", b"Host: b\r\n", b" HTTP/1.1", b"%00", b"\x80\x81", b"x" * 9_000,
    b"X: y\r\n" * 150, b"/.." * 30, b"fffffffff\r\n",
)  # fmt: skip


def mutated(sample: bytes, rng: random.Random) -> bytes:
    """The same with up to six bytes or parts changed, lost, added or doubled."""
    data = bytearray(sample)
    for _ in range(rng.randint(0, 6)):
        place = rng.randrange(len(data) + 1)
        kind = rng.randrange(5)
        if kind == 0 and place < len(data):
            data[place] = rng.randrange(256)
        elif kind == 1:
            del data[place : place + rng.randint(1, 6)]
        elif kind == 2:
            data[place:place] = rng.choice(_PARTS)
        elif kind == 3:
            data[place:place] = data[place : place + rng.randint(1, 80)]
        else:
            data[place:place] = rng.randbytes(rng.randint(1, 6))
    return bytes(data)
