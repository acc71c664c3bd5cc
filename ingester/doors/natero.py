"""Natero door: `POST /v1/{authKey}/{apiKey}`, NDJSON events (contract 3.1; Natero Event REST API).

Answers have no body. 200 also when lines are invalid (they are kept as rejects), 400 for another
method, an unknown path or pair, and a broken body; 413, 429, 503, 408 as everywhere. Content
codings other than gzip, x-gzip, deflate, zstd are plain text here, also lists of codings. Where the
source leaves out repeats (`dedup_field`), `Ingester-Accepted` counts the rows that were stored.

The test door (`/test/v1/…`, its own listener, or a host in `test_hosts`) checks and answers alike
and stores nothing; the viewer shows what came.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import trio

from ..errors import (
    ClientGone,
    MalformedRequest,
    Overloaded,
    RequestError,
    RequestStalled,
    StoreFailed,
)
from ..messages import Source
from ..protocol.event_lines import EventRules
from ..protocol.events import EventBatch, EventDecoder
from ..protocol.forms import Origin
from ..protocol.inflate import InflateLimits, make_inflater, parse_content_encoding
from .admission import Admission
from .dedup import DedupWindow
from .exchange import Request, Response
from .idempotency import is_well_formed
from .once import KeyReused, idempotency_key, queryable_headers, receive_once
from .receive import AdmittedRequest, now_us
from .viewer import LINES_SHOWN_MAX, warnings_of

__all__ = ["DOOR", "counts_response", "handle", "origin_of", "overloaded_response"]

DOOR = "natero"
_TEST_PREFIX = "/test"
_RETRY_AFTER_408_S = 1

Headers = tuple[tuple[bytes, bytes], ...]


async def handle(request: Request, admission: Admission) -> Response:
    """One request whose path starts with `/v1/` or `/test/v1/`."""
    is_test = _is_test(request, admission)
    path = request.head.path.removeprefix(_TEST_PREFIX) if is_test else request.head.path
    segments = path.split("/")[2:]
    if segments and not segments[-1]:
        segments.pop()
    if request.head.method != "POST":
        refused = _refused(request, admission, is_test)
        source = admission.keys.source_of(*segments) if len(segments) == 2 else None
        if source is not None and source.requests_per_hour:
            limit = source.requests_per_hour
            quota = admission.quotas.told(source.credential, limit, time.time())
            refused.headers += quota.headers()
        return refused
    if segments == ["ping"]:
        return counts_response(0, 0)
    if len(segments) != 2:
        return _refused(request, admission, is_test)
    source = admission.keys.source_of(*segments)
    if source is None:
        _note(request, admission, "", 400, "the path names no valid key pair")
        await admission.failures.slow_down(request.client_address)
        return _refused(request, admission, is_test)
    headers: Headers = ()
    if source.requests_per_hour:
        quota = admission.quotas.count(source.credential, source.requests_per_hour, time.time())
        headers = quota.headers()
        if quota.is_over:
            reason = f"over the quota of {quota.limit} requests an hour"
            _note(request, admission, source.credential, 429, reason)
            return _answer(429, headers, retry_after_s=quota.retry_after_s)
    try:
        if is_test:
            return await _inspect(request, admission, source, headers)
        return await _receive(request, admission, source, headers)
    except Overloaded as error:
        admission.usage.count(source.credential, address=request.client_address)
        return _answer(503, headers, retry_after_s=error.retry_after_s)
    except RequestError as error:
        status = 400 if isinstance(error, KeyReused) else error.status_hint
        _note(request, admission, source.credential, status, str(error))
        retry_after_s = _RETRY_AFTER_408_S if status == 408 else None
        is_broken = isinstance(error, MalformedRequest | RequestStalled)
        return _answer(status, headers, retry_after_s=retry_after_s, close=is_broken)
    except StoreFailed as error:
        # Whether it was stored could not be found out: any answer might be wrong.
        admission.fail()
        raise ClientGone("unanswered on purpose") from error


async def _receive(
    request: Request, admission: Admission, source: Source, headers: Headers
) -> Response:
    dedup = admission.dedup.window_of(source, "events")
    asked = _asked(request, source, idempotency_key(request.head), dedup)
    stored = await receive_once(asked, admission)
    headers += stored.headers() + await queryable_headers(request.head, admission, stored)
    answer = _answer(200, headers)
    answer.request_number = stored.request_number
    return answer


async def _inspect(
    request: Request, admission: Admission, source: Source, headers: Headers
) -> Response:
    """The test door: decode, show, store nothing."""
    config = admission.config
    key = request.head.get(b"idempotency-key")
    if key is not None and not is_well_formed(key):
        return _refused(request, admission, True)
    asked = _asked(request, source, None)
    limits = InflateLimits(output_bytes_max=config.body_bytes_max, ratio_max=config.ratio_max)
    inflater = make_inflater(asked.encoding, limits)
    rules = EventRules(config.line_bytes_max, config.depth_max, source.lenient_session)
    decoder = EventDecoder(rules, rejects_max=LINES_SHOWN_MAX, is_plain=asked.is_plain)
    lines: list[bytes] = []
    numbers: list[int] = []
    created: list[float] = []

    def turns(piece: bytes) -> Iterator[bool]:
        """Decode a piece in turns: its 64 KiB may stand for 64 MiB. An empty one is the end."""
        for raw in inflater.feed(piece):
            show(decoder.feed(raw))
            yield True
        if not piece:
            inflater.finish()
            show(decoder.finish())

    def show(batches: list[EventBatch]) -> None:
        for batch in batches:
            if len(lines) < LINES_SHOWN_MAX:
                created.extend(event.createdAt for event in batch.events)
                spans = zip(batch.starts.tolist(), batch.lengths.tolist(), strict=True)
                lines.extend(batch.data[start : start + length] for start, length in spans)
                numbers.extend(batch.line_numbers.tolist())

    status, refusal = 400, ""
    try:
        while True:
            piece = await request.body.receive()
            turn = turns(piece)
            while await trio.to_thread.run_sync(next, turn, False, limiter=admission.decode_turn):
                pass
            if not piece:
                break
        status = 200
    except RequestError as error:
        status, refusal = error.status_hint, str(error)
        raise
    finally:
        now_ms = time.time() * 1000
        admission.viewer.add(
            number=request.number,
            head=request.head,
            client_address=request.client_address,
            source=source.name,
            status=status,
            bytes_in=inflater.input_bytes,
            bytes_raw=inflater.output_bytes,
            accepted=decoder.accepted_count,
            rejected=decoder.rejected_count,
            lines=lines,
            line_numbers=numbers,
            rejects=decoder.rejects,
            warnings=warnings_of(request.head, created, decoder.rejects, now_ms, refusal=refusal),
        )
    admission.usage.count(source.credential, address=request.client_address)
    return _answer(200, headers + _counts(decoder.accepted_count, decoder.rejected_count))


def _is_test(request: Request, admission: Admission) -> bool:
    if request.listener == "test" or request.head.path.startswith("/test/"):
        return True
    if not admission.config.test_hosts:
        return False
    host = (request.head.get(b"host") or b"").decode("latin-1").lower()
    # Without its port: `name:8080`, `[::1]:8080`.
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return any(name == known.strip("[]") for known in admission.config.test_hosts)


def origin_of(source: Source) -> Origin:
    return Origin(DOOR, source.name, source.credential, source.lenient_session)


def _asked(
    request: Request, source: Source, key: str | None, dedup: DedupWindow | None = None
) -> AdmittedRequest:
    named = request.head.get(b"content-encoding")
    encoding = parse_content_encoding(named)
    return AdmittedRequest(
        request=request,
        origin=origin_of(source),
        encoding=encoding or "identity",
        encoding_name=(named or b"identity").decode("latin-1")[:64].lower(),
        is_plain=encoding is None or encoding == "identity",
        idempotency_key=key,
        received_at_us=now_us(),
        dedup=dedup,
    )


def _refused(request: Request, admission: Admission, is_test: bool) -> Response:
    """400; on the test door the viewer shows what was wrong."""
    if is_test:
        admission.viewer.add(
            number=request.number,
            head=request.head,
            client_address=request.client_address,
            source=None,
            status=400,
            bytes_in=0,
            bytes_raw=0,
            accepted=0,
            rejected=0,
            lines=(),
            line_numbers=(),
            rejects=(),
            warnings=warnings_of(request.head, (), (), 0)
            or ["the path names no key pair of this server"],
        )
    return _answer(400)


def _note(request: Request, admission: Admission, credential: str, status: int, why: str) -> None:
    admission.usage.refuse(
        credential,
        status=status,
        reason=why,
        address=request.client_address,
        path=request.head.path,
    )


def counts_response(accepted: int, rejected: int) -> Response:
    """The answer to a request whose every line was classified."""
    return _answer(200, _counts(accepted, rejected))


def overloaded_response(retry_after_s: int) -> Response:
    return _answer(503, retry_after_s=retry_after_s)


def _counts(accepted: int, rejected: int) -> Headers:
    return (
        (b"Ingester-Accepted", b"%d" % accepted),
        (b"Ingester-Rejected", b"%d" % rejected),
    )


def _answer(
    status: int, headers: Headers = (), *, retry_after_s: int | None = None, close: bool = False
) -> Response:
    if retry_after_s is not None:
        headers += ((b"Retry-After", b"%d" % retry_after_s),)
    return Response(status=status, headers=headers, close=close, door=DOOR)
