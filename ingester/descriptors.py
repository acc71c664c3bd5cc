"""Descriptors of the server process: how many it may have, and how many of them are connections.

Journal, store, deliveries and the console need descriptors, too. With all of them given to
connections a flood of silent clients ended what the server is there for: no segment could be made,
no part be opened. So connections have at most half.
"""

from __future__ import annotations

import resource

__all__ = ["connections_allowed", "raise_limit"]

# More are of no use to us, and some hard limits are a billion.
_WANTED = 65_536


def raise_limit() -> None:
    """Take what the hard limit allows: the soft one is 1,024 on many systems."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connections_allowed(wanted: int) -> int:
    """`wanted` connections, or half of the descriptors if that is less."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft // 2))
