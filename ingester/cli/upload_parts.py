"""Files cut into parts at line ends: what is sent in one request, and what was sent before.

A part ends with the first line end at or after `part_bytes` (or with the file), so its limits
depend on the content only and a later run finds the same ones. Its `Idempotency-Key` is a hash of
the file's identity, size and time, the part's place, and how it is encoded: a repeated part is
recognised by the server.

Memory: one part is held, compressed, while it is built; the caller holds those in flight.

Refuses a compressed file that is cut short, and a line longer than `part_bytes` + 64 MiB.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
from msgspec import Struct

from ingester.errors import IngesterError

__all__ = [
    "Compression",
    "DoneParts",
    "Part",
    "Plan",
    "UploadBroken",
    "open_source",
    "plan_file",
    "read_parts",
    "state_path",
]

Compression = Literal["gzip", "zstd", "none"]
Container = Literal["gzip", "zstd", "none"]

_MAGIC: dict[bytes, Container] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}

_READ_BYTES = 1024 * 1024
# zstd gives no bound on its output: small inputs keep one piece small (ratios reach a few 1000).
_ZSTD_READ_BYTES = 16 * 1024
# Part of what makes a part's bytes: changing it needs a new `Plan.key`.
_BLOCK_BYTES = 256 * 1024
_LINE_SLACK_BYTES = 64 * 1024 * 1024

# A compressed file up to this size is sent as it is: no work here, and a retry costs little.
AS_IS_BYTES_MAX = 16 * 1024 * 1024

# isal deflate level 1: 1.0 GB/s at ratio 5.3; zstd level 3: 0.7 GB/s at ratio 8.0 (1,000 GitHub
# events; a Windows event log: 3.7 GB/s at 21 and 2.5 GB/s at 67). Measured 2026-11-21. Both are
# several times faster than any server reads them, so the smaller one is the default.
_GZIP_LEVEL = 1
_ZSTD_LEVEL = 3


class UploadBroken(IngesterError):
    """The upload cannot go on because of the file itself."""


class Plan(Struct, kw_only=True):
    """How one file is cut and named. Stored with the progress, so that `--resume` repeats it.

    `identity` is (inode, size, mtime in ns); () for standard input, which cannot be resumed.
    """

    identity: tuple[int, ...]
    container: Container
    compression: Compression
    as_is: bool
    part_bytes: int
    salt: str = ""

    @property
    def size(self) -> int | None:
        return self.identity[1] if self.identity else None

    def key(self, offset: int, length: int) -> str:
        named = [self.identity, offset, length, self.encoding, self.part_bytes, self.salt]
        return hashlib.sha256(msgspec.json.encode(named)).hexdigest()[:40]

    @property
    def encoding(self) -> str:
        return self.container if self.as_is else self.compression


class Part(Struct, frozen=True, kw_only=True):
    """One request's worth. `offset` and `length` count decoded bytes (as-is: the file's own).

    `source_bytes` is how much of the file on disk it stands for, for the progress bar.
    """

    offset: int
    length: int
    source_bytes: int
    encoding: str
    body: tuple[bytes, ...]
    key: str

    def __repr__(self) -> str:
        return f"Part({self.offset}+{self.length}, {len(self.body)} pieces)"


class DoneParts(Struct, kw_only=True):
    """Acknowledged parts of one file: everything before `through`, and some beyond it."""

    plan: Plan
    through: int = 0
    beyond: dict[int, int] = {}
    accepted: int = 0
    rejected: int = 0

    def add(self, part: Part, accepted: int, rejected: int) -> None:
        assert part.offset >= self.through
        self.beyond[part.offset] = part.length
        self.accepted += accepted
        self.rejected += rejected
        while (length := self.beyond.pop(self.through, None)) is not None:
            self.through += length

    def length_at(self, offset: int) -> int | None:
        """The length of what is known to be sent from here on, None when nothing is."""
        if offset < self.through:
            return self.through - offset
        return self.beyond.get(offset)

    def save(self, path: Path) -> None:
        """Atomic: a crash leaves the earlier or the later state, never half of one."""
        partial_path = path.with_name(f"{path.name}.partial")
        partial_path.write_bytes(msgspec.json.encode(self))
        partial_path.replace(path)

    @classmethod
    def load(cls, path: Path) -> DoneParts | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UploadBroken(f"{path} is not readable as upload progress: remove it") from error


def state_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.ingester-upload.json")


def plan_file(
    file: BufferedReader, *, compression: Compression | None, part_bytes: int, salt: str
) -> Plan:
    """Look at the first bytes and the size. What cannot be sought (a pipe) has no identity."""
    stat = os.fstat(file.fileno())
    regular = file.seekable() and file is not sys.stdin.buffer
    start = file.peek(4)[:4]
    container: Container = next(
        (found for magic, found in _MAGIC.items() if start.startswith(magic)), "none"
    )
    as_is = (
        container != "none"
        and compression in {None, container}
        and regular
        and stat.st_size <= min(AS_IS_BYTES_MAX, part_bytes)
    )
    return Plan(
        identity=(stat.st_ino, stat.st_size, stat.st_mtime_ns) if regular else (),
        container=container,
        compression=compression or "zstd",
        as_is=as_is,
        part_bytes=part_bytes,
        salt=salt,
    )


def read_parts(file: BufferedReader, plan: Plan, done: DoneParts) -> Iterator[Part]:
    """The parts that are not done yet, in order. Blocking: run it in a thread."""
    if plan.as_is:
        if done.length_at(0) is None:
            body = file.read()
            yield _part(plan, 0, len(body), len(body), (body,) if body else ())
        return
    source = _Source(file, plan)
    consumed = 0
    while not source.at_end():
        offset = source.offset
        if (length := done.length_at(offset)) is not None:
            source.skip(length)
            continue
        encoder = _encoder(plan.compression)
        pieces = [encoder.compress(block) for block in _blocks(source.part(plan.part_bytes))]
        pieces.append(encoder.flush())
        yield _part(
            plan,
            offset,
            source.offset - offset,
            source.consumed - consumed,
            tuple(piece for piece in pieces if piece),
        )
        consumed = source.consumed


def _part(plan: Plan, offset: int, length: int, source_bytes: int, body: tuple[bytes, ...]) -> Part:
    return Part(
        offset=offset,
        length=length,
        source_bytes=source_bytes,
        encoding=plan.encoding,
        body=body,
        key=plan.key(offset, length),
    )


def _blocks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in blocks of one size.

    What an encoder writes depends on how its input is cut, and a run that resumes reads other
    cuts. Under one key the bytes must be the same, or the server refuses the part.
    """
    pending = bytearray()
    for piece in pieces:
        pending += piece
        whole = len(pending) - len(pending) % _BLOCK_BYTES
        for start in range(0, whole, _BLOCK_BYTES):
            yield bytes(pending[start : start + _BLOCK_BYTES])
        del pending[:whole]
    if pending:
        yield bytes(pending)


class _Source:
    """Decoded bytes of a file with one piece of look-ahead; `consumed` counts bytes on disk."""

    def __init__(self, file: BufferedReader, plan: Plan) -> None:
        self._file = file
        self._plain_size = plan.size if plan.container == "none" else None
        self.offset = 0
        self.consumed = 0
        self._decoded = _DECODERS[plan.container](self._read)
        self._ahead = b""

    def at_end(self) -> bool:
        if not self._ahead:
            self._ahead = next(self._decoded, b"")
        return not self._ahead

    def part(self, part_bytes: int) -> Iterator[bytes]:
        """Pieces up to and with the first line end at or after `part_bytes`."""
        taken = 0
        while not self.at_end():
            end = self._ahead.find(b"\n", max(0, part_bytes - taken - 1))
            if end >= 0:
                yield self._take(end + 1)
                return
            piece = self._take(len(self._ahead))
            taken += len(piece)
            if taken > part_bytes + _LINE_SLACK_BYTES:
                raise UploadBroken(
                    f"no line end within {taken} bytes from byte {self.offset - taken}: is this"
                    " newline-delimited JSON?"
                )
            yield piece

    def skip(self, length: int) -> None:
        """Pass over bytes that were sent before; a plain file is not read for it."""
        end = self.offset + length
        if self._plain_size is not None:
            self._ahead = b""
            self._file.seek(end)
            self.offset = self.consumed = end
            return
        while self.offset < end:
            if self.at_end():
                raise UploadBroken("the file is shorter than what was sent of it before")
            self._take(min(end - self.offset, len(self._ahead)))

    def _take(self, length: int) -> bytes:
        piece, self._ahead = self._ahead[:length], self._ahead[length:]
        self.offset += len(piece)
        return piece

    def _read(self, byte_count: int) -> bytes:
        if self._plain_size is not None:
            # What is appended while we read belongs to no part of this run.
            byte_count = min(byte_count, self._plain_size - self.consumed)
        data = self._file.read(byte_count) if byte_count > 0 else b""
        self.consumed += len(data)
        return data


def _plain(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while data := read(_READ_BYTES):
        yield data


def _gunzip(read: Callable[[int], bytes]) -> Iterator[bytes]:
    library = _gzip_library()
    pending = read(_READ_BYTES)
    while pending:
        member = library.decompressobj(wbits=31)
        data = pending
        while not member.eof:
            try:
                piece = member.decompress(data, _READ_BYTES)
            except library.error as error:
                raise UploadBroken(f"the gzip file is damaged: {error}") from error
            data = member.unconsumed_tail
            if piece:
                yield piece
            elif not data and not member.eof and not (data := read(_READ_BYTES)):
                raise UploadBroken("the gzip file is cut short")
        # More members may follow, and zeros after the last one are legal padding.
        pending = member.unused_data.lstrip(b"\0")
        while not pending and (more := read(_READ_BYTES)):
            pending = more.lstrip(b"\0")


def _gzip_library() -> Any:
    """isal, or zlib with the same interface at a fifth of the speed where isal has no wheel."""
    try:
        from isal import isal_zlib
    except ImportError:
        import zlib

        return zlib
    return isal_zlib


def _unzstd(read: Callable[[int], bytes]) -> Iterator[bytes]:
    import zstandard

    pending = read(_ZSTD_READ_BYTES)
    while pending:
        frame = zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj()
        data = pending
        while not frame.eof:
            if not data:
                raise UploadBroken("the zstd file is cut short")
            try:
                piece = frame.decompress(data)
            except zstandard.ZstdError as error:
                raise UploadBroken(f"the zstd file is damaged: {error}") from error
            if piece:
                yield piece
            if not frame.eof:
                data = read(_ZSTD_READ_BYTES)
        pending = frame.unused_data or read(_ZSTD_READ_BYTES)


_DECODERS: dict[Container, Callable[[Callable[[int], bytes]], Iterator[bytes]]] = {
    "none": _plain,
    "gzip": _gunzip,
    "zstd": _unzstd,
}


class _Encoder(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Unchanged:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def _encoder(compression: Compression) -> _Encoder:
    """Deterministic (no time in the gzip header): a part sent again has the same bytes."""
    if compression == "gzip":
        encoder: _Encoder = _gzip_library().compressobj(_GZIP_LEVEL, wbits=31)
        return encoder
    if compression == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
    return _Unchanged()


def open_source(path: str) -> BufferedReader:
    """A file, or standard input for `-`."""
    if path == "-":
        assert isinstance(sys.stdin.buffer, BufferedReader)
        return sys.stdin.buffer
    return open(path, "rb")
