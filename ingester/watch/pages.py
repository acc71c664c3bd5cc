"""Addresses of rules, alerts and monitors in the console."""

from __future__ import annotations

from ..store.control.watches import WatchInfo

__all__ = ["watch_url"]


def watch_url(console_base: str, info: WatchInfo) -> str:
    return f"{console_base.rstrip('/')}/{info.kind}s/{info.id}"
