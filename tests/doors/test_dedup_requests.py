"""Repeats through the door: what is journalled, told, remembered, and stored after a failure."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ingester.doors.exchange import Response
from ingester.doors.idempotency import Remembered
from ingester.doors.receive import AdmittedRequest, receive_body
from ingester.doors.shortcut import make_shortcut
from ingester.messages import RequestRecord
from ingester.protocol.forms import HonestEventForm, HonestLogForm, LogForm, Origin
from ingester.protocol.requests import decode_entry

from .rig import GOOD_LINE, Body, Rig, head_of, open_rig

NOW = 1_700_000_000_000_000
KEY = (b"idempotency-key", b"k")


def line(number: int | None) -> bytes:
    return GOOD_LINE[:-1] + (b"}" if number is None else b',"messageId":"m-%d"}' % number)


def body_of(*numbers: int | None) -> bytes:
    return b"\n".join(line(number) for number in numbers) + b"\n"


def stored(rig: Rig) -> list[str | None]:
    """The ids of the rows, as the loader would have them after a crash."""
    requests = [decode_entry(entry) for entry in rig.journalled]
    return [json.loads(text).get("messageId") for r in requests for text in r.lines]


def counts(answer: Response) -> tuple[int, int, int]:
    headers = dict(answer.headers)
    accepted, rejected = headers[b"Ingester-Accepted"], headers[b"Ingester-Rejected"]
    return answer.status, int(accepted), int(rejected)


async def test_the_natero_door_says_200_and_counts_what_was_stored(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        rig.set_source(dedup_field="messageId")
        assert counts(await rig.ask(body_of(1, 2, 1, None, None) + b"bad\n")) == (200, 4, 1)
        assert counts(await rig.ask(body_of(2, 3))) == (200, 1, 0)
        assert counts(await rig.ask(body_of(3, 1))) == (200, 0, 0)
        assert counts(await rig.ask(body_of(3))) == (200, 0, 0)
        assert counts(await rig.ask(b"")) == (200, 0, 0)
        assert stored(rig) == ["m-1", "m-2", None, None, "m-3"]
        assert [entry.duplicates for entry in rig.journalled] == [(3,), (1,), (1, 2), (1,), ()]
        assert {entry.dedup_field for entry in rig.journalled} == {"messageId"}
        assert rig.admission.accepted_count == 5
        assert rig.admission.dedup.statistics() == {"ids": 3, "claims": 0, "repeats_total": 5}


async def test_without_the_setting_nothing_is_looked_up_or_kept(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        for _ in range(2):
            assert counts(await rig.ask(body_of(1, 1))) == (200, 2, 0)
        rig.set_source(dedup_field="messageId")
        # What came before the setting does not count.
        assert counts(await rig.ask(body_of(1, 1))) == (200, 1, 0)
        rig.set_source(dedup_field="/messageId")
        assert counts(await rig.ask(body_of(1, 1))) == (200, 1, 0)
        assert [entry.dedup_field for entry in rig.journalled] == [
            None, None, "messageId", "/messageId",
        ]  # fmt: skip


async def test_the_shortcut_is_not_taken(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        shortcut = make_shortcut(rig.admission)
        head = head_of(content_length=len(body_of(1)))
        assert shortcut(head) is not None
        rig.set_source(dedup_field="messageId")
        assert shortcut(head) is None


@pytest.mark.parametrize("size", [10, 100_000])
async def test_what_the_journal_did_not_take_may_be_sent_again(tmp_path: Path, size: int) -> None:
    """`size`: decoded where it is, and in a thread."""
    body = body_of(1, 2) + b"\n" * size
    async with open_rig(tmp_path) as rig:
        rig.set_source(dedup_field="messageId")
        rig.journal_failure = "no space"
        for _ in range(2):
            assert (await rig.ask(body)).status == 503
        assert not stored(rig)
        rig.journal_failure = None
        assert counts(await rig.ask(body)) == (200, 2, 0)
        assert counts(await rig.ask(body)) == (200, 0, 0)
        assert stored(rig) == ["m-1", "m-2"]


@pytest.mark.parametrize("failure", [None, "no space"])
async def test_the_ids_of_a_client_that_left_count_as_its_journal_group_does(
    tmp_path: Path, failure: str | None
) -> None:
    async with open_rig(tmp_path) as rig:
        rig.set_source(dedup_field="messageId")
        rig.journal_holds, rig.journal_failure = trio.Event(), failure
        answers: list[Response] = []

        async def ask() -> None:
            answers.append(await rig.ask(body_of(1)))

        async with trio.open_nursery() as clients:
            clients.start_soon(ask)
            await wait_all_tasks_blocked()
            clients.cancel_scope.cancel()
        assert not answers
        async with trio.open_nursery() as clients:
            clients.start_soon(ask)
            await wait_all_tasks_blocked()
            assert not answers, "whether it is a repeat is not known yet"
            rig.journal_holds.set()
            await wait_all_tasks_blocked()
            rig.journal_failure = None
        if failure is None:
            assert counts(answers[0]) == (200, 0, 0)
            assert stored(rig) == ["m-1"]
        else:
            assert answers[0].status == 503
            assert not stored(rig)
            assert counts(await rig.ask(body_of(1))) == (200, 1, 0)
            assert stored(rig) == ["m-1"]


async def test_many_senders_of_the_same_ids_store_each_once(tmp_path: Path) -> None:
    answers: list[int] = []
    async with open_rig(tmp_path) as rig:
        rig.set_source(dedup_field="messageId")

        async def ask(first: int, filler: int) -> None:
            body = body_of(*range(first, first + 20)) + b"\n" * filler
            for attempt in range(3):
                rig.journal_failure = "no space" if (first + attempt) % 4 == 0 else None
                answer = await rig.ask(body)
                if answer.status == 200:
                    answers.append(counts(answer)[1])
                    return
            rig.journal_failure = None
            answers.append(counts(await rig.ask(body))[1])

        async with trio.open_nursery() as clients:
            for first in range(0, 200, 5):
                clients.start_soon(ask, first, 0 if first % 2 else 70_000)
        found = stored(rig)
        assert len(found) == len(set(found)) == sum(answers) == 215
        assert rig.admission.dedup.statistics()["claims"] == 0


async def test_a_repeat_under_an_idempotency_key_carries_what_was_left_out(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        rig.set_source(dedup_field="messageId")
        first = await rig.ask(body_of(1, 1, 2), KEY)
        again = await rig.ask(body_of(1, 1, 2), KEY)
        assert counts(first) == counts(again) == (200, 2, 0)
        remembered = await rig.admission.idempotency.join("natero", "source:1", "k", NOW)
        assert isinstance(remembered, Remembered)
        assert remembered.deduplicated == 1


async def test_an_upload_that_never_reaches_a_worker_lets_the_next_one_in(tmp_path: Path) -> None:
    async with open_rig(tmp_path, workers=0, small_body_bytes_max=10) as rig:
        rig.set_source(dedup_field="messageId")
        window = rig.admission.dedup.window_of(rig.source, "events")
        assert window is not None
        async with trio.open_nursery() as clients:
            clients.start_soon(rig.ask, body_of(1))
            clients.start_soon(rig.ask, body_of(2))
            await wait_all_tasks_blocked()
            assert rig.uploads.statistics().tasks_waiting_send == 1, "one at a time"
            clients.cancel_scope.cancel()
        (await window.claim_upload(NOW, seconds_max=0)).settle(is_durable=False)


async def test_an_upload_that_waits_too_long_for_another_is_told_to_come_again(
    tmp_path: Path,
) -> None:
    async with open_rig(tmp_path, small_body_bytes_max=10, wait_seconds_max=0) as rig:
        rig.set_source(dedup_field="messageId")
        window = rig.admission.dedup.window_of(rig.source, "events")
        assert window is not None
        claim = await window.claim_upload(NOW, seconds_max=0)
        answer = await rig.ask(body_of(1))
        assert answer.status == 503
        assert int(dict(answer.headers)[b"Retry-After"]) > 0
        claim.settle(is_durable=False)


FORMS: list[tuple[str, Any, bytes, bytes]] = [
    (
        "logs",
        HonestLogForm("s", "e"),
        b'{"id":1}\n{"id":2}\n[]\n{"id":1}\n',
        b'[{"id":2},{"id":3}]',
    ),
    ("logs", LogForm("s", "e"), b'[{"id":1},{"id":2},{"id":1}]', b'{"id":3}'),
    (
        "events",
        HonestEventForm({"account_id": "=a", "action": "=b", "user_id": "=c", "session_id": "=d",
                         "created_at": "/at"}),
        b'{"id":1,"at":5}\n{"id":2,"at":5}\nbad\n{"id":1,"at":6}\n', b'{"id":3,"at":1}\n',
    ),
]  # fmt: skip


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize(("table", "form", "first", "second"), FORMS)
async def test_other_doors_set_the_window_themselves(
    tmp_path: Path, table: str, form: Any, first: bytes, second: bytes, encoding: Any
) -> None:
    async with open_rig(tmp_path) as rig:
        rig.set_source(dedup_field="id")

        async def receive(body: bytes) -> RequestRecord:
            sent = gzip.compress(body) if encoding == "gzip" else body
            asked = AdmittedRequest(
                request=rig.request(Body(sent, whole=True)),
                origin=Origin("honest", "shop", "token:1", form=form),
                encoding=encoding,
                encoding_name=encoding,
                is_plain=encoding == "identity",
                idempotency_key=None,
                received_at_us=NOW,
                dedup=rig.admission.dedup.window_of(rig.admission.keys.source_named("shop"), table),
            )
            return (await receive_body(asked, rig.admission))[0]

        record = await receive(first)
        assert (record.accepted, record.deduplicated) == (2, 1)
        record = await receive(second)
        assert record.accepted == 1
        record = await receive(first)
        assert (record.accepted, record.deduplicated) == (0, 3)
        for entry in rig.journalled:
            replayed = decode_entry(entry)
            assert len(replayed.lines) == replayed.row_count
            assert len(replayed.digests) == 16 * replayed.row_count


async def test_a_request_refused_for_its_rejects_claims_nothing(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        rig.set_source(dedup_field="id")
        window = rig.admission.dedup.window_of(rig.source, "logs")
        assert window is not None
        asked = AdmittedRequest(
            request=rig.request(Body(b'{"id":1}\nbad\n', whole=True)),
            origin=Origin("honest", "shop", "token:1", form=HonestLogForm("s", "e")),
            encoding="identity",
            encoding_name="identity",
            is_plain=True,
            idempotency_key=None,
            received_at_us=NOW,
            refused_by="any_rejected",
            dedup=window,
        )
        with pytest.raises(Exception, match="rejected"):
            await receive_body(asked, rig.admission)
        assert window.statistics() == {"ids": 0, "claims": 0, "repeats_total": 0}


async def test_a_small_request_that_meets_an_upload_is_overloaded_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingester.doors.dedup.CLAIM_SECONDS_MAX", 0.01)
    async with open_rig(tmp_path) as rig:
        rig.set_source(dedup_field="messageId")
        window = rig.admission.dedup.window_of(rig.source, "events")
        assert window is not None
        claim = await window.claim_upload(NOW, seconds_max=0)
        claim.take([window.field.digest(line(1))], bytearray(1))
        assert (await rig.ask(body_of(2, 1))).status == 503
        assert counts(await rig.ask(body_of(2))) == (200, 1, 0)
        claim.settle(is_durable=False)
        assert counts(await rig.ask(body_of(2, 1))) == (200, 1, 0)
