"""What the documents say of curl, Zapier, Make and n8n, over https against a live server.

The recipes are read from the README: its table of headers and its body, as each of the three sends
them.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.doors import HONEST, METRICS, bearer
from tests.system.secure_door import Secure, ask, open_secure
from tests.system.server import REPOSITORY

_EVENT = (
    '{"accountId":"acme","userId":"u%d","createdAt":1790000000000,"action":"login",'
    '"sessionId":"s","pad":"%s"}'
)
# What each of the three says of itself, and how it writes a header it was given.
_RECIPES = {
    "Zapier": {"User_Agent": "Zapier", "Content_Type": "application/json"},
    "Make": {"User_Agent": "Make/production", "Content_Type": "application/json"},
    "n8n": {"User_Agent": "axios/1.8.3", "Content_Type": "application/json", "Accept": "*/*"},
}


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    with open_secure(tmp_path_factory.mktemp("tls")) as secure:
        yield secure


def stored(secure: Secure, query: str) -> int:
    """Once what was acknowledged can be queried."""
    status, headers, _ = ask(
        secure, "POST", f"{HONEST}?wait=query", b"{}", **bearer(secure.words["token"])
    )
    assert (status, headers["ingester-queryable"]) == (200, "true")
    return int(secure.server.query(f"SELECT count(*) AS n FROM {query}")[0]["n"])


def events(count: int, user: int, pad: int = 0) -> bytes:
    return "\r\n".join(_EVENT % (user, "x" * pad) for _ in range(count)).encode()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
def test_the_curl_samples_of_product_events_work_over_https(secure: Secure, tmp_path: Path) -> None:
    (tmp_path / "file.json").write_bytes(events(3, 1))
    curl = "curl -sS -w '%{{http_code}} %{{size_download}}' -X POST "
    door = "{url}/v1/{pair}"
    assert secure.run("sh", "-c", f"{curl} -T file.json {door}", folder=tmp_path) == "200 0"
    for name, packed in (
        ("gzip", gzip.compress(events(3, 1))),
        ("deflate", zlib.compress(events(3, 1))),
    ):
        (tmp_path / name).write_bytes(packed)
        command = f"{curl} -H 'Content-Encoding: {name}' -T {name} {door}"
        assert secure.run("sh", "-c", command, folder=tmp_path) == "200 0"
    assert secure.run("sh", "-c", curl + "{url}/v1/ping", folder=tmp_path) == "200 0"
    assert stored(secure, "events WHERE user_id = 'u1'") == 9


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_an_upload_over_https_streams_like_any_other(secure: Secure, encoding: str) -> None:
    user = 2 if encoding == "gzip" else 3
    body = events(3000, user, pad=700)
    assert len(body) > 2 * 1024 * 1024
    sent = gzip.compress(body, 1) if encoding == "gzip" else body
    path = f"/v1/{secure.words['pair']}"
    status, headers, text = ask(secure, "POST", path, sent, Content_Encoding=encoding)
    assert (status, headers["ingester-accepted"], text) == (200, "3000", b"")
    assert stored(secure, f"events WHERE user_id = 'u{user}'") == 3000
    lines = b"\n".join(b'{"message":"over tls","n":%d}' % n for n in range(60_000))
    sent = gzip.compress(lines, 1) if encoding == "gzip" else lines
    key = bearer(secure.words["token"])
    status, _, text = ask(
        secure, "POST", f"/ingest/tls-{encoding}", sent, **key, Content_Encoding=encoding
    )
    assert (status, json.loads(text)["accepted"]) == (200, 60_000)


@pytest.mark.parametrize("tool", _RECIPES)
def test_the_recipes_bodies_are_taken_as_written(secure: Secure, tool: str) -> None:
    section = _recipes()
    assert tool in section.splitlines()[_table_line(section)]
    (body,) = re.findall(r"```json\n(.*?)\n```", section, re.DOTALL)
    assert "https://your.host/api/webhooks/custom" in section
    assert "Bearer APIKEY" in section
    headers = {**_RECIPES[tool], **bearer(secure.words["api_key"])}
    # The id of a trigger's item: a scenario that runs again stores nothing again.
    headers["Idempotency_Key"] = f"{tool}-{time.time_ns()}"
    before = stored(secure, "metrics WHERE metric_id = 'new_rows'")
    for _ in range(2):
        status, _, text = ask(secure, "POST", METRICS, body.encode(), **headers)
        assert (status, json.loads(text)) == (200, {"success": True, "metricsStored": 1})
    assert stored(secure, "metrics WHERE metric_id = 'new_rows'") == before + 1


@pytest.mark.parametrize("tool", _RECIPES)
def test_a_number_sent_as_text_gets_400_with_the_metric_named(secure: Secure, tool: str) -> None:
    (body,) = re.findall(r"```json\n(.*?)\n```", _recipes(), re.DOTALL)
    sent = body.replace('"value": 1', '"value": "42"')
    assert sent != body
    headers = {**_RECIPES[tool], **bearer(secure.words["api_key"])}
    status, _, text = ask(secure, "POST", METRICS, sent.encode(), **headers)
    expected = {"error": "metrics[0].value must be a number, got a string"}
    assert (status, json.loads(text)) == (400, expected)


def _recipes() -> str:
    text = (REPOSITORY / "README.md").read_text("utf-8")
    section = re.search(r"^### Zapier, Make, n8n\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    return section[1]


def _table_line(section: str) -> int:
    return next(place for place, line in enumerate(section.splitlines()) if line[:1] == "|")
