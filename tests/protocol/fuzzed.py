"""Any bytes as a body: what must hold of it in every coding and on every door, in every cut.

`check` reads from the first bytes what the rest is and how it is cut, so that one function serves
hypothesis, mutated samples and atheris (`atheris_run.py`). References look at the whole body at
once: the standard library's zlib, zstandard, and the plain readings of the contract in `lines.py`
and `log_bodies.py`.
"""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import zstandard
from isal import isal_zlib

from ingester.errors import BodyTooLarge, MalformedBody
from ingester.protocol import inflate
from ingester.protocol.event_lines import EventRules
from ingester.protocol.inflate import (
    WINDOW_BYTES_MAX,
    Encoding,
    InflateLimits,
    make_inflater,
)
from ingester.protocol.logs import HonestLogDecoder, LogDoorDecoder
from ingester.protocol.metric_bodies import MetricDecoder
from ingester.protocol.metrics import MetricRules

from .compressed import SKIPPABLE, WRITERS, text
from .lines import LineByLine, decoded, event_line
from .log_bodies import NOW_US, by_text, honest, log_door

__all__ = ["TARGETS", "check", "check_inflate", "samples", "spoilt"]

OUTPUT_BYTES_MAX = 256 * 1024
LIMITS = InflateLimits(output_bytes_max=OUTPUT_BYTES_MAX, ratio_max=10**9, piece_bytes=4096)
TIGHT = EventRules(line_bytes_max=2400, depth_max=8)


class TooLarge(Exception):
    """More than the tests want to hold."""


def check(data: bytes) -> None:
    """Byte 0: the target; byte 1: how many cuts, of two bytes each; the rest is the body."""
    if len(data) < 2:
        return
    target = TARGETS[data[0] % len(TARGETS)]
    count = data[1] % 6
    body = data[2 + 2 * count :]
    places = [int.from_bytes(data[2 + 2 * n : 4 + 2 * n], "big") for n in range(count)]
    cuts = sorted(place % (len(body) + 1) for place in places)
    edges = [0, *cuts, len(body)]
    target(body, [body[start:end] for start, end in pairwise(edges)])


def _inflating(encoding: Encoding) -> Callable[[bytes, list[bytes]], None]:
    def target(body: bytes, pieces: list[bytes]) -> None:
        check_inflate(encoding, body, pieces)

    return target


def check_inflate(encoding: Encoding, body: bytes, pieces: list[bytes]) -> None:
    """All cuts agree with the library's one-shot answer, and both libraries with each other.

    isal takes incomplete Huffman codes, which zlib refuses: the checksum proves the text anyway,
    where there is one.
    """
    texts: set[object] = set()
    kept = inflate._deflate
    try:
        for module in (isal_zlib, zlib):
            inflate._deflate = module
            try:
                expected: object = REFERENCES[encoding](body, module)
            except TooLarge:
                expected = "too large"
            whole, cut = _outcome([body], encoding), _outcome(pieces, encoding)
            assert whole == cut, f"{encoding}: {whole!r:.80} whole and {cut!r:.80} in pieces"
            assert whole == expected, f"{encoding}: {whole!r:.80}, at once {expected!r:.80}"
            texts.add(whole)
    finally:
        inflate._deflate = kept
    assert len(texts) == 1 or (None in texts and whole is None), f"{encoding}: {texts!r:.80}"


def _outcome(pieces: list[bytes], encoding: Encoding) -> object:
    """The text; None when it is refused; "too large"."""
    inflater = make_inflater(encoding, LIMITS)
    made: list[bytes] = []
    try:
        for piece in pieces:
            for part in inflater.feed(piece):
                assert 0 < len(part) <= LIMITS.piece_bytes
                made.append(part)
        inflater.finish()
    except MalformedBody:
        return None
    except BodyTooLarge:
        return "too large"
    finally:
        assert sum(map(len, made)) <= OUTPUT_BYTES_MAX
    return b"".join(made)


def _one_stream(body: bytes, wbits: int, module: Any) -> tuple[bytes, bytes] | None:
    """The text of the first stream, and what follows it; None when it is broken or has no end."""
    stream = module.decompressobj(wbits)
    try:
        made = stream.decompress(body, OUTPUT_BYTES_MAX + 1)
    except (zlib.error, isal_zlib.error):
        return None
    if len(made) > OUTPUT_BYTES_MAX:
        raise TooLarge
    return (made, stream.unused_data) if stream.eof else None


def gzip_reference(body: bytes, module: Any) -> bytes | None:
    made = b""
    is_first = True
    while body or is_first:
        is_first = False
        found = _one_stream(body, 31, module)
        if found is None or body[3] & 0xE0:  # reserved flags (RFC 1952, 2.3.1.2): isal takes them
            return None
        made += found[0]
        if len(made) > OUTPUT_BYTES_MAX:
            raise TooLarge
        body = found[1]
    return made


def deflate_reference(body: bytes, module: Any) -> bytes | None:
    """RFC 1950 where the first two bytes are its header, else RFC 1951."""
    is_wrapped = (
        len(body) > 1
        and body[0] & 0x0F == 8
        and body[0] >> 4 <= 7
        and int.from_bytes(body[:2], "big") % 31 == 0
    )
    found = _one_stream(body, 15 if is_wrapped else -15, module)
    return found[0] if found is not None and not found[1] else None


def zstd_reference(body: bytes, _: Any) -> bytes | None:
    made = b""
    is_first = True
    while body or is_first:
        is_first = False
        if len(body) >= 8 and body[1:4] == b"\x2a\x4d\x18" and body[0] >> 4 == 5:
            length = int.from_bytes(body[4:8], "little")
            if len(body) < 8 + length:
                return None
            body = body[8 + length :]
            continue
        frame = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX).decompressobj()
        rest = memoryview(body)
        before = len(made)
        try:
            told = zstandard.get_frame_parameters(body).content_size
            if _has_empty_compressed_block(body):
                return None
            while rest and not frame.eof:
                made += frame.decompress(bytes(rest[:64]))
                rest = rest[64:]
                if len(made) > OUTPUT_BYTES_MAX:
                    raise TooLarge
        except zstandard.ZstdError:
            return None
        # In a stream the library does not look at what was told when the last block is empty.
        if not frame.eof or told not in (zstandard.CONTENTSIZE_UNKNOWN, len(made) - before):
            return None
        body = frame.unused_data + bytes(rest)
    return made


def _has_empty_compressed_block(body: bytes) -> bool:
    """In the first frame. RFC 8878 gives such a block a header at least; a stream takes it."""
    at = zstandard.frame_header_size(body)
    while len(head := body[at : at + 3]) == 3:
        value = int.from_bytes(head, "little")
        kind, size = value >> 1 & 3, value >> 3
        if kind == 2 and not size:
            return True
        if value & 1 or kind == 3:
            return False
        at += 3 + (1 if kind == 1 else size)
    return False


REFERENCES: dict[Encoding, Callable[[bytes, Any], bytes | None]] = {
    "gzip": gzip_reference,
    "deflate": deflate_reference,
    "zstd": zstd_reference,
}


def _events(body: bytes, pieces: list[bytes]) -> None:
    whole = decoded([body], TIGHT)
    assert whole == decoded(pieces, TIGHT) == decoded(pieces, TIGHT, decoder=LineByLine)
    lines = [line for line in body.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    count = sum(bool(line.strip(b" \t\r")) for line in lines)
    is_packed = body.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd"))
    assert sum(whole.counts) == (1 if is_packed else count), "every line is one or the other"


def _honest(body: bytes, pieces: list[bytes]) -> None:
    whole = honest([body])
    assert whole == honest(pieces) == honest(pieces, decoder=by_text(HonestLogDecoder))


def _log_door(body: bytes, pieces: list[bytes]) -> None:
    whole = log_door([body])
    assert whole == log_door(pieces) == log_door(pieces, decoder=by_text(LogDoorDecoder))


def _metrics(body: bytes, pieces: list[bytes]) -> None:
    def outcome(parts: list[bytes]) -> object:
        rules = MetricRules(8, 300)
        one = MetricDecoder("p", rules, value_bytes_max=3000, received_at_us=NOW_US)
        try:
            batches = [batch for part in parts for batch in one.feed(part)]
            batches += one.finish()
        except (MalformedBody, BodyTooLarge) as error:
            return str(error)
        return [batch.columns for batch in batches]

    assert outcome([body]) == outcome(pieces)


TARGETS: list[Callable[[bytes, list[bytes]], None]] = [
    _inflating("gzip"),
    _inflating("deflate"),
    _inflating("zstd"),
    _events,
    _honest,
    _log_door,
    _metrics,
]


def samples() -> list[bytes]:
    """Good input for every target, to be spoilt."""
    made: list[bytes] = []
    for encoding, write in WRITERS.values():
        if encoding != "identity":
            place = list(REFERENCES).index(encoding)
            bodies = [write(b""), write(text(300)), write(text(300)) + write(text(90, 2))]
            made += [bytes([place, 0]) + body for body in bodies]
    made.append(b"\x02\0" + SKIPPABLE + WRITERS["zstd"][1](text(50)))
    made.append(b"\0\0" + gzip.compress(bytes(60_000)) + gzip.compress(b"x" * 9))
    log = (
        b'{"message":"m","level":"error","timestamp":"2026-11-21T10:00:00Z","a":["\\ud83d\\ude00"]}'
    )
    metric = b'{"metricId":"a","metricName":"A","value":1.5e3,"unit":"s"}'
    metric = b'{"projectId":"p","metrics":[' + metric + b"]}"
    event = event_line(x=[1, {"a": "b"}])
    for place, body in [
        (3, event + b"\n" + event_line(sessionId=None) + b"\r\n\n" + event),
        (3, b"\xef\xbb\xbf" + event + event + b"\n[" + event + b"]"),
        (4, log + b"\n" + log),
        (4, b"[" + log + b",\n" + log + b"]"),
        (5, log + b"\r\n1\n" + log),
        (5, b'"text"'),
        (5, b"[" + log + b"]"),
        (6, metric),
    ]:
        made.append(bytes([place, 2, 0, 7, 0, 200]) + body)
    return made


def spoilt(sample: bytes, rng: random.Random) -> bytes:
    """The same with a few bytes changed, lost, doubled or moved, and with other cuts."""
    data = bytearray(sample)
    for _ in range(rng.randint(0, 4)):
        place = rng.randrange(1, len(data) + 1)
        kind = rng.randrange(6)
        if kind == 0 and place < len(data):
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[place : place + rng.randint(1, 8)]
        elif kind == 2:
            data[place:place] = rng.choice(_PARTS)
        elif kind == 3:
            data[place:place] = data[place : place + rng.randint(1, 60)]
        elif kind == 4:
            data[place:place] = rng.randbytes(rng.randint(1, 8))
        else:
            del data[max(2, place) :]
    return bytes(data)


_PARTS = [
    b"\n", b"\r\n", b"\0", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\xff", b"\\ud800",
    b"1e400", b"NaN", b"-", b"9" * 400, b"[" * 9, b"\xef\xbb\xbf", b"\x1f\x8b", b"(\xb5/\xfd",
    b" " * 3000, b"\0\0\0\xff\xff", b"\x01\0\0\xff\xff", b'{"a":1}', b"\xed\xa0\x80",
    b"\x50\x2a\x4d\x18\0\0\0\0",
]  # fmt: skip
