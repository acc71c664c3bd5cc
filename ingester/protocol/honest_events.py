"""Product events through the honest door (`?as=events`): lines, one object, or an array of them.

Why it exists beside `events.EventDecoder`: the Natero door takes lines only. What a valid event is
stays with contract 3.1 (`event_lines`), or with the map of a source whose events have another shape
(`mapping`). Batches are the same, so everything behind the decoder is.

An element of an array is limited as a line is; a line over its limit is a reject, not a refusal.
"""

from __future__ import annotations

import msgspec

from ..messages import LineReject
from .body_decoder import BodyDecoder, BodyLimits, Spans
from .chunk_shape import Array
from .event_lines import Event, EventRules, decode_line, strict_decoder
from .events import EventBatch
from .mapping import EventMap, compile_map

__all__ = ["HonestEventDecoder"]

# Reads both spellings, and sessions that may be missing.
_AS_ALWAYS = compile_map({})


class HonestEventDecoder(BodyDecoder[Event, list[Event], EventBatch]):
    """A body of events; `event_map` None for events shaped as contract 3.1 says."""

    def __init__(
        self,
        limits: BodyLimits,
        *,
        rejects_max: int,
        is_plain: bool,
        lenient_session: bool = False,
        event_map: EventMap | None = None,
        keep_going: bool = True,
    ) -> None:
        super().__init__(limits, rejects_max=rejects_max, is_plain=is_plain, keep_going=keep_going)
        self._rules = EventRules(limits.line_bytes_max, limits.depth_max, lenient_session)
        self._map = event_map

    @property
    def element_bytes_max(self) -> int:
        return self.limits.line_bytes_max

    def read_chunk(self, chunk: bytes, starts: Array, lengths: Array) -> list[Event] | None:
        if self._map is None and not self._rules.lenient_session:
            try:
                events: list[Event] = strict_decoder.decode_lines(chunk)  # type: ignore[assignment]
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass
            else:
                return events if len(events) == len(starts) else None
        return (self._map or _AS_ALWAYS).read_events(chunk, len(starts), self._rules)

    def read_text(self, text: bytes, line_number: int) -> Event | LineReject:
        if self._map is None:
            event: Event | LineReject = decode_line(text, line_number, self._rules)
            return event
        return self._map.read_event(text, line_number, self._rules)

    def gather(self, rows: list[Event]) -> list[Event]:
        return rows

    def join(self, parts: list[list[Event]]) -> list[Event]:
        return [event for part in parts for event in part]

    def make_batch(self, columns: list[Event], data: bytes, spans: Spans) -> EventBatch:
        return EventBatch(columns, data, spans.starts, spans.lengths, spans.line_numbers)
