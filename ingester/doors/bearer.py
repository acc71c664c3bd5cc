"""What the doors with bearer keys have in common: key, quota, encoding, one answer to each error.

A door gives its name, which keys open it, what a request becomes (`admit`) and what is answered
when it is stored (`answer`). Errors are `{"error": "<sentence>"}`, 429 with `retryAfter` beside it
(contract 3). What is checked comes in this order: method, key, quota, encoding, the door's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from ..errors import (
    ClientGone,
    MalformedRequest,
    Overloaded,
    RequestError,
    RequestStalled,
    StoreFailed,
    Unauthorized,
    UnsupportedEncoding,
)
from ..messages import Credential, CredentialKind, QuotaErrorBody
from ..protocol.forms import Origin
from ..protocol.inflate import parse_content_encoding
from .admission import Admission
from .auth import authenticate, maybe_credential, refusal_response
from .bulk_lane import RefusedBy
from .dedup import DedupWindow
from .exchange import JSON_TYPE, Request, Response, error_response
from .once import Stored, idempotency_key, queryable_headers, receive_once
from .receive import AdmittedRequest, now_us

__all__ = ["Admitted", "BearerDoor", "error_answer", "json_response", "serve", "stored_response"]

_RETRY_AFTER_408_S = 1

Headers = tuple[tuple[bytes, bytes], ...]


class Admitted(Struct, frozen=True):
    """What a door makes of a request whose key is good."""

    origin: Origin
    refused_by: RefusedBy = "nothing"
    dedup: DedupWindow | None = None


class BearerDoor(Struct, frozen=True):
    """`admit` raises RequestError for what the door does not take. `answer` gives the body of a
    200; `refusal` may give another answer to an error than the sentence alone.
    """

    name: str
    kinds: tuple[CredentialKind, ...]
    methods: tuple[str, ...]
    admit: Callable[[Request, Credential, Admission], Admitted]
    answer: Callable[[AdmittedRequest, Stored], bytes]
    refusal: Callable[[AdmittedRequest, RequestError], Response | None] = lambda _, __: None


async def serve(request: Request, admission: Admission, door: BearerDoor) -> Response:
    """One request of `door`."""
    response = await _serve(request, admission, door)
    response.door = door.name
    return response


async def _serve(request: Request, admission: Admission, door: BearerDoor) -> Response:
    head = request.head
    if head.method not in door.methods:
        allowed = ", ".join(door.methods)
        refused = error_response(405, f"{head.path} answers {allowed}")
        refused.headers += ((b"Allow", allowed.encode()), *_quota_told(request, admission, door))
        return refused
    try:
        credential = await authenticate(request, admission, kinds=door.kinds)
    except Unauthorized as error:
        return refusal_response(error)
    headers: Headers = ()
    if credential.requests_per_hour:
        limit = credential.requests_per_hour
        quota = admission.quotas.count(credential.credential, limit, time.time())
        headers = quota.headers()
        if quota.is_over:
            sentence = f"over the quota of {limit} requests an hour"
            note_refusal(request, admission, credential, 429, sentence)
            document = QuotaErrorBody(error=sentence, retryAfter=quota.retry_after_s)
            retry_after = (b"Retry-After", b"%d" % quota.retry_after_s)
            return json_response(429, document, (*headers, retry_after))
    if head.method == "HEAD":
        return _probe(request, admission, door, credential, headers)
    return await _receive(request, admission, door, credential, headers)


def _quota_told(request: Request, admission: Admission, door: BearerDoor) -> Headers:
    """A limited key is told where it stands on every answer, also on one that asks for no key."""
    credential = maybe_credential(request.head, admission.keys, kinds=door.kinds)
    if credential is None or not credential.requests_per_hour:
        return ()
    limit = credential.requests_per_hour
    return admission.quotas.told(credential.credential, limit, time.time()).headers()


def _probe(
    request: Request,
    admission: Admission,
    door: BearerDoor,
    credential: Credential,
    headers: Headers,
) -> Response:
    """HEAD: whether a request to this address would be taken; nothing is."""
    try:
        door.admit(request, credential, admission)
    except RequestError as error:
        note_refusal(request, admission, credential, error.status_hint, str(error))
        response = error_answer(error)
        response.headers += headers
        return response
    admission.usage.count(credential.credential, address=request.client_address)
    return Response(status=200, headers=(*Stored(0, 0, 0, 0).headers(), *headers))


async def _receive(
    request: Request,
    admission: Admission,
    door: BearerDoor,
    credential: Credential,
    headers: Headers,
) -> Response:
    asked: AdmittedRequest | None = None
    try:
        asked = _asked(request, door.admit(request, credential, admission))
        stored = await receive_once(asked, admission)
    except Overloaded as error:
        admission.usage.count(credential.credential, address=request.client_address)
        response = error_response(503, str(error), retry_after_s=error.retry_after_s)
    except RequestError as error:
        note_refusal(request, admission, credential, error.status_hint, str(error))
        own = door.refusal(asked, error) if asked is not None else None
        response = own or error_answer(error)
    except StoreFailed as error:
        # Whether it was stored could not be found out: any answer might be wrong.
        admission.fail()
        raise ClientGone("unanswered on purpose") from error
    else:
        response = stored_response(door.answer(asked, stored), stored)
        headers += await queryable_headers(request.head, admission, stored)
    response.headers += headers
    return response


def _asked(request: Request, admitted: Admitted) -> AdmittedRequest:
    named = request.head.get(b"content-encoding")
    encoding = parse_content_encoding(named)
    if encoding is None:
        raise UnsupportedEncoding(
            "this Content-Encoding is not decoded here; send gzip, deflate, zstd or identity"
        )
    return AdmittedRequest(
        request=request,
        origin=admitted.origin,
        encoding=encoding,
        encoding_name=(named or b"identity").decode("latin-1")[:64].lower(),
        is_plain=encoding == "identity",
        idempotency_key=idempotency_key(request.head),
        received_at_us=now_us(),
        refused_by=admitted.refused_by,
        dedup=admitted.dedup,
    )


def note_refusal(
    request: Request, admission: Admission, credential: Credential, status: int, why: str
) -> None:
    admission.usage.refuse(
        credential.credential,
        status=status,
        reason=why,
        address=request.client_address,
        path=request.head.path,
    )


def error_answer(error: RequestError) -> Response:
    """The sentence, and what the status asks for beside it."""
    status = error.status_hint
    is_broken = isinstance(error, MalformedRequest | RequestStalled)
    response = error_response(
        status,
        str(error),
        retry_after_s=_RETRY_AFTER_408_S if status == 408 else None,
        close=is_broken,
    )
    if status == 415:
        response.headers += ((b"Accept-Encoding", b"gzip, deflate, zstd"),)
    return response


def stored_response(body: bytes, stored: Stored) -> Response:
    """200 with the counts in headers; a repeat carries the first request's id."""
    return Response(
        status=200,
        body=body,
        content_type=JSON_TYPE,
        headers=stored.headers(),
        request_number=stored.request_number,
    )


def json_response(status: int, document: Any, headers: Headers = ()) -> Response:
    return Response(
        status=status, body=msgspec.json.encode(document), content_type=JSON_TYPE, headers=headers
    )
