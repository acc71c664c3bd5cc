"""The shortcut of the Natero door: it stores and answers what the handler would, or stands back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from ingester.doors.exchange import Response
from ingester.doors.shortcut import make_shortcut
from ingester.protocol.http1 import RequestHead
from tests.doors.rig import API, AUTH, Rig, head_of, open_rig

EVENT = b'{"accountId":"a","userId":"u","createdAt":1700000000000,"action":"x","sessionId":"s"}'
BODIES = [
    EVENT,
    EVENT + b"\n",
    EVENT + b"\r\n" + EVENT,
    EVENT.replace(b'"a"', b'""'),
    EVENT + b"\nnot json\n" + EVENT,
    b"\n",
    b"\x1f\x8bxx",
    EVENT.replace(b'"a"', b'"\xff"'),
    b"[" + EVENT + b"]",
]


async def short(rig: Rig, body: bytes, head: RequestHead | None = None) -> Response | None:
    """The shortcut's answer; None when it stands back."""
    take = make_shortcut(rig.admission)(head or head_of(content_length=len(body)))
    if take is None:
        return None
    answers: list[Response] = []
    take(7, body, answers.append)
    assert not answers, "answered before it was journalled"
    with trio.fail_after(5):
        while not answers:
            await trio.lowlevel.checkpoint()
    assert len(answers) == 1
    return answers[0]


@pytest.mark.parametrize("body", BODIES)
async def test_both_ways_store_and_answer_the_same(tmp_path: Path, body: bytes) -> None:
    async with open_rig(tmp_path) as rig:
        answer = await short(rig, body)
        assert answer == await rig.ask(body, content_length=len(body))
        ours, theirs = map(msgspec.structs.asdict, rig.journalled)
        for entry in (ours, theirs):
            del entry["request_number"], entry["received_at_us"]
        assert ours == theirs
        counted = rig.admission.accepted_count
        assert counted % 2 == 0, "each way counted the same"
        assert all(count % 2 == 0 for count in rig.admission.rejected.values())


async def test_a_group_that_could_not_be_written_is_a_503(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        rig.journal_failure = "no space"
        answer = await short(rig, EVENT)
        assert answer is not None
        assert answer == await rig.ask(EVENT, content_length=len(EVENT))
        assert answer.status == 503


@pytest.mark.parametrize(
    "head",
    [
        {"method": "GET"},
        {"query": "wait=query"},
        {"headers": ((b"idempotency-key", b"k"),)},
        {"headers": ((b"content-encoding", b"gzip"),)},
        {"headers": ((b"prefer", b"wait=query"),)},
        {"path": f"/v1/{AUTH}/wrong"},
        {"path": f"/test/v1/{AUTH}/{API}"},
        {"path": f"/v1/{AUTH}/{API}/"},
        {"path": "/v1/ping"},
        {"path": "/healthz"},
        {"content_length": None},
        {"content_length": 0},
        {"content_length": 65 * 1024},
    ],
)
async def test_it_stands_back_from_unusual_heads(tmp_path: Path, head: dict[str, Any]) -> None:
    async with open_rig(tmp_path) as rig:
        assert make_shortcut(rig.admission)(head_of(**{"content_length": 10, **head})) is None


@pytest.mark.parametrize(
    "config",
    [{"small_body_bytes_max": 9}, {"body_bytes_max": 9}, {"test_hosts": ("test.example",)}],
)
async def test_it_stands_back_under_unusual_settings(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    async with open_rig(tmp_path, **config) as rig:
        assert make_shortcut(rig.admission)(head_of(content_length=10)) is None


async def test_it_stands_back_from_quotas_and_keys_about_to_end(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        shortcut, head = make_shortcut(rig.admission), head_of(content_length=10)
        assert shortcut(head) is not None
        rig.set_source(requests_per_hour=5)
        assert shortcut(head) is None
        rig.set_source(valid_until_s=time.time() + 60)
        assert shortcut(head) is None
        rig.set_source()
        assert shortcut(head) is not None
        rig.admission.keys.replace({})
        assert shortcut(head) is None


async def test_it_stands_back_while_the_door_is_closed(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        shortcut, head = make_shortcut(rig.admission), head_of(content_length=10)
        rig.admission.is_draining = True
        assert shortcut(head) is None
        rig.admission.is_draining = False
        rig.gate.backlog_bytes = rig.gate.backlog_bytes_max
        assert shortcut(head) is None
        rig.gate.backlog_bytes = 0
        assert shortcut(head) is not None


async def test_new_settings_are_seen_at_once(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        shortcut, head = make_shortcut(rig.admission), head_of(content_length=10)
        assert shortcut(head) is not None
        rig.admission.config = msgspec.structs.replace(rig.admission.config, body_bytes_max=9)
        assert shortcut(head) is None
