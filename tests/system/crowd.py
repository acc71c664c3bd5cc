"""A crowd of clients that do nothing or little, and senders that want to be served beside it.

Silent clients connect and wait; slow ones drip a head, a body or its chunks, a byte at a time.
Whoever is put out comes again after some seconds. The senders post events and look at a watch:
their wait counts from the first try to the answer, over refusals and new connections.

Each kind has addresses of its own of 127/8. The crowd is a process of its own
(`python -m tests.system.crowd`), so that the watch of the senders is not held up by it.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import trio

from tests.http_peer import Answer, Peer
from tests.system.client import event_line

__all__ = ["CrowdPlan", "CrowdReport", "crowding", "run_senders"]

_DRIP_S = 0.4
_LARGE_BYTES = 200_000
_TRIES_MAX = 200
_PAUSE_S = 0.05
_ANSWER_S = 10


@dataclass(frozen=True)
class CrowdPlan:
    """How many of each, how long, how often a sender sends, how soon one that was put out is back
    (from half of it to one and a half).
    """

    silent: int
    slow: int
    senders: int
    seconds: float
    between_s: float = 0.5
    again_s: float = 4.0


@dataclass
class CrowdReport:
    """What the senders saw (`waits_s`, `tries`) and what became of the others."""

    seed: int
    acknowledged: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)
    tries: Counter[str] = field(default_factory=Counter)
    put_out: Counter[str] = field(default_factory=Counter)

    def wait_s(self, share: float) -> float:
        ordered = sorted(self.waits_s) or [float("inf")]
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {len(self.acknowledged)} requests acknowledged,"
            f" {len(self.unanswered)} not; wait p50 {self.wait_s(0.5) * 1000:.0f} ms,"
            f" p99 {self.wait_s(0.99) * 1000:.0f} ms, max {self.wait_s(1) * 1000:.0f} ms;"
            f" tries {dict(self.tries)}; others put out {dict(self.put_out)}"
        )


@contextmanager
def crowding(
    address: tuple[str, int], path: str, plan: CrowdPlan, report: CrowdReport
) -> Iterator[None]:
    """The crowd is there; all of it has knocked once. `report` learns what became of it."""
    asked = {"address": address, "path": path, "plan": asdict(plan), "seed": report.seed}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.system.crowd", json.dumps(asked)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as crowd:
        assert crowd.stdin is not None
        assert crowd.stdout is not None
        try:
            assert crowd.stdout.readline() == "here\n"
            yield
        finally:
            crowd.stdin.close()
            report.put_out.update(json.loads(crowd.stdout.readline() or "{}"))


async def run_senders(
    address: tuple[str, int], path: str, plan: CrowdPlan, report: CrowdReport
) -> None:
    """For `plan.seconds`, and until what was begun is answered."""
    until = trio.current_time() + plan.seconds
    with trio.move_on_after(plan.seconds + 60):
        async with trio.open_nursery() as senders:
            for number in range(plan.senders):
                rng = random.Random(f"{report.seed} {number}")
                sender = _Sender(address, path, f"s{number}", rng)
                senders.start_soon(sender.run, until, plan.between_s, report)


async def _crowd(asked: dict[str, Any]) -> None:
    """All of the crowd, until standard input ends."""
    plan = CrowdPlan(**asked["plan"])
    put_out = Counter[str]()
    there = trio.Semaphore(0)
    async with trio.open_nursery() as crowd:
        for number in range(plan.silent + plan.slow):
            kind = _SLOW[number % len(_SLOW)] if number < plan.slow else _SILENT
            kind = kind.replace(b"PATH", asked["path"].encode())
            rng = random.Random(f"{asked['seed']} {number}")
            one = _One(tuple(asked["address"]), kind, rng, plan.again_s, put_out, there)
            crowd.start_soon(one.run)
        for _ in range(plan.silent + plan.slow):
            await there.acquire()
        print("here", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        print(json.dumps(put_out), flush=True)
        crowd.cancel_scope.cancel()


@dataclass
class _One:
    """One of the crowd."""

    address: tuple[str, int]
    kind: bytes
    rng: random.Random
    again_s: float
    put_out: Counter[str]
    there: trio.Semaphore

    async def run(self) -> None:
        local = f"127.0.{self.rng.randrange(1, 250)}.{self.rng.randrange(1, 250)}"
        has_knocked = False
        while True:
            try:
                async with await trio.open_tcp_stream(*self.address, local_address=local) as stream:
                    if not has_knocked:
                        has_knocked = True
                        self.there.release()
                    self.put_out[await _stay(stream, self.kind, self.rng)] += 1
            except OSError as error:
                self.put_out[f"no connection: {error}"] += 1
            await trio.sleep(self.rng.uniform(0.5, 1.5) * self.again_s)


_SILENT = b""
_SLOW = (
    b"POST PATH HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"y" * 10_000,
    b"POST PATH HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5_000,
    b"POST PATH HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 5_000,
)


async def _stay(stream: trio.SocketStream, kind: bytes, rng: random.Random) -> str:
    """Drip until the server has had enough; how it said so."""
    said = b""
    try:
        if kind:
            head, _, body = kind.partition(b"\r\n\r\n")
            start = head + b"\r\n\r\n" if body else head[:40]
            body = body or head[40:]
            await stream.send_all(start)
            for byte in body:
                with trio.move_on_after(_DRIP_S * rng.uniform(0.5, 1.5)):
                    said = await stream.receive_some()
                    break
                await stream.send_all(bytes([byte]))
        else:
            said = await stream.receive_some()
    except trio.BrokenResourceError:
        return "reset"
    return said.split(b" ")[1].decode() if said else "closed"


@dataclass
class _Sender:
    """One event a request; now and then a body that does not come in one piece."""

    address: tuple[str, int]
    path: str
    name: str
    rng: random.Random
    _stream: trio.SocketStream | None = None

    async def run(self, until: float, between_s: float, report: CrowdReport) -> None:
        serial = 0
        await trio.sleep(self.rng.uniform(0, between_s))
        while trio.current_time() < until:
            batch = f"{self.name}-{serial}"
            serial += 1
            began = trio.current_time()
            report.unanswered.append(batch)
            if await self._send(batch, serial % 10 == 5, report):
                report.unanswered.remove(batch)
                report.acknowledged.append(batch)
                report.waits_s.append(trio.current_time() - began)
            await trio.sleep(self.rng.uniform(0.5, 1.5) * between_s)
        if self._stream is not None:
            await self._stream.aclose()

    async def _send(self, batch: str, is_large: bool, report: CrowdReport) -> bool:
        body = event_line(batch, pad="p" * (_LARGE_BYTES if is_large else 100))
        head = f"POST {self.path} HTTP/1.1\r\nHost: x\r\nIdempotency-Key: {batch}\r\n"
        data = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        for _ in range(_TRIES_MAX):
            outcome = await self._try(data)
            report.tries[outcome] += 1
            if outcome == "200":
                return True
            await trio.sleep(_PAUSE_S)
        return False

    async def _try(self, data: bytes) -> str:
        """One attempt, over the connection that is there or a new one."""
        try:
            if self._stream is None:
                self._stream = await trio.open_tcp_stream(*self.address, local_address="127.1.0.1")
            peer = Peer(self._stream)
            with trio.fail_after(_ANSWER_S):
                await peer.send(data)
                answer: Answer = await peer.answer()
            if answer.closes:
                await self._drop()
            return str(answer.status)
        except EOFError:
            outcome = "closed"
        except trio.BrokenResourceError:
            outcome = "reset"
        except trio.TooSlowError:
            outcome = f"no answer in {_ANSWER_S} s"
        except OSError:
            outcome = "no connection"
        await self._drop()
        return outcome

    async def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()


if __name__ == "__main__":
    trio.run(_crowd, json.loads(sys.argv[1]))
