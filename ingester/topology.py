"""The topology: which actors run, over which channels, and how they stop.

```
intake server ─► handler ─┬─ journal gate (bytes) ─► journal ─(∞, bounded by the gate)─► loader
                          └─ uploads (0) ─► bulk worker × bulk_uploads_max
                                            each: pieces (4) ─► decode ─ slices (1) ─► insert
store ─(commits)─► rollups, rules, alerts, monitors ─► outbox ─► delivery ─► receivers
maintenance, sealer, rollups, watching, delivery, console: beside them, restarted when they fail
```

Drain, in this order: not ready ► doors stop accepting ► open requests finish within
`drain_seconds_max` ► bulk workers end ► journal flushed ► loader commits (when the store does not
take it within as long again, it stays in the journal) ► deliveries under way end ► quotas stored ►
console stops ► checkpoint ► exit 0. A second signal ends the process at once; what was acknowledged
is in the journal or committed, what was not delivered is in the outbox.

A fault of a journal, loader or store that its actor cannot resolve passes through here and ends the
process non-zero: nothing acknowledged is lost, the next start replays it.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import structlog
import trio
from msgspec import Struct

from . import startup
from .actors import delivery, journal, loader, maintenance, rollups, sealer, watch
from .actors.bulk import worker as bulk
from .actors.bulk.worker import BulkWorkerContext
from .actors.tls import Certificates
from .config import Config
from .config_check import split_address
from .console.app import make_app
from .console.connection import ConsoleLimits
from .console.server import ConsoleAddresses, StartedOnce, serve_console
from .descriptors import raise_limit
from .errors import ConfigError, IngesterError, StoreFailed
from .logs import configure_logging
from .management.people import invitation_link
from .process import Process
from .process_memory import bound_arenas
from .services import ProcessServices, reload_keys
from .store.control import SourceKeys
from .watch.clock import Clock
from .watch.files import sync_files
from .watch.rules import RuleEngine

__all__ = ["Announcement", "serve"]

_log = structlog.get_logger()

LISTEN_BACKLOG = 4096
_RESTART_WAITS_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
# What the loader gets at least to store what is journalled, at the end: the largest backlog.
_LOAD_SECONDS_MIN = 10
_CONSOLE_STOP_SECONDS = 2


class Announcement(Struct, frozen=True):
    """Where the doors really listen; on the first start the first source's keys and the console's
    one-time setup link.
    """

    intake: str
    console: str
    test: str | None
    first_run: SourceKeys | None
    setup_url: str | None = None


async def serve(
    config: Config,
    *,
    reload: Callable[[], Config],
    announce: Callable[[Announcement], None],
) -> None:
    """Run until SIGTERM or SIGINT. `reload` reads the configuration again (SIGHUP)."""
    configure_logging(config.log)
    bound_arenas()
    raise_limit()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        # A replay holds tens of thousands of requests at a time: a tenth of its CPU.
        gc.set_threshold(50_000, 20, 50)
        opened = await trio.to_thread.run_sync(startup.open_all, config)
        # What exists now lives as long as the process; a full collection need not walk it.
        gc.freeze()
        process = Process(config, opened)
        try:
            await reload_keys(opened.control, process.admission)
            stop_console = trio.Event()
            async with trio.open_nursery() as beside:
                addresses = await beside.start(_console, process, stop_console)
                process.console_url = addresses.url
                await _read_watch_files(process, addresses.url)
                async with trio.open_nursery() as telling:
                    stop_telling = trio.Event()
                    deliver = partial(_deliver, stop_telling, addresses.url)
                    telling.start_soon(_keep_running, "delivery", process, deliver)
                    async with trio.open_nursery() as upkeep:
                        upkeep.start_soon(_keep_running, "maintenance", process, _maintenance)
                        upkeep.start_soon(_keep_running, "journal-clean", process, _clean_journal)
                        upkeep.start_soon(_keep_running, "queries", process, _queries)
                        upkeep.start_soon(_keep_running, "sealer", process, _sealer)
                        upkeep.start_soon(_keep_running, "rollups", process, _rollups)
                        for name, actor in _watching(process, addresses.url):
                            upkeep.start_soon(_keep_running, name, process, actor)
                        await _run_core(process, addresses, announce, signals, reload)
                        upkeep.cancel_scope.cancel()
                    stop_telling.set()
                    telling.cancel_scope.deadline = trio.current_time() + _tell_seconds(process)
                await maintenance.save_quotas(opened.control, opened.quotas)
                await maintenance.save_usage(opened.control, process.admission.usage)
                stop_console.set()
                await trio.to_thread.run_sync(opened.store.interrupt)
                beside.cancel_scope.deadline = trio.current_time() + _CONSOLE_STOP_SECONDS
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(startup.close, opened)
        _log.info("stopped")


async def _run_core(
    process: Process,
    console: ConsoleAddresses,
    announce: Callable[[Announcement], None],
    signals: AsyncIterator[int],
    reload: Callable[[], Config],
) -> None:
    """The data path, from the doors to the store. Returns when drained."""
    async with trio.open_nursery() as watch:
        async with trio.open_nursery() as core:
            opened = process.opened
            core.start_soon(
                partial(
                    journal.run,
                    process.gate,
                    process.groups_send,
                    writer=opened.writer,
                    turn=process.journal_turn,
                )
            )
            core.start_soon(_loader(process))
            watch.start_soon(_end_when_failed, process)
            context = _bulk_context(process)
            for _ in range(process.config.intake.bulk_uploads_max):
                core.start_soon(partial(bulk.run, process.uploads.clone(), context=context))
            await _run_doors(process, console, announce, signals, reload, watch)
            # Each ends what comes after it: workers and journal return, then the loader.
            await process.uploads_send.aclose()
            process.gate.close()
            load_seconds_max = max(process.config.server.drain_seconds_max, _LOAD_SECONDS_MIN)
            core.cancel_scope.deadline = trio.current_time() + load_seconds_max
        if core.cancel_scope.cancelled_caught:
            _log.warning("not all is in the store yet; the next start loads it from the journal")
        watch.cancel_scope.cancel()


async def _run_doors(
    process: Process,
    console: ConsoleAddresses,
    announce: Callable[[Announcement], None],
    signals: AsyncIterator[int],
    reload: Callable[[], Config],
    watch: trio.Nursery,
) -> None:
    """Listen until a signal says stop, then let open requests finish."""
    config = process.config
    async with trio.open_nursery() as doors:
        process.intake_url = await _open_door(doors, process, config.intake.bind, "intake")
        test_url = None
        if config.intake.test_bind:
            test_url = await _open_door(doors, process, config.intake.test_bind, "test")
        announce(_announcement(process, console.url, test_url))
        _log.info("ready", intake=process.intake_url, console=console.url, test=test_url)
        await _watch_signals(process, signals, reload)
        watch.start_soon(_end_at_second_signal, signals)
        _log.info("draining", seconds_max=config.server.drain_seconds_max)
        process.admission.is_draining = True
        process.server.drain()
        with trio.move_on_after(config.server.drain_seconds_max) as grace:
            await process.server.wait_drained()
        if grace.cancelled_caught:
            _log.warning("open requests were cut at the end of the grace time")
        doors.cancel_scope.cancel()


def _announcement(process: Process, console_url: str, test_url: str | None) -> Announcement:
    opened = process.opened
    setup_url = None
    if opened.setup is not None:
        base = process.config.console.public_url or console_url
        setup_url = invitation_link(base, opened.setup)
    return Announcement(process.intake_url, console_url, test_url, opened.first_run, setup_url)


async def _open_door(doors: trio.Nursery, process: Process, bind: str, listener: str) -> str:
    """Bind and serve one listener; its real URL."""
    address = split_address(bind)
    assert address is not None
    host, port = address
    intake = process.config.intake
    certificates = None
    if intake.tls_cert_file:
        certificates = Certificates(Path(intake.tls_cert_file), Path(intake.tls_key_file))
        process.certificates.append(certificates)
    try:
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=LISTEN_BACKLOG)
    except OSError as error:
        key = "intake.test_bind" if listener == "test" else "intake.bind"
        raise ConfigError(key, f"cannot listen on {bind}: {error.strerror or error}") from error
    real_port = listeners[0].socket.getsockname()[1]
    await doors.start(partial(process.server.run, listeners, listener=listener, tls=certificates))
    scheme = "https" if certificates is not None else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{real_port}"


def _loader(process: Process) -> Callable[[], Awaitable[None]]:
    opened = process.opened
    return partial(
        loader.run,
        process.groups,
        gate=process.gate,
        applied=opened.applied,
        store=opened.store,
        config=process.config.store,
        rejects=opened.rejects,
        counters=opened.loader_counters,
        dead_letters=opened.dead_letters,
    )


def _bulk_context(process: Process) -> BulkWorkerContext:
    config = process.config
    return BulkWorkerContext(
        store=process.opened.store,
        rejects=process.opened.rejects,
        counters=process.bulk_counters,
        decode_turn=process.decode_turn,
        insert_turns=trio.CapacityLimiter(config.intake.bulk_uploads_max),
        refuse_if_full=process.disk.refuse_if_full,
        upload_file_bytes_min=config.store.upload_file_bytes_min,
        on_trouble=process.trouble.ring,
    )


async def _maintenance(process: Process) -> None:
    await maintenance.run(
        store=process.opened.store,
        control=process.opened.control,
        quotas=process.opened.quotas,
        usage=process.admission.usage,
        disk=process.disk,
        dedup=process.opened.dedup,
        trouble=process.trouble,
        config=process.config.store,
    )


async def _sealer(process: Process) -> None:
    await sealer.run(
        store=process.opened.store,
        rejects=process.opened.rejects,
        keeping=process.keeping,
        load=process.load,
        has_room=lambda: not process.disk.is_half_gone,
        counters=process.sealer_counters,
    )


async def _deliver(stop: trio.Event, console_url: str, process: Process) -> None:
    await delivery.run(
        control=process.opened.control,
        bell=process.outbox,
        stop=stop,
        settings=lambda: process.config.delivery,
        console_base=lambda: process.config.console.public_url or console_url,
        counters=process.delivery_counters,
    )


def _tell_seconds(process: Process) -> float:
    """For attempts under way at the end; one that is cut is made again after the next start."""
    config = process.config
    return 1 + min(config.delivery.timeout_seconds_max, config.server.drain_seconds_max)


def _watching(
    process: Process, console_url: str
) -> Iterator[tuple[str, Callable[[Process], Awaitable[None]]]]:
    """The actors of rules, alerts and monitors, by name."""
    store, control = process.opened.store, process.opened.control

    def console_base() -> str:
        return process.config.console.public_url or console_url

    parts = watch.WatchParts(
        store=store,
        control=control,
        queries=process.queries,
        sql_turn=trio.CapacityLimiter(1),
        console_base=console_base,
        config=lambda: process.config.watch,
        outbox=process.outbox,
        counters=process.watch_counters,
        clock=Clock(),
    )

    async def rules(_: Process) -> None:
        await watch.run_rules(
            lambda: RuleEngine(store, control, console_base=console_base),
            store=store,
            outbox=process.outbox,
            counters=process.watch_counters,
        )

    async def alerts(_: Process) -> None:
        await watch.run_alerts(parts)

    async def monitors(_: Process) -> None:
        await watch.run_monitors(parts)

    yield from (("rules", rules), ("alerts", alerts), ("monitors", monitors))


async def _queries(process: Process) -> None:
    await process.queries.run()


async def _rollups(process: Process) -> None:
    await rollups.run(
        rollups=process.opened.rollups,
        store=process.opened.store,
        config=lambda: process.config.store,
        has_room=lambda: not process.disk.is_half_gone,
        is_crowded=lambda: process.bulk_counters.active_count > 1,
    )


async def _clean_journal(process: Process) -> None:
    await journal.clean(
        writer=process.opened.writer,
        applied=process.opened.applied,
        disk=process.disk,
        turn=process.journal_turn,
    )


async def _console(
    process: Process,
    stop: trio.Event,
    task_status: trio.TaskStatus[ConsoleAddresses] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the console until `stop`; restarted on the address it got. Raises what goes wrong
    before it listens for the first time.
    """
    started = StartedOnce(task_status)

    async def serve_it(process: Process) -> None:
        await _serve_console(process, stop, started)

    try:
        await serve_it(process)
    except Exception as error:
        if started.addresses is None:
            raise
        await _keep_running("console", process, serve_it, failed=error)


async def _serve_console(process: Process, stop: trio.Event, started: StartedOnce) -> None:
    config = process.config
    certificates: Certificates | None = None
    if config.console.tls_cert_file:
        pem, key = Path(config.console.tls_cert_file), Path(config.console.tls_key_file)
        certificates = Certificates(pem, key, section="console")
        process.certificates.append(certificates)
    services = ProcessServices(
        config=lambda: process.config,
        intake_url=lambda: process.intake_url,
        console_url=lambda: "" if started.addresses is None else started.addresses.url,
        admission=process.admission,
        control=process.opened.control,
        store=process.opened.store,
        queries=process.queries,
        journal=process.opened.writer,
        rollups=process.opened.rollups,
        problems=process.opened.problems,
        next_number=process.opened.numbers.next,
        keeping=process.keeping,
        outbox=process.outbox,
        delivery=process.delivery_counters,
        statistics=process.statistics,
    )
    async with services.searches.running(stop):
        await serve_console(
            make_app(services),
            bind=started.bind(config.console.bind),
            unix_path=Path(config.store.data_dir) / "control.sock",
            counters=process.console_counters,
            limits=ConsoleLimits(drain_seconds_max=config.server.drain_seconds_max),
            tls=None if certificates is None else (lambda: certificates.context),
            stop=stop,
            task_status=started,
        )


async def _keep_running(
    name: str,
    process: Process,
    actor: Callable[[Process], Awaitable[None]],
    *,
    failed: Exception | None = None,
) -> None:
    """Run a peripheral actor until it returns; restart it with growing waits, and show it. Bugs
    included: they are no reason to stop taking data. StoreFailed passes: that is one.

    `failed` is how its first run has ended already.
    """
    while True:
        if failed is not None:
            count = process.restarts[name] = process.restarts.get(name, 0) + 1
            _log.error("actor failed, restarting", actor=name, restarts=count, exc_info=failed)
            await trio.sleep(_RESTART_WAITS_S[min(count, len(_RESTART_WAITS_S)) - 1])
        try:
            await actor(process)
            return
        except StoreFailed:
            raise
        except Exception as error:  # the actor's own faults; cancellation passes
            failed = error


async def _watch_signals(
    process: Process, signals: AsyncIterator[int], reload: Callable[[], Config]
) -> None:
    """Re-read settings on SIGHUP; return on SIGTERM or SIGINT."""
    async for number in signals:
        if number != signal.SIGHUP:
            return
        if _reload(process, reload):
            await _read_watch_files(process, process.console_url)


async def _read_watch_files(process: Process, console_url: str) -> None:
    """What `[watch] files` declare; a bad file is refused, and what is there stays."""
    files = process.config.watch.files
    base = process.config.console.public_url or console_url
    read = partial(sync_files, process.opened.control, files, console_base=base)
    try:
        changed = await trio.to_thread.run_sync(read)
    except (IngesterError, OSError) as error:
        _log.error("watch files refused, what they declared before stays", reason=str(error))
        return
    process.outbox.ring()
    if files:
        _log.info("watch files read", files=len(files), changed=changed)


def _reload(process: Process, reload: Callable[[], Config]) -> bool:
    """Take over what can change while running; a bad configuration is refused whole."""
    try:
        config = reload()
        for certificates in process.certificates:
            certificates.reload()
        configure_logging(config.log)
        process.reconfigure(config)
    except (IngesterError, OSError) as error:
        _log.error("configuration refused, the old one stays", reason=str(error))
        return False
    _log.info("configuration read again")
    return True


async def _end_when_failed(process: Process) -> None:
    """Design: a fault of the store that cannot be resolved ends the process non-zero."""
    await process.admission.failed.wait()
    raise StoreFailed("whether an upload was stored could not be found out; start again to see")


async def _end_at_second_signal(signals: AsyncIterator[int]) -> None:
    async for number in signals:
        if number != signal.SIGHUP:
            _log.warning("second signal: ending now; what was acknowledged is on disk")
            sys.stderr.flush()
            os._exit(1)
