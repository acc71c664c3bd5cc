"""The doors without sockets and store: bodies, a journal and bulk workers made up here."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from ingester.config import IntakeConfig
from ingester.doors import natero
from ingester.doors.admission import Admission, KeyRing
from ingester.doors.bulk_lane import BulkLane, BulkUpload
from ingester.doors.disk import DiskWatch
from ingester.doors.exchange import Request, Response
from ingester.doors.idempotency import IdempotencyKeys
from ingester.doors.quota import HourQuotas
from ingester.doors.small_lane import JournalGate
from ingester.errors import ClientGone, IngesterError
from ingester.flow import ByteBudget, Mark
from ingester.messages import Credential, RequestRecord, Source
from ingester.protocol.http1 import RequestHead
from ingester.protocol.requests import JournalEntry, entry_from_bytes
from ingester.store.control import key_digest, pair_digest

__all__ = [
    "API",
    "AUTH",
    "CONNECTION",
    "GOOD_LINE",
    "READER",
    "TOKEN",
    "Body",
    "Rig",
    "head_of",
    "open_rig",
    "packed",
]

AUTH, API = "a" * 32, "b" * 32
# Their keys are "token", "reader" and "connection".
TOKEN = Credential(
    kind="token", id="tok_1", service="web", environment="prod", scopes=frozenset({"ingest"})
)
READER = Credential(kind="token", id="tok_2", scopes=frozenset({"read"}))
CONNECTION = Credential(
    kind="connection", id="con_1", project_id="acme", scopes=frozenset({"ingest"})
)
GOOD_LINE = json.dumps({
    "accountId": "acme",
    "userId": "u",
    "createdAt": 1_700_000_000_000,
    "action": "feature",
    "sessionId": "s",
}).encode()


def packed(size: int, coding: str = "gzip") -> bytes:
    """A compressed body of blank lines and one event that inflates to `size` bytes."""
    raw = b"\n" * (size - len(GOOD_LINE)) + GOOD_LINE
    assert len(raw) == size
    assert coding == "gzip"
    return gzip.compress(raw)


class Body:
    """A body in pieces: all here already, or arriving; ending well or with `error`."""

    def __init__(
        self,
        *pieces: bytes,
        whole: bool = False,
        error: Exception | None = None,
        hold: trio.Event | None = None,
    ) -> None:
        self._pieces = [piece for piece in pieces if piece]
        self._whole = whole
        self._error = error
        self._hold = hold
        self.received_bytes = 0

    def whole_nowait(self) -> bytes | None:
        if not self._whole:
            return None
        whole, self._pieces = b"".join(self._pieces), []
        self.received_bytes = len(whole)
        return whole

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if self._pieces:
            piece = self._pieces.pop(0)
            self.received_bytes += len(piece)
            return piece
        if self._hold is not None:
            await self._hold.wait()
        if self._error is not None:
            raise self._error
        return b""


def head_of(
    path: str = f"/v1/{AUTH}/{API}",
    *,
    method: str = "POST",
    query: str = "",
    headers: Sequence[tuple[bytes, bytes]] = (),
    content_length: int | None = None,
) -> RequestHead:
    return RequestHead(
        method=method,
        target=path.encode(),
        path=path,
        query=query,
        headers=tuple(headers),
        content_length=content_length,
        chunked=content_length is None,
        keep_alive=True,
        expect_continue=False,
        first={name: value for name, value in reversed(headers)},
    )


class Rig:
    """The admission and what came out at its far ends."""

    def __init__(self, config: IntakeConfig, directory: Path, backlog_bytes_max: int) -> None:
        self.source = Source(source_id=1, name="shop")
        self.uploads_send, self.uploads = trio.open_memory_channel[BulkUpload](0)
        self.gate = JournalGate(backlog_bytes_max=backlog_bytes_max)
        self.admission = Admission(
            config,
            keys=KeyRing({}),
            quotas=HourQuotas(),
            idempotency=IdempotencyKeys(keys_max=100, hours=24),
            disk=DiskWatch([directory], 1),
            small=self.gate,
            bulk=BulkLane(self.uploads_send),
            applied=Mark(),
            decode_turn=trio.CapacityLimiter(1),
        )
        self.set_source()
        self.journalled: list[JournalEntry] = []
        self.uploaded: list[bytes] = []
        self.journal_failure: str | None = None
        self.journal_holds: trio.Event | None = None
        self.bulk_refusal: IngesterError | None = None
        self.cut_uploads = 0
        self._numbers = 100

    def set_source(self, *, valid_until_s: float | None = None, **changes: Any) -> None:
        self.source = Source(**{"source_id": 1, "name": "shop", **changes})
        self.admission.keys.replace({pair_digest(AUTH, API): (self.source, valid_until_s)})

    def set_bearers(self, **changes: Any) -> None:
        """Bearer keys; `changes` for those that send."""
        keys: dict[bytes, tuple[Credential, float | None]] = {}
        for key, credential in (("token", TOKEN), ("reader", READER), ("connection", CONNECTION)):
            made = msgspec.structs.replace(credential, **({} if key == "reader" else changes))
            keys[key_digest(key)] = (made, made.expires_at)
        pairs = {pair_digest(AUTH, API): (self.source, None)}
        self.admission.keys.replace(pairs, keys)

    @property
    def budget_used(self) -> int:
        return sum(budget.used_bytes for budget in self.budgets)

    @property
    def budgets(self) -> tuple[ByteBudget, ByteBudget]:
        return self.admission.budget, self.admission.whole_budget

    def take_budgets(self) -> int:
        """Leave no room in either; the bytes taken."""
        for budget in self.budgets:
            assert budget.reserve_nowait(budget.total_bytes)
        return self.budget_used

    def give_back_budgets(self) -> None:
        for budget in self.budgets:
            budget.release(budget.total_bytes)

    def request(
        self, body: Body | bytes = b"", head: RequestHead | None = None, *, listener: str = "intake"
    ) -> Request:
        if isinstance(body, bytes):
            body = Body(body, whole=True)
        self._numbers += 1
        return Request(head or head_of(), self._numbers, "192.0.2.1", listener, body)

    async def ask(
        self,
        body: Body | bytes = b"",
        *headers: tuple[bytes, bytes],
        listener: str = "intake",
        **head: Any,
    ) -> Response:
        """One request through the Natero door."""
        made = head_of(headers=headers, **head)
        return await natero.handle(self.request(body, made, listener=listener), self.admission)

    async def run_journal(self) -> None:
        """Settle groups as the journal actor does."""
        sequence = 0
        while (group := await self.gate.take()) is not None:
            if self.journal_holds is not None:
                await self.journal_holds.wait()
            group.failure = self.journal_failure
            group.first_seq = sequence + 1
            if group.failure is None:
                sequence += len(group.payloads)
                self.journalled += map(entry_from_bytes, group.payloads)
            self.gate.applied(group.byte_count)
            group.settle()

    async def run_worker(self) -> None:
        """Take uploads as a bulk worker does, without a store."""
        async for upload in self.uploads:
            body = b""
            try:
                if self.bulk_refusal is not None:
                    raise self.bulk_refusal
                raws = []
                async for piece in upload.pieces:
                    body += piece
                    raws += list(upload.inflater.feed(piece)) if piece else []
                    if not piece:
                        break
                else:
                    self.cut_uploads += 1
                    raise ClientGone("cut")
                upload.inflater.finish()
                for raw in raws:
                    upload.decoder.feed(raw)
                    if upload.digest is not None:
                        upload.digest.update(raw)
                upload.decoder.finish()
                self.uploaded.append(body)
                upload.outcome = self._record(upload)
            except IngesterError as error:
                upload.outcome = error
            finally:
                upload.pieces.close()
                upload.done.set()

    def _record(self, upload: BulkUpload) -> RequestRecord:
        return RequestRecord(
            request_number=upload.request_number,
            received_at_us=upload.received_at_us,
            door=upload.origin.door,
            source=upload.origin.source,
            credential=upload.origin.credential,
            accepted=upload.decoder.accepted_count,
            rejected=upload.decoder.rejected_count,
            bytes_in=upload.inflater.input_bytes,
            bytes_raw=upload.inflater.output_bytes,
            encoding=upload.encoding_name,
            idempotency_key=upload.idempotency_key,
            fingerprint=None if upload.digest is None else upload.digest.digest()[:16],
        )


@asynccontextmanager
async def open_rig(
    directory: Path,
    *,
    workers: int = 1,
    journal: bool = True,
    backlog_bytes_max: int = 1 << 30,
    **config: Any,
) -> AsyncIterator[Rig]:
    """A rig with its tasks running; at the end nothing is left in the budget."""
    rig = Rig(IntakeConfig(**config), directory, backlog_bytes_max)
    async with trio.open_nursery() as nursery:
        if journal:
            nursery.start_soon(rig.run_journal)
        for _ in range(workers):
            nursery.start_soon(rig.run_worker)
        yield rig
        nursery.cancel_scope.cancel()
    assert rig.budget_used == 0
