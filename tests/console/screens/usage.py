"""Weeks of product events and days of metrics, sent through the doors."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from typing import Any

from tests.console.screens.site import Site

__all__ = ["HOSTILE", "Usage", "send_metrics", "send_usage"]

DAYS = 30
DAY_MS = 86_400_000
HOSTILE = "<img src=x onerror=alert(1)>\u202e\x1b[31mred"

_ACCOUNTS = ("acme", "globex", "initech", "umbrella", "stark", "wayne")
_MODULES = ("orders", "reports", "billing")
_FEATURES = {"orders": ("bulk edit", "search"), "reports": ("export",), "billing": ("invoice",)}


@dataclass(frozen=True)
class Usage:
    """What was sent."""

    source: str
    events: int


def send_usage(site: Site, source: str) -> Usage:
    """Events of six accounts over thirty days, more of the first than of the last."""
    made = site.api("POST", "/sources", {"name": source})
    # Days end at midnight: a whole day's work is done by the time of day that it is now.
    now_ms = int(time.time() * 1000)
    lines: list[bytes] = []
    for number, account in enumerate(_ACCOUNTS):
        for day in range(DAYS):
            lines += _day(account, number, now_ms - day * DAY_MS, day)
    path = f"/v1/{made['auth_key']}/{made['api_key']}?wait=query"
    site.send(path, b"\n".join(lines))
    return Usage(source, len(lines))


def _day(account: str, number: int, at_ms: int, day: int) -> list[bytes]:
    found = []
    # Six working days look like work, one does not.
    busy = 1 if day % 7 == 3 else 4 + (len(_ACCOUNTS) - number) * 2 + day % 5
    step_ms = min(900_000, at_ms % DAY_MS // (busy + 1))
    for turn in range(busy):
        user = f"{account}-{turn % (2 + number % 3)}"
        module = _MODULES[(turn + number) % 3]
        base = {
            "accountId": account, "userId": user, "sessionId": f"s{day}-{turn // 3}",
            "createdAt": at_ms - turn * step_ms,
        }  # fmt: skip
        feature = _FEATURES[module][turn % len(_FEATURES[module])]
        kinds: list[dict[str, Any]] = [
            {"action": "pageViewEnd"},
            {"action": "moduleEnd", "module": module, "timeSpent": 40 + turn * 7},
            {"action": "feature", "module": module, "feature": feature, "total": 1 + turn % 4},
        ]
        if day == 0 and turn == 0:
            details = {"name": f"{account.title()} Inc.", "plan": ("free", "pro")[number % 2]}
            kinds.append({"action": "identifyAccount", "details": details})
            kinds.append({"action": "identifyUser", "details": {"email": f"{user}@example.org"}})
        found += [json.dumps(base | kind).encode() for kind in kinds]
    return found


def send_metrics(site: Site, connection: str, project: str) -> None:
    """Two metrics, each half an hour for two days."""
    made = site.api("POST", "/connections", {"name": connection, "project_id": project})
    now_ms = int(time.time() * 1000)
    for start in range(0, 96, 48):
        points = []
        for step in range(start, start + 48):
            at = now_ms - step * 1_800_000
            wave = math.sin(step / 7)
            points.append(_point("queue_length", "Queue length", 40 + 25 * wave, "jobs", at))
            points.append(_point("checkout.latency", "Checkout latency", 180 - 60 * wave, "ms", at))
        body = json.dumps({"projectId": project, "metrics": points}).encode()
        headers = {"Authorization": f"Bearer {made['api_key']}"}
        site.send("/api/webhooks/custom?wait=query", body, headers)


def _point(metric: str, name: str, value: float, unit: str, at: int) -> dict[str, object]:
    return {
        "metricId": metric, "metricName": name, "value": round(value, 2), "unit": unit,
        "timestamp": at, "metadata": {"host": f"web-{int(value) % 3}"},
    }  # fmt: skip
