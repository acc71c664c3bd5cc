"""Small bodies of the log and honest doors: rows of a body that is in memory as a whole.

Why it exists: most requests are one object, for which a streaming decoder is most of the cost. The
usual case is read at once; anything else takes the decoder of its door, and both must agree (a test
compares them). On replay from the journal the same call gives the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from ..messages import LineReject, RejectReason
from .body_decoder import BodyLimits
from .json_text import WHITE_SPACE, json_fault
from .log_columns import LogBatch
from .log_times import DAY_US
from .log_values import JSON_NAMES, LogRow, read_log
from .logs import HonestLogDecoder, LogDecoder, LogDoorDecoder

__all__ = ["LogRows", "maybe_one_log", "read_honest_logs", "read_log_door"]

# A decoder call holds the interpreter lock: no longer than for this many bytes at a time.
_TURN_BYTES = 256 * 1024
_FIRST_LINE = (1,)
_LF = 0x0A
_NO_REASONS: Mapping[RejectReason, int] = {}


class LogRows(Struct, gc=False):
    """What a small body came to. `texts[i]` is log i as sent."""

    rows: Sequence[LogRow]
    texts: Sequence[bytes]
    line_numbers: Sequence[int]
    rejects: Sequence[LineReject] = ()
    reasons: Mapping[RejectReason, int] = _NO_REASONS
    rejected_count: int = 0

    def __repr__(self) -> str:
        return f"LogRows({len(self.rows)} logs, {self.rejected_count} rejects)"


def read_log_door(
    raw: bytes,
    limits: BodyLimits,
    *,
    received_at_us: int,
    is_plain: bool,
    is_form: bool = False,
) -> LogRows:
    """`raw`, decoded, as the log door takes it. Raises MalformedBody or BodyTooLarge."""
    found = _read_one(raw, limits, received_at_us)
    if found is None:
        decoder = LogDoorDecoder(
            limits, received_at_us=received_at_us, is_plain=is_plain, is_form=is_form
        )
        found = _read_all(raw, decoder)
    return found


def read_honest_logs(
    raw: bytes,
    limits: BodyLimits,
    *,
    received_at_us: int,
    rejects_max: int,
    is_plain: bool,
    is_form: bool = False,
) -> LogRows:
    """`raw`, decoded, as the honest door takes it. Raises BodyTooLarge."""
    found = _read_one(raw, limits, received_at_us)
    if found is None:
        decoder = HonestLogDecoder(
            limits,
            received_at_us=received_at_us,
            rejects_max=rejects_max,
            is_plain=is_plain,
            is_form=is_form,
        )
        found = _read_all(raw, decoder)
    return found


def maybe_one_log(raw: bytes, value_bytes_max: int, depth_max: int) -> bytes | None:
    """The log of a body that is one sound object on one line; both doors take that."""
    if raw[:1] != b"{" or len(raw) > value_bytes_max:
        return None
    text = raw.rstrip(WHITE_SPACE)
    if _LF in text or json_fault(text, depth_max) is not None:
        return None
    return text


def _read_one(raw: bytes, limits: BodyLimits, received_at_us: int) -> LogRows | None:
    text = maybe_one_log(raw, limits.value_bytes_max, limits.depth_max)
    if text is None:
        return None
    row = read_log(text, received_at_us, received_at_us + DAY_US, JSON_NAMES)
    return LogRows((row,), (text,), _FIRST_LINE)


def _read_all(raw: bytes, decoder: LogDecoder) -> LogRows:
    rows: list[LogRow] = []
    texts: list[bytes] = []
    numbers: list[int] = []
    for start in range(0, len(raw), _TURN_BYTES):
        _add(decoder.feed(raw[start : start + _TURN_BYTES]), rows, texts, numbers)
    _add(decoder.finish(), rows, texts, numbers)
    return LogRows(rows, texts, numbers, decoder.rejects, decoder.reasons, decoder.rejected_count)


def _add(
    batches: Iterable[LogBatch | None],
    rows: list[LogRow],
    texts: list[bytes],
    numbers: list[int],
) -> None:
    for batch in batches:
        if batch is None:
            continue
        columns = (batch.levels.tolist(), batch.messages, batch.times.tolist())
        rows += map(LogRow, *columns)
        data = batch.data
        spans = zip(batch.starts.tolist(), batch.lengths.tolist(), strict=True)
        texts += [data[start : start + length] for start, length in spans]
        numbers += batch.line_numbers.tolist()
