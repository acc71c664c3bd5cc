"""Small bodies that decode to very much: 413 (or a bounded answer), and bounded memory."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable, Iterator

import pytest
import zstandard

from tests.system.client import compress, event_line
from tests.system.server import Server, SourceKeys, running

_GROWTH_BYTES_MAX = 150 * 1024 * 1024
_MIB = 1024 * 1024
_GIB = 1024 * _MIB

Subject = tuple[Server, SourceKeys]


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    with running(tmp_path_factory.mktemp("bombs")) as server:
        keys = server.create_source("bombs")
        # What an ordinary bulk upload needs is not growth.
        rng = random.Random(5)
        lines = b"\n".join(event_line("warm", n, p=rng.randbytes(99).hex()) for n in range(40_000))
        with server.connect() as connection:
            for encoding in ("gzip", "zstd", None):
                headers = {"Content-Encoding": encoding} if encoding else {}
                answer = connection.post(keys.path, compress(lines, encoding), headers)
                assert answer.counts == (40_000, 0)
        server.settle(keys)
        yield server, keys
        assert server.stop() == 0


def _deflated(unit: bytes, total_bytes: int, bits: int) -> bytes:
    """`unit` repeated to `total_bytes`, as one correct stream, made cheaply: a full flush
    makes the compressed unit repeatable."""
    unit *= _MIB // len(unit)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(unit) + packer.flush(zlib.Z_FULL_FLUSH)
    count = total_bytes // len(unit)
    raw = block * count + zlib.compressobj(9, zlib.DEFLATED, -15).flush()
    if bits == -15:
        return raw
    if bits == 15:
        check = 1
        for _ in range(count):
            check = zlib.adler32(unit, check)
        return b"\x78\xda" + raw + check.to_bytes(4, "big")
    crc = 0
    for _ in range(count):
        crc = zlib.crc32(unit, crc)
    size = (count * len(unit)) & 0xFFFFFFFF
    return gzip.compress(b"")[:10] + raw + crc.to_bytes(4, "little") + size.to_bytes(4, "little")


def _zstd(unit: bytes, total_bytes: int) -> bytes:
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    unit *= _MIB // len(unit)
    return b"".join(packer.compress(unit) for _ in range(total_bytes // len(unit))) + packer.flush()


_BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "gzip of zeros": ("gzip", lambda: _deflated(b"\0", _GIB, 31)),
    "gzip of line ends": ("gzip", lambda: _deflated(b"\n", _GIB, 31)),
    "gzip of short bad lines": ("gzip", lambda: _deflated(b"x\n", _GIB, 31)),
    "gzip of many members": ("gzip", lambda: gzip.compress(b"\0" * (16 * _MIB), 9) * 64),
    "deflate of zeros": ("deflate", lambda: _deflated(b"\0", _GIB, 15)),
    "raw deflate of line ends": ("deflate", lambda: _deflated(b"\n", _GIB, -15)),
    "zstd of zeros": ("zstd", lambda: _zstd(b"\0", _GIB)),
    "zstd of line ends": ("zstd", lambda: _zstd(b"\r\n", _GIB)),
    "zstd of one frame with a size": (
        "zstd",
        lambda: zstandard.ZstdCompressor(level=3).compress(b"\0" * (256 * _MIB)),
    ),
    "zstd of many frames": ("zstd", lambda: _zstd(b"\n", 8 * _MIB) * 128),
}


@pytest.mark.parametrize("name", _BOMBS)
def test_a_bomb_is_413_and_memory_stays_bounded(subject: Subject, name: str) -> None:
    server, keys = subject
    encoding, make = _BOMBS[name]
    body = make()
    server.forget_memory_peak()
    before = server.memory_peak_bytes()
    with server.connect() as connection:
        answer = connection.post(keys.path, body, {"Content-Encoding": encoding})
        again = connection.post(keys.path, body, {"Content-Encoding": encoding}, chunked=True)
    growth = server.memory_peak_bytes() - before
    assert (answer.status, answer.body) == (413, b"")
    assert (again.status, again.body) == (413, b"")
    assert growth < _GROWTH_BYTES_MAX, f"{name}: {growth / _MIB:.0f} MiB more"
    # "Nothing of a refused request is ever stored": no reject of its lines either.
    server.settle(keys)
    assert server.value("SELECT count(*) AS n FROM rejects") == 0


def test_a_nested_bomb_is_not_opened_twice(subject: Subject) -> None:
    server, keys = subject
    inner = _deflated(b"\0", _GIB, 31)
    nested = compress(inner, "gzip", 9)
    server.forget_memory_peak()
    before = server.memory_peak_bytes()
    with server.connect() as connection:
        once = connection.post(f"{keys.path}?wait=query", nested, {"Content-Encoding": "gzip"})
        assert once.status in {200, 413}
        assert once.status == 413 or once.accepted == 0
        listed = connection.post(keys.path, nested, {"Content-Encoding": "gzip, gzip"})
        assert listed.status == 200
        assert listed.accepted == 0
    assert server.memory_peak_bytes() - before < _GROWTH_BYTES_MAX


def test_many_blank_lines_below_the_ratio_are_taken_in_bounded_memory(subject: Subject) -> None:
    server, keys = subject
    good = event_line("blank", 0)
    # Incompressible blanks in between keep the ratio legal: some 100.
    rng = random.Random(9)
    noise = b"".join(b" " * rng.randrange(1, 9) + b"\n" for _ in range(400_000))
    body = compress(good + b"\n" + (b"\n" * 16 + noise) * 10 + b"\n" * (16 * _MIB) + good, "gzip")
    server.forget_memory_peak()
    before = server.memory_peak_bytes()
    with server.connect() as connection:
        answer = connection.post(keys.path, body, {"Content-Encoding": "gzip"})
    assert answer.counts == (2, 0)
    assert server.memory_peak_bytes() - before < _GROWTH_BYTES_MAX


def test_rejects_are_all_counted_and_kept_up_to_the_limit(subject: Subject) -> None:
    server, keys = subject
    rng = random.Random(10)
    lines = b"\n".join(b"%x" % rng.getrandbits(64) for _ in range(200_000))
    server.forget_memory_peak()
    before = server.memory_peak_bytes()
    with server.connect() as connection:
        answer = connection.post(
            f"{keys.path}?wait=query", compress(lines, "gzip"), {"Content-Encoding": "gzip"}
        )
    assert answer.counts == (0, 200_000)
    assert server.memory_peak_bytes() - before < _GROWTH_BYTES_MAX
    found = server.query(
        "SELECT count(*) AS n, count(DISTINCT id) AS ids, count(DISTINCT line_number) AS numbers "
        f"FROM rejects WHERE request_id = '{answer.request_id}'"
    )
    assert found == [{"n": 10_000, "ids": 10_000, "numbers": 10_000}]
