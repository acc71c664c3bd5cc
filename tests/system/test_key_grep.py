"""No key in what the server writes or shows (F18): every door with known keys, right and wrong, in
the right place and in wrong ones; then every file of the folder, the log, metrics and lists.

Left out are the two files that are there to be read by their owner: `first-run.txt` (0600, gone
after the set-up) and `secret.key`, which is no key of a door.
"""

from __future__ import annotations

import itertools
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.system.client import compress, event_line
from tests.system.doors import HONEST, LOGS, METRICS, bearer
from tests.system.server import CommandFailed, Server
from tests.system.test_delivery import append
from tests.system.webhooks import webhooks

_ENVIRONMENT = {
    "INGESTER_LOG_LEVEL": "debug",
    "INGESTER_INTAKE_TEST_BIND": "127.0.0.1:0",
    "INGESTER_INTAKE_TRUSTED_PROXIES": "127.0.0.1/32",
    "INGESTER_DELIVERY_ALLOW_NETWORKS": "127.0.0.0/8",
    # Segments, checkpoints and Parquet are made while it runs.
    "INGESTER_STORE_UPLOAD_FILE_BYTES_MIN": "1",
    "INGESTER_STORE_CHECKPOINT_BYTES": "65536",
}
_OWN = frozenset({"first-run.txt", "secret.key"})
_SHOWN = (
    "/metrics", "/openapi.json", "/api/v1/status", "/api/v1/viewer", "/api/v1/sources",
    "/api/v1/tokens", "/api/v1/connections", "/api/v1/members", "/api/v1/audit", "/api/v1/refused",
    "/api/v1/destinations", "/api/v1/deliveries", "/api/v1/rejects", "/api/v1/check",
    "/api/v1/sources/shop", "/api/v1/sources/shop/usage",
)  # fmt: skip


_ADDRESSES = itertools.count()


class Keys:
    """What must not be found, by what it is."""

    def __init__(self, server: Server) -> None:
        pair = server.create_source("shop")
        make = server.command
        self.pair_path = pair.path
        self.admin = make("token", "create", "--scope", "admin")["token"]
        self.ingest = make("token", "create", "--service", "s", "--environment", "e")["token"]
        self.metric = make("connection", "create", "cron")["api_key"]
        rotated = make("source", "rotate", "shop", "--overlap", "1h")
        ended = make("token", "create", "--service", "t", "--environment", "e")
        invited = make("member", "create", "bob@example.org")["link"]
        self.all = {
            "auth key": pair.auth_key,
            "api key": pair.api_key,
            "rotated auth key": rotated["auth_key"],
            "rotated api key": rotated["api_key"],
            "admin token": self.admin,
            "reader": make("token", "create", "--scope", "read")["token"],
            "ingest token": self.ingest,
            "metric key": self.metric,
            "ended token": ended["token"],
            "invitation": invited.partition("token=")[2],
            "password": "correct-horse-battery",
            "signing secret": "",
            "credential header": "header-credential-7d1",
            "user-info": "url-credential-8e2",
            "api token": "incident-credential-9f3",
        }
        make("token", "revoke", ended["id"])


def address() -> dict[str, str]:
    """Of another sender each time: no wrong key slows the next."""
    number = next(_ADDRESSES)
    return {"X-Forwarded-For": f"10.0.{number // 250}.{number % 250 + 1}"}


def use(server: Server, keys: Keys, hook: str) -> None:
    """Every door, every way to be wrong, and what goes out."""
    secret = server.command(
        "destination", "create", "ops", "--url", hook, "--secret", "generate",
        "--header", f"Authorization:Bearer {keys.all['credential header']}",
    )["secret"]  # fmt: skip
    keys.all["signing secret"] = secret.removeprefix("whsec_")
    with_user = hook.replace("http://", f"http://user:{keys.all['user-info']}@")
    server.command("destination", "create", "named", "--url", with_user)
    base = hook.removesuffix("/hook")
    server.command(
        "destination", "create", "pager", "--type", "incident_io", "--base-url", base,
        "--api-token", keys.all["api token"], "--alert-source-config-id", "01A",
    )  # fmt: skip
    for number, name in enumerate(("ops", "named", "pager")):
        identity = server.command("destination", "show", name)["id"]
        append(server, f"inc_{number}", identity)
        server.command("destination", "verify", name)
    values = list(keys.all.values())
    with server.connect() as connection:
        lines = b"\n".join(event_line("a", n, pad="p" * 200) for n in range(6_000))
        for path in (keys.pair_path, "/test" + keys.pair_path):
            assert connection.post(path, event_line("a")).status == 200
            connection.post(path, b"broken", {"Content-Encoding": "gzip"})
            connection.post(path, b"not json\n" + event_line("a"))
        assert connection.post(keys.pair_path, compress(lines, "zstd"), {
            "Content-Encoding": "zstd", "Idempotency-Key": "one",
        }).status == 200  # fmt: skip
        for path, key in ((LOGS, keys.ingest), (METRICS, keys.metric), (HONEST, keys.ingest)):
            connection.post(path, b"{", bearer(key))
            connection.post(path, b'{"message":"m"}', bearer(key))
        for value in values:
            for path in (f"/v1/{value}/x", f"/v1/{value}/{value}", f"/{value}", f"/ingest/{value}",
                         f"{LOGS}?key={value}", f"/v1/ping?token={value}"):  # fmt: skip
                shown = {"X-Api-Key": value, "Cookie": f"k={value}", **address()}
                connection.post(path, b"{}", shown)
    with server.connect() as connection:
        for value in values[:6]:
            connection.post(LOGS, b"{}", {"Authorization": f"Basic {value}", **address()})
            connection.send_raw(f"GET /{value} HTTP/9.9\r\n{value}: {value}\r\n\r\n".encode())
            connection.read_answer()
    for value in values:
        for path in (f"/api/v1/tokens/{quote(value)}", f"/api/v1/status?key={quote(value)}",
                     f"/{quote(value)}"):  # fmt: skip
            ask(server, path, keys.admin)
        body = {"email": "bob@example.org", "password": value, "token": value}
        ask(server, "/api/v1/invites/accept", keys.admin, body)
    ask(server, "/api/v1/session", "", {"email": "ada@example.org", "password": values[10]})
    with_key = f"SELECT '{keys.admin}'::INTEGER"
    ask(server, "/api/v1/query", keys.admin, {"sql": with_key})
    for wrong in (("query", f"SELECT {keys.ingest}"), ("token", "revoke", keys.metric)):
        with pytest.raises(CommandFailed):
            server.command(*wrong)


def ask(server: Server, path: str, key: str, body: object = None) -> str:
    """What the console says, also of errors."""
    data = None if body is None else json.dumps(body).encode()
    headers = {**(bearer(key) if key else {}), "Referer": f"http://x/{key}", **address()}
    request = urllib.request.Request(server.ready["console"] + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            text: bytes = answer.read()
    except urllib.error.HTTPError as error:
        with error:
            text = error.read()
    return text.decode()


def texts(server: Server, keys: Keys) -> Iterator[tuple[str, bytes]]:
    """Everything that is written down, by its place; the server is stopped on the way."""
    for path in _SHOWN:
        yield path, ask(server, path, keys.admin).encode()
    yield "process arguments", Path(f"/proc/{server.pid}/cmdline").read_bytes()
    server.kill()  # journal and WAL as they were
    yield from _files(server)
    server.start()
    assert server.stop() == 0
    yield from _files(server)
    yield "log", server.log_path.read_bytes()


def _files(server: Server) -> Iterator[tuple[str, bytes]]:
    for path in sorted(server.data_dir.rglob("*")):
        if path.is_file() and path.name not in _OWN:
            yield str(path.relative_to(server.data_dir)), path.read_bytes()


def leaks(folder: Path, broken: str = "") -> list[str]:
    module = "tests.system.broken_server" if broken else "ingester"
    environment = {**_ENVIRONMENT, "BROKEN": broken}
    # Cold: its arguments are looked at.
    server = Server(
        folder / "data", folder / "server.log", environment, module=module, is_cold=True
    )
    try:
        with webhooks() as hooks:
            server.start()
            keys = Keys(server)
            use(server, keys, hooks.url)
            found = []
            places = set()
            for place, text in texts(server, keys):
                places.add(place.partition("/")[0])
                found += [
                    f"the {what} is in {place}"
                    for what, key in keys.all.items()
                    if key.encode() in text
                ]
            assert {"control.sqlite", "journal", "open", "uploads", "log"} <= places, places
            return found
    finally:
        server.kill()


@pytest.mark.timeout(240)
def test_no_key_is_written_or_shown_anywhere(tmp_path: Path) -> None:
    assert leaks(tmp_path) == []


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_build_that_logs_its_requests_is_found(tmp_path: Path) -> None:
    assert any("in log" in leak for leak in leaks(tmp_path, "talks"))
