"""A TCP proxy that spoils connections at random bytes, in a thread and an event loop of its own.

What is done to a connection is drawn when it comes: nothing; a reset or a half-close behind so many
bytes of the request; a stall there, for a moment or for good; a drip of single bytes; an answer
that is dropped whole or in the middle, after the server has given it; a request under a key that
arrives twice.
"""

from __future__ import annotations

import queue
import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

__all__ = ["FAULTS", "FlakyProxy", "proxied"]

FAULTS = (
    "none",
    "reset",
    "half-close",
    "stall",
    "stall for good",
    "drip",
    "drop the answer",
    "cut the answer",
    "twice",
)
_MOMENT_S = 0.5
_PIECE_BYTES = 65_536
_DRIPPED_BYTES = 200


@dataclass
class FlakyProxy:
    """Spoils a connection with `chance`; `counts` tells what was done."""

    target: tuple[str, int]
    seed: int
    chance: float = 0.8
    # How many bytes pass before something happens: up to so many, the small ones more often.
    bytes_max: int = 2_000_000
    address: tuple[str, int] = ("", 0)
    counts: Counter[str] = field(default_factory=Counter)
    _serial: int = 0

    async def serve(self, task_status: trio.TaskStatus[None]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.address = listeners[0].socket.getsockname()[:2]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self._one, listeners)
            task_status.started()

    async def _one(self, client: trio.SocketStream) -> None:
        self._serial += 1
        rng = random.Random(f"{self.seed} {self._serial}")
        fault = rng.choice(FAULTS[1:]) if rng.random() < self.chance else "none"
        self.counts[fault] += 1
        at = int(self.bytes_max ** rng.random())
        try:
            async with (
                client,
                await trio.open_tcp_stream(*self.target) as server,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(self._back, client, server, fault, rng, nursery)
                await self._forth(client, server, fault, at, nursery)
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # either side has had enough

    async def _forth(
        self,
        client: trio.SocketStream,
        server: trio.SocketStream,
        fault: str,
        at: int,
        nursery: trio.Nursery,
    ) -> None:
        """The request, up to byte `at` as it is."""
        passed = 0
        first = b""
        while data := await client.receive_some(_PIECE_BYTES):
            if fault == "twice" and not first and b"Idempotency-Key:" in data:
                first = data
                nursery.start_soon(self._again, data)
            if fault in {"none", "twice"} or "answer" in fault or passed + len(data) <= at:
                await server.send_all(data)
                passed += len(data)
                continue
            before, rest = data[: max(0, at - passed)], data[max(0, at - passed) :]
            if before:
                await server.send_all(before)
            passed += len(before)
            if fault == "reset":
                _reset(client)
                _reset(server)
                nursery.cancel_scope.cancel()
                return
            if fault == "half-close":
                await server.send_eof()
                await trio.sleep(5)
                nursery.cancel_scope.cancel()
                return
            if fault == "stall for good":
                await trio.sleep_forever()
            if fault == "stall":
                await trio.sleep(_MOMENT_S)
            elif fault == "drip":
                for byte in rest[:_DRIPPED_BYTES]:
                    await server.send_all(bytes([byte]))
                rest = rest[_DRIPPED_BYTES:]
            if rest:
                await server.send_all(rest)
            fault = "none"
        await server.send_eof()

    async def _back(
        self,
        client: trio.SocketStream,
        server: trio.SocketStream,
        fault: str,
        rng: random.Random,
        nursery: trio.Nursery,
    ) -> None:
        """The answer."""
        while data := await server.receive_some(_PIECE_BYTES):
            if "answer" in fault:
                if fault == "cut the answer":
                    await client.send_all(data[: rng.randrange(len(data))])
                _reset(client)
                nursery.cancel_scope.cancel()
                return
            await client.send_all(data)
        nursery.cancel_scope.cancel()

    async def _again(self, data: bytes) -> None:
        """The first bytes once more, on a connection of their own; its answer is nobody's."""
        async with await trio.open_tcp_stream(*self.target) as server:
            await server.send_all(data)
            with trio.move_on_after(_MOMENT_S):
                await server.receive_some()


def _reset(stream: trio.SocketStream) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@contextmanager
def proxied(target: tuple[str, int], *, seed: int, chance: float = 0.8) -> Iterator[FlakyProxy]:
    """A proxy in front of `target` for as long as the block takes."""
    proxy = FlakyProxy(target, seed, chance)
    ready: queue.Queue[tuple[trio.lowlevel.TrioToken, trio.CancelScope]] = queue.Queue()

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(proxy.serve)
            ready.put((trio.lowlevel.current_trio_token(), nursery.cancel_scope))

    thread = threading.Thread(target=trio.run, args=(run,), name="proxy")
    thread.start()
    token, scope = ready.get(timeout=20)
    try:
        yield proxy
    finally:
        token.run_sync_soon(scope.cancel)
        thread.join(20)
