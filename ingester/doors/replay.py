"""Replay: rejected lines through their door again, each of them stored at most once.

Why it exists: what a line was rejected for may have been mended, in a setting of its source or in
the line itself. The chosen lines go the way of any small request (`receive.py`), under the present
settings of the source and the frozen ones of the token, in requests of their own: they are in
`requests` with an `idempotency_key` that starts with `replay-`.

1. Every line is decoded alone first. What is refused again goes into no request and makes no
   second reject; reason and time are noted on the old one.
2. The others are claimed in the control store, then journalled under the number that they were
   claimed for, then marked. A claim is unique, so two replays at once share the lines out. A crash
   leaves claims open; the next process looks which of their requests are stored (`settle`).
3. From the claim to the mark nothing is cancelled. A fault between them leaves the claim open:
   the line counts as under way until the next start, and is never sent a second time.
4. The lines of one request are of one door, source, credential and form.

Refuses what is not whole: lines cut at 64 KiB and compressed bodies, of which only the start is
kept. An edit replaces them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import structlog
import trio
from msgspec import Struct, structs

from ..errors import BodyTooLarge, Overloaded, RequestError, StoreBusy
from ..messages import (
    Credential,
    LineReject,
    RejectReason,
    ReplayOutcome,
    ReplayResult,
    request_id_text,
)
from ..protocol.forms import HonestEventForm, HonestLogForm, Origin, form_of_text, table_of_form
from ..protocol.http1 import RequestHead
from ..protocol.requests import decode_body
from ..store.control import ControlStore, ReplaySubject
from ..store.reject_rows import RejectKey, StoredReject, stored_requests
from ..store.store import Store
from . import honest, natero
from .admission import Admission
from .exchange import Request
from .receive import AdmittedRequest, new_entry, now_us, receive_body

__all__ = ["KEY_PREFIX", "REQUEST_BYTES_MAX", "REQUEST_LINES_MAX", "Replayer", "subject_of"]

_log = structlog.get_logger(__name__)

# How a replay is told from other requests in `requests`; its own id follows.
KEY_PREFIX = "replay-"

# Of one request: what a decoder call takes at once, and two transactions of the control store.
REQUEST_BYTES_MAX = 256 * 1024
REQUEST_LINES_MAX = 1000

_THREADS_MAX = 4

_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")

T = TypeVar("T")


class _Line(Struct, frozen=True):
    """What is sent for a reject: its bytes as kept, or an edit."""

    reject: StoredReject
    text: bytes


class _Sound(Struct, frozen=True):
    """A line that the door takes, as the lines of a request."""

    reject: StoredReject
    text: bytes
    row_count: int


class Replayer:
    """One a process. `next_number` gives request numbers."""

    def __init__(
        self,
        admission: Admission,
        *,
        control: ControlStore,
        store: Store,
        next_number: Callable[[], int],
    ) -> None:
        self._admission = admission
        self._control = control
        self._store = store
        self._next_number = next_number
        self._turn = trio.Lock()
        # Of its own: who asks holds one of the default threads while this works for it, and when
        # all of them do, none would be left.
        self._threads = trio.CapacityLimiter(_THREADS_MAX)
        self._is_settled = False
        # What became of requests, that could not be written down yet.
        self._unsettled: dict[int, bool] = {}

    async def settle(self) -> None:
        """Mark what an earlier process has left open. Raises StoreBusy.

        Its requests were loaded before this one took any: they are stored now, or never.
        """
        async with self._turn:
            if not self._is_settled:
                numbers = await self._in_thread(self._control.open_replays)
                stored = await self._in_thread(stored_requests, self._store, numbers, KEY_PREFIX)
                if numbers:
                    found = {number: number in stored for number in numbers}
                    await self._in_thread(self._control.settle_replays, found)
                self._is_settled = True
            if unsettled := dict(self._unsettled):
                await self._in_thread(self._control.settle_replays, unsettled)
                for number in unsettled:
                    del self._unsettled[number]

    async def replay(
        self,
        rejects: Sequence[StoredReject],
        edits: Mapping[str, bytes],
        *,
        dry_run: bool,
        actor: str,
    ) -> list[ReplayOutcome]:
        """What became of each, in order. Raises Overloaded and StoreBusy before anything is sent;
        what is refused later is told in the outcomes.
        """
        await self.settle()
        if not dry_run:
            self._admission.refuse_if_closed()
        outcomes: dict[str, ReplayOutcome] = {}
        lines: list[_Line] = []
        for reject in rejects:
            line = _line_of(reject, edits.get(reject.id), self._line_bytes_max)
            if isinstance(line, _Line):
                lines.append(line)
            else:
                outcomes[reject.id] = line
        for origin, group in _grouped(lines, self._admission):
            for batch in _cut(group, min(REQUEST_BYTES_MAX, self._line_bytes_max)):
                for outcome in await self._replay_batch(origin, batch, dry_run=dry_run):
                    outcomes[outcome.id] = outcome
        ordered = [outcomes[reject.id] for reject in rejects]
        if not dry_run:
            await self._audit(rejects, ordered, edits, actor)
        return ordered

    @property
    def _line_bytes_max(self) -> int:
        return self._admission.config.small_body_bytes_max

    async def _replay_batch(
        self, origin: Origin, batch: Sequence[_Line], *, dry_run: bool
    ) -> list[ReplayOutcome]:
        marks = await self._in_thread(
            self._control.replay_marks, [line.reject.key for line in batch]
        )
        done = {key for key, mark in marks.items() if mark.state != "refused"}
        outcomes = await self._outcomes_of_marks([x.reject for x in batch if x.reject.key in done])
        open_lines = [line for line in batch if line.reject.key not in done]
        sound: list[_Sound] = []
        refused: list[tuple[StoredReject, LineReject]] = []
        for found in await trio.to_thread.run_sync(
            _decoded, self._admission, origin, open_lines, limiter=self._admission.decode_turn
        ):
            if isinstance(found, _Sound):
                sound.append(found)
            else:
                refused.append(found)
        outcomes += [_refused(reject, why) for reject, why in refused]
        if dry_run:
            return outcomes + [_outcome(one.reject, "accepted") for one in sound]
        if refused:
            notes = [(subject_of(reject), why.reason, why.detail) for reject, why in refused]
            await self._in_thread(self._control.note_refused_replays, notes)
        if sound:
            with trio.CancelScope(shield=True):
                outcomes += await self._send(origin, sound)
        return outcomes

    async def _send(self, origin: Origin, sound: Sequence[_Sound]) -> list[ReplayOutcome]:
        """Claim, journal, mark. Not to be cancelled."""
        number = self._next_number()
        try:
            claimed = await self._in_thread(
                self._control.claim_replays, [subject_of(one.reject) for one in sound], number
            )
        except StoreBusy as error:
            return [_outcome(one.reject, "failed", detail=str(error)) for one in sound]
        mine = [one for one in sound if one.reject.key in claimed]
        others = [one.reject for one in sound if one.reject.key not in claimed]
        outcomes = await self._outcomes_of_marks(others)
        if not mine:
            return outcomes
        try:
            repeats = await self._store_lines(origin, number, mine)
        except (Overloaded, RequestError) as error:
            await self._settle_one(number, is_stored=False)
            return outcomes + [_outcome(x.reject, "failed", detail=str(error)) for x in mine]
        await self._settle_one(number, is_stored=True)
        request_id = request_id_text(number)
        detail = f"{repeats} of the request's lines were repeats, left out" if repeats else None
        return outcomes + [
            _outcome(x.reject, "replayed", request_id=request_id, detail=detail) for x in mine
        ]

    async def _store_lines(self, origin: Origin, number: int, lines: Sequence[_Sound]) -> int:
        """One request into the journal; how many repeats its source left out. Raises Overloaded or
        RequestError: nothing was stored.
        """
        body = b"\n".join(line.text for line in lines)
        asked = AdmittedRequest(
            request=Request(_head(len(body)), number, "", "replay", _Body(body)),
            origin=origin,
            encoding="identity",
            encoding_name="identity",
            is_plain=True,
            idempotency_key=f"{KEY_PREFIX}{request_id_text(number)}",
            received_at_us=now_us(),
            refused_by="any_rejected",
            dedup=self._admission.dedup.window_of(
                self._admission.keys.source_named(origin.source), table_of_form(origin.form)
            ),
        )
        self._admission.refuse_if_closed()
        record, _ = await receive_body(asked, self._admission)
        expected = sum(line.row_count for line in lines)
        if record.accepted + record.deduplicated != expected:  # a bug; the rows are stored
            _log.error("a replay stored other rows than were decoded", request_id=number)
        return record.deduplicated

    async def _settle_one(self, number: int, *, is_stored: bool) -> None:
        try:
            await self._in_thread(self._control.settle_replays, {number: is_stored})
        except StoreBusy as error:
            self._unsettled[number] = is_stored
            _log.warning("a replay is not marked yet, later", reason=str(error))

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        return await trio.to_thread.run_sync(function, *arguments, limiter=self._threads)

    async def _outcomes_of_marks(self, rejects: Sequence[StoredReject]) -> list[ReplayOutcome]:
        """Of rejects that another replay has."""
        keys: list[RejectKey] = [reject.key for reject in rejects]
        marks = await self._in_thread(self._control.replay_marks, keys) if keys else {}
        outcomes = []
        for reject in rejects:
            mark = marks.get(reject.key)
            if mark is None or mark.state == "refused":  # it has just given up
                detail = "another replay had it a moment ago; try again"
                outcomes.append(_outcome(reject, "failed", detail=detail))
                continue
            result: ReplayResult = "under_way" if mark.state == "claimed" else "already_replayed"
            number = mark.replay_number
            request_id = None if number is None else request_id_text(number)
            outcomes.append(_outcome(reject, result, request_id=request_id))
        return outcomes

    async def _audit(
        self,
        rejects: Sequence[StoredReject],
        outcomes: Sequence[ReplayOutcome],
        edits: Mapping[str, bytes],
        actor: str,
    ) -> None:
        results = [outcome.outcome for outcome in outcomes]
        replayed, refused = results.count("replayed"), results.count("refused")
        if not replayed + refused:
            return

        def write() -> None:
            self._control.audit_replay(
                sources=[reject.source for reject in rejects],
                replayed=replayed,
                refused=refused,
                edited=len(edits),
                actor=actor,
            )

        try:
            await self._in_thread(write)
        except StoreBusy as error:  # what was done is done, and must be told
            _log.warning("a replay is not in the audit list", reason=str(error))


def subject_of(reject: StoredReject) -> ReplaySubject:
    return ReplaySubject(
        key=reject.key,
        door=reject.door,
        source=reject.source,
        reason=reject.reason,
        received_at=reject.received_at_us / 1e6,
    )


def _line_of(
    reject: StoredReject, edit: bytes | None, line_bytes_max: int
) -> _Line | ReplayOutcome:
    text = reject.line if edit is None else edit
    if reject.door not in (natero.DOOR, honest.DOOR):
        detail = f"the door {reject.door!r} keeps no lines to replay"
    elif reject.door == honest.DOOR and reject.form is None:
        detail = "an earlier release kept it, without saying whether it was for logs or events"
    elif edit is None and reject.reason == "wrong_encoding":
        detail = (
            "the body came compressed without a Content-Encoding, and only its start is kept; send"
            " the body again with the header"
        )
    elif edit is None and reject.is_cut:
        detail = "only the first 64 KiB of the line are kept; replay it with an edit"
    elif len(text) > line_bytes_max:
        detail = f"the edit has {len(text)} bytes, at most {line_bytes_max} are replayed"
    else:
        return _Line(reject, text)
    return _outcome(reject, "impossible", detail=detail)


def _grouped(
    lines: Sequence[_Line], admission: Admission
) -> Iterator[tuple[Origin, Sequence[_Line]]]:
    groups: dict[tuple[str | None, ...], list[_Line]] = {}
    for line in lines:
        reject = line.reject
        key = (reject.door, reject.source, reject.credential, reject.form)
        groups.setdefault(key, []).append(line)
    for group in groups.values():
        yield _origin_of(group[0].reject, admission), group


def _origin_of(reject: StoredReject, admission: Admission) -> Origin:
    """As the door would make it now. A source that was deleted has default settings."""
    credential = reject.credential or ""
    if reject.door == natero.DOOR:
        source = admission.keys.source_named(reject.source)
        if source is None:
            return Origin(natero.DOOR, reject.source, credential)
        return natero.origin_of(source)
    form = form_of_text(reject.form)
    kind = "events" if isinstance(form, HonestEventForm) else "logs"
    service, environment = "", ""
    if isinstance(form, HonestLogForm):
        # Those of a token never change, so they are right also when it is gone.
        service, environment = form.service, form.environment
    sender = Credential(
        kind="token",
        id=credential,
        service=service,
        environment=environment,
        source=reject.source,
    )
    return honest.origin_of(reject.source, kind, sender, admission)


def _cut(lines: Sequence[_Line], bytes_max: int) -> Iterator[Sequence[_Line]]:
    """Runs of at most `REQUEST_LINES_MAX` and, unless one line is larger, `bytes_max`."""
    start = byte_count = 0
    for place, line in enumerate(lines):
        is_full = place - start >= REQUEST_LINES_MAX
        if place > start and (is_full or byte_count + len(line.text) > bytes_max):
            yield lines[start:place]
            start, byte_count = place, 0
        byte_count += len(line.text) + 1
    if start < len(lines):
        yield lines[start:]


def _decoded(
    admission: Admission, origin: Origin, lines: Sequence[_Line]
) -> list[_Sound | tuple[StoredReject, LineReject]]:
    """Each line as a body of its own: what was an element of an array, or is an edit, may go over
    several lines or be several rows; what is stored has one row a line.
    """
    found: list[_Sound | tuple[StoredReject, LineReject]] = []
    received_at_us = now_us()
    config = structs.replace(admission.config, rejects_per_request_max=1)
    for line in lines:
        entry = new_entry(config, origin, 0, received_at_us, line.text)
        try:
            request = decode_body(entry, line.text)
        except RequestError as error:
            reason: RejectReason = "too_long" if isinstance(error, BodyTooLarge) else "invalid_json"
            found.append((line.reject, LineReject(1, reason, str(error), b"")))
            continue
        if request.rejects:
            found.append((line.reject, request.rejects[0]))
        elif not request.row_count:
            found.append((line.reject, LineReject(1, "invalid_json", "the line is blank", b"")))
        else:
            # A raw line end within JSON is white space between tokens.
            text = b"\n".join(row.translate(_LINE_ENDS) for row in request.lines)
            found.append(_Sound(line.reject, text, request.row_count))
    return found


def _refused(reject: StoredReject, why: LineReject) -> ReplayOutcome:
    return ReplayOutcome(
        id=reject.id,
        outcome="refused",
        reason=why.reason,
        field=why.field,
        column=why.column or None,
        detail=why.detail,
    )


def _outcome(
    reject: StoredReject,
    result: ReplayResult,
    *,
    request_id: str | None = None,
    detail: str | None = None,
) -> ReplayOutcome:
    return ReplayOutcome(id=reject.id, outcome=result, request_id=request_id, detail=detail)


class _Body:
    """A body that is here already (`exchange.BodyStream`)."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.received_bytes = 0

    def whole_nowait(self) -> bytes:
        whole, self._body = self._body, b""
        self.received_bytes += len(whole)
        return whole

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return self.whole_nowait()


def _head(byte_count: int) -> RequestHead:
    """Of a request that nobody sent."""
    return RequestHead(
        method="POST",
        target=b"",
        path="",
        query="",
        headers=(),
        content_length=byte_count,
        chunked=False,
        keep_alive=False,
        expect_continue=False,
        first={},
    )
