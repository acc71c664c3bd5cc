"""Shortcut of three doors: it stores and answers what the handler would, or stands back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from ingester.doors import logs, metrics
from ingester.doors.exchange import Response
from ingester.doors.router import make_handler
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


LOG_BODIES = [
    b'{"message":"a"}',
    b'{"message":"a"}\n',
    b'[{"a":1},{"b":2}]',
    b"[1,2]",
    b'"text"',
    b"null",
    b'{"a":1}\n{"b":2}',
    b'{"a":1}\n{bad',
    b"\n",
    b"a=1&b=2",
    b"\x1f\x8bxx",
    b'{"a":"\xff"}',
    b'{"a":"\\ud800"}',
    b"[" * 200 + b"]" * 200,
    b'{"a":"' + b"x" * 70_000 + b'"}',
]
METRIC = b'{"metricId":"m","metricName":"M","value":1}'
METRIC_BODIES = [
    b'{"projectId":"acme","metrics":[%b]}' % metric
    for metric in (METRIC, b",".join([METRIC] * 3), METRIC.replace(b"1", b'"1"'), b"", b"[")
] + [b" ", b"[]", b'{"projectId":"other","metrics":[%b]}' % METRIC, b"\x1f\x8bxx"]
DOORS = {
    logs.PATH: (logs.DOOR, b"token"),
    metrics.PATH: (metrics.DOOR, b"connection"),
}


def bearer_head(path: str, *headers: tuple[bytes, bytes], **head: Any) -> RequestHead:
    key = b"Bearer " + DOORS[path][1]
    return head_of(path, headers=[(b"authorization", key), *headers], **head)


async def short(rig: Rig, body: bytes, head: RequestHead | None = None) -> Response | None:
    """The shortcut's answer; None when it stands back."""
    take = make_shortcut(rig.admission)(head or head_of(content_length=len(body)))
    if take is None:
        return None
    answers: list[Response] = []
    take(7, "192.0.2.7", body, answers.append)
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


@pytest.mark.parametrize(
    ("path", "body"),
    [(logs.PATH, body) for body in LOG_BODIES] + [(metrics.PATH, body) for body in METRIC_BODIES],
)
async def test_both_ways_of_bearer_doors_store_and_answer_the_same(
    tmp_path: Path, path: str, body: bytes
) -> None:
    async with open_rig(tmp_path) as rig:
        rig.set_bearers()
        head = bearer_head(path, content_length=len(body))
        take = make_shortcut(rig.admission)(head)
        if len(body) > 64 * 1024:
            assert take is None, "decoding takes a thread"
            return
        assert take is not None
        answers: list[Response] = []
        take(7, "192.0.2.7", body, answers.append)
        with trio.fail_after(5):
            while not answers:
                await trio.lowlevel.checkpoint()
            long_way = await make_handler(rig.admission)(rig.request(body, head))
        assert answers == [long_way]
        assert answers[0].door == DOORS[path][0]
        is_stored = answers[0].status == 200
        assert len(rig.journalled) == 2 * is_stored
        if is_stored:
            ours, theirs = map(msgspec.structs.asdict, rig.journalled)
            for entry in (ours, theirs):
                del entry["request_number"], entry["received_at_us"]
            assert ours == theirs


@pytest.mark.parametrize("path", [logs.PATH, metrics.PATH])
async def test_it_stands_back_from_unusual_heads_of_bearer_doors(tmp_path: Path, path: str) -> None:
    async with open_rig(tmp_path) as rig:
        rig.set_bearers()
        shortcut = make_shortcut(rig.admission)
        assert shortcut(bearer_head(path, content_length=10)) is not None
        foreign = {logs.PATH: b"connection", metrics.PATH: b"token"}[path]
        heads = [
            bearer_head(path, content_length=10, method="PUT"),
            bearer_head(path, content_length=10, query="wait=query"),
            bearer_head(path, content_length=10, query="x"),
            bearer_head(path, content_length=None),
            bearer_head(path, content_length=0),
            bearer_head(path, content_length=65 * 1024),
            bearer_head(path, (b"idempotency-key", b"k"), content_length=10),
            bearer_head(path, (b"content-encoding", b"gzip"), content_length=10),
            bearer_head(path, (b"prefer", b"wait=query"), content_length=10),
            bearer_head(path, (b"authorization", b"Bearer token"), content_length=10),
            head_of(path, content_length=10),
            head_of(path, headers=[(b"authorization", b"Bearer nobody")], content_length=10),
            head_of(path, headers=[(b"authorization", b"Bearer " + foreign)], content_length=10),
            head_of(path, headers=[(b"authorization", b"Bearer reader")], content_length=10),
        ]
        if path == logs.PATH:
            form = (b"content-type", b"application/x-www-form-urlencoded; charset=utf-8")
            heads.append(bearer_head(path, form, content_length=10))
        assert [shortcut(head) for head in heads] == [None] * len(heads)
        for change in ({"requests_per_hour": 5}, {"expires_at": time.time() + 60}):
            rig.set_bearers(**change)
            assert shortcut(bearer_head(path, content_length=10)) is None
        rig.set_bearers()
        assert shortcut(bearer_head(path, content_length=10)) is not None
        rig.admission.fail()
        assert shortcut(bearer_head(path, content_length=10)) is None


@pytest.mark.parametrize("path", [logs.PATH, metrics.PATH])
async def test_a_bearer_door_tells_a_group_that_could_not_be_written(
    tmp_path: Path, path: str
) -> None:
    async with open_rig(tmp_path) as rig:
        rig.set_bearers()
        rig.journal_failure = "the journal cannot be written"
        body = METRIC_BODIES[0] if path == metrics.PATH else LOG_BODIES[0]
        head = bearer_head(path, content_length=len(body))
        answer = await short(rig, body, head)
        assert answer is not None
        assert answer.status == 503
        assert answer == await make_handler(rig.admission)(rig.request(body, head))
        assert not rig.admission.metric_labels.statistics()["metrics"]


async def test_a_change_of_a_label_is_seen_both_ways(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        rig.set_bearers()
        body = METRIC_BODIES[0]
        head = bearer_head(metrics.PATH, content_length=len(body))
        assert await short(rig, body, head)
        renamed = body.replace(b'"M"', b'"N"')
        await make_handler(rig.admission)(rig.request(renamed, head))
        assert await short(rig, body, head)
        (warning,) = rig.admission.metric_labels.warnings()
        assert (warning.project, warning.metric_id, warning.name_changes) == ("acme", "m", 2)


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
