"""The demo's incident: a log and a metric through their doors, a rule, and a receiver that is told.

The receiver is a small HTTP server of this process on loopback, as somebody's own would be; what it
gets goes the whole way: log door, rule, outbox, delivery.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from msgspec import Struct

from ingester.cli.local import LocalServer

__all__ = ["Receiver", "Told", "open_incident", "receiving"]

_NAME = "demo"
_MESSAGE = "disk full on /var"
_TOLD_SECONDS_MAX = 60.0
_DOOR_SECONDS_MAX = 30.0


class Told(Struct, frozen=True):
    """What the receiver was told of the incident that was opened."""

    incident_id: str
    status: str
    url: str
    webhook_url: str


class Receiver:
    """Incidents that were delivered, in the order of their arrival."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._incidents: list[dict[str, Any]] = []
        self._came = threading.Condition()

    def take(self, incident: dict[str, Any]) -> None:
        with self._came:
            self._incidents.append(incident)
            self._came.notify_all()

    def maybe_opened(self) -> dict[str, Any] | None:
        """The first incident that was told as opened; None when none came in time."""
        with self._came:
            self._came.wait_for(self._opened, _TOLD_SECONDS_MAX)
            return self._opened()

    def _opened(self) -> dict[str, Any] | None:
        return next((one for one in self._incidents if one.get("status") == "opened"), None)


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            receiver.take(json.loads(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver = Receiver(f"http://127.0.0.1:{server.server_address[1]}/hook")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def open_incident(local: LocalServer, intake: str, receiver: Receiver) -> Told | None:
    """Send a log and a metric; the incident that the log opens, as the receiver was told."""
    hook = {"name": _NAME, "type": "webhook", "url": receiver.url}
    destination = _settled(local, "destinations", hook)
    rule = {"name": _NAME, "lql": f'level:>=error "{_MESSAGE}"', "destinations": [destination]}
    _settled(local, "rules", rule)
    # That of an earlier demo would only be joined.
    opened = json.loads(local.call("GET", "/api/v1/incidents?status=opened"))
    for incident in opened["incidents"]:
        if incident["title"] == _NAME:
            local.call("PATCH", f"/api/v1/incidents/{incident['id']}", {"status": "resolved"})
    token = json.loads(
        local.call("POST", "/api/v1/tokens", {"service": _NAME, "environment": _NAME})
    )
    name = f"{_NAME}-{time.time_ns()}"
    connection = json.loads(local.call("POST", "/api/v1/connections", {"name": name}))
    metric = {"metricId": "demo_disk_used", "metricName": "Disk used", "value": 99.5, "unit": "%"}
    _post(
        f"{intake}/api/webhooks/custom",
        connection["api_key"],
        {"projectId": connection["project_id"], "metrics": [metric]},
    )
    log = {"level": "error", "message": _MESSAGE, "host": "web-1"}
    _post(f"{intake}/api/v1/webhook/event/log", token["token"], log)
    told = receiver.maybe_opened()
    if told is None:
        return None
    return Told(told["id"], told["status"], told["incidentUrl"], receiver.url)


def _settled(local: LocalServer, kind: str, document: Mapping[str, object]) -> str:
    """The id of the one of that name, made or brought to these settings."""
    listed = json.loads(local.call("GET", f"/api/v1/{kind}"))[kind]
    found = next((one for one in listed if one["name"] == document["name"]), None)
    if found is None:
        made: dict[str, str] = json.loads(local.call("POST", f"/api/v1/{kind}", document))
        return made["id"]
    changes = {key: value for key, value in document.items() if key not in {"name", "type"}}
    local.call("PATCH", f"/api/v1/{kind}/{found['id']}", changes)
    return str(found["id"])


def _post(url: str, key: str, document: Mapping[str, object]) -> None:
    request = urllib.request.Request(
        url, json.dumps(document).encode(), {"Authorization": f"Bearer {key}"}
    )
    with urllib.request.urlopen(request, timeout=_DOOR_SECONDS_MAX) as answer:
        answer.read()
