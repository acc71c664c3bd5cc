"""Needles: which of many texts stand in which rows, in one pass over the bytes of a column.

A thousand substring rules cost as much as one: every position of the text is looked up once in a
table of four-byte words, one word of each needle, and what is found there is compared whole. All
of it is done on arrays, outside of the interpreter lock, and bounded by a block of text.

1. Exact: a pair is told when the needle's UTF-8 bytes stand in the row's, and then once.
2. A needle has at least `NEEDLE_BYTES_MIN` bytes; shorter ones are the caller's.
3. A match never reaches from one row into the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from msgspec import Struct

__all__ = ["NEEDLE_BYTES_MIN", "Haystack", "Needles", "Pairs", "runs"]

NEEDLE_BYTES_MIN = 4

_WORD = 4
# Temporary arrays stay in the processor's cache; 64 KiB to 1 MiB differ by 10 %.
_BLOCK_BYTES = 256 * 1024
# 1 MiB of flags: with a thousand needles one position in a thousand is found for nothing.
_TABLE_BITS = 20
_FACTOR = np.uint32(2_654_435_761)
_SHIFT = np.uint32(32 - _TABLE_BITS)
# What is looked at to learn which words are rare.
_SAMPLE_BYTES = 512 * 1024

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint32]


class Pairs(Struct, frozen=True):
    """Needle and row numbers, each pair once, ordered by needle and row."""

    needles: Ints
    rows: Ints

    def rows_of(self, needle: int) -> Ints:
        low, high = np.searchsorted(self.needles, [needle, needle + 1])
        return self.rows[low:high]


class Haystack:
    """A column of texts as its bytes; NULL is a row of none."""

    def __init__(self, column: pa.Array) -> None:
        texts = column.cast(pa.large_string()) if column.type != pa.large_string() else column
        if texts.null_count:
            texts = texts.fill_null("")
        _, offsets, data = texts.buffers()
        count = len(texts)
        self.offsets: Ints = np.frombuffer(
            offsets, np.int64, count=count + 1, offset=texts.offset * 8
        )
        first, last = int(self.offsets[0]), int(self.offsets[-1])
        # Padded, so that a word may be read at every position.
        self.data: Bytes = np.zeros(last - first + 2 * _WORD, np.uint8)
        if last > first:
            self.data[: last - first] = np.frombuffer(
                data, np.uint8, count=last - first, offset=first
            )
        self.offsets = self.offsets - first
        self.byte_count = last - first


class Needles:
    """Texts to look for. Made once for a set of rules; `pairs` may be called from one thread."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        assert all(len(text) >= NEEDLE_BYTES_MIN for text in texts)
        self._texts = list(texts)
        self._lengths: Ints = np.array([len(text) for text in texts], np.int64)
        heads = [_starts(length) for length in self._lengths]
        self._word_counts: Ints = np.array([len(starts) for starts in heads], np.int64)
        # By needle, one after the other: where its words begin, and the words.
        self._firsts: Ints = np.cumsum(self._word_counts) - self._word_counts
        self._heads: Ints = np.array([at for starts in heads for at in starts], np.int64)
        self._all_words: Words = np.array(
            [_word(text, at) for text, starts in zip(texts, heads, strict=True) for at in starts],
            np.uint32,
        )
        self._is_chosen = False
        self._choose([0] * len(self._texts))

    def pairs(self, haystack: Haystack) -> Pairs:
        """Which needles stand in which rows."""
        if not self._texts or not haystack.byte_count:
            return Pairs(np.empty(0, np.int64), np.empty(0, np.int64))
        if not self._is_chosen:
            self._choose(self._rarest(haystack))
            self._is_chosen = True
        found: list[Ints] = []
        count = len(haystack.offsets) - 1
        for places in self._places(haystack):
            needles, rows = self._verified(haystack, places)
            found.append(np.unique(needles * count + rows))
        keys = np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)
        return Pairs(keys // count, keys % count)

    def _choose(self, at: Sequence[int]) -> None:
        """Take the word at these offsets of the needles as what is looked up."""
        self._chosen_at: Ints = np.array(at, np.int64)
        words = np.array(
            [_word(text, offset) for text, offset in zip(self._texts, at, strict=True)], np.uint32
        )
        order = np.argsort(words, kind="stable")
        self._by_word: Ints = order.astype(np.int64)
        self._words, starts = np.unique(words[order], return_index=True)
        self._starts: Ints = np.append(starts, len(order)).astype(np.int64)
        self._table = np.zeros(1 << _TABLE_BITS, bool)
        self._table[_slots(words)] = True

    def _rarest(self, haystack: Haystack) -> list[int]:
        """Of each needle the offset of the word that is rarest in a sample."""
        counts = np.zeros(1 << _TABLE_BITS, np.int64)
        size = min(haystack.byte_count, _SAMPLE_BYTES)
        for shift in range(_WORD):
            words = _view(haystack.data, shift, size)
            counts += np.bincount(_slots(words), minlength=1 << _TABLE_BITS)
        chosen = []
        for text in self._texts:
            starts = range(min(len(text) - _WORD + 1, 256))
            words = np.array([_word(text, at) for at in starts], np.uint32)
            chosen.append(int(np.argmin(counts[_slots(words)])))
        return chosen

    def _places(self, haystack: Haystack) -> Iterator[Ints]:
        """Positions whose word may be a chosen one, a block at a time."""
        for begin in range(0, haystack.byte_count, _BLOCK_BYTES):
            end = min(begin + _BLOCK_BYTES, haystack.byte_count)
            found = []
            for shift in range(_WORD):
                slots = _slots(_view(haystack.data, begin + shift, end))
                hits = np.flatnonzero(self._table[slots])
                if len(hits):
                    found.append(hits * _WORD + (begin + shift))
            if found:
                yield np.concatenate(found)

    def _verified(self, haystack: Haystack, places: Ints) -> tuple[Ints, Ints]:
        words = _words_at(haystack.data, places)
        slot = np.searchsorted(self._words, words)
        slot[slot == len(self._words)] = 0
        is_known = self._words[slot] == words
        slot, places = slot[is_known], places[is_known]
        counts = self._starts[slot + 1] - self._starts[slot]
        places = np.repeat(places, counts)
        within = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
        needles = self._by_word[np.repeat(self._starts[slot], counts) + within]
        begins = places - self._chosen_at[needles]
        rows = np.searchsorted(haystack.offsets, begins, side="right") - 1
        ends = begins + self._lengths[needles]
        is_inside = (begins >= 0) & (rows >= 0)
        is_inside[is_inside] = ends[is_inside] <= haystack.offsets[rows[is_inside] + 1]
        return self._compared(haystack.data, needles[is_inside], begins[is_inside], rows[is_inside])

    def _compared(self, data: Bytes, needles: Ints, begins: Ints, rows: Ints) -> tuple[Ints, Ints]:
        """Only those whose every word is the needle's."""
        keeps = np.ones(len(needles), bool)
        left = np.arange(len(needles))
        nth = 0
        while len(left):
            word = self._firsts[needles[left]] + nth
            is_same = _words_at(data, begins[left] + self._heads[word]) == self._all_words[word]
            keeps[left[~is_same]] = False
            nth += 1
            left = left[is_same]
            left = left[nth < self._word_counts[needles[left]]]
        return needles[keeps], rows[keeps]


def runs(ordered: Ints) -> Iterator[tuple[int, int, int]]:
    """Each value of an ordered array with where it begins and ends."""
    values, starts = np.unique(ordered, return_index=True)
    ends = np.append(starts, len(ordered))[1:]
    yield from zip(values.tolist(), starts.tolist(), ends.tolist(), strict=True)


def _starts(length: int) -> list[int]:
    """Where words begin that together are the whole text."""
    return sorted({min(at, int(length) - _WORD) for at in range(0, int(length), _WORD)})


def _word(text: bytes, at: int) -> int:
    return int.from_bytes(text[at : at + _WORD], "little")


def _slots(words: Words) -> npt.NDArray[Any]:
    return (words * _FACTOR) >> _SHIFT


def _view(data: Bytes, begin: int, end: int) -> Words:
    """Words at `begin`, `begin` + 4, … below `end`."""
    count = max(0, (end - begin + _WORD - 1) // _WORD)
    return data[begin : begin + count * _WORD].view("<u4")


def _words_at(data: Bytes, places: Ints) -> Words:
    found = data[places].astype(np.uint32)
    for n in range(1, _WORD):
        found |= data[places + n].astype(np.uint32) << np.uint32(8 * n)
    return found
