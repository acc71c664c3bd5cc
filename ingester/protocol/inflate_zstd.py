"""Bounded streaming inflate for one zstd body (RFC 8878).

The library's `decompressobj` proves the end of each frame but has no output cap: a 4-byte RLE block
stands for 128 KiB, and 2,000 bytes gave 65 MB in one call. Its `stream_reader` caps the output but
proves no end. So the frame and block headers are walked here, which is one short step per 128 KiB
of ordinary text, and each call of the library is given no more blocks than make `piece_bytes`
(or one block, which is at most 128 KiB).

Invariants: those of `inflate`, whose `Inflater` is the way in. Also:
1. A frame's header is judged before the library sees it: no window above `WINDOW_BYTES_MAX`.
2. The end is proved twice: by the walk, and by the library's own `eof` at the same byte.
3. A frame that says how large its content is has that much: in a stream the library (1.5.7) does
   not look when the last block is empty, so that a frame could end early.

Skippable frames are skipped and never reach the library; legacy formats and dictionaries are
refused.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Final

import zstandard

from ingester.errors import MalformedBody

__all__ = ["WINDOW_BYTES_MAX", "ZstdDecoder"]

KiB: Final = 1024
MiB: Final = 1024 * KiB

# RFC 8878 section 3.1.1.1.2 recommends that decoders support at least 8 MiB; a header may ask for
# terabytes.
WINDOW_BYTES_MAX: Final = 8 * MiB

_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIP_MAGIC_TAIL: Final = b"\x2a\x4d\x18"  # after one byte 50 to 5f
_ZSTD_BLOCK_BYTES_MAX: Final = 128 * KiB


class ZstdDecoder:
    """One body of frames. Exhaust what `decode` returns before the next call."""

    def __init__(self, piece_bytes: int) -> None:
        self._piece_bytes = piece_bytes
        self._decompressor: zstandard.ZstdDecompressor | None = None
        self._stream: zstandard.ZstdDecompressionObj | None = None  # inside a frame
        self._frame_count = 0
        self._head = b""  # of a frame or a block, until it is whole
        self._skip_left = 0  # of a skippable frame
        self._content_left = 0  # of a block, with the checksum after the last one
        self._last_block = False
        self._block_bytes_max = 0
        self._checksum_bytes = 0
        self._content_bytes: int | None = None  # of the frame, as its header says
        self._frame_output_bytes = 0
        self._block_bound = 0  # output of the newest block, at most
        self._carried_bound = 0  # the same, of a block that a former call began

    def decode(self, data: bytes | memoryview) -> Iterator[bytes]:
        at = 0
        while at < len(data):
            if self._stream is not None:
                at = yield from self._blocks(data, at)
            elif self._skip_left:
                taken = min(self._skip_left, len(data) - at)
                self._skip_left -= taken
                at += taken
            else:
                at = self._frame_head(data, at)

    def _frame_head(self, data: bytes | memoryview, at: int) -> int:
        """Gather a frame's header from `data[at:]`; opens the frame when it is whole."""
        while len(self._head) < (want := _frame_head_bytes(self._head)):
            if at == len(data):
                return at
            taken = bytes(data[at : at + want - len(self._head)])
            self._head += taken
            at += len(taken)
            self._check_magic(self._head[:4])
        head, self._head = self._head, b""
        self._frame_count += 1
        if head[0] != 0x28:
            self._skip_left = int.from_bytes(head[4:8], "little")
            return at
        window_bytes = _window_bytes(head)
        if window_bytes > WINDOW_BYTES_MAX:
            raise MalformedBody(
                f"the zstd body asks for a window of {window_bytes:,} bytes; at most"
                f" {WINDOW_BYTES_MAX:,} (8 MiB) are given: compress without --long or --ultra"
            )
        if self._decompressor is None:
            self._decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX)
        self._stream = self._decompressor.decompressobj()
        self._call(head)
        self._block_bytes_max = min(window_bytes, _ZSTD_BLOCK_BYTES_MAX)
        self._checksum_bytes = 4 if head[4] & 0x04 else 0
        self._content_bytes = _content_bytes(head)
        self._frame_output_bytes = 0
        self._content_left = self._carried_bound = self._block_bound = 0
        self._last_block = False
        return at

    def _blocks(self, data: bytes | memoryview, at: int) -> Generator[bytes, None, int]:
        """Inflate `data[at:]` up to the end of the frame; returns how far it came."""
        start, end = at, len(data)  # data[start:at] was walked and is not yet inflated
        bound = self._carried_bound
        while True:
            taken = min(self._content_left, end - at)
            self._content_left -= taken
            at += taken
            if self._content_left:
                break
            if self._last_block:
                yield from self._inflate(data[start:at])
                self._end_frame()
                return at
            gathered = bytes(data[at : at + 3 - len(self._head)])
            self._head += gathered
            at += len(gathered)
            if len(self._head) < 3:
                break
            self._read_block_head()
            block_start = max(start, at - 3)
            if bound + self._block_bound > self._piece_bytes and block_start > start:
                yield from self._inflate(data[start:block_start])
                start = block_start
                bound = 0
            bound += self._block_bound
        yield from self._inflate(data[start:at])
        self._carried_bound = self._block_bound if self._content_left else 0
        return at

    def _read_block_head(self) -> None:
        value = int.from_bytes(self._head, "little")
        self._head = b""
        kind, size = value >> 1 & 3, value >> 3
        # A compressed block has at least a header; in a stream the library takes one without.
        if kind == 3 or size > self._block_bytes_max or (kind == 2 and not size):
            raise MalformedBody("the zstd body is corrupt: a block header is wrong")
        self._last_block = bool(value & 1)
        self._content_left = 1 if kind == 1 else size
        if self._last_block:
            self._content_left += self._checksum_bytes
        self._block_bound = self._block_bytes_max if kind == 2 else size

    def _inflate(self, part: bytes | memoryview) -> Iterator[bytes]:
        output = self._call(part)
        if len(output) <= self._piece_bytes:
            if output:
                yield output
            return
        for start in range(0, len(output), self._piece_bytes):
            yield output[start : start + self._piece_bytes]

    def _call(self, part: bytes | memoryview) -> bytes:
        assert self._stream is not None
        try:
            output = self._stream.decompress(part)
        except zstandard.ZstdError as error:
            raise MalformedBody(f"the zstd body is corrupt: {error}") from None
        self._frame_output_bytes += len(output)
        return output

    def _end_frame(self) -> None:
        assert self._stream is not None
        if not self._stream.eof:
            raise MalformedBody("the zstd body is corrupt: a frame does not end where it says")
        if self._content_bytes not in (None, self._frame_output_bytes):
            raise MalformedBody(
                "the zstd body is corrupt: a frame's content is not as long as told"
            )
        self._stream = None

    def _check_magic(self, head: bytes) -> None:
        if _ZSTD_MAGIC.startswith(head):
            return
        if head[0] & 0xF0 == 0x50 and _ZSTD_SKIP_MAGIC_TAIL.startswith(head[1:]):
            return
        if self._frame_count:
            raise MalformedBody("bytes that are not zstd follow the end of the zstd body")
        raise MalformedBody("the body is not zstd, though its Content-Encoding says so")

    def finish(self) -> None:
        if self._stream is not None or self._head or self._skip_left or not self._frame_count:
            raise MalformedBody("the zstd body ends before its stream does; it was cut on the way")


def _frame_head_bytes(head: bytes) -> int:
    """How long the header beginning with `head` is, as far as `head` tells (RFC 8878, 3.1.1.1)."""
    if len(head) < 4:
        return 4
    if head[0] != 0x28:
        return 8
    if len(head) < 5:
        return 5
    descriptor = head[4]
    single = descriptor >> 5 & 1
    content_size_bytes = (single, 2, 4, 8)[descriptor >> 6]
    return 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + content_size_bytes


def _content_bytes(head: bytes) -> int | None:
    """What a whole frame header says of the size of its content (RFC 8878, 3.1.1.1.4)."""
    descriptor = head[4]
    size_bytes = (descriptor >> 5 & 1, 2, 4, 8)[descriptor >> 6]
    if not size_bytes:
        return None
    size = int.from_bytes(head[-size_bytes:], "little")
    return size + 256 if size_bytes == 2 else size


def _window_bytes(head: bytes) -> int:
    """The memory a whole frame header asks for (RFC 8878, 3.1.1.1.2)."""
    descriptor = head[4]
    if descriptor & 0x20:  # single segment: the window is the content
        return _content_bytes(head) or 0
    base = 1 << (10 + (head[5] >> 3))
    return base + (base >> 3) * (head[5] & 7)
