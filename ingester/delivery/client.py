"""The HTTP client of one destination: one exchange in bounded time, memory and trust.

1. From resolving the name to the last byte that is read an exchange takes at most the deadline.
2. Of the answer at most `ANSWER_BYTES_MAX` are read; then the connection is closed.
3. The status decides. What goes wrong after a 2xx status line and headers is no failure: the
   receiver has told that it has it.
4. Redirects are not followed, environment proxies not used, connections go through `ssrf`.
5. An error's sentence holds no secret, and no URL (it may hold one).
"""

from __future__ import annotations

import base64
import gzip
import os
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Self

import httpcore2
import trio

import ingester
from ingester.delivery.addresses import Network
from ingester.delivery.exchange import Exchange, Target
from ingester.delivery.settings import (
    CREDENTIAL_HEADERS,
    REDACTED,
    DestinationSettings,
    decoded_user_info,
    target_url,
)
from ingester.delivery.signing import signature_headers
from ingester.delivery.ssrf import AddressRefused, CheckedBackend, Resolve, make_resolve

__all__ = ["ANSWER_BYTES_MAX", "Client", "make_tls_context"]

ANSWER_BYTES_MAX = 64 * 1024
CONNECTIONS_MAX = 8

# A connection at rest that the receiver closes at the same moment would cost a retry: most
# servers keep theirs 5 s or more.
_KEEP_ALIVE_SECONDS = 2.0

# For the body of an answer whose status has come.
_ANSWER_SECONDS_MAX = 5.0

_DROPPED_HEADERS = frozenset({"accept-encoding", "content-type", "content-encoding"})

_USER_AGENT = f"ingester/{ingester.__version__}"


def make_tls_context(ca_file: str = "") -> ssl.SSLContext:
    """The system's certificates, and those of a file beside them."""
    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(cafile=ca_file)
    return context


class Client:
    """Connections to one destination. Use it as a context manager."""

    def __init__(
        self,
        target: Target,
        *,
        allow_networks: Callable[[], Sequence[Network]],
        tls: ssl.SSLContext,
        resolve: Resolve | None = None,
        network: httpcore2.AsyncNetworkBackend | None = None,
    ) -> None:
        self._target = target
        self._url = target_url(target.type, target.settings)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=CONNECTIONS_MAX,
            keepalive_expiry=_KEEP_ALIVE_SECONDS,
            network_backend=CheckedBackend(
                allow_networks, resolve or make_resolve(), network=network
            ),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        # No call here needs the network's consent: what is open is closed.
        with trio.CancelScope(shield=True), trio.move_on_after(1):
            await self._pool.aclose()

    async def send(self, event_id: str, body: bytes, *, seconds_max: float) -> Exchange:
        """One attempt. Raises nothing but bugs and cancellation."""
        started = time.monotonic()
        status: int | None = None
        headers: dict[str, str] = {}
        answer = bytearray()
        error: str | None = None
        sent_headers, content = self._request(event_id, body)
        with trio.move_on_after(seconds_max) as deadline:
            try:
                async with self._pool.stream(
                    "POST", self._url, headers=sent_headers, content=content
                ) as response:
                    headers = _decoded(response.headers)
                    status = response.status
                    with trio.move_on_after(_ANSWER_SECONDS_MAX):
                        await _read(response, answer)
            except AddressRefused as refused:
                error = str(refused)
            except (httpcore2.NetworkError, httpcore2.TimeoutException) as failure:
                error = _sentence(failure)
            except httpcore2.ProtocolError as failure:
                error = f"the answer is no HTTP/1.1: {failure}"
            except (OSError, ssl.SSLError) as failure:
                error = _sentence(failure)
        if status is not None:
            error = None
        elif deadline.cancelled_caught:
            error = f"no answer within {seconds_max:g} s"
        return Exchange(
            status=status,
            headers=headers,
            answer=_masked(bytes(answer), self._target.settings),
            latency_ms=(time.monotonic() - started) * 1000,
            error=error,
            sent_headers=[
                (name, REDACTED if name.lower() in CREDENTIAL_HEADERS else value)
                for name, value in sent_headers
            ],
        )

    def _request(self, event_id: str, body: bytes) -> tuple[list[tuple[str, str]], bytes]:
        settings = self._target.settings
        own = _own_headers(settings)
        headers = [("Accept-Encoding", "identity"), ("Content-Type", "application/json")]
        if not any(name.lower() == "user-agent" for name, _ in own):
            headers.append(("User-Agent", _USER_AGENT))
        content = body
        if self._target.type == "incident_io":
            headers.append(("Authorization", f"Bearer {settings.api_token}"))
        else:
            now_s = time.time()
            headers += signature_headers(
                event_id, body, signed_at_s=now_s, secrets=settings.secrets(now_s)
            )
            headers += own
            if settings.gzip:
                # Without a time in it: the same bytes for every attempt.
                content = gzip.compress(body, mtime=0)
                headers.append(("Content-Encoding", "gzip"))
        headers.append(("Content-Length", str(len(content))))
        return headers, content


def _own_headers(settings: DestinationSettings) -> list[tuple[str, str]]:
    own = [
        (name, value)
        for name, value in (settings.headers or {}).items()
        if name.lower() not in _DROPPED_HEADERS
    ]
    info = decoded_user_info(settings.url or "")
    if info is not None and not any(name.lower() == "authorization" for name, _ in own):
        own.append(("Authorization", f"Basic {base64.b64encode(info.encode()).decode()}"))
    return own


def _masked(answer: bytes, settings: DestinationSettings) -> bytes:
    """A receiver that repeats what it was sent must not bring our secrets into the log."""
    info = decoded_user_info(settings.url or "")
    hidden = [
        settings.api_token,
        info,
        None if info is None else base64.b64encode(info.encode()).decode(),
        *(
            value
            for name, value in (settings.headers or {}).items()
            if name.lower() in CREDENTIAL_HEADERS
        ),
    ]
    for secret in hidden:
        if secret:
            answer = answer.replace(secret.encode(), REDACTED.encode())
    return answer


async def _read(response: httpcore2.Response, answer: bytearray) -> None:
    async with aclosing(response.aiter_stream()) as pieces:
        async for piece in pieces:
            answer += piece[: ANSWER_BYTES_MAX - len(answer)]
            if len(answer) >= ANSWER_BYTES_MAX:
                return


def _decoded(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}


def _sentence(failure: BaseException) -> str:
    """The innermost reason: `Connection refused`, a certificate's fault."""
    cause: BaseException | None = failure
    text = str(failure)
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"TLS: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS: {cause.reason or cause}"
        if isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
            text = os.strerror(cause.errno)
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        else:
            cause = cause.__cause__ or cause.__context__
    return text or _NAMES.get(type(failure), type(failure).__name__)


_NAMES: Mapping[type[BaseException], str] = {
    httpcore2.ConnectTimeout: "no connection within its time",
    httpcore2.ReadError: "the connection was closed before an answer",
    httpcore2.WriteError: "the connection was closed while sending",
}
