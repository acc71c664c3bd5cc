"""One HTTP/1.1 connection for POSTs with a body in memory; h11 over trio.

The answer is read while the body is still being sent: a server that refuses early (413, 503, a
wrong key) is heard, where a client that only writes would see a broken pipe.

Invariants:

1. One request at a time. After an answer that came before the body was sent, or any error, the
   connection is closed; the next request opens a new one.
2. A request is over when an answer is complete, the peer is gone, or nothing moved in either
   direction for `silence_seconds`.
3. An answer's body is kept up to `_ANSWER_BYTES_MAX`; more is read and dropped.

Does not follow redirects, retry, or speak HTTP/2; retries are for the caller, who knows whether
the request may be repeated.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import h11
import trio
from msgspec import Struct

from ingester.errors import IngesterError

__all__ = ["Answer", "Connection", "ConnectionFailed", "Target", "parse_target"]

_ANSWER_BYTES_MAX = 64 * 1024
_RECEIVE_BYTES = 64 * 1024
# Large pieces of a body are cut, so that progress moves and silence is measured.
_SEND_BYTES = 256 * 1024

CONNECT_SECONDS_MAX = 30.0


class ConnectionFailed(IngesterError):
    """No answer: not reachable, gone, silent, or not HTTP.

    `reached` tells whether a connection stood; `final` that another attempt would fail the same
    way (a certificate that is not trusted).
    """

    def __init__(self, detail: str, *, reached: bool, final: bool = False) -> None:
        super().__init__(detail)
        self.reached = reached
        self.final = final


class Target(Struct, frozen=True, kw_only=True):
    """Where a URL leads, and the bearer key that opens it, if any. `path` too may hold keys: never
    print it.
    """

    tls: bool
    host: str
    port: int
    path: str
    token: str = ""

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.authority}"

    def __repr__(self) -> str:
        return f"Target({self.origin}/…)"


class Answer(Struct, frozen=True, kw_only=True):
    """A whole answer; header names are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes


def parse_target(url: str) -> Target | None:
    """An absolute http(s) URL as its parts; None when it is not one."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        return None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not path.isascii() or any(character <= " " for character in path):
        return None
    tls = parts.scheme == "https"
    return Target(tls=tls, host=parts.hostname, port=port or (443 if tls else 80), path=path)


class Connection:
    """A connection that is opened when first needed and kept while the server keeps it."""

    def __init__(
        self,
        target: Target,
        *,
        tls: ssl.SSLContext | None = None,
        silence_seconds: float,
    ) -> None:
        self._target = target
        self._tls = tls
        self._silence_seconds = silence_seconds
        self._stream: trio.abc.Stream | None = None
        self._protocol = h11.Connection(h11.CLIENT)
        self._used = False

    async def post(
        self,
        body: Sequence[bytes],
        headers: Sequence[tuple[str, str]],
        *,
        path: str = "",
        sent: Callable[[int], None] = lambda sent_bytes: None,
    ) -> Answer:
        """Send one POST; `sent` hears how many body bytes are out, 0 when it starts over."""
        reused = self._stream is not None and self._used
        try:
            return await self._exchange(body, headers, path or self._target.path, sent)
        except ConnectionFailed:
            if not reused:
                raise
        # A kept connection may have been closed by the server while it was idle.
        sent(0)
        return await self._exchange(body, headers, path or self._target.path, sent)

    async def aclose(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await trio.aclose_forcefully(stream)

    async def _exchange(
        self,
        body: Sequence[bytes],
        headers: Sequence[tuple[str, str]],
        path: str,
        sent: Callable[[int], None],
    ) -> Answer:
        stream = await self._open()
        head = h11.Request(
            method="POST",
            target=path,
            headers=[
                ("Host", self._target.authority),
                ("User-Agent", "ingester-upload"),
                ("Content-Length", str(sum(map(len, body)))),
                *headers,
            ],
        )
        answer: Answer | None = None
        body_sent = False
        try:
            with trio.move_on_after(self._silence_seconds) as silence:

                async def send_all() -> None:
                    nonlocal body_sent
                    body_sent = await self._send(stream, head, body, sent, silence)

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(send_all)
                    answer = await self._receive(stream, silence)
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            await self.aclose()
            if (failed := group.subgroup(ConnectionFailed)) is not None:
                raise failed.exceptions[0] from group
            raise
        except BaseException:
            await self.aclose()
            raise
        if answer is None:
            await self.aclose()
            raise ConnectionFailed(f"nothing moved for {self._silence_seconds:g} s", reached=True)
        await self._finish(keep=body_sent)
        return answer

    async def _open(self) -> trio.abc.Stream:
        if self._stream is not None:
            return self._stream
        target = self._target
        try:
            with trio.fail_after(CONNECT_SECONDS_MAX):
                stream: trio.abc.Stream = await trio.open_tcp_stream(target.host, target.port)
                if target.tls:
                    context = self._tls or ssl.create_default_context()
                    secure = trio.SSLStream(
                        stream, context, server_hostname=target.host, https_compatible=True
                    )
                    try:
                        await secure.do_handshake()
                    except BaseException:
                        await trio.aclose_forcefully(stream)
                        raise
                    stream = secure
        except trio.TooSlowError as error:
            raise ConnectionFailed(f"{target.origin} does not answer", reached=False) from error
        except trio.BrokenResourceError as error:
            cause = error.__cause__
            untrusted = isinstance(cause, ssl.SSLCertVerificationError)
            advice = "; SSL_CERT_FILE names a file of trusted certificates" if untrusted else ""
            raise ConnectionFailed(
                f"TLS with {target.origin} failed: {cause or error}{advice}",
                reached=False,
                final=untrusted,
            ) from error
        except OSError as error:
            raise ConnectionFailed(
                f"{target.origin} is not reachable: {_reason(error)}", reached=False
            ) from error
        self._protocol = h11.Connection(h11.CLIENT)
        self._used = False
        self._stream = stream
        return stream

    async def _send(
        self,
        stream: trio.abc.Stream,
        head: h11.Request,
        body: Sequence[bytes],
        sent: Callable[[int], None],
        silence: trio.CancelScope,
    ) -> bool:
        """True when everything went out. A broken pipe is left to the reader to explain."""
        protocol = self._protocol
        sent_bytes = 0
        try:
            await stream.send_all(protocol.send(head) or b"")
            for piece in body:
                for start in range(0, len(piece), _SEND_BYTES):
                    part = piece[start : start + _SEND_BYTES]
                    for data in protocol.send_with_data_passthrough(h11.Data(data=part)) or ():
                        await stream.send_all(data)
                    sent_bytes += len(part)
                    sent(sent_bytes)
                    silence.deadline = trio.current_time() + self._silence_seconds
            protocol.send(h11.EndOfMessage())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return True

    async def _receive(self, stream: trio.abc.Stream, silence: trio.CancelScope) -> Answer:
        status = 0
        headers: dict[str, str] = {}
        content = bytearray()
        protocol = self._protocol
        while True:
            try:
                event = protocol.next_event()
                if event is h11.NEED_DATA:
                    data = await stream.receive_some(_RECEIVE_BYTES)
                    silence.deadline = trio.current_time() + self._silence_seconds
                    if not data and not status:
                        raise ConnectionFailed(
                            "the server closed the connection without an answer", reached=True
                        )
                    protocol.receive_data(bytes(data))
                    continue
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise ConnectionFailed("the connection broke", reached=True) from error
            except h11.RemoteProtocolError as error:
                raise ConnectionFailed(f"the answer is not HTTP: {error}", reached=True) from error
            if isinstance(event, h11.Response):
                status = event.status_code
                headers = {
                    name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers
                }
            elif isinstance(event, h11.Data):
                content += event.data[: _ANSWER_BYTES_MAX - len(content)]
            elif isinstance(event, h11.EndOfMessage):
                return Answer(status=status, headers=headers, body=bytes(content))
            elif isinstance(event, h11.ConnectionClosed):
                raise ConnectionFailed("the server closed the connection", reached=True)

    async def _finish(self, *, keep: bool) -> None:
        protocol = self._protocol
        if keep and protocol.our_state is h11.DONE and protocol.their_state is h11.DONE:
            protocol.start_next_cycle()
            self._used = True
        else:
            await self.aclose()


def _reason(error: OSError) -> str:
    """What the system said; trio puts the attempts (one per address) behind its own sentence."""
    cause: BaseException | None = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    reason = cause if isinstance(cause, OSError) else error
    if reason.errno is not None and reason.errno > 0:  # getaddrinfo's own numbers are negative
        return os.strerror(reason.errno)
    return reason.strerror or str(reason)
