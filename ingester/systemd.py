"""What systemd is told of a service that starts, reloads and stops (sd_notify(3)).

Nothing happens where `NOTIFY_SOCKET` is not set. A datagram that cannot be sent is not worth a
failure of ours: systemd then waits until its own timeout.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

__all__ = ["notify", "notify_reloading"]


def notify(*assignments: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send lines such as `READY=1`; whether somebody took them."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):  # of the abstract namespace
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(address)
        sender.sendall("\n".join(assignments).encode())
        return True
    return False


def notify_reloading() -> bool:
    """`READY=1` must follow. The clock's reading tells two reloads apart."""
    now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    return notify("RELOADING=1", f"MONOTONIC_USEC={now_us}")
