"""Bodies of the log and honest doors: every way and every cut comes to the same logs."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings

from ingester.protocol.body_decoder import BodyLimits
from ingester.protocol.logs import HonestLogDecoder, LogDoorDecoder

from ..helpers import sliced
from .log_bodies import (
    NOW_US,
    TIGHT,
    bodies,
    by_text,
    honest,
    log_door,
    naive_honest,
    naive_log_door,
    rows_of,
)

ROOMY = BodyLimits()


@settings(max_examples=800, deadline=None)
@given(bodies())
def test_honest_bodies_come_to_what_they_plainly_are(
    made: tuple[bytes, list[bytes], list[bytes] | None],
) -> None:
    body, pieces, elements = made
    whole = honest([body])
    assert whole == honest(pieces)
    assert whole == honest(pieces, decoder=by_text(HonestLogDecoder))
    if whole.error is not None:
        assert len(body) > TIGHT.value_bytes_max
        return
    if body.strip()[:1] == b"[" and elements is None:
        return
    rows, refused = naive_honest(body, elements, TIGHT)
    assert whole.rows == rows
    assert sorted({r.line_number for r in whole.rejects}) == refused


@settings(max_examples=800, deadline=None)
@given(bodies())
def test_log_door_bodies_come_to_what_they_plainly_are(
    made: tuple[bytes, list[bytes], list[bytes] | None],
) -> None:
    body, pieces, elements = made
    whole = log_door([body])
    assert whole == log_door(pieces)
    assert whole == log_door(pieces, decoder=by_text(LogDoorDecoder))
    if body.strip()[:1] == b"[" and elements is None:
        return
    expected = naive_log_door(body, elements, TIGHT)
    if isinstance(expected, list):
        assert whole.error is None or len(body) > TIGHT.value_bytes_max
        assert whole.rows == (expected if whole.error is None else [])
    else:
        assert whole.error is not None
        assert not whole.rows


LOG = b'{"message":"m","level":"error","timestamp":"2026-11-21T10:00:00Z"}'


@pytest.mark.parametrize("decode", [honest, log_door])
def test_shapes_of_bodies(decode: Any) -> None:
    pretty = json.dumps(json.loads(LOG), indent=2).encode()
    for body, texts, numbers in [
        (LOG, [LOG], [1]),
        (LOG + b"\n", [LOG], [1]),
        (b"\n\r\n " + LOG + b"\r\n\n", [LOG], [3]),
        (LOG + b"\n" + LOG, [LOG] * 2, [1, 2]),
        (b"\xef\xbb\xbf" + LOG + b"\r\n\r\n" + LOG + b"\r\n", [LOG] * 2, [1, 3]),
        (b"\xef\xbb\xbf" + LOG, [LOG], [1]),
        (pretty, [pretty], [1]),
        (b"\n" + pretty + b"\n", [pretty], [2]),
        (b"[" + LOG + b"," + LOG + b"]", [LOG] * 2, [1, 2]),
        (b"[\n" + pretty + b" ,\n" + pretty + b"\n]\n", [pretty] * 2, [1, 2]),
        (b"[{}]", [b"{}"], [1]),
    ]:
        for pieces in sliced(body):
            found = decode(pieces, ROOMY)
            assert found.error is None
            assert [text for _, text, _ in found.rows] == texts
            assert [number for number, _, _ in found.rows] == numbers


@pytest.mark.parametrize(
    "body", [b"[]", b"[1]", b"[{},1]", b'"text"', b"5", b"null", b"true", b"[[{}]]", b"[ ]"]
)
def test_any_other_value_is_one_log_on_the_log_door_only(body: bytes) -> None:
    for pieces in sliced(body):
        [(number, text, log)] = log_door(pieces, ROOMY).rows
        assert (number, text, log.level, log.time_us) == (1, body, "info", NOW_US)
    found = honest([body])
    assert [text for _, text, _ in found.rows] == ([b"{}"] if b"[{}," in body else [])
    assert {r.reason for r in found.rejects} <= {"not_an_object"}


def test_values_of_any_kind_on_lines_of_the_log_door() -> None:
    body = b'1\n"two"\n[3]\n{"message":"four"}\nnull\n'
    for pieces in sliced(body):
        logs = [log.message for _, _, log in log_door(pieces).rows]
        assert logs == ["1", "two", "[3]", "four", "null"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "400 the body is empty; send one JSON value, or one a line"),
        (b" \r\n\n", "400 the body is empty; send one JSON value, or one a line"),
        (b"{", "400 line 1, column 2: the text ends inside the value"),
        (b'{"a" 1}', "400 line 1, column 6: expected ':'"),
        (b'{"a":1}\n{"a":}\n', "400 line 2, column 6: invalid character"),
        (b'{"a":1}{"a":2}', "400 line 1, column 8: a second value behind the first"),
        (b'{"a":1}\n{"a":1}{"a":2}', "400 line 2, column 8: a second value behind the first"),
        (b'\n{"a":\n1}\n{"a":1}', "400 line 2: a value before others stands on one line"),
        (b'{\n "a": 1,\n "b": oops\n}', "400 line 3, column 7: invalid character"),
        (b'{\n "a": 1,\n "b": 2\n', "400 line 3, column 8: the text ends inside the value"),
        (b'{\n "a": "\xff"\n}', "400 line 2, column 8: byte 0xff is not UTF-8"),
        (b'\n{\n "a": "\\ud800"\n}', "400 line 3, column 8: half of a surrogate pair in an escape"),
        (b'{"a":1}\n\xff', "400 line 2, column 1: byte 0xff is not UTF-8"),
        (b"[" * 7 + b"]" * 7, "400 line 1, column 7: more than 6 levels of nesting"),
        (b"[" * 100_000 + b"]" * 100_000, "413 a body that is one JSON value may have"),
        (b'{"a":1}\n"' + b"x" * 400 + b'"\n', "413 line 2: 402 bytes, at most 300 are taken; "),
        (b'"' + b"x" * 2000 + b'"', "413 a body that is one JSON value may have at most 1500"),
        (b'[{"a":1},{"a":"\\udfff"}]', "400 element 2, column 7: half of a surrogate"),
        (b"NaN", "400 line 1, column 1: invalid character"),
        (b"{} x", "400 line 1, column 4: trailing characters"),
    ],
)  # fmt: skip
def test_the_log_door_refuses_the_body_and_says_where(body: bytes, error: str) -> None:
    cuts = [[body], [body[i : i + 700] for i in range(0, len(body), 700)]]
    for pieces in [*cuts, *(sliced(body) if len(body) < 1000 else [])]:
        found = log_door(pieces)
        assert found.error is not None
        assert found.error.startswith(error)
        assert not found.rows


def test_deep_arrays_are_refused_at_any_limit() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    for body in (deep, deep + b"\n", b"{}\n" + deep):
        assert "more than 128 levels of nesting" in str(log_door([body], ROOMY).error)
    [reject] = honest([deep], ROOMY).rejects
    assert (reject.reason, reject.line_number, reject.column) == ("too_deep", 1, 129)
    [reject] = honest([b'[{},{"a":' + deep[99_800:100_200] + b"}]"], ROOMY).rejects
    assert (reject.reason, reject.line_number) == ("too_deep", 2)


@pytest.mark.parametrize(
    ("body", "rejects"),
    [
        (b'{}\n{"a":\n{}', [(2, "invalid_json", 6)]),
        (b'{"a":\n{}\n{}', [(1, "invalid_json", 6)]),
        (b'{"a":"b\n{}', [(1, "invalid_json", 8)]),
        (b'{"a":"\\ud800"}\n{}', [(1, "invalid_utf8", 7)]),
        (b'[{},{"a":"\\ud800"},{"a":"\xff"},3,[]]',
         [(2, "invalid_utf8", 7), (3, "invalid_utf8", 7), (4, "not_an_object", 0),
          (5, "not_an_object", 0)]),
        (b'[{},\n{"a":"\xff"},\n3]', [(2, "invalid_utf8", 7), (3, "not_an_object", 0)]),
        (b"[{}]\n{}", [(1, "not_an_object", 0)]),
        (b"[{},{}\n{}", [(1, "invalid_json", 7)]),
        (b"{}{}", [(1, "several_values", 3)]),
        (b"x", [(1, "invalid_json", 1)]),
        (b"{\n}\n{}", [(1, "invalid_json", 2), (2, "invalid_json", 1)]),
        (b'{"a":"' + b"x" * 300 + b'"}\n{}', [(1, "too_long", 0)]),
        (b'{"a":"' + b"x" * 300 + b'"}', []),
        (b"7", [(1, "not_an_object", 0)]),
    ],
)  # fmt: skip
def test_the_honest_door_refuses_lines_with_a_reason(
    body: bytes, rejects: list[tuple[int, str, int]]
) -> None:
    for pieces in sliced(body):
        found = honest(pieces)
        assert [(r.line_number, r.reason, r.column) for r in found.rejects] == rejects


def test_a_first_line_that_may_be_a_value_is_held_up_to_the_limit_only() -> None:
    start = b'{"a":[\n' + b"1,\n" * 700
    for decode in (honest, log_door):
        assert str(decode([start]).error).startswith("413 a body that is one JSON value")
    # Not a start of one value any more: lines, each by itself, and memory stays bounded.
    found = honest([b'{"a":[\n' + b"{}\n" * 10_000])
    assert found.error is None
    assert (len(found.rows), len(found.rejects)) == (10_000, 1)
    found = log_door([b"{}\n" * 10_000])
    assert (len(found.rows), found.error) == (10_000, None)


@pytest.mark.parametrize(
    "head", [gzip.compress(LOG, mtime=0), zstandard.compress(LOG), b"\x1f\x8b"]
)
def test_a_compressed_body_that_does_not_say_so(head: bytes) -> None:
    for pieces in sliced(head):
        [reject] = honest(pieces).rejects
        assert reject.reason == "wrong_encoding"
        for is_form in (False, True):
            assert "send it with Content-Encoding" in str(log_door(pieces, is_form=is_form).error)
    assert log_door([head], is_plain=False).error is not None
    assert honest([head], is_plain=False).rejects[0].reason == "invalid_utf8" or head[0] != 0x1F


def test_regular_lines_take_the_fast_way() -> None:
    seen = []

    class Watched(HonestLogDecoder):
        def read_chunk(self, *chunk: Any) -> Any:
            columns = super().read_chunk(*chunk)
            seen.append(columns is not None)
            return columns

    array = b"[" + b",".join([LOG] * 3) + b"]"
    for body, count in [(b"\n".join([LOG] * 3), 3), (array, 3), (b'{"Level":5}\r\n' + LOG, 2)]:
        seen.clear()
        assert len(honest([body], ROOMY, decoder=Watched).rows) == count
        assert seen
        assert all(seen)


def test_many_small_elements_are_cut_one_by_one() -> None:
    count = 3000
    for element in (b"{}", b'{"a":",]"}', b"[1,[2,3]]", b'"\\",["', b"1"):
        body = b"[" + b", ".join([element] * count) + b" ]"
        found = honest([body], ROOMY)
        assert len(found.rows) + len(found.rejects) == count
        assert all(text == element for _, text, _ in found.rows)
        assert all(reject.line == element for reject in found.rejects)


def test_rejects_are_counted_beyond_those_kept_and_stop_when_told() -> None:
    body = b"x\n" * 100 + LOG + b"\n"
    assert len(honest([body], rejects_max=3).rejects) == 3
    one = HonestLogDecoder(
        TIGHT, received_at_us=NOW_US, rejects_max=9, is_plain=True, keep_going=False
    )
    assert not one.is_stopped
    batches = one.feed(LOG + b"\n" + b"x\n" * 50 + LOG + b"\n")
    assert one.is_stopped
    assert [number for batch in batches for number, _, _ in rows_of(batch)] == [1]
    assert [*one.feed(LOG + b"\n"), *one.finish()] == []
    assert one.rejected_count == 1
    assert len(one.take_rejects()) == 1


def test_winstons_batch_and_pinos_lines() -> None:
    batch = b'[{"level":"warn","message":"one"},{"level":"error","message":"two"}]'
    logs = [log for _, _, log in log_door([batch]).rows]
    assert [(log.level, log.message) for log in logs] == [("warning", "one"), ("error", "two")]
    pino = b'{"level":50,"time":1795262000123,"pid":1,"hostname":"h","msg":"boom"}\n' * 2
    logs = [log for _, _, log in honest([pino]).rows]
    assert logs == [("error", "boom", 1_795_262_000_123_000)] * 2


def test_repr_shows_no_payload() -> None:
    one = HonestLogDecoder(TIGHT, received_at_us=NOW_US, rejects_max=1, is_plain=True)
    [batch] = one.feed(b'{"message":"secret"}\n{}')
    assert repr(batch).startswith("LogBatch(1 logs")
    assert "secret" not in repr(one.read_chunk(batch.data, batch.starts, batch.lengths))


def test_what_a_long_body_is_does_not_depend_on_its_cuts() -> None:
    line = b'{"a":"' + b"x" * 2000 + b'"}\n'
    starts = b'{"a":[\n' + b" " * 1480 + b"1,\n" * 300
    late = b'{"a":[\n' + b" " * 1480 + b"{}\n" * 300
    for body in (line + b"{}\n", line, starts, late, b" " * 1500 + b"{}", b"{}" + b"\n" * 1600):
        for decode in (honest, log_door):
            whole = decode([body])
            for step in (1, 7, 1000, 1500, 1501):
                pieces = [body[i : i + step] for i in range(0, len(body), step)]
                assert decode(pieces) == whole
