"""The test door checks and answers like the real one, shows what came, and stores nothing."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import trio

from ingester.errors import BodyTooLarge, ClientGone

from .rig import API, AUTH, GOOD_LINE, Body, Rig, open_rig

MIXED = GOOD_LINE + b"\nbad\n" + GOOD_LINE + b"\n"


def shown(rig: Rig) -> dict[str, Any]:
    documents = rig.admission.viewer.documents()
    text = json.dumps(documents)
    assert AUTH not in text
    assert API not in text
    return documents[0]


WAYS: list[dict[str, Any]] = [
    {"listener": "test"},
    {"listener": "test", "path": f"/test/v1/{AUTH}/{API}"},
    {"path": f"/test/v1/{AUTH}/{API}"},
    {"path": f"/test/v1/{AUTH}/{API}/", "query": "x"},
    {"host": b"test.example.com"},
    {"host": b"TEST.example.com:8080"},
    {"host": b"[2001:db8::1]"},
    {"host": b"[2001:db8::1]:8080"},
]


@pytest.mark.parametrize("way", WAYS)
async def test_every_way_to_the_test_door_answers_and_stores_nothing(
    tmp_path: Path, way: dict[str, Any]
) -> None:
    hosts = ("test.example.com", "2001:db8::1")
    async with open_rig(tmp_path, test_hosts=hosts) as rig:
        way = dict(way)
        host = way.pop("host", b"events.example.com")
        response = await rig.ask(MIXED, (b"host", host), **way)
        assert (response.status, response.body) == (200, b"")
        assert response.headers == ((b"Ingester-Accepted", b"2"), (b"Ingester-Rejected", b"1"))
        document = shown(rig)
        assert (document["source"], document["status"]) == ("shop", 200)
        assert (document["accepted"], document["rejected"]) == (2, 1)
        assert document["events"] == [GOOD_LINE.decode()] * 2
        assert document["rejects"][0]["line"] == 2
        assert document["bytes_in"] == document["bytes_raw"] == len(MIXED)
        assert not rig.journalled
        assert rig.admission.accepted_count == 0


@pytest.mark.parametrize(
    "host", [b"", b"events.example.com", b"test.example.com.evil", b"x.test.example.com"]
)
async def test_other_hosts_are_the_real_door(tmp_path: Path, host: bytes) -> None:
    async with open_rig(tmp_path, test_hosts=("test.example.com", "[::1]")) as rig:
        await rig.ask(GOOD_LINE, (b"host", host))
        assert len(rig.journalled) == 1
        assert rig.admission.viewer.documents() == []


async def test_without_test_hosts_the_host_is_not_looked_at(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        await rig.ask(GOOD_LINE, (b"host", b""))
        assert len(rig.journalled) == 1


async def test_a_large_compressed_body_is_shown_by_its_beginning(tmp_path: Path) -> None:
    body = gzip.compress(MIXED * 5000)
    async with open_rig(tmp_path) as rig:
        pieces = [body[start : start + 1000] for start in range(0, len(body), 1000)]
        response = await rig.ask(Body(*pieces), (b"content-encoding", b"gzip"), listener="test")
        assert response.status == 200
        document = shown(rig)
        assert document["accepted"] == 10_000
        assert len(document["events"]) <= 100
        assert document["bytes_in"] == len(body)
        assert document["bytes_raw"] == 5000 * len(MIXED)


async def test_refusals_are_shown_with_the_usual_mistakes(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        response = await rig.ask(GOOD_LINE, method="PUT", listener="test")
        assert (response.status, response.body) == (400, b"")
        document = shown(rig)
        assert document["status"] == 400
        assert document["source"] is None
        assert "-X POST" in document["warnings"][0]
        await rig.ask(GOOD_LINE, path=f"/v1/{AUTH}/mistyped", listener="test")
        assert shown(rig)["warnings"] == ["the path names no key pair of this server"]


async def test_a_broken_body_is_400_and_shown_as_such(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        response = await rig.ask(b"xx", (b"content-encoding", b"gzip"), listener="test")
        assert (response.status, response.body) == (400, b"")
        assert shown(rig)["status"] == 400


@pytest.mark.parametrize(("error", "status"), [(BodyTooLarge("x"), 413), (ClientGone("x"), 400)])
async def test_a_body_that_ends_badly_is_shown(
    tmp_path: Path, error: Exception, status: int
) -> None:
    async with open_rig(tmp_path) as rig:
        body = Body(GOOD_LINE + b"\n", error=error)
        if isinstance(error, ClientGone):
            with pytest.raises(ClientGone):
                await rig.ask(body, listener="test")
        else:
            assert (await rig.ask(body, listener="test")).status == status
        document = shown(rig)
        assert (document["status"], document["accepted"]) == (status, 1)


async def test_mistakes_in_the_events_are_named(tmp_path: Path) -> None:
    seconds = GOOD_LINE.replace(b"1700000000000", b"1700000000")
    far = GOOD_LINE.replace(b"1700000000000", b"99999999999999")
    for body, word in [
        (seconds, "seconds"),
        (far, "ahead"),
        (GOOD_LINE + GOOD_LINE, "--data-binary"),
        (b"[" + GOOD_LINE + b"]", "array"),
        (gzip.compress(GOOD_LINE), "Content-Encoding"),
    ]:
        async with open_rig(tmp_path) as rig:
            await rig.ask(body, listener="test")
            assert word in " ".join(shown(rig)["warnings"])


async def test_a_cancelled_request_is_still_shown(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        with trio.move_on_after(0.05):
            await rig.ask(Body(GOOD_LINE + b"\n", hold=trio.Event()), listener="test")
        assert shown(rig)["accepted"] == 1


async def test_a_lenient_source_is_lenient_here_too(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        line = GOOD_LINE.replace(b'"s"', b'""')
        assert (await rig.ask(line, listener="test")).headers[0][1] == b"0"
        rig.set_source(lenient_session=True)
        assert (await rig.ask(line, listener="test")).headers[0][1] == b"1"


async def test_a_small_piece_that_stands_for_much_is_not_held_decoded_at_once(
    tmp_path: Path,
) -> None:
    """Less than 64 KiB of gzip, 13 MB of events: decoded all at once they took 51 MB."""
    body = gzip.compress((GOOD_LINE + b"\n") * 120_000)
    assert len(body) < 64 * 1024
    async with open_rig(tmp_path) as rig:
        tracemalloc.start()
        try:
            response = await rig.ask(body, (b"content-encoding", b"gzip"), listener="test")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert response.headers[0] == (b"Ingester-Accepted", b"120000")
        assert peak < 8_000_000
