"""TLS at the console door: pairs that change, and connections that are no TLS."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trio

from ingester.console.connection import ConsoleLimits
from tests.console.fakes import (
    Console,
    ask,
    descriptors,
    read_to_end,
    served,
    settled,
)

PAIRS = Path(__file__).parent.parent / "data" / "tls"


def pair(name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PAIRS / f"{name}.crt", PAIRS / f"{name}.key")
    return context


def trusting(name: str, *protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(PAIRS / f"{name}.crt"))
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


async def connect_tls(console: Console, context: ssl.SSLContext) -> trio.SSLStream:  # type: ignore[type-arg]
    stream = trio.SSLStream(
        await console.connect(), context, server_hostname="localhost", https_compatible=True
    )
    await stream.do_handshake()
    return stream


async def test_tls_serves_http_1_1_and_new_connections_see_a_new_pair(tmp_path: Path) -> None:
    current = [pair("first")]
    async with served(tmp_path, tls=lambda: current[0]) as console:
        assert console.addresses.url.startswith("https://")
        old = await connect_tls(console, trusting("first", "h2", "http/1.1"))
        assert old.selected_alpn_protocol() == "http/1.1"
        assert (await ask(old, "GET", "/healthz")).status == 200
        current[0] = pair("second")
        new = await connect_tls(console, trusting("second"))
        for stream in (old, new):
            assert (
                await ask(stream, "GET", "/healthz", headers=["Connection: close"])
            ).status == 200
            assert await read_to_end(stream) == b""
            await stream.aclose()
        assert (await console.control("GET", "/api/v1/status")).status == 200


async def test_what_is_no_tls_costs_its_connection_only(tmp_path: Path) -> None:
    limits = ConsoleLimits(handshake_seconds_max=0.2)
    async with served(tmp_path, tls=pair("first"), limits=limits) as console:
        before = descriptors()
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"", b"\x16\x03\x01\x02\x00\x01"):
            async with await console.connect() as stream:
                await stream.send_all(data)
                with trio.fail_after(5):
                    await read_to_end(stream)
        assert await settled(before) <= before
        async with await connect_tls(console, trusting("first")) as secure:
            assert (await ask(secure, "GET", "/healthz")).status == 200
        assert console.counters.connection_faults_total == 0


async def test_a_pair_that_cannot_be_read_costs_connections_not_the_server(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def unreadable() -> ssl.SSLContext:
        raise ValueError("no certificate")

    async with served(tmp_path, tls=unreadable) as console:
        async with await console.connect() as stream:
            assert await read_to_end(stream) == b""
        assert console.counters.connection_faults_total == 1
        assert (await console.control("GET", "/healthz")).status == 200
    assert "no certificate" in "".join(capfd.readouterr())
