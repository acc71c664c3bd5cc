"""Digests of the value that tells rows apart."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings

from ingester.protocol.body_decoder import BodyLimits
from ingester.protocol.dedup import DedupField
from ingester.protocol.logs import HonestLogDecoder

from .log_bodies import NOW_US
from .plain_logs import json_values


def test_values_are_told_apart_by_kind_and_spelling() -> None:
    field = DedupField("id")
    texts = [b'"1"', b"1", b"1.0", b"true", b'"true"', b"false", b"[1]", b'"[1]"', b'{"a":1}',
             b'{"a":2}', b'"x"', b"0"]  # fmt: skip
    digests = [field.digest(b'{"x":0,"id":%b}' % text) for text in texts]
    assert None not in digests
    assert len(set(digests)) == len(texts)
    assert all(digest is not None and len(digest) == 16 for digest in digests)


def test_spelling_that_means_the_same_is_the_same() -> None:
    field = DedupField("id")
    assert field.digest(b'{"id":"\\u0061\\/"}') == field.digest(b'{ "id" : "a/", "x": 1e999}')
    assert field.digest(b'{"id":{"a": [1 ]}}') == field.digest(b'{"id":{"a":[1]}}')
    assert field.digest(b'{"id":1,"id":2}') == field.digest(b'{"id":2}')
    # Kept across restarts and releases: these bytes are on disk.
    digest = field.digest(b'{"id":"msg-1"}')
    assert digest is not None
    assert digest.hex() == "5879aa739dc1ff9a821736cd83e10521"


@pytest.mark.parametrize(
    "text", [b"{}", b'{"id":null}', b'{"id":""}', b"[]", b"5", b'"id"', b'{"ID":1}']
)
def test_what_has_no_id_is_never_a_duplicate(text: bytes) -> None:
    assert DedupField("id").digest(text) is None
    assert DedupField("/id").digest(text) is None
    assert DedupField("/id/x").digest(text) is None


def test_names_and_pointers() -> None:
    text = b'{"a":{"id":"x"},"a/id":"y","list":[{"id":"x"}],"":"x"}'
    x = DedupField("id").digest(b'{"id":"x"}')
    assert DedupField("/a/id").digest(text) == x
    assert DedupField("/list/0/id").digest(text) == x
    assert DedupField("/").digest(text) == x
    assert DedupField("a/id").digest(text) == DedupField("/a~1id").digest(text) != x
    assert DedupField("/0").digest(b'["x"]') == x
    for bad in ("", "/a~2"):
        with pytest.raises(ValueError, match=r"a property, or a JSON pointer|a name ~1"):
            DedupField(bad)


@settings(max_examples=200, deadline=None)
@given(json_values(objects_only=True))
def test_any_accepted_row_has_a_digest_or_none(text: bytes) -> None:
    one = HonestLogDecoder(BodyLimits(), received_at_us=NOW_US, rejects_max=9, is_plain=True)
    for batch in [*one.feed(text), *one.finish()]:
        for name in ("message", "x", "timestamp"):
            digests = DedupField(name).digests(batch.data, batch.starts, batch.lengths)
            assert len(digests) == batch.row_count
            value = json.loads(text, parse_int=str, parse_float=str).get(name)
            assert (digests == [None]) == (value in (None, ""))
