"""The usual request of the Natero door, taken without a task of its own.

A small, whole, uncompressed POST under a known pair is most of the load by number. Here it goes
from head and body to the journal in plain calls; the answer is given when its group is synced.
Everything else, and whatever could be refused, is the handler's (`natero.py`): test door, quotas,
idempotency keys, codings, `wait=query`, keys about to end, sources that leave out repeats, and
every state in which the door is closed. Both ways store the same and answer the same (a test
compares them).

1. The verdict on a head is remembered for as long as keys and settings are the same; what may
   change meanwhile (draining, disk, backlog) is looked at for every request.
2. No budget is reserved: such a body is in the journal's backlog, which is bounded, from the
   moment it is taken.
"""

from __future__ import annotations

from functools import partial

from ..messages import Source
from ..protocol.forms import Origin
from ..protocol.http1 import RequestHead
from ..protocol.requests import SmallRequest, decode_body, entry_to_bytes
from .admission import Admission
from .exchange import Answer, Response, Shortcut, Take
from .natero import counts_response, origin_of, overloaded_response
from .receive import INLINE_BYTES_MAX, new_entry, now_us
from .small_lane import RETRY_AFTER_S

__all__ = ["make_shortcut"]

_HEADS_MAX = 4096
# Headers that change what happens to a request.
_MATTERS = (b"idempotency-key", b"content-encoding", b"prefer")


def make_shortcut(admission: Admission) -> Shortcut:
    """For a listener that is not the test door's."""
    verdicts: dict[RequestHead, Take | None] = {}
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
            take = verdicts[head]
        except KeyError:
            source = _source(head, admission)
            take = None if source is None else partial(_take, admission, origin_of(source))
            verdicts[head] = take
        return None if take is None or admission.is_closed else take

    return shortcut


def _source(head: RequestHead, admission: Admission) -> Source | None:
    """Whose request this is, or None when it must take the long way."""
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
    segments = head.path.split("/")
    if len(segments) != 4 or segments[:2] != ["", "v1"] or config.test_hosts:
        return None
    source = admission.keys.source_for_good(segments[2], segments[3])
    if source is None or source.requests_per_hour or source.dedup_field is not None:
        return None
    return source


def _take(admission: Admission, origin: Origin, number: int, body: bytes, answer: Answer) -> None:
    entry = new_entry(admission.config, origin, number, now_us(), body)
    request = decode_body(entry, body)
    notice = partial(_settled, admission, request, answer)
    admission.small.append_nowait(entry_to_bytes(entry), request, notice)


def _settled(
    admission: Admission, request: SmallRequest, answer: Answer, failure: str | None
) -> None:
    if failure is not None:
        answer(overloaded_response(RETRY_AFTER_S))
        return
    accepted, rejected = request.row_count, request.rejected_count
    # Its address is not known here: the one of the last request that went the long way stays.
    admission.usage.count(request.entry.credential, accepted=accepted, rejected=rejected)
    admission.count(request.entry.source, accepted, request.reasons)
    answer(_ONE_ACCEPTED if accepted == 1 and not rejected else counts_response(accepted, rejected))


_ONE_ACCEPTED: Response = counts_response(1, 0)
