"""One connection: requests in order, each read, handled and answered before the next is parsed.

1. Answers leave in the order of the requests; nothing is read from the socket while a handler
   runs, unless it asks through `body.receive`. That is the backpressure towards the client.
2. A request never decides where the next one starts but by its own framing: an unread body is
   read away when that is cheap (it is here, or ≤ 64 KiB are left), else the connection ends.
3. An end that leaves bytes unread is a lingering close (RFC 9112 section 9.6): closing at once
   would reset the connection and could take the answer from the client.
4. No wait has a timer of its own. `deadline` says when the wait under way is over; a reaper
   calls `expire`. It is `NEVER` while a handler runs: a bulk upload that waits is not punished.
   When there is no room for others, `rank` tells how dispensable a connection is.
5. A fault in a handler fails its request, is counted, and is logged without target, headers or
   message: any of them may carry a key.
"""

from __future__ import annotations

import trio

from ingester.actors.intake_shared import NEVER, IntakeShared
from ingester.actors.short_path import ShortPath
from ingester.actors.transport import PlainTransport, Transport, WaitExpired
from ingester.doors.exchange import Request, Response, error_response, without_body
from ingester.errors import (
    BodyTooLarge,
    ClientGone,
    MalformedRequest,
    Overloaded,
    RequestError,
    RequestStalled,
)
from ingester.messages import request_id_text
from ingester.protocol.forwarded import client_address, is_in
from ingester.protocol.http1 import (
    CONTINUE,
    NEED_DATA,
    RequestHead,
    RequestReader,
    response_bytes,
)

__all__ = ["RANK_SLOW", "Connection", "RequestBody"]

# An unread rest of a body that is cheaper to read away than a new connection.
REST_BYTES_MAX = 64 * 1024

# A lingering close reads on for so much and so long. A client that only writes (most libraries
# do, before they look for an answer) gets through with bodies up to this size.
LINGER_BYTES_MAX = 8 * 1024 * 1024
LINGER_S_MAX = 5.0

# Requests or pieces handled without giving way to other tasks.
STREAK_MAX = 16

# With no room for others: a client this late with what it has begun is slow, and a connection that
# rested this long after an answer is closed.
SLOW_S_MIN = 1.0
REST_S_MIN = 5.0
RANK_SILENT, RANK_SLOW, RANK_RESTING = range(3)

# Labels of answers given without a door.
HTTP_DOOR = "http"
PREFLIGHT_DOOR = "preflight"


class RequestBody:
    """The body of one request; the `BodyStream` its handler sees."""

    __slots__ = (
        "_bytes_max",
        "_connection",
        "_error",
        "_expected_bytes",
        "_reader",
        "_window_bytes",
        "_window_s",
        "continue_wanted",
        "is_open",
        "received_bytes",
    )

    def __init__(self, connection: Connection, reader: RequestReader, head: RequestHead) -> None:
        self._connection = connection
        self._reader = reader
        self._bytes_max = connection.shared.body_bytes_max
        self._expected_bytes = head.content_length or 0
        self._error: RequestError | ClientGone | None = None
        self._window_bytes = 0
        self._window_s = 0.0
        self.continue_wanted = head.expect_continue
        self.is_open = True
        self.received_bytes = 0

    @property
    def failed(self) -> bool:
        """Reading ended by an error: nothing more of this connection can be understood."""
        return self._error is not None

    def whole_nowait(self) -> bytes | None:
        if self.received_bytes or not self.is_open:
            return None
        whole = self._reader.take_whole(self._bytes_max)
        if whole:
            self.received_bytes = len(whole)
        return whole

    async def receive(self) -> bytes:
        assert self.is_open, "a body is read only while its handler runs"
        if self._error is not None:
            raise self._error
        try:
            return await self._receive()
        except (RequestError, ClientGone) as error:
            self._error = error
            raise

    async def _receive(self) -> bytes:
        if self._bytes_max and self._expected_bytes > self._bytes_max:
            raise self._too_large()
        reader = self._reader
        while not reader.between_messages:
            event = reader.next_event()
            if isinstance(event, bytes):
                self.received_bytes += len(event)
                if self._bytes_max and self.received_bytes > self._bytes_max:
                    raise self._too_large()
                return event
            if event is NEED_DATA:
                await self._fill()
        return b""

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(
            f"the body is larger than {self._bytes_max} bytes; split it into several requests"
        )

    def is_slow(self) -> bool:
        """Whether the wait under way brings less than the minimum rate."""
        shared = self._connection.shared
        waits_s = max(0.0, shared.stall_s - (self._connection.deadline - shared.now_s))
        window_s = self._window_s + waits_s
        rate = max(1, shared.bytes_per_second_min)
        return window_s >= SLOW_S_MIN and self._window_bytes < rate * window_s

    async def _fill(self) -> None:
        """Read once from the client; the stall timer and the minimum rate apply here only."""
        connection = self._connection
        if self.continue_wanted:
            self.continue_wanted = False
            await connection.send(CONTINUE)
        data = await connection.receive_without_waiting()
        if data is None:
            started_s = trio.current_time()
            data = await connection.receive_until(connection.shared.stall_s)
            if data is None:
                if connection.is_unwanted:
                    raise self._stalled("the body arrives below the minimum rate")
                raise self._stalled("the sender stopped before the body was whole")
            self._window_s += trio.current_time() - started_s
        if not data:
            raise ClientGone("the connection ended inside a body")
        self._reader.receive_data(data)
        self._window_bytes += len(data)
        if self._window_s >= connection.shared.stall_s:
            if self._window_bytes < connection.shared.bytes_per_second_min * self._window_s:
                raise self._stalled("the body arrives below the minimum rate")
            self._window_bytes = 0
            self._window_s = 0.0

    def _stalled(self, sentence: str) -> RequestStalled:
        self._connection.shared.stalls += 1
        return RequestStalled(sentence)


class Connection:
    """One client's connection. `run` serves it to its end and closes the transport."""

    __slots__ = (
        "_address",
        "_behind_proxy",
        "_body",
        "_listener",
        "_reader",
        "_short_path",
        "_since_s",
        "_streak",
        "_transport",
        "deadline",
        "has_sent",
        "is_idle",
        "is_unwanted",
        "shared",
    )

    def __init__(
        self, transport: Transport, address: str, listener: str, shared: IntakeShared
    ) -> None:
        self.shared = shared
        self.deadline = NEVER
        self.is_idle = False  # waiting for the first byte of a head
        self.has_sent = False  # a whole head
        self.is_unwanted = False  # it has to make room
        self._since_s = shared.now_s  # what it is at began: the connection, a head
        self._body: RequestBody | None = None
        self._transport = transport
        self._address = address
        self._listener = listener
        self._reader = RequestReader(shared.limits, shared.heads)
        self._behind_proxy = bool(shared.trusted) and is_in(address, shared.trusted)
        self._streak = 0
        self._short_path: ShortPath | None = None
        shortcut = shared.shortcuts.get(listener)
        if shortcut is not None and isinstance(transport, PlainTransport):
            self._short_path = ShortPath(self, transport, shortcut, shared)

    def expire(self) -> None:
        """End the wait under way; called by the reaper."""
        self._transport.interrupt()

    def end_if_idle(self) -> None:
        """End a wait for the next request, now or at the next tick."""
        if self.is_idle:
            # TLS gives way before it waits, and then there is no wait to end yet.
            self.deadline = self.shared.now_s
            self.expire()

    def rank(self) -> tuple[int, float] | None:
        """The least goes first when there is no room; None: it is needed.

        Those who have never sent anything, those who are slow with what they began, those who
        rest; of each kind the longest waiting.
        """
        if self.deadline == NEVER or self.is_unwanted:
            return None
        now_s = self.shared.now_s
        if self.is_idle:
            if not self.has_sent:
                return RANK_SILENT, self.deadline
            rests_s = self.shared.keep_alive_s - (self.deadline - now_s)
            return (RANK_RESTING, self.deadline) if rests_s >= REST_S_MIN else None
        body = self._body
        is_slow = (
            body.is_slow()
            if body is not None and body.is_open
            else now_s - self._since_s >= SLOW_S_MIN
        )
        return (RANK_SLOW, self._since_s) if is_slow else None

    def make_room(self) -> None:
        """End the wait under way, and with it the connection."""
        self.is_unwanted = True
        # TLS gives way before it waits, and then there is no wait to end yet.
        self.deadline = self.shared.now_s
        self.expire()

    async def run(self) -> None:
        """Serve until either side ends it."""
        try:
            self.deadline = self.shared.deadline_in(self.shared.stall_s)
            await self._transport.handshake()
            await self._serve()
        except ClientGone:
            pass
        except WaitExpired:
            self.shared.stalls += 1  # the handshake took too long
        finally:
            self._transport.close()

    async def _serve(self) -> None:
        reader = self._reader
        # A new client has only the stall time to begin; one that sent a request may stay idle.
        idle_s = self.shared.stall_s
        while True:
            try:
                head = reader.next_event()
            except MalformedRequest as error:
                await self._refuse(error_response(error.status_hint, str(error)))
                return
            if isinstance(head, RequestHead):
                self.deadline = NEVER
                self.has_sent = True
                if not await self._exchange(head):
                    return
                idle_s = self.shared.keep_alive_s
                self._streak += 1
                if self._streak >= STREAK_MAX:
                    self._streak = 0
                    await trio.lowlevel.checkpoint()
                continue
            if not await self._receive_head(idle_s):
                return

    async def _receive_head(self, idle_s: float) -> bool:
        """Read once more towards a head; False when the connection ends here."""
        shared = self.shared
        started = self._reader.has_buffered
        if not started:
            if shared.draining:
                return False
            self.deadline = shared.deadline_in(idle_s)
            self.is_idle = True
        elif self.deadline == NEVER:
            self.deadline = shared.deadline_in(shared.stall_s)
        short_path = None if started else self._short_path
        try:
            if short_path is not None:
                data = await short_path.rest()
            else:
                data = await self._transport.receive()
        except WaitExpired:
            if started:
                shared.stalls += 1
                await self._refuse(error_response(408, "the request head did not arrive in time"))
                return False
            # Drain meets a request that is here but was not seen yet: it is served.
            data = self._transport.receive_nowait() or b""
        finally:
            self.is_idle = False
        if short_path is not None and short_path.is_over:
            await self._finish(unread=False)
            return False
        if not data:
            return False
        if not started:
            self.deadline = NEVER
            self._since_s = shared.now_s
        shared.received_bytes += len(data)
        self._reader.receive_data(data)
        self._streak = 0
        return True

    async def _exchange(self, head: RequestHead) -> bool:
        """Handle and answer one request; whether the connection goes on."""
        shared = self.shared
        reader = self._reader
        number = shared.next_number()
        self._body = body = RequestBody(self, reader, head)
        address = self.client_address(head)
        preflight = shared.cors.preflight(head) if shared.cors is not None else None
        try:
            if preflight is None:
                request = Request(head, number, address, self._listener, body)
                response = await shared.handler(request)
            else:
                response = Response(204, headers=preflight, door=PREFLIGHT_DOOR)
        except ClientGone:
            shared.gone += 1
            return False
        except Exception as error:
            answer = self.answer_to(error, number, head.path)
            if answer is None:
                shared.gone += 1
                return False
            response = answer
        body.is_open = False
        self._body = None

        keep_alive = head.keep_alive and not response.close and not shared.draining
        if reader.between_messages or (not body.failed and reader.discard_buffered()):
            rest = False
        else:
            rest = True
            keep_alive = keep_alive and self._rest_is_cheap(body)
        await self._send_response(head, response, number, keep_alive)
        if not keep_alive:
            await self._finish(unread=rest)
            return False
        return not rest or await self._read_rest()

    def client_address(self, head: RequestHead) -> str:
        """Who sends a request: the peer, or whom trusted proxies name."""
        if not self._behind_proxy:
            return self._address
        values = (value for name, value in head.headers if name == b"x-forwarded-for")
        return client_address(self._address, values, self.shared.trusted)

    def _rest_is_cheap(self, body: RequestBody) -> bool:
        """Whether reading the unread rest away keeps the connection usable.

        A client that still waits for `100 Continue` may send the body or not: nobody can know.
        """
        remaining_bytes = self._reader.remaining_bytes
        return (
            not body.failed
            and not body.continue_wanted
            and remaining_bytes is not None
            and remaining_bytes <= REST_BYTES_MAX
        )

    async def _read_rest(self) -> bool:
        while not self._reader.discard_buffered():
            data = await self.receive_until(self.shared.stall_s)
            if not data:
                return False
            self._reader.receive_data(data)
        return True

    def answer_to(self, error: Exception, number: int, path: str) -> Response | None:
        """The answer to what a handler raised; None when the client is gone."""
        answer = self._answer_to(error, number)
        return None if answer is None else without_body(path, answer)

    def _answer_to(self, error: Exception, number: int) -> Response | None:
        while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]  # raised through a nursery of the handler's own
        if isinstance(error, ClientGone):
            return None
        if isinstance(error, Overloaded):
            return error_response(503, str(error), retry_after_s=error.retry_after_s)
        if isinstance(error, RequestError):
            close = isinstance(error, MalformedRequest | RequestStalled)
            return error_response(error.status_hint, str(error), close=close)
        self.shared.count_fault("request_failed", error, request_id=request_id_text(number))
        return error_response(500, "internal error")

    async def _send_response(
        self, head: RequestHead, response: Response, number: int, keep_alive: bool
    ) -> None:
        shared = self.shared
        headers = response.headers
        if shared.cors is not None and response.door != PREFLIGHT_DOOR:
            headers = (*headers, *shared.cors.headers(head))
        data = response_bytes(
            response.status,
            headers,
            response.body,
            keep_alive=keep_alive,
            minor_version=head.minor_version,
            head_only=head.method == "HEAD",
            first_lines=shared.first_lines_of(response, number),
        )
        shared.count_answer(response.door, response.status)
        await self.send(data)

    async def _refuse(self, response: Response) -> None:
        """Answer what never became a request, and end the connection."""
        shared = self.shared
        shared.count_answer(HTTP_DOOR, response.status)
        response = without_body(self._reader.path_ahead(), response)
        await self.send(
            response_bytes(
                response.status,
                response.headers,
                response.body,
                keep_alive=False,
                first_lines=shared.first_lines_of(response, shared.next_number()),
            )
        )
        await self._finish(unread=True)

    async def _finish(self, *, unread: bool) -> None:
        """Close so that the client can read the last answer, also when it is still sending."""
        transport = self._transport
        if self.is_unwanted:
            return  # it has a place that others need
        if not unread and not self._reader.has_buffered and not transport.receive_nowait():
            return
        transport.shut_sending()
        self.deadline = self.shared.deadline_in(LINGER_S_MAX)
        left_bytes = LINGER_BYTES_MAX
        try:
            while left_bytes > 0 and (dropped_bytes := await transport.discard()):
                left_bytes -= dropped_bytes
        except WaitExpired:
            pass

    async def send(self, data: bytes) -> None:
        """Send all of it; a client that does not read it in time is gone."""
        shared = self.shared
        self.deadline = shared.deadline_in(shared.stall_s)
        try:
            await self._transport.send(data)
        except WaitExpired:
            shared.stalls += 1
            raise ClientGone("the client does not read its answer") from None
        self.deadline = NEVER
        shared.sent_bytes += len(data)

    async def receive_until(self, seconds: float) -> bytes | None:
        """The next bytes; b"" at their end, None when they did not come in time."""
        self.deadline = self.shared.deadline_in(seconds)
        try:
            data = await self._transport.receive()
        except WaitExpired:
            return None
        finally:
            self.deadline = NEVER
        self.shared.received_bytes += len(data)
        return data

    async def receive_without_waiting(self) -> bytes | None:
        """The next bytes when they are here already; gives way now and then."""
        data = self._transport.receive_nowait()
        if data:
            self.shared.received_bytes += len(data)
            self._streak += 1
            if self._streak >= STREAK_MAX:
                self._streak = 0
                await trio.lowlevel.checkpoint()
        return data
