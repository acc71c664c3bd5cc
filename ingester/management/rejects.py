"""Routes of rejects: listed, counted, and sent through their door again."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ingester.errors import InvalidField, NotFound, StoreBusy
from ingester.management.answers import (
    Reject,
    RejectCountRow,
    RejectCounts,
    RejectList,
    ReplayAnswer,
    ReplayRow,
    ReplayState,
    time_text,
)
from ingester.management.calls import Call, Nothing, RejectDesk
from ingester.management.requests import (
    CountsQuery,
    RejectChoice,
    RejectsQuery,
    ReplayRejects,
)
from ingester.messages import ReplayOutcome, request_id_text
from ingester.store.control import ReplayMark
from ingester.store.reject_rows import (
    RejectFilter,
    RejectKey,
    StoredReject,
    reject_id_text,
    reject_key,
)

__all__ = ["count_rejects", "get_reject", "list_rejects", "replay_rejects"]

_EXCERPT_CHARACTERS_MAX = 200
# Of a list that shows only (un)replayed ones: what is read for one answer.
_PAGES_MAX = 10
_SETTLED = ("replayed", "claimed")


def list_rejects(call: Call[Nothing, RejectsQuery]) -> RejectList:
    query, desk = call.query, _desk(call)
    after = None if query.cursor is None else _key("cursor", query.cursor)
    wanted = _filter(query)
    shown: list[Reject] = []
    for _ in range(_PAGES_MAX):
        page = desk.page(wanted, limit=query.limit - len(shown), after=after)
        marks = call.control.replay_marks([reject.key for reject in page.rejects])
        for reject in page.rejects:
            mark = marks.get(reject.key)
            is_replayed = mark is not None and mark.state == "replayed"
            if query.replayed is None or query.replayed == is_replayed:
                shown.append(_reject(reject, mark))
        if page.rejects:
            after = page.rejects[-1].key
        # A page that was cut for its bytes is an answer of its own.
        if not page.has_more or query.replayed is None or len(shown) >= query.limit:
            break
    cursor = reject_id_text(after) if page.has_more and after is not None else None
    return RejectList(rejects=shown, cursor=cursor)


def get_reject(call: Call[Nothing, Nothing]) -> Reject:
    key = reject_key(call.names["id"])
    found = [] if key is None else _desk(call).find([key])
    if not found:
        raise NotFound("there is no reject with this id")
    return _reject(found[0], call.control.replay_marks([found[0].key]).get(found[0].key))


def count_rejects(call: Call[Nothing, CountsQuery]) -> RejectCounts:
    query = call.query
    since_s = None if query.since is None else query.since.timestamp()
    until_s = None if query.until is None else query.until.timestamp()
    replayed = {
        (count.door, count.source, count.reason): count.replayed
        for count in call.control.replay_counts(
            door=query.door, source=query.source, since_s=since_s, until_s=until_s
        )
    }
    wanted = RejectFilter(
        door=query.door, source=query.source, since=query.since, until=query.until
    )
    rows = [
        RejectCountRow(
            door=count.door,
            source=count.source,
            reason=count.reason,
            rejects=count.kept,
            replayed=min(count.kept, replayed.get((count.door, count.source, count.reason), 0)),
            newest_at=time_text(count.newest_at_us / 1e6),
        )
        for count in _desk(call).counts(wanted)
    ]
    return RejectCounts(
        counts=rows,
        rejects=sum(row.rejects for row in rows),
        replayed=sum(row.replayed for row in rows),
    )


def replay_rejects(call: Call[ReplayRejects, Nothing]) -> ReplayAnswer:
    body, desk = call.body, _desk(call)
    if not desk.can_replay:
        raise StoreBusy("rejects can be listed here, but not replayed")
    if body.ids is not None and body.filter is not None:
        raise InvalidField("filter", "give ids or a filter, not both")
    if body.filter is not None:
        return _replay_page(call, body, desk)
    ids = list(dict.fromkeys(body.edits if body.ids is None else body.ids))
    if not ids:
        raise InvalidField("ids", "give the ids of rejects, or a filter")
    for edited in body.edits:
        if edited not in ids:
            raise InvalidField("edits", f"edits has {edited[:40]!r}, which is not among the ids")
    keys = [_key("ids", one) for one in ids]
    found = {reject.id: reject for reject in desk.find(keys)}
    outcomes = _replay(call, desk, list(found.values()))
    rows = [
        _row(outcomes[one]) if one in outcomes else ReplayRow(id=one, outcome="unknown")
        for one in map(reject_id_text, keys)
    ]
    return _answer(rows, None, dry_run=body.dry_run)


def _replay_page(
    call: Call[ReplayRejects, Nothing], body: ReplayRejects, desk: RejectDesk
) -> ReplayAnswer:
    """Oldest first; what was replayed before is not chosen."""
    assert body.filter is not None
    if body.edits:
        raise InvalidField("edits", "edits go with ids, not with a filter")
    after = None if body.cursor is None else _key("cursor", body.cursor)
    page = desk.page(_filter(body.filter), limit=body.limit, after=after, oldest_first=True)
    marks = call.control.replay_marks([reject.key for reject in page.rejects])
    chosen = [
        reject
        for reject in page.rejects
        if (mark := marks.get(reject.key)) is None or mark.state not in _SETTLED
    ]
    outcomes = _replay(call, desk, chosen)
    cursor = page.rejects[-1].id if page.has_more and page.rejects else None
    rows = [_row(outcomes[reject.id]) for reject in chosen]
    return _answer(rows, cursor, dry_run=body.dry_run)


def _replay(
    call: Call[ReplayRejects, Nothing], desk: RejectDesk, rejects: Sequence[StoredReject]
) -> Mapping[str, ReplayOutcome]:
    edits = {name: text.encode() for name, text in call.body.edits.items()}
    outcomes = desk.replay(rejects, edits, dry_run=call.body.dry_run, actor=call.actor.name)
    return {outcome.id: outcome for outcome in outcomes}


def _answer(rows: list[ReplayRow], cursor: str | None, *, dry_run: bool) -> ReplayAnswer:
    done = ("accepted",) if dry_run else ("replayed",)
    return ReplayAnswer(
        dry_run=dry_run,
        replayed=sum(row.outcome in done for row in rows),
        refused=sum(row.outcome == "refused" for row in rows),
        other=sum(row.outcome not in (*done, "refused") for row in rows),
        results=rows,
        cursor=cursor,
    )


def _row(outcome: ReplayOutcome) -> ReplayRow:
    return ReplayRow(
        id=outcome.id,
        outcome=outcome.outcome,
        request_id=outcome.request_id,
        reason=outcome.reason,
        field=outcome.field,
        column=outcome.column,
        detail=outcome.detail,
    )


def _desk(call: Call[Any, Any]) -> RejectDesk:
    if call.rejects is None:
        raise StoreBusy("rejects cannot be read here")
    return call.rejects


def _key(field: str, text: str) -> RejectKey:
    key = reject_key(text)
    if key is None:
        raise InvalidField(field, f"{field}: {text[:40]!r} is not the id of a reject")
    return key


def _filter(choice: RejectChoice) -> RejectFilter:
    return RejectFilter(
        door=choice.door,
        source=choice.source,
        reason=choice.reason,
        request_number=None if choice.request_id is None else int(choice.request_id, 16),
        since=choice.since,
        until=choice.until,
    )


def _reject(reject: StoredReject, mark: ReplayMark | None) -> Reject:
    encoding: Literal["utf-8", "base64"] = "utf-8"
    try:
        text = reject.line.decode()
    except UnicodeDecodeError:
        text, encoding = base64.b64encode(reject.line).decode(), "base64"
    shown = reject.line[: 4 * _EXCERPT_CHARACTERS_MAX].decode("utf-8", "replace")
    return Reject(
        id=reject.id,
        received_at=time_text(reject.received_at_us / 1e6),
        door=reject.door,
        source=reject.source,
        request_id=request_id_text(reject.request_number),
        line_number=reject.line_number,
        reason=reject.reason,
        field=reject.field,
        column=reject.column,
        detail=reject.detail,
        excerpt=shown[:_EXCERPT_CHARACTERS_MAX],
        line=text,
        line_encoding=encoding,
        is_cut=reject.is_cut,
        replay=None if mark is None else _state(mark),
    )


def _state(mark: ReplayMark) -> ReplayState:
    number = mark.replay_number
    return ReplayState(
        state="under_way" if mark.state == "claimed" else mark.state,
        at=time_text(mark.time),
        request_id=None if number is None else request_id_text(number),
        reason=mark.refusal,
        detail=mark.detail,
    )
