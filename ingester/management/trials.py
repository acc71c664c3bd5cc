"""Dry runs of settings: how a source would read lines, without a request and without a row.

It reads by the decoder of the honest door (`?as=events`), so that it cannot say anything else than
the door would.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec import UNSET

from ingester.errors import ConfigError, InvalidField
from ingester.management.answers import TriedEvent, TriedReject, TryMapAnswer
from ingester.management.calls import Call, Nothing
from ingester.management.requests import TryMap
from ingester.protocol.body_decoder import BodyLimits
from ingester.protocol.event_lines import Event
from ingester.protocol.honest_events import HonestEventDecoder
from ingester.protocol.mapping import compile_map

__all__ = ["try_map"]

_SHOWN_MAX = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def try_map(call: Call[TryMap, Nothing]) -> TryMapAnswer:
    """Raises InvalidField for a map that is none, RequestError for a body that is refused."""
    body = call.body
    source = call.control.source(call.names["name"]).source
    settings = source.map if body.map is UNSET else body.map
    is_lenient = source.lenient_session if body.lenient_session is UNSET else body.lenient_session
    try:
        event_map = None if settings is None else compile_map(settings)
    except ConfigError as error:
        raise InvalidField(error.key, str(error)) from None
    decoder = HonestEventDecoder(
        BodyLimits(),
        rejects_max=_SHOWN_MAX,
        is_plain=True,
        lenient_session=is_lenient,
        event_map=event_map,
    )
    batches = list(decoder.feed(body.text.encode()))
    batches += [batch for batch in decoder.finish() if batch is not None]
    events = [
        _tried(int(number), event)
        for batch in batches
        for number, event in zip(batch.line_numbers, batch.events, strict=True)
    ]
    return TryMapAnswer(
        accepted=decoder.accepted_count,
        rejected=decoder.rejected_count,
        events=events[:_SHOWN_MAX],
        rejects=[
            TriedReject(
                line=reject.line_number,
                column=reject.column,
                field=reject.field,
                reason=reject.reason,
                detail=reject.detail,
            )
            for reject in decoder.rejects
        ],
    )


def _tried(number: int, event: Event) -> TriedEvent:
    created_at = _EPOCH + timedelta(milliseconds=int(event.createdAt))
    return TriedEvent(
        line=number,
        account_id=event.accountId,
        user_id=event.userId,
        created_at=created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        action=event.action,
        session_id=event.sessionId or None,
    )
