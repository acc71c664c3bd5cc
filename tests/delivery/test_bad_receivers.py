"""Receivers that fail before they have answered: dripping, closing on the body, untrusted TLS.
Each is tried again with the same bytes, `opened` before `resolved`, and one that is well beside it
has everything meanwhile.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio
import trustme

from ingester.config import DeliveryConfig
from tests.delivery.incidents import firing, revision
from tests.delivery.receivers import Received, Receiver, answer, receiving
from tests.delivery.rig import Rig, opened_rig, running

SETTINGS = DeliveryConfig(allow_networks=("127.0.0.0/8",), timeout_seconds_max=1)

Handler = Callable[[trio.SocketStream], Awaitable[None]]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with opened_rig(tmp_path) as opened:
        yield opened


async def drip(_receiver: Receiver, _received: Received, stream: trio.abc.Stream) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 1000:
        await stream.send_all(bytes([byte]))
        await trio.sleep(0.1)


async def drip_the_body(_receiver: Receiver, _received: Received, stream: trio.abc.Stream) -> None:
    await stream.send_all(b"HTTP/1.1 503 X\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(1000):
        await stream.send_all(b"x")
        await trio.sleep(0.1)


async def close_on_the_head(stream: trio.SocketStream) -> None:
    """Reads no byte of the body; what lies in the socket makes the close a reset."""
    async with stream:
        await stream.receive_some(64)


async def refuse_before_the_body(stream: trio.SocketStream) -> None:
    """Answers at the head, and closes without having read the body."""
    async with stream:
        await stream.receive_some(64)
        await stream.send_all(b"HTTP/1.1 413 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}/hook"
        nursery.cancel_scope.cancel()


def statuses(receiver: Receiver) -> list[str]:
    return [msgspec.json.decode(one.body)["status"] for one in receiver.received]


@pytest.mark.parametrize("behaviour", [drip, drip_the_body])
async def test_a_dripping_receiver_is_given_up_in_time_and_tried_again(
    rig: Rig, behaviour: Callable[..., Awaitable[None]]
) -> None:
    async with receiving(behaviour, answer(200)) as receiver, receiving() as healthy:
        to = [rig.destination(receiver.url), rig.destination(healthy.url)]
        async with running(rig, SETTINGS):
            rig.append(revision(), revision(kind="resolved", step=1), to=to)
            await healthy.wait_for(2)
            # Recorded: the two of the healthy one, and the one that dripped.
            await rig.wait_attempts(3)
            rig.hurry()
            await rig.wait_states(delivered=4)
    assert statuses(receiver) == ["opened", "opened", "resolved"]
    assert receiver.received[0].body == receiver.received[1].body
    assert statuses(healthy) == ["opened", "resolved"]


@pytest.mark.parametrize("handler", [close_on_the_head, refuse_before_the_body])
async def test_a_receiver_that_closes_before_the_body_is_tried_again(
    rig: Rig, handler: Handler
) -> None:
    row = b'{"text":"' + b"x" * 3_000_000 + b'"}'  # more than the sockets hold
    async with serving(handler) as url, receiving() as healthy:
        to = rig.destination(url, type="generic")
        async with running(rig, SETTINGS):
            rig.fire(firing(rows=(row,)), to=[to])
            await rig.wait_attempts(1)
            assert rig.states() == {"pending": 1}
            rig.control.patch_destination(to, {"url": healthy.url})
            rig.hurry()
            await rig.wait_states(delivered=1)
    assert row in healthy.received[0].body


async def test_nothing_is_sent_to_a_receiver_whose_certificate_nobody_trusts(rig: Rig) -> None:
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(served)
    async with receiving(tls=served) as stranger, receiving() as healthy:
        to = [rig.destination(stranger.url), rig.destination(healthy.url)]
        async with running(rig, SETTINGS):
            rig.append(revision(), revision(kind="resolved", step=1), to=to)
            await rig.wait_states(delivered=2, pending=2)
            await rig.wait_attempts(3)
    assert stranger.received == []
    assert statuses(healthy) == ["opened", "resolved"]
    [(error,)] = rig.rows("SELECT error FROM attempts WHERE status IS NULL")
    assert error.startswith("TLS: ")
