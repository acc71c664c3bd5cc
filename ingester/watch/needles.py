"""Needles: which of many texts stand in which rows, in one pass over the bytes of a column.

A thousand substring rules cost as much as one: the text is looked up word by word (four bytes) in
a table of words of all needles, and what is found there is compared whole. Of a needle of seven
bytes or more four neighbouring words are in the table, so that only every fourth position is looked
at; shorter ones take every second or every one. All of it is done on arrays, outside of the
interpreter lock, and bounded by a block of text.

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
_NOTHING: Ints = np.empty(0, np.int64)
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
        texts = column.fill_null("") if column.null_count else column
        _, offsets, data = texts.buffers()
        kind = np.int64 if texts.type == pa.large_string() else np.int32
        self.offsets: Ints = np.frombuffer(
            offsets, kind, count=len(texts) + 1, offset=texts.offset * np.dtype(kind).itemsize
        ).astype(np.int64)
        first, last = int(self.offsets[0]), int(self.offsets[-1])
        # Padded, so that a word may be read at every position.
        self.data: Bytes = np.zeros(last - first + 2 * _WORD, np.uint8)
        if last > first:
            self.data[: last - first] = np.frombuffer(
                data, np.uint8, count=last - first, offset=first
            )
        self.offsets = self.offsets - first
        self.byte_count = last - first

    def rows_with(self, first: int, seconds: bytes) -> Ints:
        """Rows in which the byte `first` is followed by one of `seconds`."""
        places = np.flatnonzero(self.data[: self.byte_count] == first)
        following = self.data[places + 1]
        places = places[np.logical_or.reduce([following == second for second in seconds])]
        return np.unique(np.searchsorted(self.offsets, places, side="right") - 1)


class _Stride:
    """Needles that are found by words at every `stride`-th position: `stride` neighbouring words of
    each are in the table.
    """

    def __init__(self, stride: int, numbers: Sequence[int], texts: Sequence[bytes]) -> None:
        self.stride = stride
        self._numbers = list(numbers)
        self._texts = [texts[number] for number in numbers]
        self.choose([0] * len(self._numbers))

    def choose(self, firsts: Sequence[int]) -> None:
        """Take the words from these offsets of the needles on."""
        listed = [
            (_word(text, first + n), number, first + n)
            for text, number, first in zip(self._texts, self._numbers, firsts, strict=True)
            for n in range(self.stride)
        ]
        listed.sort()
        words = np.array([word for word, _, _ in listed], np.uint32)
        self._needles: Ints = np.array([number for _, number, _ in listed], np.int64)
        self._offsets: Ints = np.array([offset for _, _, offset in listed], np.int64)
        self._words, starts = np.unique(words, return_index=True)
        self._starts: Ints = np.append(starts, len(listed)).astype(np.int64)
        self._table = np.zeros(1 << _TABLE_BITS, bool)
        self._table[_slots(words)] = True

    def rarest(self, counts: Ints) -> list[int]:
        """Where the rarest of their words begin, by how often each is met."""
        chosen = []
        for text in self._texts:
            starts = range(min(len(text) - _WORD + 1, 256))
            words = np.array([_word(text, at) for at in starts], np.uint32)
            met = np.convolve(counts[_slots(words)], np.ones(self.stride, np.int64), "valid")
            chosen.append(int(np.argmin(met)))
        return chosen

    def candidates(self, data: Bytes, begin: int, end: int) -> tuple[Ints, Ints]:
        """Needles, and where they would begin, by the words of a block."""
        found = []
        for shift in range(0, _WORD, self.stride):
            words = _view(data, begin + shift, end)
            hits = np.flatnonzero(self._table[_slots(words)])
            if len(hits):
                found.append(hits * _WORD + (begin + shift))
        if not found:
            return _NOTHING, _NOTHING
        places = np.concatenate(found)
        words = _words_at(data, places)
        slot = np.searchsorted(self._words, words)
        slot[slot == len(self._words)] = 0
        is_known = self._words[slot] == words
        slot, places = slot[is_known], places[is_known]
        counts = self._starts[slot + 1] - self._starts[slot]
        within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        entries = np.repeat(self._starts[slot], counts) + within
        return self._needles[entries], np.repeat(places, counts) - self._offsets[entries]


class Needles:
    """Texts to look for. Made once for a set of rules; `pairs` may be called from one thread."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        assert all(len(text) >= NEEDLE_BYTES_MIN for text in texts)
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
        by_stride: dict[int, list[int]] = {}
        for number, text in enumerate(texts):
            by_stride.setdefault(_stride_of(len(text)), []).append(number)
        self._strides = [
            _Stride(stride, numbers, texts) for stride, numbers in sorted(by_stride.items())
        ]
        self._is_chosen = False

    def pairs(self, haystack: Haystack) -> Pairs:
        """Which needles stand in which rows."""
        if not self._strides or not haystack.byte_count:
            return Pairs(_NOTHING, _NOTHING)
        if not self._is_chosen:
            counts = _word_counts(haystack)
            for stride in self._strides:
                stride.choose(stride.rarest(counts))
            self._is_chosen = True
        found: list[Ints] = []
        count = len(haystack.offsets) - 1
        for begin in range(0, haystack.byte_count, _BLOCK_BYTES):
            end = min(begin + _BLOCK_BYTES, haystack.byte_count)
            for stride in self._strides:
                needles, begins = stride.candidates(haystack.data, begin, end)
                if len(needles):
                    needles, rows = self._verified(haystack, needles, begins)
                    found.append(np.unique(needles * count + rows))
        keys = np.unique(np.concatenate(found)) if found else _NOTHING
        return Pairs(keys // count, keys % count)

    def _verified(self, haystack: Haystack, needles: Ints, begins: Ints) -> tuple[Ints, Ints]:
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


def _stride_of(length: int) -> int:
    """A text of so many bytes holds a whole word at one of so many neighbouring positions."""
    return 4 if length >= 7 else 2 if length >= 5 else 1


def _word_counts(haystack: Haystack) -> Ints:
    """How often the words of a sample are met, by slot."""
    counts = np.zeros(1 << _TABLE_BITS, np.int64)
    size = min(haystack.byte_count, _SAMPLE_BYTES)
    for shift in range(_WORD):
        words = _view(haystack.data, shift, size)
        counts += np.bincount(_slots(words), minlength=1 << _TABLE_BITS)
    return counts


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
