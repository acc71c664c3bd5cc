"""Client addresses behind trusted proxies, from `X-Forwarded-For`.

Read from the right: every proxy appends the address it saw, so the first address from the right
that is not a trusted proxy is the nearest one that nobody we trust vouches against. What stands
left of it was written by the client and counts for nothing. It never looks names up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from ingester.errors import ConfigError

__all__ = ["Network", "address_text", "client_address", "is_in", "parse_networks"]

Network = IPv4Network | IPv6Network


def parse_networks(key: str, texts: Sequence[str]) -> tuple[Network, ...]:
    """CIDRs of a setting; a bare address is a network of one."""
    networks = []
    for text in texts:
        try:
            networks.append(ip_network(text, strict=False))
        except ValueError:
            raise ConfigError(key, f"{text!r} is no network; write it like 10.0.0.0/8") from None
    return tuple(networks)


def address_text(text: str) -> str:
    """One spelling per address: IPv4 inside IPv6 becomes IPv4, a zone is dropped."""
    address = _parse(text)
    return text if address is None else str(address)


def is_in(text: str, networks: Sequence[Network]) -> bool:
    """Whether an address belongs to one of the networks."""
    address = _parse(text)
    return address is not None and any(address in network for network in networks)


def client_address(peer: str, forwarded_for: Iterable[bytes], trusted: Sequence[Network]) -> str:
    """The client's address; `forwarded_for` are the header's values in the order received."""
    client = peer
    hops = [hop for value in forwarded_for for hop in value.decode("latin-1").split(",")]
    for hop in reversed(hops):
        if not is_in(client, trusted):
            break
        address = _parse(_without_port(hop.strip()))
        if address is None:
            break
        client = str(address)
    return client


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _without_port(hop: str) -> str:
    """`1.2.3.4:5`, `[::1]:5` and `[::1]` are seen in the field."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    host, colon, port = hop.rpartition(":")
    return host if colon and ":" not in host and port.isdigit() else hop
