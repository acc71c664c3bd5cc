"""Failed attempts: who tried wrong keys, and the wait that slows the next try.

Guessing a 166-bit key is hopeless at any rate; what this bounds is the load and the noise of those
who try, and it is all that stands between a guesser and a weak password.

1. Only a failed attempt waits, after it was found to be one: a valid key is never delayed, nor
   refused for the address it comes from.
2. A wait holds no lock, no body and no slot but one of `_WAITING_MAX`; over that number the answer
   is given at once.
3. The table is bounded; the address that failed longest ago goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address

import trio

__all__ = ["FailedAttempts"]

# A typing error or an old key in one sender costs nothing.
_FREE_ATTEMPTS = 3
_FIRST_WAIT_S = 0.1
_WAIT_S_MAX = 2.0
_FORGOTTEN_AFTER_S = 60.0

_ADDRESSES_MAX = 4096
_WAITING_MAX = 256


class FailedAttempts:
    """Failures by address (or by another name: a login's e-mail address)."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self.waiting_count = 0
        self.failed_count = 0

    async def slow_down(self, address: str) -> None:
        """Take note of a failed attempt and wait as long as its forerunners ask for."""
        wait_s = self.note(address)
        if wait_s <= 0 or self.waiting_count >= _WAITING_MAX:
            return
        self.waiting_count += 1
        try:
            await trio.sleep(wait_s)
        finally:
            self.waiting_count -= 1

    def note(self, address: str) -> float:
        """Take note of a failed attempt; the seconds its answer should wait."""
        self.failed_count += 1
        name = _network(address)
        now_s = trio.current_time()
        count, last_s = self._failures.pop(name, (0, now_s))
        count = 1 if now_s - last_s > _FORGOTTEN_AFTER_S else count + 1
        self._failures[name] = count, now_s
        if len(self._failures) > _ADDRESSES_MAX:
            self._failures.popitem(last=False)
        if count <= _FREE_ATTEMPTS:
            return 0.0
        # The exponent is bounded, else the power overflows after a thousand failures.
        doublings = min(count - _FREE_ATTEMPTS - 1, 16)
        return min(_WAIT_S_MAX, _FIRST_WAIT_S * (1 << doublings))

    def statistics(self) -> dict[str, int]:
        return {"failed_total": self.failed_count, "waiting": self.waiting_count}


def _network(address: str) -> str:
    """One customer has a /64 of IPv6: its addresses count as one."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return parsed.exploded[:19]
    return address
