"""Desks of deliveries: what the management routes ask for, in a running server or without one.

Both send on the way that all deliveries take: the same client, signature and guard.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from .actors.delivery import DeliveryCounters
from .config import DeliveryConfig
from .delivery.addresses import parse_networks
from .delivery.client import Client, make_tls_context
from .delivery.exchange import Exchange, Target
from .flow import Doorbell

__all__ = ["OfflineDesk", "ProcessDesk"]


class ProcessDesk:
    """Implements `management.calls.DeliveryDesk` for worker threads of a running server."""

    def __init__(
        self, settings: Callable[[], DeliveryConfig], bell: Doorbell, counters: DeliveryCounters
    ) -> None:
        self._settings = settings
        self._bell = bell
        self._counters = counters

    def send(self, target: Target, event_id: str, body: bytes) -> Exchange:
        return trio.from_thread.run(_send, self._settings(), target, event_id, body)

    def ring(self) -> None:
        trio.from_thread.run_sync(self._ring)

    def _ring(self) -> None:
        self._counters.lifts_pauses = True
        self._bell.ring()


class OfflineDesk:
    """The same for a command on a stopped folder: nobody listens to the bell."""

    def __init__(self, settings: DeliveryConfig) -> None:
        self._settings = settings

    def send(self, target: Target, event_id: str, body: bytes) -> Exchange:
        return trio.run(_send, self._settings, target, event_id, body)

    def ring(self) -> None:
        return


async def _send(settings: DeliveryConfig, target: Target, event_id: str, body: bytes) -> Exchange:
    client = Client(
        target,
        allow_networks=lambda: parse_networks(settings.allow_networks),
        tls=await trio.to_thread.run_sync(make_tls_context, settings.tls_ca_file),
    )
    async with client:
        return await client.send(event_id, body, seconds_max=settings.timeout_seconds_max)
