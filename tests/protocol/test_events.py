"""The chunk decoder: the same answer for every line, whichever way it was looked at."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingester.protocol.event_lines import EventRules
from ingester.protocol.events import EventDecoder
from ingester.protocol.ndjson import EXCERPT_BYTES_MAX

from ..helpers import sliced
from .lines import Decoded, LineByLine, bodies, decoded, event_line, is_valid, nested

TIGHT = EventRules(line_bytes_max=2400, depth_max=8)
LENIENT = EventRules(line_bytes_max=2400, depth_max=8, lenient_session=True)


def check_body(body: bytes, pieces: list[bytes], rules: EventRules) -> None:
    """Both ways and all cuts agree, and with the contract read plainly."""
    whole = decoded([body], rules)
    assert whole == decoded([body], rules, decoder=LineByLine)
    assert whole == decoded(pieces, rules)
    assert whole == decoded(pieces, rules, decoder=LineByLine)
    if body.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
        assert whole.reasons == {"wrong_encoding": 1}
        return
    expected = []
    line_count = 0
    for number, raw in enumerate(body.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        line = raw.removesuffix(b"\r")
        if not line.strip(b" \t\r"):
            continue
        line_count += 1
        if is_valid(line, rules):
            expected.append((number, line.strip(b" \t\r")))
    assert [(number, line) for number, line, _ in whole.accepted] == expected
    assert sum(whole.counts) == line_count
    assert sum(whole.reasons.values()) == whole.counts[1] == len(whole.rejects)


@settings(max_examples=400, deadline=None)
@given(bodies(), st.sampled_from([TIGHT, LENIENT]))
def test_every_way_and_every_cut_agree_on_every_line(
    body: tuple[bytes, list[bytes]], rules: EventRules
) -> None:
    check_body(*body, rules)


@pytest.mark.parametrize("rules", [TIGHT, LENIENT])
@pytest.mark.parametrize(
    "body",
    [
        # One value over two lines and two on the next: as many values as lines.
        b'{"a":1,\n"b":2}\n' + event_line() + event_line() + b"\n",
        event_line() + event_line() + b"\n" + event_line()[:40] + b"\n" + event_line()[40:] + b"\n",
        b'{"a":"}\n{","b":1}\n' + event_line() + event_line(),
        event_line() + b"}\n{" + event_line() + b"\n",
        event_line(sessionId=None, session_id="s") + b"\n" + event_line(sessionId="") + b"\n",
        event_line(sessionId="s", session_id=5) + b"\n" + event_line(account_id=7) + b"\n",
        event_line() + b"\n" + event_line()[:-1] + b', "accountId": "b"}\n',
        event_line()[:-1] + b', "accountId": ""}\n' + event_line()[:-1] + b', "action": 5}\n',
        b'{"action": 5, ' + event_line()[1:] + b"\n" + event_line(),
        b"\n" * 3 + event_line() + b"\r\r\n" + b"  " + event_line() + b"\t\n",
        b"\r\n" + event_line(),
    ],
)
def test_known_traps_of_chunk_decoding(body: bytes, rules: EventRules) -> None:
    for pieces in sliced(body, rounds=20):
        check_body(body, pieces, rules)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_depth_is_seen_wherever_it_stands_in_a_chunk(data: st.DataObject) -> None:
    """Mixtures of lines just under, at and over the bound; brackets in strings do not count."""
    kinds = st.sampled_from([
        event_line(),
        event_line(x="[{" * 20),
        event_line(x='\\"[[[[[[[[['),
        event_line(x=[[]] * 9),
        *(nested(n, kind) for n in (6, 7, 8, 9, 10, 40) for kind in (b"[]", b"{}")),
    ])
    body = b"\n".join(data.draw(st.lists(kinds, min_size=1, max_size=12)))
    check_body(body, [body], TIGHT)


def test_regular_lines_take_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the traps above would test one way twice."""
    pair = event_line(x="😀")
    accent = pair.replace(b"\\ud83d\\ude00", "é".encode())

    def looked_at(line: bytes, line_number: int, rules: EventRules) -> object:
        raise AssertionError(line)

    monkeypatch.setattr("ingester.protocol.event_runs.decode_line", looked_at)
    for body, rules in [
        (event_line() + b"\r\n" + pair + b"\n" + accent, TIGHT),
        (event_line(sessionId=None) + b"\n" + event_line(), LENIENT),
        (nested(8) + b"\n" + nested(8), TIGHT),
    ]:
        assert decoded([body], rules).counts == (body.strip().count(b"\n") + 1, 0)


def test_a_line_of_exactly_the_limit_is_taken_with_any_line_end_in_any_cut() -> None:
    line = event_line(x="")
    line = line.replace(b'"x": ""', b'"x": "%b"' % (b"y" * (TIGHT.line_bytes_max - len(line))))
    assert len(line) == TIGHT.line_bytes_max
    for end in (b"", b"\n", b"\r\n", b"\r"):
        for cut in range(len(line) - 3, len(line + end) + 1):
            body = line + end
            assert decoded([body[:cut], body[cut:]], TIGHT).counts == (1, 0)
    for longer in (line + b" ", b" " + line, line[:-1] + b" }"):
        for end in (b"", b"\n", b"\r\n"):
            for cut in (10, len(longer), len(longer + end)):
                body = longer + end
                result = decoded([body[:cut], body[cut:]], TIGHT)
                assert result.counts == (0, 1)
                [reject] = result.rejects
                assert (reject.reason, reject.detail, reject.line) == (
                    "too_long",
                    "2401 bytes, at most 2400 are taken",
                    longer,
                )


def test_overlong_blank_lines_are_blank() -> None:
    body = b" " * 9000 + b"\n" + event_line() + b"\n" + b"\t" * 9000
    for cut in (0, 100, 9000, len(body) - 1):
        result = decoded([body[:cut], body[cut:]], TIGHT)
        assert result.counts == (1, 0)
        assert result.accepted[0][0] == 2


def test_overlong_lines_between_good_ones_keep_their_numbers() -> None:
    good = event_line()
    body = b"\n".join([good, b"x" * 70_000, good, b"", b"y" * 3000, good])
    for pieces in sliced(body, rounds=10):
        result = decoded(pieces, TIGHT)
        assert [number for number, _, _ in result.accepted] == [1, 3, 6]
        assert [(r.line_number, r.reason, len(r.line)) for r in result.rejects] == [
            (2, "too_long", EXCERPT_BYTES_MAX),
            (5, "too_long", 3000),
        ]


GZIPPED = gzip.compress(event_line() + b"\n", mtime=0)
ZSTD = zstandard.compress(event_line() + b"\n")


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (GZIPPED, "gzip"),
        (GZIPPED[:3], "gzip"),
        (GZIPPED[:2], "gzip"),
        (ZSTD, "zstd"),
        (ZSTD[:4], "zstd"),
    ],
)
def test_a_compressed_body_without_an_encoding_is_one_reject_in_any_cut(
    body: bytes, name: str
) -> None:
    for pieces in sliced(body):
        result = decoded(pieces)
        assert result.counts == (0, 1)
        [reject] = result.rejects
        assert (reject.line_number, reject.reason, reject.line) == (1, "wrong_encoding", body)
        assert f"Content-Encoding: {name}" in reject.detail


def test_the_reject_of_a_compressed_body_keeps_64_kib() -> None:
    body = GZIPPED + bytes(100_000)
    for pieces in ([body], [body[:1], body[1:3], body[3:80_000], body[80_000:]]):
        [reject] = decoded(pieces).rejects
        assert reject.line == body[:EXCERPT_BYTES_MAX]


def test_a_body_whose_encoding_was_named_is_not_sniffed() -> None:
    assert decoded([GZIPPED], is_plain=False).reasons.keys() <= {"invalid_utf8", "invalid_json"}


@pytest.mark.parametrize(
    "body", [b"", b"\x1f", b"\x28\xb5\x2f", b"{", b"{}", b"\xef\xbb", b"\n", b"abc"]
)
def test_bodies_shorter_than_the_sniffed_head(body: bytes) -> None:
    for pieces in ([body], [body[i : i + 1] for i in range(len(body))], [b"", body, b""]):
        result = decoded(pieces)
        assert result.counts == (0, 1 if body.strip() else 0)
        assert "wrong_encoding" not in result.reasons


def test_a_bom_at_the_start_belongs_to_no_line() -> None:
    body = b"\xef\xbb\xbf" + event_line() + b"\n\xef\xbb\xbf" + event_line()
    for pieces in sliced(body):
        result = decoded(pieces)
        assert [(number, line) for number, line, _ in result.accepted] == [(1, event_line())]
        assert [(r.line_number, r.reason, r.column) for r in result.rejects] == [
            (2, "invalid_json", 1)
        ]


def test_rejects_are_counted_beyond_those_kept() -> None:
    body = b"x\n" * 10 + event_line() + b"\n" + b"[1]\n" * 5
    result = decoded([body], rejects_max=3)
    assert [r.line_number for r in result.rejects] == [1, 2, 3]
    assert result.counts == (1, 15)
    assert result.reasons == {"invalid_json": 10, "not_an_object": 5}
    assert decoded([body], rejects_max=0) == Decoded(result.accepted, [], result.reasons, (1, 15))


def test_rejects_taken_as_they_come_are_the_same_ones() -> None:
    body = (b"x\n" + event_line() + b"\n") * 50
    decoder = EventDecoder(EventRules(), rejects_max=30, is_plain=True)
    taken = []
    for start in range(0, len(body), 100):
        decoder.feed(body[start : start + 100])
        taken += decoder.take_rejects()
    decoder.finish()
    taken += decoder.take_rejects()
    assert taken == decoded([body], rejects_max=30).rejects
    assert len(taken) == 30


def test_repeated_bad_lines_are_told_apart_by_their_bytes() -> None:
    """A line seen before is not decoded again; blanks around it move its columns."""
    body = b'{"a" 1}\n  {"a" 1}\n{"a" 1}\n'
    rejects = decoded([body]).rejects
    assert [(r.line_number, r.line, r.column) for r in rejects] == [
        (1, b'{"a" 1}', 6),
        (2, b'  {"a" 1}', 8),
        (3, b'{"a" 1}', 6),
    ]


def test_repr_shows_no_payload() -> None:
    decoder = EventDecoder(EventRules(), rejects_max=1, is_plain=True)
    [batch] = decoder.feed(event_line() + b"\n")
    assert "acme" not in repr(batch) + repr(batch.events[0])
    assert repr(batch).startswith("EventBatch(1 events")


@example(b'{"accountId":"\xe9","x":1}', 3)
@given(st.binary(max_size=200), st.integers(1, 50))
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes_never_raise(body: bytes, step: int) -> None:
    pieces: list[Any] = [body[start : start + step] for start in range(0, len(body), step)]
    check_body(body, pieces, TIGHT)


SUITE = Path(__file__).parents[1] / "data" / "json-test-suite.tar.gz"


def suite() -> list[tuple[str, bytes]]:
    with tarfile.open(SUITE) as archive:
        files = [member for member in archive.getmembers() if member.isfile()]
        texts = [(Path(m.name).name, archive.extractfile(m)) for m in files]
        return [(name, file.read()) for name, file in texts if file is not None]


@pytest.mark.skipif(not SUITE.exists(), reason="the JSON test suite is not here")
def test_properties_that_are_no_column_are_json_or_the_line_is_refused() -> None:
    """What the decoder skips is checked as strictly as what it reads."""
    seen = set()
    for name, text in suite():
        if name[:2] not in ("y_", "n_", "i_") or b"\n" in text.strip() or len(text) > 2000:
            continue
        line = event_line()[:-1] + b', "x": ' + text.strip(b"\n") + b"}"
        check_body(line, [line[:50], line[50:]], EventRules())
        accepted = decoded([line]).counts[0]
        if name[:2] != "i_":
            assert accepted == (name[0] == "y"), name
        seen.add((name[:2], accepted))
    assert {("y_", 1), ("n_", 0), ("i_", 0), ("i_", 1)} <= seen
