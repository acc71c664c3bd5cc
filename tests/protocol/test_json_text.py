"""One JSON text: sound or not by the same measure as DuckDB's JSON, and its compact form."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.protocol.json_text import (
    JsonFault,
    any_value,
    array_elements,
    compact,
    grammar_fault,
    is_truncated,
    json_fault,
    kind_of,
    kind_of_text,
)

from .plain_logs import dumped, json_values, parsed

SUITE = Path(__file__).parents[1] / "data" / "json-test-suite.tar.gz"

_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(_json, st.booleans(), st.sampled_from([None, 1]))
def test_what_python_writes_is_sound_and_compacts_to_what_it_would_write(
    value: object, is_ascii: bool, indent: int | None
) -> None:
    try:
        text = json.dumps(value, ensure_ascii=is_ascii, indent=indent).encode()
    except UnicodeEncodeError:
        return
    assert json_fault(text, 100) is None
    assert compact(text) == json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert kind_of_text(text) == kind_of(value) == kind_of(any_value(text))


@settings(max_examples=300, deadline=None)
@given(json_values())
def test_compact_keeps_order_duplicates_and_numbers(text: bytes) -> None:
    assert compact(text) == dumped(parsed(text))


@settings(deadline=None)
@given(st.lists(json_values(), max_size=5), st.sampled_from([b"", b" ", b"\n\t"]))
def test_elements_are_cut_as_sent(texts: list[bytes], blank: bytes) -> None:
    array = b"[" + blank + (blank + b"," + blank).join(texts) + blank + b"]"
    assert list(array_elements(array)) == texts
    padding = b'"' + b"x" * 20 * array.count(b",") + b'"'
    padded = b"[" + b",".join([*texts, padding]) + b"]"
    assert list(array_elements(padded)) == [*texts, padding]
    many = b"[" + b",".join([*texts, *[b"1"] * 400]) + b"]"
    assert list(array_elements(many)) == [*texts, *[b"1"] * 400]


@given(json_values(), st.data())
def test_every_prefix_of_a_value_may_go_on(text: bytes, data: st.DataObject) -> None:
    assert is_truncated(text) is None
    if text[0] in b'{["':
        cut = data.draw(st.integers(0, len(text) - 1))
        prefix = text[:cut]
        # A number or a word is never cut by a line end, and the framer asks at line ends only.
        assert is_truncated(prefix) or prefix[-1:] in b"-.eE+0123456789truefalsn\\"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"", JsonFault("invalid_json", "the text ends inside the value", 1)),
        (b"{} {}", JsonFault("several_values", "a second value behind the first", 4)),
        (b"{}]", JsonFault("invalid_json", "trailing characters", 3)),
        (b'"\\ud800 \\udc00"', JsonFault("invalid_utf8",
                                         "half of a surrogate pair in an escape", 2)),
        (b'"\xed\xa0\x80"', JsonFault("invalid_utf8", "byte 0xed is not UTF-8", 2)),
        (b"[[[[1]]]]", JsonFault("too_deep", "more than 3 levels of nesting", 4)),
        (b'"a\nb"', JsonFault("invalid_json", "invalid character", 3)),
        (b"'a'", JsonFault("invalid_json", "invalid character", 1)),
        (b"01", JsonFault("invalid_json", "invalid number", 2)),
    ],
)  # fmt: skip
def test_faults(text: bytes, fault: JsonFault) -> None:
    assert json_fault(text, 3) == fault


def test_grammar_alone_passes_over_halves_and_bytes() -> None:
    for text in (b'"\\ud800"', b'"\xff"', b'{"\\udfff\\\\ud800":1}'):
        assert grammar_fault(text) is None
        assert is_truncated(text) is None
        assert json_fault(text, 3) is not None
    deep = b"[" * 100_000 + b"]" * 100_000
    assert grammar_fault(deep) == JsonFault("too_deep", "too many levels of nesting")
    assert is_truncated(deep) is False


def test_brackets_in_strings_do_not_count() -> None:
    assert json_fault(b'["[[[[", "\\"[[[["]', 1) is None
    assert json_fault(b"[" * 3 + b"]" * 3, 3) is None


@pytest.mark.skipif(not SUITE.exists(), reason="the JSON test suite is not here")
def test_the_json_test_suite_is_judged_as_it_says_and_duckdb_takes_what_is_taken() -> None:
    duck = duckdb.connect()
    with tarfile.open(SUITE) as archive:
        for member in archive.getmembers():
            name = Path(member.name).name
            file = archive.extractfile(member) if member.isfile() else None
            if file is None or name[:2] not in ("y_", "n_", "i_"):
                continue
            text = file.read().strip(b" \t\r\n")
            is_sound = json_fault(text, 500) is None
            assert name[0] == "i" or is_sound == (name[0] == "y"), name
            if is_sound:
                [valid] = duck.execute("SELECT json_valid(?)", [text.decode()]).fetchone() or [0]
                assert valid, name
