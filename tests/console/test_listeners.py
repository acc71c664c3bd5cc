"""The console's listeners: addresses, the control socket, and limits of connections."""

from __future__ import annotations

import gc
import os
import resource
import socket
import stat
from functools import partial
from pathlib import Path

import pytest
import structlog
import trio
import trio.testing

from ingester.console.app import make_app
from ingester.console.connection import ConsoleLimits, FaultLog
from ingester.console.server import serve_console, socket_address
from ingester.errors import ConfigError
from tests.console.fakes import (
    Console,
    FakeServices,
    ask,
    eventually,
    read_answer,
    refusing_app,
    served,
)


async def test_over_the_connection_limit_is_503_and_the_control_socket_still_works(
    tmp_path: Path,
) -> None:
    async with served(tmp_path, limits=ConsoleLimits(connections_max=2)) as console:
        held = [await console.connect(), await console.connect()]
        for stream in held:
            assert (await ask(stream, "GET", "/healthz")).status == 200
        async with await console.connect() as extra:
            answer = await read_answer(extra)
            assert answer.status == 503
            assert answer.document == {"error": "too many connections to this door"}
        assert (await console.control("GET", "/api/v1/status")).status == 200
        assert console.counters.connections_refused_total == 1
        for stream in held:
            await stream.aclose()
        await eventually(lambda: not console.counters.connections_open)
        assert (await console.get("/healthz")).status == 200


async def test_accepting_goes_on_after_descriptors_ran_out(
    console: Console, capfd: pytest.CaptureFixture[str]
) -> None:
    await console.get("/healthz")
    # What shows tracebacks in tests loads modules for the first one, which takes descriptors.
    try:
        raise OSError("none")
    except OSError as error:
        structlog.get_logger().error("the first", exc_info=error)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A descriptor that becomes free meanwhile (the request before, garbage) takes one client.
    await eventually(lambda: not console.counters.connections_open)
    gc.collect()
    clients = [socket.socket() for _ in range(8)]
    used = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
    fillers: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 8, hard))
    try:
        while True:
            try:
                fillers.append(os.dup(0))
            except OSError:
                break
        for client in clients:
            client.setblocking(False)
            client.connect_ex((console.addresses.host, console.addresses.port))
        await eventually(lambda: console.counters.accept_failures_total >= 3)
    finally:
        for filler in fillers:
            os.close(filler)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with trio.fail_after(5):
        assert (await console.get("/healthz")).status == 200
    for client in clients:
        client.close()
    assert "cannot accept" in "".join(capfd.readouterr())


async def test_a_fault_that_repeats_is_a_line_a_second(
    autojump_clock: trio.testing.MockClock, capfd: pytest.CaptureFixture[str]
) -> None:
    faults = FaultLog()
    for _ in range(9):
        faults.report("cannot accept", OSError("none"))
        await trio.sleep(0.25)
    told = "".join(capfd.readouterr())
    assert told.count("cannot accept") == 3
    assert told.count("suppressed=3") == 2


async def test_counters_tell_listener_and_status(console: Console) -> None:
    await console.get("/healthz")
    await console.get("/nothing")
    await console.control("GET", "/api/v1/status")
    snapshot = console.counters.snapshot()
    assert snapshot["requests_total"] == {
        "by_listener": {
            "console": {"by_status": {"200": 1, "404": 1}},
            "control": {"by_status": {"200": 1}},
        }
    }
    assert snapshot["connections_total"] == 3


async def test_control_socket_is_private_and_replaces_a_stale_one(tmp_path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "control.sock"))
    stale.close()
    (tmp_path / "control.sock.new").touch()
    async with served(tmp_path) as console:
        path = console.addresses.unix_path
        assert path is not None
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (await console.control("GET", "/healthz")).status == 200
    assert os.listdir(tmp_path) == []


async def test_a_file_in_the_way_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "control.sock").write_text("mine")
    with pytest.raises(ConfigError) as caught:
        await serve_console(
            refusing_app,
            bind=None,
            unix_path=tmp_path / "control.sock",
            tls=None,
            stop=trio.Event(),
        )
    assert caught.value.key == "store.data_dir"
    assert (tmp_path / "control.sock").read_text() == "mine"


async def test_the_socket_of_another_server_is_not_removed(tmp_path: Path) -> None:
    async with served(tmp_path) as console:
        assert console.addresses.unix_path is not None
        console.addresses.unix_path.rename(tmp_path / "moved")
        console.addresses.unix_path.touch()
    assert (tmp_path / "control.sock").exists()


async def test_a_folder_with_a_long_path_works(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 20) / ("path" * 20)
    folder.mkdir(parents=True)
    async with served(folder) as console:
        assert console.addresses.unix_path is not None
        with socket_address(console.addresses.unix_path) as address:
            sock = trio.socket.socket(socket.AF_UNIX)
            await sock.connect(address)
        async with trio.SocketStream(sock) as stream:
            assert (await ask(stream, "GET", "/api/v1/status")).status == 200
    assert os.listdir(folder) == []


@pytest.mark.parametrize("bind", ["nonsense", "127.0.0.1:", "127.0.0.1:99999", "localhost:x", ":"])
async def test_a_bad_address_is_refused_by_name(bind: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await serve_console(refusing_app, bind=bind, unix_path=None, tls=None, stop=trio.Event())
    assert caught.value.key == "console.bind"


async def test_a_port_in_use_is_refused_by_name(console: Console) -> None:
    with pytest.raises(ConfigError, match="in use"):
        await serve_console(
            refusing_app,
            bind=f"127.0.0.1:{console.addresses.port}",
            unix_path=None,
            tls=None,
            stop=trio.Event(),
        )


async def test_a_bound_socket_can_be_given(tmp_path: Path) -> None:
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    stop = trio.Event()

    async def app(scope: object, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})  # type: ignore
        await send({"type": "http.response.body", "body": b""})  # type: ignore[operator]

    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus) -> None:  # type: ignore[type-arg]
            await serve_console(
                app, bind=bound, unix_path=None, tls=None, stop=stop, task_status=task_status
            )

        addresses = await nursery.start(run)
        assert addresses.url == f"http://127.0.0.1:{addresses.port}"
        async with await trio.open_tcp_stream("127.0.0.1", addresses.port) as stream:
            assert (await ask(stream, "GET", "/")).status == 204
        stop.set()


async def test_ipv6_address_is_told_in_brackets() -> None:
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus) -> None:  # type: ignore[type-arg]
            await serve_console(
                refusing_app,
                bind="[::1]:0",
                unix_path=None,
                tls=None,
                stop=trio.Event(),
                task_status=task_status,
            )

        addresses = await nursery.start(run)
        assert addresses.url == f"http://[::1]:{addresses.port}"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("is_stopping", [True, False])
async def test_cancelling_the_server_waits_for_no_answer_that_nobody_reads(
    tmp_path: Path, is_stopping: bool
) -> None:
    """The end of a process gives the console two seconds, whatever its own patience."""
    services, stop = FakeServices(tmp_path), trio.Event()
    limits = ConsoleLimits(drain_seconds_max=60, send_seconds_max=60)
    serve = partial(
        serve_console,
        make_app(services),
        bind=None,
        unix_path=tmp_path / "control.sock",
        tls=None,
        stop=stop,
        limits=limits,
    )
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(serve)
            stream = await trio.open_unix_socket(str(addresses.unix_path))
            body = b'{"sql":"large 30000000"}'
            head = b"POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
            await stream.send_all(head % len(body) + body)
            await stream.receive_some(100)
            if is_stopping:
                stop.set()
                await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
    await stream.aclose()
    services.control.close()
