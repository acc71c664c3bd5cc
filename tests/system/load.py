"""Mixed load against one server, until told to stop or until the server is gone.

Small single-event posts on several connections, batches of 50 lines in every encoding, bulk
uploads of some MiB, and requests with an `Idempotency-Key`. Bodies name their batch and row, so
that the store can be compared with the ledger afterwards.

Invariant: a worker never ends because of an answer; only the stop flag or the end of the
server's process (no answer) ends it.
"""

from __future__ import annotations

import base64
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.system.client import Answer, Connection, NoAnswer, compress
from tests.system.ledger import Ledger, Sent

__all__ = ["LoadPlan", "MixedLoad", "build_request", "post_request", "repeat_keyed"]

# Lines without `action` are refused with `missing_field`; their text still names the batch.
_ROW = '{"accountId":"%s","userId":"u%d","action":"feature","sessionId":"%d","createdAt":%d%s}'
_BAD_ROW = '{"accountId":"%s","userId":"u%d","sessionId":"%d","createdAt":%d}'
_CREATED_AT = 1_700_000_000_000

_ENCODINGS = (None, "gzip", "deflate", "zstd", "raw-deflate")
_REFUSAL_PAUSE_S = 0.02


@dataclass(frozen=True)
class LoadPlan:
    """How many workers of which kind, and how large a bulk body is."""

    single_workers: int = 4
    batch_workers: int = 2
    bulk_workers: int = 1
    keyed_workers: int = 1
    bulk_rows: int = 12_000
    bulk_padding_bytes: int = 240


def build_request(
    batch: str,
    kind: str,
    rng: random.Random,
    *,
    row_count: int,
    reject_count: int = 0,
    padding_bytes: int = 0,
    encoding: str | None = None,
    key: str | None = None,
) -> Sent:
    """A request with its body; refused lines are spread among the good ones."""
    padding = ""
    if padding_bytes:
        text = base64.b64encode(rng.randbytes(row_count * padding_bytes * 3 // 4)).decode()
    rows: list[str] = []
    for row in range(row_count):
        if padding_bytes:
            padding = f',"pad":"{text[row * padding_bytes : (row + 1) * padding_bytes]}"'
        rows.append(_ROW % (batch, row % 7, row, _CREATED_AT + row, padding))
    row_bytes = sum(map(len, rows))
    step = max(1, row_count // (reject_count + 1))
    for row in range(reject_count):
        rows.insert((row + 1) * step, _BAD_ROW % (batch, row, row, _CREATED_AT))
    body = ("\n".join(rows) + "\n").encode()
    return Sent(
        batch,
        kind,
        row_count,
        reject_count,
        row_bytes,
        key=key,
        body=compress(body, encoding),
        encoding=encoding,
    )


def post_request(
    connection: Connection, path: str, request: Sent, *, chunked: bool = False, pause_s: float = 0
) -> Answer:
    headers: dict[str, str] = {}
    if request.encoding is not None:
        headers["Content-Encoding"] = request.encoding.removeprefix("raw-")
    if request.key is not None:
        headers["Idempotency-Key"] = request.key
    return connection.post(path, request.body, headers, chunked=chunked, pause_s=pause_s)


@dataclass
class MixedLoad:
    """The workers of one round. `start`, then `stop` (after the kill), then read `problems`."""

    address: tuple[str, int]
    path: str
    ledger: Ledger
    round_name: str
    seed: int
    plan: LoadPlan = field(default_factory=LoadPlan)
    problems: list[str] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        kinds: Sequence[tuple[str, int, Callable[[str, random.Random], Sent]]] = (
            ("s", self.plan.single_workers, self._single),
            ("m", self.plan.batch_workers, self._batch),
            ("b", self.plan.bulk_workers, self._bulk),
            ("k", self.plan.keyed_workers, self._keyed),
        )
        for letter, worker_count, make in kinds:
            for worker in range(worker_count):
                name = f"{self.round_name}-{letter}{worker}"
                rng = random.Random(f"{self.seed} {name}")
                # Bulk bodies take long to make: the first is ready before the clock starts.
                first = make(f"{name}-0", rng)
                thread = threading.Thread(
                    target=self._work, args=(name, rng, make, first), name=name, daemon=True
                )
                self._threads.append(thread)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(40.0)
            assert not thread.is_alive(), f"{thread.name} hangs"

    def _work(
        self,
        name: str,
        rng: random.Random,
        make: Callable[[str, random.Random], Sent],
        request: Sent,
    ) -> None:
        serial = 0
        with Connection(self.address) as connection:
            while not self._stop.is_set():
                self.ledger.sending(request)
                try:
                    answer = post_request(
                        connection, self.path, request, chunked=rng.random() < 0.3
                    )
                    self.ledger.answered(request, answer)
                    self._check(request, answer)
                    if request.key and answer.status == 200 and rng.random() < 0.25:
                        self._check_repeat(connection, request, answer)
                except NoAnswer:
                    return
                finally:
                    if request.key is None:
                        request.body = b""
                if request.outcome == "refused":
                    self._stop.wait(_REFUSAL_PAUSE_S)
                serial += 1
                request = make(f"{name}-{serial}", rng)

    def _check(self, request: Sent, answer: Answer) -> None:
        self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
        if answer.status == 200:
            if answer.counts != (request.row_count, request.reject_count):
                self.problems.append(f"{request.batch}: acknowledged with counts {answer.counts}")
        elif answer.status not in {429, 503}:
            self.problems.append(f"{request.batch}: answered {answer.status}")
        elif "retry-after" not in answer.headers:
            self.problems.append(f"{request.batch}: {answer.status} without Retry-After")
        if answer.body:
            self.problems.append(f"{request.batch}: answer with a body: {answer.body!r}")

    def _check_repeat(self, connection: Connection, request: Sent, first: Answer) -> None:
        """The same key again stores nothing; `reconcile` would see the second copy."""
        again = post_request(connection, self.path, request)
        if (again.status, again.request_id) != (200, first.request_id):
            self.problems.append(f"{request.batch}: a repeat was answered as another request")

    def _single(self, batch: str, rng: random.Random) -> Sent:
        return build_request(batch, "single", rng, row_count=1)

    def _batch(self, batch: str, rng: random.Random) -> Sent:
        return build_request(
            batch, "batch", rng, row_count=50, reject_count=2, encoding=rng.choice(_ENCODINGS)
        )

    def _bulk(self, batch: str, rng: random.Random) -> Sent:
        return build_request(
            batch,
            "bulk",
            rng,
            row_count=self.plan.bulk_rows,
            reject_count=3,
            padding_bytes=self.plan.bulk_padding_bytes,
            encoding="gzip",
        )

    def _keyed(self, batch: str, rng: random.Random) -> Sent:
        kind = rng.choices(("single", "batch", "bulk"), (10, 5, 1))[0]
        row_count = {"single": 1, "batch": 50, "bulk": self.plan.bulk_rows // 2}[kind]
        return build_request(
            batch,
            f"keyed {kind}",
            rng,
            row_count=row_count,
            reject_count=0 if kind == "single" else 2,
            padding_bytes=self.plan.bulk_padding_bytes if kind == "bulk" else 0,
            encoding="gzip" if kind == "bulk" else rng.choice(_ENCODINGS),
            key=f"key-{batch}",
        )


def repeat_keyed(
    address: tuple[str, int], path: str, ledger: Ledger, requests: Sequence[Sent]
) -> list[str]:
    """Send the unanswered keyed requests of a round again, as a client would; problems.

    Acknowledged ones are left alone here: a repeat would hide a loss from `reconcile`.
    """
    problems: list[str] = []
    with Connection(address) as connection:
        for request in requests:
            if request.key is None or request.outcome != "unanswered":
                continue
            answer = post_request(connection, path, request)
            ledger.answered(request, answer)
            if answer.status != 200:
                problems.append(f"{request.batch}: the repeat was answered {answer.status}")
            elif answer.counts != (request.row_count, request.reject_count):
                problems.append(f"{request.batch}: the repeat has counts {answer.counts}")
    return problems
