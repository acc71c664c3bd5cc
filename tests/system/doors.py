"""The log, metric and honest doors of a running server: keys for them, requests, stored rows.

Rows are read through the console's query route: a command of its own for every look would cost half
a second each.
"""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.system.client import Answer, Connection, event_line
from tests.system.server import Server, running

__all__ = [
    "HONEST",
    "LOGS",
    "METRICS",
    "Doors",
    "bearer",
    "error_of",
    "metric",
    "open_doors",
    "quota_headers",
]

LOGS = "/api/v1/webhook/event/log"
METRICS = "/api/webhooks/custom"
HONEST = "/ingest/web"

Headers = Mapping[str, str]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def error_of(answer: Answer) -> str:
    """The sentence of an error, which has nothing beside it."""
    assert answer.headers["content-type"] == "application/json", answer
    document = json.loads(answer.body)
    assert list(document) == ["error"], document
    assert answer.request_id
    sentence = document["error"]
    assert isinstance(sentence, str)
    assert sentence
    return sentence


def quota_headers(answer: Answer) -> tuple[int, int, int]:
    """Limit, remaining, reset."""
    names = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
    limit, remaining, reset = (int(answer.headers[name]) for name in names)
    return limit, remaining, reset


def metric(**changes: Any) -> dict[str, Any]:
    """A sound metric; None drops a property."""
    made = {"metricId": "m", "metricName": "M", "value": 1, **changes}
    return {name: value for name, value in made.items() if value is not None}


@dataclass
class Doors:
    """A server with one key for each door."""

    server: Server
    token: str
    api_key: str
    reader: str
    admin: str
    settle_path: str
    connection: Connection

    def post(
        self, path: str, body: bytes, headers: Headers | None = None, *, key: str | None = None
    ) -> Answer:
        if key is None:
            key = self.api_key if path.startswith(METRICS) else self.token
        return self.connection.post(path, body, {**bearer(key), **(headers or {})})

    def log(self, value: object, path: str = LOGS, **headers: str) -> Answer:
        """`value` as JSON, or the bytes as they are."""
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return self.post(path, body, {n.replace("_", "-"): v for n, v in headers.items()})

    def send(self, *metrics: dict[str, Any], key: str | None = None, **headers: str) -> Answer:
        """Metrics of project `default`."""
        document = {"projectId": "default", "metrics": list(metrics)}
        sent = {n.replace("_", "-"): v for n, v in headers.items()}
        return self.post(METRICS, json.dumps(document).encode(), sent, key=key)

    def lines(self, *lines: bytes, path: str = HONEST, **headers: str) -> Answer:
        """The honest door, one line each."""
        sent = {n.replace("_", "-"): v for n, v in headers.items()}
        return self.post(path, b"\n".join(lines), sent)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Of one SELECT, when everything acknowledged is there."""
        answer = self.connection.post(self.settle_path, event_line("settle"))
        assert answer.headers["ingester-queryable"] == "true", answer
        return self.rows_now(sql)

    def rows_now(self, sql: str) -> list[tuple[Any, ...]]:
        document = self.api("POST", "query", {"sql": sql})
        return [tuple(row) for row in document["rows"]]

    def api(self, method: str, path: str, document: object = None) -> Any:
        """The console's API, as its administrator."""
        return json.loads(self.text(f"/api/v1/{path}", method, document))

    def text(self, path: str, method: str = "GET", document: object = None) -> str:
        body = None if document is None else json.dumps(document).encode()
        return _console(self.server, self.admin, path, method, body).decode()

    def row(self, sql: str) -> tuple[Any, ...]:
        rows = self.rows(sql)
        assert len(rows) == 1, rows
        return rows[0]

    def counts(self) -> tuple[int, ...]:
        """Rows of logs, metrics, rejects, events without our own, and requests to these doors."""
        return self.row(
            "SELECT (SELECT count(*) FROM logs), (SELECT count(*) FROM metrics),"
            " (SELECT count(*) FROM rejects),"
            " (SELECT count(*) FROM events WHERE account_id <> 'settle'),"
            " (SELECT count(*) FROM requests WHERE door <> 'natero')"
        )

    def start_again(self) -> None:
        self.server.start()
        self.connection.close()
        self.connection.address = self.server.address

    def make_token(self, **fields: Any) -> dict[str, Any]:
        made = self.api("POST", "tokens", {"service": "api", "environment": "prod", **fields})
        assert isinstance(made, dict)
        return made

    def make_connection(self, name: str, **fields: Any) -> dict[str, Any]:
        made = self.api("POST", "connections", {"name": name, **fields})
        assert isinstance(made, dict)
        return made


@contextlib.contextmanager
def open_doors(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Doors]:
    """A server that must end well, and must not have written any key to its log."""
    with running(folder, environment) as server:
        admin = server.command("token", "create", "--scope", "admin")["token"]

        def make(path: str, document: object) -> Any:
            body = json.dumps(document).encode()
            return json.loads(_console(server, admin, f"/api/v1/{path}", "POST", body))

        token = make("tokens", {"service": "api", "environment": "prod"})["token"]
        api_key = make("connections", {"name": "cron"})["api_key"]
        reader = make("tokens", {"scope": "read"})["token"]
        pair = make("sources", {"name": "settle"})
        settle = f"/v1/{pair['auth_key']}/{pair['api_key']}?wait=query"
        with server.connect() as connection:
            yield Doors(server, token, api_key, reader, admin, settle, connection)
        if server.process is not None:
            assert server.stop() == 0
    log = server.log_text()
    assert "Traceback" not in log
    assert not any(key in log for key in (token, api_key, reader, admin))


def _console(server: Server, key: str, path: str, method: str, body: bytes | None) -> bytes:
    url = server.ready["console"] + path
    request = urllib.request.Request(url, body, bearer(key), method=method)
    with urllib.request.urlopen(request, timeout=20) as reply:
        text = reply.read()
    assert isinstance(text, bytes)
    return text
