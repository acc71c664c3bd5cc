"""Shared means of the tests: the same bytes in every kind of cut."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

__all__ = ["sliced"]


def sliced(
    data: bytes, *, trailing: Sequence[bytes] = (b"",), rounds: int = 8, seed: int = 0
) -> Iterator[list[bytes]]:
    """`data` (with each of `trailing` behind it) whole, byte by byte, and in random cuts.

    Joined, every list is the same bytes; cuts are reproducible by `seed`.
    """
    for tail in trailing:
        whole = data + tail
        yield [whole]
        yield [whole[position : position + 1] for position in range(len(whole))]
        randomness = random.Random(seed)
        for _ in range(rounds):
            cuts = sorted(
                randomness.randrange(len(whole) + 1)
                for _ in range(randomness.randint(1, min(12, len(whole) + 1)))
            )
            pieces = [
                whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)
            ]
            yield [piece for piece in pieces if piece]
