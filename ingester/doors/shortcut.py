"""Shortcut of the Natero, log and metric doors: the usual small request in plain calls.

Why it exists: most requests are one event, log or metric on a connection that is kept alive, under
headers it sent before. Waking a task for them is half of what they cost; this takes them without.
What is decided by the head alone (method, path, key, headers, limits) is decided once per head and
remembered; `None` means the handler takes the request, which then decides everything anew.

1. It answers only what the handler would answer the same way (a test compares the two).
2. It takes nothing with a quota, `dedup_field`, an `Idempotency-Key`, a content encoding,
   `?wait=query`, a query string, a test door or a form; nothing while draining, over the backlog,
   or short of disk; and nothing that needs a thread to decode.
3. Remembered verdicts end when the keys or the settings are replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from msgspec import Struct

from ..errors import RequestError
from ..messages import Credential, CredentialKind
from ..protocol.forms import Origin
from ..protocol.http1 import RequestHead
from ..protocol.requests import SmallRequest, decode_body, entry_to_bytes
from . import logs, metrics, natero
from .admission import Admission
from .auth import credential_nowait
from .bearer import error_answer, stored_response
from .exchange import Answer, Response, Shortcut, Take, error_response
from .once import Stored
from .receive import INLINE_BYTES_MAX, new_entry, now_us
from .small_lane import RETRY_AFTER_S

__all__ = ["make_shortcut"]

_HEADS_MAX = 4096
# Headers that change what happens to a request.
_MATTERS = (b"idempotency-key", b"content-encoding", b"prefer")


class _Way(Struct, frozen=True):
    """How requests under a head are taken. `path` is for the list of refused requests."""

    origin: Origin
    stored: Callable[[SmallRequest], Response]
    overloaded: Callable[[], Response]
    path: str


def make_shortcut(admission: Admission) -> Shortcut:
    """For a listener that is not the test door's."""
    # With the credential, which decides whether there is room.
    verdicts: dict[RequestHead, tuple[Take, str] | None] = {}
    known_keys: object = None
    known_config: object = None

    def shortcut(head: RequestHead) -> Take | None:
        nonlocal known_config, known_keys
        if (
            admission.keys.table is not known_keys
            or admission.config is not known_config
            or len(verdicts) >= _HEADS_MAX
        ):
            verdicts.clear()
            known_keys, known_config = admission.keys.table, admission.config
        try:
            found = verdicts[head]
        except KeyError:
            way = _way_of(head, admission)
            found = None
            if way is not None:
                found = partial(_take, admission, way), way.origin.credential
            verdicts[head] = found
        return None if found is None or admission.is_closed_for(found[1]) else found[0]

    return shortcut


def _way_of(head: RequestHead, admission: Admission) -> _Way | None:
    """How the request goes, or None when it must take the long way."""
    if head.method != "POST" or head.query or not head.content_length:
        return None
    if not head.keep_alive or head.expect_continue or head.minor_version != 1:
        return None
    config = admission.config
    bytes_max = min(INLINE_BYTES_MAX, config.small_body_bytes_max)
    if config.body_bytes_max:
        bytes_max = min(bytes_max, config.body_bytes_max)
    if head.content_length > bytes_max or any(name in head.first for name in _MATTERS):
        return None
    if head.path == logs.PATH:
        return _log_way(head, admission)
    if head.path == metrics.PATH:
        return _metric_way(head, admission)
    return _natero_way(head, admission)


def _natero_way(head: RequestHead, admission: Admission) -> _Way | None:
    segments = head.path.split("/")
    if len(segments) != 4 or segments[:2] != ["", "v1"] or admission.config.test_hosts:
        return None
    source = admission.keys.source_for_good(segments[2], segments[3])
    if source is None or source.requests_per_hour or source.dedup_field is not None:
        return None
    return _Way(natero.origin_of(source), _natero_stored, _natero_overloaded, head.path)


def _log_way(head: RequestHead, admission: Admission) -> _Way | None:
    credential = _credential(head, admission, "token")
    if credential is None or logs.is_form(head):
        return None
    return _Way(logs.origin_of(credential), _log_stored, _overloaded, head.path)


def _metric_way(head: RequestHead, admission: Admission) -> _Way | None:
    credential = _credential(head, admission, "connection")
    if credential is None:
        return None
    origin = metrics.origin_of(credential, admission.metrics.future_seconds_max)
    return _Way(origin, partial(_metric_stored, admission), _overloaded, head.path)


def _credential(head: RequestHead, admission: Admission, kind: CredentialKind) -> Credential | None:
    found = credential_nowait(head, admission.keys, kinds=(kind,))
    return None if found is None or found.requests_per_hour else found


def _take(
    admission: Admission, way: _Way, number: int, address: str, body: bytes, answer: Answer
) -> None:
    entry = new_entry(admission.config, way.origin, number, now_us(), body)
    try:
        request = decode_body(entry, body)
    except RequestError as error:
        credential, status = way.origin.credential, error.status_hint
        admission.usage.refuse(
            credential, status=status, reason=str(error), address=address, path=way.path
        )
        refused = error_answer(error)
        refused.door = way.origin.door
        answer(refused)
        return
    notice = partial(_settled, admission, way, request, address, answer)
    admission.small.append_nowait(entry_to_bytes(entry), request, notice)


def _settled(
    admission: Admission,
    way: _Way,
    request: SmallRequest,
    address: str,
    answer: Answer,
    failure: str | None,
) -> None:
    if failure is not None:
        admission.usage.count(way.origin.credential, address=address)
        response = way.overloaded()
        response.door = way.origin.door
        answer(response)
        return
    accepted, rejected = request.row_count, request.rejected_count
    admission.usage.count(
        way.origin.credential, accepted=accepted, rejected=rejected, address=address
    )
    admission.count(way.origin.source, accepted, request.reasons)
    answer(way.stored(request))


def _natero_stored(request: SmallRequest) -> Response:
    accepted, rejected = request.row_count, request.rejected_count
    if accepted == 1 and not rejected:
        return _ONE_EVENT
    return natero.counts_response(accepted, rejected)


def _log_stored(request: SmallRequest) -> Response:
    if request.row_count == 1:
        return _ONE_LOG
    return _stored(logs.DOOR, logs.log_answer(request.row_count), request.row_count)


def _metric_stored(admission: Admission, request: SmallRequest) -> Response:
    admission.metric_labels.see(request.entry.source, request.rows)
    if request.row_count == 1:
        return _ONE_METRIC
    return _stored(metrics.DOOR, metrics.metric_answer(request.row_count), request.row_count)


def _stored(door: str, body: bytes, count: int) -> Response:
    response = stored_response(body, Stored(count, 0, 0, 0))
    response.door = door
    return response


def _natero_overloaded() -> Response:
    return natero.overloaded_response(RETRY_AFTER_S)


def _overloaded() -> Response:
    return error_response(503, "the journal cannot be written", retry_after_s=RETRY_AFTER_S)


_ONE_EVENT: Response = natero.counts_response(1, 0)
_ONE_LOG: Response = _stored(logs.DOOR, logs.log_answer(1), 1)
_ONE_METRIC: Response = _stored(metrics.DOOR, metrics.metric_answer(1), 1)
