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
from tests.system.server import Server, SourceKeys, running

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
    token_id: str
    api_key: str
    reader: str
    keys: SourceKeys
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
        answer = self.connection.post(f"{self.keys.path}?wait=query", event_line("settle"))
        assert answer.headers["ingester-queryable"] == "true", answer
        return self.rows_now(sql)

    def rows_now(self, sql: str) -> list[tuple[Any, ...]]:
        document = self.console("/api/v1/query", {"sql": sql})
        return [tuple(row) for row in document["rows"]]

    def console(self, path: str, document: object = None) -> Any:
        return json.loads(self.console_text(path, document))

    def console_text(self, path: str, document: object = None) -> str:
        body = None if document is None else json.dumps(document).encode()
        url = self.server.ready["console"] + path
        request = urllib.request.Request(url, body, bearer(self.reader))
        with urllib.request.urlopen(request, timeout=20) as reply:
            text = reply.read()
        assert isinstance(text, bytes)
        return text.decode()

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

    def make_token(self, *more: str, service: str = "api", environment: str = "prod") -> str:
        made = self.server.command(
            "token", "create", "--service", service, "--environment", environment, *more
        )
        key = made["token"]
        assert isinstance(key, str)
        return key

    def make_connection(self, name: str, *more: str) -> dict[str, str]:
        made = self.server.command("connection", "create", name, *more)
        assert isinstance(made, dict)
        return made


@contextlib.contextmanager
def open_doors(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Doors]:
    """A server that must end well, and must not have written any key to its log."""
    with running(folder, environment) as server:
        token = server.command("token", "create", "--service", "api", "--environment", "prod")
        api_key = server.command("connection", "create", "cron")["api_key"]
        reader = server.command("token", "create", "--scope", "read")["token"]
        keys = server.create_source("settle")
        with server.connect() as connection:
            yield Doors(server, token["token"], token["id"], api_key, reader, keys, connection)
        if server.process is not None:
            assert server.stop() == 0
    log = server.log_text()
    assert "Traceback" not in log
    assert not any(key in log for key in (token["token"], api_key, reader))
