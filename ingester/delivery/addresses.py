"""Which addresses may be connected to: public ones, and networks the operator has opened.

Why it exists: whoever may name a URL must not reach what only this machine reaches: its own
services, the local network, a cloud's metadata.

1. An address is public when it is globally routable and no multicast, and so is every IPv4 address
   inside it (mapped, 6to4, Teredo, NAT64).
2. `allow_networks` opens what lies in one of them. Link-local addresses, where metadata services
   live, are opened only by a network that lies within the link-local range: 0.0.0.0/0 is no wish
   for them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

__all__ = ["Address", "Network", "is_allowed", "parse_networks"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
_LINK_LOCAL: tuple[Network, ...] = (
    ipaddress.IPv4Network("169.254.0.0/16"),
    ipaddress.IPv6Network("fe80::/10"),
    # The metadata service of EC2 over IPv6.
    ipaddress.IPv6Network("fd00:ec2::254/128"),
)


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Raises ValueError that names the text."""
    return tuple(ipaddress.ip_network(text) for text in texts)


def is_allowed(address: Address, allow_networks: Sequence[Network]) -> bool:
    """Whether every address that this one stands for may be connected to."""
    return all(_is_allowed_itself(one, allow_networks) for one in _meant(address))


def _is_allowed_itself(address: Address, allow_networks: Sequence[Network]) -> bool:
    for home in _LINK_LOCAL:
        if address in home:
            return any(
                address in network and _is_within(network, home) for network in allow_networks
            )
    if any(address in network for network in allow_networks):
        return True
    return address.is_global and not address.is_multicast and not address.is_unspecified


def _is_within(network: Network, home: Network) -> bool:
    return network.version == home.version and (
        home.network_address <= network.network_address  # type: ignore[operator]
        and network.prefixlen >= home.prefixlen
    )


def _meant(address: Address) -> Iterator[Address]:
    """The address, or the IPv4 addresses inside it."""
    if isinstance(address, ipaddress.IPv4Address):
        yield address
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
        return
    if any(address in network for network in _NAT64):
        yield ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        return
    yield address
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
