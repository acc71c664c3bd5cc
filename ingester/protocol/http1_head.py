"""Request heads: the bytes up to the empty line, judged and read once.

A head is accepted only when two readers agree on it: a strict grammar of our own (one regular
expression over the whole head) and llhttp, fed with exactly the bytes of that head; target and
header fields must come out equal. llhttp alone
is not enough: it takes an `Upgrade` for the end of a POST, a `Transfer-Encoding` on HTTP/1.0, two
`Host` lines, `gzip, chunked` without knowing gzip, and heads of any size. The grammar alone would
be one opinion.

1. `parse_head` sees a whole head and nothing else, so its verdict never depends on how the bytes
   arrived.
2. What decides where the body ends (RFC 9112 section 6) is refused unless it is unambiguous.
3. A `RequestHead` is immutable and may be shared: clients on keep-alive repeat their heads byte
   for byte, and `HeadCache` answers those with one dictionary look-up.

It does not decode `%` escapes, does not look at routes, and never shows a target or a header
value in a `repr` or a sentence: both carry keys.
"""

from __future__ import annotations

import re

import httptools
from msgspec import Struct

from ingester.errors import MalformedRequest

__all__ = [
    "FIELD_LINE",
    "TOKEN_BYTES",
    "HeadCache",
    "HeadLimits",
    "RequestHead",
    "parse_head",
]

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"

TOKEN_BYTES = frozenset(
    b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

# RFC 9112 section 5: no blank before the colon, no line folding, no control bytes but a tab.
FIELD_LINE = TOKEN + rb":[\t\x20-\x7e\x80-\xff]*"

_match_head = re.compile(
    rb"(" + TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])\r\n"
    # Possessive: the alternatives are disjoint, going back could never help.
    rb"((?:" + FIELD_LINE + rb"\r\n)*+)\r\n"
).fullmatch
_match_request_line = re.compile(
    rb"(" + TOKEN + rb") ([^\r\n ]+)(?: HTTP/([0-9])\.([0-9]))?"
).fullmatch
_match_field_line = re.compile(FIELD_LINE).fullmatch
_match_absolute = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*://[^/?#@]+(/[^?]*)?(?:\?(.*))?").fullmatch
_match_host = re.compile(rb"[A-Za-z0-9.\-_~!$&'()*+,;=:%\[\]]*").fullmatch
_match_coding = re.compile(TOKEN).fullmatch

# llhttp refuses methods it does not know; whether one is allowed is the door's to say (405).
_METHODS_FED_AS_SENT = frozenset((
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"DELETE",
    b"OPTIONS",
    b"PATCH",
    b"TRACE",
))

# 19 digits stay below 2**63, which is also where llhttp stops.
_LENGTH_DIGITS_MAX = 19


Headers = tuple[tuple[bytes, bytes], ...]


class HeadLimits(Struct, frozen=True):
    """Bounds of one request head."""

    head_bytes_max: int
    target_bytes_max: int
    header_count_max: int


class RequestHead(Struct, frozen=True, eq=False, gc=False):
    """One request head. Header names are lower-case; `first` maps each to its first value."""

    method: str
    target: bytes
    path: str
    query: str
    headers: Headers
    content_length: int | None
    chunked: bool
    keep_alive: bool
    expect_continue: bool
    first: dict[bytes, bytes]
    minor_version: int = 1

    def get(self, name: bytes) -> bytes | None:
        """The first value of a header, by its lower-case name."""
        return self.first.get(name)

    def __repr__(self) -> str:
        return f"RequestHead({self.method}, {len(self.headers)} headers)"


class HeadCache:
    """Parsed heads by their exact bytes: at most `heads_max` of at most 1 KiB, oldest out.

    Bounded by heads_max x (1 KiB + about 3 KiB parsed) = 4 MiB.
    """

    __slots__ = ("_heads", "_heads_max", "get")

    HEAD_BYTES_MAX = 1024

    def __init__(self, heads_max: int = 1024) -> None:
        self._heads: dict[bytes, RequestHead] = {}
        self._heads_max = heads_max
        self.get = self._heads.get

    def __len__(self) -> int:
        return len(self._heads)

    def put(self, raw: bytes, head: RequestHead) -> None:
        if len(raw) > self.HEAD_BYTES_MAX or self._heads_max == 0:
            return
        if len(self._heads) >= self._heads_max:
            del self._heads[next(iter(self._heads))]
        self._heads[raw] = head


def parse_head(raw: bytes, limits: HeadLimits) -> RequestHead:
    """Read one whole head, its closing empty line included."""
    if (match := _match_head(raw)) is None:
        raise _why_refused(raw, limits)
    method, target, major, minor, fields = match.groups()
    _check_request_line(method, target, major + minor, limits)
    if fields.count(b"\n") > limits.header_count_max:
        raise MalformedRequest("too many header lines", 431)
    headers = _split_fields(fields)
    first: dict[bytes, bytes] = {}
    for name, value in headers:
        if name not in first:
            first[name] = value
        elif name in {b"host", b"content-length"}:
            raise MalformedRequest(f"more than one {name.decode()} header")
    minor_version = minor[0] - 0x30
    _check_host(first.get(b"host"), minor_version)
    content_length, chunked = _framing(headers, first, minor_version)
    keep_alive = _keep_alive(headers, minor_version)
    expect_continue = _expect_continue(first.get(b"expect"), minor_version)
    path, query = _split_target(method, target)
    _confirm_with_llhttp(raw, method, target, headers)
    return RequestHead(
        method=method.decode("ascii"),
        target=target,
        path=path,
        query=query,
        headers=headers,
        content_length=content_length,
        chunked=chunked,
        keep_alive=keep_alive,
        expect_continue=expect_continue,
        first=first,
        minor_version=minor_version,
    )


def _check_request_line(method: bytes, target: bytes, version: bytes, limits: HeadLimits) -> None:
    if len(target) > limits.target_bytes_max:
        raise MalformedRequest("the request target is too long", 414)
    if method == b"PRI":
        raise MalformedRequest("HTTP/2 is not spoken here; use HTTP/1.1")
    if version not in {b"11", b"10"}:
        raise MalformedRequest("only HTTP/1.1 and HTTP/1.0 are spoken here", 505)
    if method == b"CONNECT":
        raise MalformedRequest("CONNECT is not supported")


def _split_fields(fields: bytes) -> Headers:
    """Header lines that match the grammar, as lower-case names and stripped values."""
    headers = []
    for line in fields.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        headers.append((name.lower(), value.strip(b" \t")))
    return tuple(headers)


class _Fields:
    """llhttp callbacks. They only collect: an exception inside one would poison the parser."""

    __slots__ = ("headers", "target")

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.strip(b" \t")))


def _confirm_with_llhttp(raw: bytes, method: bytes, target: bytes, headers: Headers) -> None:
    fields = _Fields()
    parser = httptools.HttpRequestParser(fields)
    if method not in _METHODS_FED_AS_SENT:
        raw = b"POST" + raw[len(method) :]
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # the head is whole; an upgrade is simply not taken
    except httptools.HttpParserError:
        raise MalformedRequest("malformed request head") from None
    if fields.target != target or tuple(fields.headers) != headers:
        raise MalformedRequest("malformed request head")


def _check_host(host: bytes | None, minor_version: int) -> None:
    if host is None:
        if minor_version == 1:
            raise MalformedRequest("a Host header is required")
    elif _match_host(host) is None:
        raise MalformedRequest("malformed Host header")


def _framing(
    headers: Headers, first: dict[bytes, bytes], minor_version: int
) -> tuple[int | None, bool]:
    """`(content_length, chunked)` by RFC 9112 section 6.3; any doubt is refused."""
    length = first.get(b"content-length")
    if b"transfer-encoding" in first:
        if minor_version == 0:
            raise MalformedRequest("Transfer-Encoding is not part of HTTP/1.0")
        if length is not None:
            raise MalformedRequest("Content-Length together with Transfer-Encoding")
        _refuse_transfer_encoding(headers)
        return None, True
    if length is None:
        return None, False
    if not length.isdigit() or len(length) > _LENGTH_DIGITS_MAX:
        raise MalformedRequest("malformed Content-Length")
    return int(length), False


def _refuse_transfer_encoding(headers: Headers) -> None:
    """Raise unless the codings are exactly `chunked`.

    RFC 9112 section 6.1: an unknown coding under a final `chunked` is 501. Section 6.3: without
    a final `chunked` the length cannot be known: 400.
    """
    values = [value for name, value in headers if name == b"transfer-encoding"]
    codings = [coding.strip(b" \t").lower() for coding in b",".join(values).split(b",")]
    if codings == [b"chunked"]:
        return
    well_formed = all(_match_coding(coding) for coding in codings)
    if well_formed and codings[-1] == b"chunked" and codings.count(b"chunked") == 1:
        raise MalformedRequest("this Transfer-Encoding is not supported, only chunked is", 501)
    raise MalformedRequest("malformed Transfer-Encoding, only chunked is supported")


def _split_target(method: bytes, target: bytes) -> tuple[str, str]:
    """Path and query of an origin-form or absolute-form target (RFC 9112 section 3.2)."""
    if target[:1] == b"/":
        path, _, query = target.partition(b"?")
    elif target == b"*" and method == b"OPTIONS":
        path, query = target, b""
    elif (match := _match_absolute(target)) is not None:
        path, query = match[1] or b"/", match[2] or b""
    else:
        raise MalformedRequest("malformed request target")
    return path.decode("ascii"), query.decode("ascii")


def _keep_alive(headers: Headers, minor_version: int) -> bool:
    options = {
        option.strip(b" \t").lower()
        for name, value in headers
        if name == b"connection"
        for option in value.split(b",")
    }
    if b"close" in options:
        return False
    return minor_version == 1 or b"keep-alive" in options


def _expect_continue(value: bytes | None, minor_version: int) -> bool:
    if value is None:
        return False
    if value.lower() != b"100-continue":
        raise MalformedRequest("only Expect: 100-continue is supported", 417)
    return minor_version == 1  # RFC 9110 section 10.1.1: ignored in HTTP/1.0


def _why_refused(raw: bytes, limits: HeadLimits) -> MalformedRequest:
    """The sentence for a head outside the grammar.

    The first two checks stand in the order in which `RequestReader` makes them on a head that
    is not whole yet, so that the verdict does not depend on the cuts.
    """
    if raw[0] not in TOKEN_BYTES:
        return MalformedRequest("malformed request line")
    if raw.count(b"\n") != raw.count(b"\r\n"):
        return MalformedRequest("a line ends in LF without CR")
    line, _, fields = raw.partition(b"\r\n")
    if len(line.partition(b" ")[2].partition(b" ")[0]) > limits.target_bytes_max:
        return MalformedRequest("the request target is too long", 414)
    match = _match_request_line(line)
    if match is None:
        return MalformedRequest("malformed request line")
    method, target, major, minor = match.groups()
    if major is None:
        return MalformedRequest("HTTP/0.9 is not spoken here", 505)
    try:
        _check_request_line(method, target, major + minor, limits)
    except MalformedRequest as refused:
        return refused
    field_lines = fields[:-4].split(b"\r\n") if len(fields) > 2 else []
    if len(field_lines) > limits.header_count_max:
        return MalformedRequest("too many header lines", 431)
    for position, field in enumerate(field_lines, 1):
        if _match_field_line(field) is None:
            kind = "folded" if field[:1] in {b" ", b"\t"} else "malformed"
            return MalformedRequest(f"header line {position} is {kind}")
    return MalformedRequest("malformed request target")
