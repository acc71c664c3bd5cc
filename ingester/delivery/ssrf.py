"""The guard before a connection: the one place where a name becomes a socket.

1. A name is resolved once; every answer is checked, and one that may not be connected to refuses
   all: a name that is half public is an attack or a mistake.
2. What is connected to is an address that was checked, never the name again. TLS and the `Host`
   header keep the name.
3. Connections by unix socket are refused. Redirects are not followed by anyone.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any

import httpcore2
import trio

from ingester.delivery.addresses import Address, Network, is_allowed

__all__ = ["AddressRefused", "CheckedBackend", "Resolve", "make_resolve"]

# (host, port) → addresses, in the order they should be tried.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

# Each destination resolves for itself: one whose name server hangs waits alone.
_RESOLVING_MAX = 2

_CONNECT_SECONDS_MAX = 5.0


class AddressRefused(Exception):
    """Not a place to connect to; the sentence names the address and the setting that opens it."""


class CheckedBackend(httpcore2.AsyncNetworkBackend):
    """The network of the HTTP client, with the guard in front."""

    def __init__(
        self,
        allow_networks: Callable[[], Sequence[Network]],
        resolve: Resolve,
        *,
        network: httpcore2.AsyncNetworkBackend | None = None,
    ) -> None:
        self._allow_networks = allow_networks
        self._resolve = resolve
        self._network = httpcore2.TrioBackend() if network is None else network

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        # An IPv6 literal comes in brackets.
        addresses = await self._resolve(host.strip("[]"), port)
        if not addresses:
            raise httpcore2.ConnectError(f"{host} has no address")
        checked = [self._checked(host, address) for address in addresses]
        failure: Exception | None = None
        for address in checked:
            try:
                stream = await self._network.connect_tcp(
                    str(address), port, timeout=_CONNECT_SECONDS_MAX, socket_options=socket_options
                )
                return _ClosedStream(stream)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        assert failure is not None
        raise failure

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        raise AddressRefused("a unix socket is no place to deliver to")

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    def _checked(self, host: str, text: str) -> Address:
        address = ipaddress.ip_address(text.partition("%")[0])
        if not is_allowed(address, self._allow_networks()):
            where = str(address) if host.strip("[]") == text else f"{host} is {address}, which"
            raise AddressRefused(
                f"{where} is not a public address; to deliver there, add its network to"
                " [delivery] allow_networks"
            )
        return address


class _ClosedStream(httpcore2.AsyncNetworkStream):
    """A connection that is closed also when its TLS handshake is cancelled."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        secured = None
        try:
            secured = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        finally:
            if secured is None:
                with trio.CancelScope(shield=True), trio.move_on_after(1):
                    await self._stream.aclose()
        return secured

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def make_resolve() -> Resolve:
    """The system's resolver, on threads of its own."""
    limiter = trio.CapacityLimiter(_RESOLVING_MAX)

    async def resolve(host: str, port: int) -> Sequence[str]:
        look = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            found = await trio.to_thread.run_sync(look, limiter=limiter, abandon_on_cancel=True)
        except (socket.gaierror, UnicodeError) as error:
            reason = error.strerror if isinstance(error, socket.gaierror) else "no host name"
            raise httpcore2.ConnectError(f"{host}: {reason}") from error
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    return resolve
