"""Bodies that are cut, corrupt, oddly encoded or oddly framed: whole or not at all.

The server takes lines of at most 64 KiB here, so that an over-long line fits into a small body.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import zstandard

from tests.system.client import (
    Answer,
    Connection,
    NoAnswer,
    chunk_frames,
    compress,
    event_line,
    head_bytes,
)
from tests.system.server import Server, SourceKeys, running

_LINE_BYTES_MAX = 64 * 1024
_BULK_ROWS = 9_000  # decoded well above the 1 MiB of the small lane
_ENCODINGS = ("gzip", "deflate", "raw-deflate", "zstd")


@dataclass
class Door:
    """The server of this module and one keep-alive connection."""

    server: Server
    keys: SourceKeys
    connection: Connection

    def post(
        self, body: bytes, encoding: str | None = None, *, path: str = "", chunked: bool = False
    ) -> Answer:
        headers = {} if encoding is None else {"Content-Encoding": encoding}
        return self.connection.post(path or self.keys.path, body, headers, chunked=chunked)

    def stored(self, account: str) -> int:
        """How many events of `account` there are once everything is queryable."""
        self.server.settle(self.keys)
        found = self.server.value(
            f"SELECT count(*) AS n FROM events WHERE account_id LIKE '{account}%'"
        )
        assert isinstance(found, int)
        return found


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("bodies")
    with running(folder, {"INGESTER_INTAKE_LINE_BYTES_MAX": str(_LINE_BYTES_MAX)}) as server:
        keys = server.create_source("bodies")
        with server.connect() as connection:
            yield Door(server, keys, connection)
        assert server.stop() == 0
    assert "Traceback" not in server.log_text()


def _header(encoding: str) -> str:
    return encoding.removeprefix("raw-")


def _small_body(account: str) -> bytes:
    return b"\n".join(event_line(account, row, n=row * row) for row in range(3)) + b"\n"


def _bulk_body(account: str, seed: int = 1) -> bytes:
    rng = random.Random(seed)
    lines = (event_line(account, row, pad=rng.randbytes(24).hex()) for row in range(_BULK_ROWS))
    return b"\n".join(lines) + b"\n"


def _inflated(data: bytes, encoding: str) -> bytes | None:
    """What a strict reader makes of `data`; None when it is broken or has a rest."""
    for bits in (15, -15) if "deflate" in encoding else (31,):
        reader = zlib.decompressobj(bits)
        try:
            output = reader.decompress(data) + reader.flush()
        except zlib.error:
            continue
        if reader.eof and not reader.unused_data:
            return output
    return None


@pytest.mark.parametrize("encoding", _ENCODINGS)
def test_a_body_cut_at_any_byte_is_refused(door: Door, encoding: str) -> None:
    account = f"cut-{encoding}"
    packed = compress(_small_body(account), encoding, 9)
    for length in range(1, len(packed)):
        answer = door.post(packed[:length], _header(encoding))
        assert (answer.status, answer.body) == (400, b""), f"cut at {length} of {len(packed)}"
    assert door.post(packed, _header(encoding)).counts == (3, 0)
    assert door.stored(account) == 3


@pytest.mark.parametrize("encoding", _ENCODINGS)
def test_a_flipped_bit_refuses_the_body_or_changes_nothing(door: Door, encoding: str) -> None:
    """Every bit of the body in turn. Some bits mean nothing (a gzip time stamp, the fill of the
    last byte) and raw deflate has no checksum; what is taken then must be what was decoded."""
    keys = door.server.create_source(f"flip-{encoding}")
    lines = _small_body("flip").splitlines()
    packed = compress(_small_body("flip"), encoding, 9)
    accepted = rejected = refused = 0
    for position in range(len(packed)):
        for bit in range(8):
            flipped = bytearray(packed)
            flipped[position] ^= 1 << bit
            answer = door.post(bytes(flipped), _header(encoding), path=keys.path)
            place = f"bit {bit} of byte {position} of {len(packed)}"
            if answer.status != 200:
                assert (answer.status, answer.body) == (400, b""), place
                refused += 1
                continue
            accepted += answer.accepted
            rejected += answer.rejected
            if encoding == "raw-deflate":
                output = _inflated(bytes(flipped), encoding)
                assert output is not None, f"{place}: broken, yet taken"
                count = sum(bool(line.strip()) for line in output.split(b"\n"))
                assert sum(answer.counts) == count, place
            else:
                assert answer.counts == (3, 0), place
    total = len(packed) * 8
    assert refused >= total * (0.15 if encoding == "raw-deflate" else 0.85)
    door.server.settle(door.keys)
    found = door.server.query(
        "SELECT body::VARCHAR AS body, count(*) AS n FROM events "
        f"WHERE source = '{keys.name}' GROUP BY 1"
    )
    assert sum(row["n"] for row in found) == accepted
    kept = door.server.value(f"SELECT count(*) AS n FROM rejects WHERE source = '{keys.name}'")
    assert kept == rejected
    if encoding != "raw-deflate" and accepted:
        counts = {row["body"].encode(): row["n"] for row in found}
        assert counts == dict.fromkeys(lines, accepted // 3)


@pytest.mark.parametrize("encoding", _ENCODINGS)
def test_a_bulk_body_cut_anywhere_leaves_nothing(door: Door, encoding: str) -> None:
    account = f"bulkcut-{encoding}"
    packed = compress(_bulk_body(account), encoding)
    rng = random.Random(11)
    near_end = [len(packed) - n for n in range(1, 10)]
    for length in [*near_end, *(rng.randrange(1, len(packed)) for _ in range(6))]:
        answer = door.post(packed[:length], _header(encoding), chunked=bool(length % 2))
        assert (answer.status, answer.body) == (400, b""), f"cut at {length} of {len(packed)}"
    assert door.stored(account) == 0
    assert door.post(packed, _header(encoding)).counts == (_BULK_ROWS, 0)
    assert door.stored(account) == _BULK_ROWS


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_a_bulk_body_with_a_wrong_byte_leaves_nothing(door: Door, encoding: str) -> None:
    account = f"bulkflip-{encoding}"
    packed = compress(_bulk_body(account), encoding)
    rng = random.Random(12)
    # The last bytes are the checksum: all rows were decoded when it is found wrong.
    for position in [len(packed) - 1, *(rng.randrange(20, len(packed) - 8) for _ in range(6))]:
        broken = bytearray(packed)
        broken[position] ^= 0x5A
        answer = door.post(bytes(broken), encoding)
        assert (answer.status, answer.body) == (400, b""), f"byte {position} of {len(packed)}"
    assert door.stored(account) == 0


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw-deflate"])
def test_bytes_after_the_end_of_the_stream_are_refused(door: Door, encoding: str) -> None:
    account = f"rest-{encoding}"
    packed = compress(_small_body(account), encoding)
    assert door.post(packed + b"junk", _header(encoding)).status == 400
    assert door.stored(account) == 0


@pytest.mark.parametrize("row_count", [6, _BULK_ROWS])
def test_several_members_and_frames_are_one_body(door: Door, row_count: int) -> None:
    for encoding in ("gzip", "zstd"):
        account = f"members-{encoding}-{row_count}"
        lines = b"".join(event_line(account, row, pad="x" * 99) + b"\n" for row in range(row_count))
        third = len(lines) // 3  # the cuts lie inside lines
        parts = (lines[:third], lines[third : 2 * third], b"", lines[2 * third :])
        packed = b"".join(compress(part, encoding) for part in parts)
        assert door.post(packed, encoding).counts == (row_count, 0)
        assert door.post(packed[:-1], encoding).status == 400
        assert door.stored(account) == row_count


def test_a_zstd_frame_without_size_or_checksum_is_taken(door: Door) -> None:
    packer = zstandard.ZstdCompressor(write_checksum=False, write_content_size=False)
    packed = packer.compressobj()
    body = packed.compress(_small_body("frame")) + packed.flush()
    assert door.post(body, "zstd").counts == (3, 0)
    assert door.post(body[:-1], "zstd").status == 400
    assert door.stored("frame") == 3


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
        ("X-GZip", "gzip"),
        ("Deflate", "deflate"),
        ("DEFLATE", "raw-deflate"),
        ("ZStd", "zstd"),
        (" gzip ", "gzip"),
        ("Identity", None),
        ("", None),
    ],
)
def test_encodings_are_known_in_any_case(door: Door, name: str, encoding: str | None) -> None:
    packed = compress(_small_body(f"case-{name.strip()}"), encoding)
    assert door.post(packed, name).counts == (3, 0)


@pytest.mark.parametrize("name", ["br", "compress", "gzip, gzip", "gzip,identity", "utf-8", "none"])
def test_another_encoding_is_plain_text(door: Door, name: str) -> None:
    assert door.post(_small_body("plain"), name).counts == (3, 0)
    answer = door.post(compress(_small_body("plain"), "gzip"), name)
    assert answer.status == 200
    assert answer.accepted == 0
    assert answer.rejected >= 1


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("size", ["small", "bulk"])
def test_compressed_bytes_without_an_encoding_are_one_reject(
    door: Door, encoding: str, size: str
) -> None:
    account = f"bare-{encoding}"
    # The bulk body stays above 1 MiB when compressed.
    body = _small_body(account) if size == "small" else random.Random(3).randbytes(1_500_000)
    packed = compress(body, encoding)
    answer = door.post(packed)
    assert answer.status == 200
    assert answer.counts == (0, 1)
    door.server.settle(door.keys)
    (row,) = door.server.query(
        "SELECT reason, line_number, octet_length(line) AS size, hex(line[1:16]) AS head "
        f"FROM rejects WHERE request_id = '{answer.request_id}'"
    )
    assert row["reason"] == "wrong_encoding"
    assert row["line_number"] == 1
    assert row["size"] == min(len(packed), 65_536)
    assert bytes.fromhex(row["head"]) == packed[:16]


@pytest.mark.parametrize("filler", [0, _BULK_ROWS])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_line_ends_byte_order_mark_and_blank_lines(door: Door, filler: int, end: bytes) -> None:
    account = f"ends-{filler}-{len(end)}"
    lines = [event_line(account, row, pad="y" * 99) for row in range(4 + filler)]
    body = b"\xef\xbb\xbf" + lines[0] + end + end + end + lines[1] + end + b"  \t" + end
    body += end.join(lines[2:])  # no last line end
    answer = door.post(body)
    assert answer.counts == (len(lines), 0)
    door.server.settle(door.keys)
    found = door.server.query(
        "SELECT body::VARCHAR AS body FROM events "
        f"WHERE account_id = '{account}' AND session_id IN ('0', '1', '2', '3') "
        "ORDER BY session_id"
    )
    assert [row["body"].encode() for row in found] == lines[:4]
    assert door.stored(account) == len(lines)


@pytest.mark.parametrize("filler", [0, _BULK_ROWS])
def test_an_over_long_line_is_one_reject_between_good_ones(door: Door, filler: int) -> None:
    account = f"long-{filler}"
    bare = len(event_line(account, "fits", pad=""))
    fits = event_line(account, "fits", pad="z" * (_LINE_BYTES_MAX - bare))
    over = event_line(account, "over", pad="z" * (_LINE_BYTES_MAX - bare + 1))
    lines = [event_line(account, row, pad="w" * 99) for row in range(2 + filler)]
    body = b"\n".join([lines[0], fits, over, *lines[1:], over]) + b"\n"
    answer = door.post(body)
    assert answer.counts == (len(lines) + 1, 2)
    door.server.settle(door.keys)
    rows = door.server.query(
        "SELECT reason, line_number, octet_length(line) AS size FROM rejects "
        f"WHERE request_id = '{answer.request_id}' ORDER BY line_number"
    )
    assert [(row["reason"], row["line_number"]) for row in rows] == [
        ("too_long", 3),
        ("too_long", 4 + len(lines) - 1),
    ]
    assert [row["size"] for row in rows] == [65_536, 65_536]
    assert door.stored(account) == len(lines) + 1


def test_a_request_sent_byte_by_byte_is_taken(door: Door) -> None:
    body = compress(_small_body("dribble"), "gzip")
    head = head_bytes(
        "POST",
        door.keys.path,
        {"Content-Encoding": "gzip", "Content-Length": str(len(body))},
    )
    for message in (
        head + body,
        head.replace(b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked")
        + b"".join(chunk_frames(body[n : n + 1] for n in range(len(body)))),
    ):
        with door.server.connect() as connection:
            for position in range(len(message)):
                connection.send_raw(message[position : position + 1])
            assert connection.read_answer().counts == (3, 0)
    assert door.stored("dribble") == 6


@pytest.mark.parametrize("size", ["small", "bulk"])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("half_closed", [False, True])
def test_a_client_that_leaves_in_the_middle_stores_nothing(
    door: Door, size: str, chunked: bool, half_closed: bool
) -> None:
    account = f"left-{size}-{chunked:d}{half_closed:d}"
    body = _small_body(account) if size == "small" else _bulk_body(account)
    sent = body[: body.index(b"\n", len(body) // 2) + 1]  # whole lines, so that rows are tempting
    headers = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(len(body))}
    with door.server.connect(timeout_s=10.0) as connection:
        connection.send_raw(head_bytes("POST", door.keys.path, headers))
        if chunked:
            connection.send_raw(b"".join(chunk_frames([sent], last=False)))
        else:
            connection.send_raw(sent)
        if half_closed:
            connection.stream().shutdown(1)
            with contextlib.suppress(NoAnswer):
                assert connection.read_answer().status == 400
        else:
            time.sleep(0.1)  # lets the server meet the rows before the end
    assert door.stored(account) == 0


def test_the_body_as_sent_is_the_body_in_the_store(door: Door) -> None:
    """Order of keys, blanks, escapes, number spellings and duplicates are kept."""
    line = (
        rb'{ "z":1.0,"a": 0.10 , "accountId":"as-sent","userId":"u","action":"x","big":'
        rb'123456789012345678901234567890,"sessionId":"s","e":1E+2,"text":"\u00e9\/\n",'
        rb'"createdAt":1700000000000.75,"dup":1,"dup":2,"nested":{"b":[ ],"a":null} }'
    )
    json.loads(line)
    assert door.post(line).counts == (1, 0)
    door.server.settle(door.keys)
    (row,) = door.server.query(
        "SELECT body::VARCHAR AS body, epoch_ms(created_at) AS ms FROM events "
        "WHERE account_id = 'as-sent'"
    )
    assert row["body"].encode() == line
    assert row["ms"] == 1_700_000_000_000
