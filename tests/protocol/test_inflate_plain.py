"""Bodies without a coding: handed on as they are, in pieces as long as they may be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ingester.protocol.inflate import InflateLimits, make_inflater

LIMITS = InflateLimits(output_bytes_max=0, ratio_max=1, ratio_grace_bytes=0, piece_bytes=100)


@given(st.lists(st.binary(max_size=450), max_size=4))
def test_pieces_are_of_one_length_and_few(sent: list[bytes]) -> None:
    """A decoder does much once a piece."""
    inflater = make_inflater("identity", LIMITS)
    for data in sent:
        pieces = list(inflater.feed(data))
        assert b"".join(pieces) == data
        assert len(pieces) == -(-len(data) // LIMITS.piece_bytes)
        sizes = [len(piece) for piece in pieces]
        assert max(sizes, default=0) - min(sizes, default=0) < max(1, len(sizes))
    inflater.finish()
    assert inflater.input_bytes == inflater.output_bytes == sum(map(len, sent))
