"""Stage `inflate`: compressed pieces in, bounded pieces out, end of stream proved.

Ceiling: the bare library, streaming, without bounds or proof.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import zstandard
from isal import isal_zlib

from bench.corpus import Encoding
from bench.options import Options
from bench.report import Row
from bench.stage import Subject, compare, file_pieces
from ingester.protocol import inflate

__all__ = ["run"]

_LIMITS = inflate.InflateLimits(output_bytes_max=0, ratio_max=1000)
_NAMES: dict[Encoding, inflate.Encoding] = {
    "none": "identity",
    "gzip": "gzip",
    "deflate": "deflate",
    "zstd": "zstd",
}


def run(options: Options) -> list[Row]:
    """A pair of rows for each encoding."""
    corpus = options.corpus()
    rounds = 1 if options.smoke else options.rounds
    rows: list[Row] = []
    for encoding in options.encodings:
        path = corpus.path(encoding)
        rows += compare(
            "inflate",
            corpus,
            Subject(f"ours {encoding}", partial(_ours, path, encoding)),
            Subject(f"bare {encoding}", partial(_bare, path, encoding)),
            expected=corpus.raw_bytes,
            rounds=rounds,
        )
    return rows


def _ours(path: Path, encoding: Encoding) -> int:
    inflater = inflate.make_inflater(_NAMES[encoding], _LIMITS)
    byte_count = 0
    for piece in file_pieces(path):
        for output in inflater.feed(piece):
            byte_count += len(output)
    inflater.finish()
    return byte_count


def _bare(path: Path, encoding: Encoding) -> int:
    if encoding == "none":
        return sum(len(piece) for piece in file_pieces(path))
    decompress: Callable[[bytes], bytes]
    if encoding == "zstd":
        decompress = zstandard.ZstdDecompressor().decompressobj().decompress
    else:
        decompress = isal_zlib.decompressobj(31 if encoding == "gzip" else 15).decompress
    return sum(len(decompress(piece)) for piece in file_pieces(path))
