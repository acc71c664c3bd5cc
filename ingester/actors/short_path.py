"""Short path: a resting connection serves the usual small request without waking its task.

Waking a task, and waking it again when the journal has synced, is about half of what a single event
costs the main thread (measured 2026-11-21, busy machine: 61 µs with it, 32 in the way that follows,
which also parses less). So while the task rests between requests,
`Readiness` calls in here: when one read brought exactly one whole request, under a head that was
parsed before, and the shortcut takes it, the answer is sent from the call that settles its journal
group. Everything else is given to the task as it was read, and takes the long way.

1. A head is known by its exact bytes (`HeadCache`): nothing unparsed is ever trusted here.
2. One request at a time: what comes while one is in flight is not read before it is answered.
3. The task is woken to send what the kernel did not take, to end the connection, or to read on;
   never while a request is in flight. A task that was cancelled meanwhile hears no answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingester.actors.intake_shared import NEVER, IntakeShared
from ingester.actors.transport import PlainTransport
from ingester.doors.exchange import Response, Shortcut
from ingester.errors import ClientGone

if TYPE_CHECKING:
    from ingester.actors.connection import Connection

__all__ = ["ShortPath"]


class ShortPath:
    """The part of one plain connection that runs outside its task."""

    __slots__ = (
        "_connection",
        "_in_flight",
        "_is_resting",
        "_is_taking",
        "_left",
        "_number",
        "_shared",
        "_shortcut",
        "_transport",
        "_unsent",
        "is_over",
    )

    def __init__(
        self,
        connection: Connection,
        transport: PlainTransport,
        shortcut: Shortcut,
        shared: IntakeShared,
    ) -> None:
        self._connection = connection
        self._transport = transport
        self._shortcut = shortcut
        self._shared = shared
        self._is_resting = False
        self._in_flight = False
        self._is_taking = False
        self._number = 0
        self._left: bytes | None = None  # read, and the task's to handle
        self._unsent = b""
        self.is_over = False  # an answer has ended the connection
        transport.on_readable = self._on_readable

    async def rest(self) -> bytes:
        """Serve until there is something for the task: bytes to handle, b"" at the end.

        With `is_over` the connection is to be ended after an answer.
        """
        transport = self._transport
        self._is_resting = True
        try:
            while True:
                await transport.wait_readable()
                if self._unsent:
                    unsent, self._unsent = self._unsent, b""
                    await self._connection.send(unsent)
                if self.is_over:
                    return b""
                data, self._left = self._left, None
                if data is None:
                    data = transport.receive_nowait()
                if data is not None:
                    return data
        finally:
            self._is_resting = False

    def _on_readable(self) -> bool:
        """Take what has come; False when the task must see to it."""
        if self._in_flight or not self._is_resting:
            return self._in_flight
        while True:
            try:
                data = self._transport.receive_nowait()
            except ClientGone:
                data = b""
            if data is None:
                return True
            if not self._take(data):
                self._left = data
                return False
            # A refusal is answered at once: go on here, not deeper and deeper in `_answer`.
            if self._in_flight or self.is_over or self._unsent or not self._transport.is_readable:
                return True

    def _take(self, data: bytes) -> bool:
        """Hand one whole request to the shortcut; False when it is not of that kind."""
        shared = self._shared
        body_start = data.find(b"\r\n\r\n") + 4
        head = shared.heads.get(data[:body_start])
        if head is None or head.content_length != len(data) - body_start:
            return False
        take = self._shortcut(head)
        if take is None or shared.draining:
            return False
        shared.received_bytes += len(data)
        connection = self._connection
        connection.is_idle = False
        connection.has_sent = True
        connection.deadline = NEVER
        self._in_flight = self._is_taking = True
        self._number = number = shared.next_number()
        try:
            take(number, connection.client_address(head), data[body_start:], self._answer)
        except Exception as error:
            response = connection.answer_to(error, number, head.path)
            self._answer(Response(503) if response is None else response)
        finally:
            self._is_taking = False
        return True

    def _answer(self, response: Response) -> None:
        """Send the answer to the request in flight, and rest on."""
        assert self._in_flight
        self._in_flight = False
        if not self._is_resting:
            return  # cancelled
        shared, transport, connection = self._shared, self._transport, self._connection
        keep_alive = not (response.close or shared.draining)
        data = shared.answer_bytes(response, self._number, keep_alive=keep_alive)
        shared.count_answer(response.door, response.status)
        try:
            sent_bytes = transport.send_nowait(data)
        except ClientGone:
            keep_alive, sent_bytes = False, len(data)
        if not keep_alive or sent_bytes < len(data):
            self.is_over = not keep_alive
            self._unsent = data[sent_bytes:]
            transport.wake()
            return
        shared.sent_bytes += sent_bytes
        connection.is_idle = True
        connection.deadline = shared.deadline_in(shared.keep_alive_s)
        if not self._is_taking and transport.is_readable and not self._on_readable():
            transport.wake()
