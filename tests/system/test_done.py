"""The promise in one run, on real events: upload, kill in the second upload, start, count."""

from __future__ import annotations

import gzip
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system.client import NoAnswer, head_bytes
from tests.system.server import REPOSITORY, Server, SourceKeys, running

_INPUT = REPOSITORY.parent / "shared" / "data" / "windows-events-05.ndjson.gz"

_HOST = re.compile(rb'"Hostname"\s*:\s*"([^"\\]+)"')
_EVENT_ID = re.compile(rb'"EventID"\s*:\s*(\d+)')
_PROVIDER = re.compile(rb'"SourceName"\s*:\s*"([^"\\]+)"')


@dataclass
class Upload:
    """The mapped body, compressed, and what must be counted of it."""

    packed: bytes
    row_count: int
    actions: Counter[str]
    body_bytes: int


@pytest.fixture(scope="module")
def upload() -> Upload:
    if not _INPUT.exists():
        pytest.skip(f"the real input is not here: {_INPUT}")
    actions: Counter[str] = Counter()
    lines: list[bytes] = []
    for row, (line, action) in enumerate(_mapped(gzip.decompress(_INPUT.read_bytes()))):
        lines.append(line % row)
        actions[action] += 1
    body = b"\n".join(lines)
    return Upload(gzip.compress(body, 1), len(lines), actions, sum(map(len, lines)))


def _mapped(text: bytes) -> Iterator[tuple[bytes, str]]:
    """Each Windows event as the `event` property of a product event, its text untouched."""
    for raw in text.split(b"\n"):
        line = raw.strip()
        if not line:
            continue
        host, number, provider = (
            found[1] if (found := pattern.search(line)) else b"unknown"
            for pattern in (_HOST, _EVENT_ID, _PROVIDER)
        )
        head = b'{"accountId":"%b","userId":"%b","action":"%b","sessionId":"' % (
            host,
            provider,
            number,
        )
        event = head.replace(b"%", b"%%") + b'%d","createdAt":1700000000000,"event":'
        yield event + line.replace(b"%", b"%%") + b"}", number.decode()


def test_counts_are_what_was_acknowledged_after_a_kill(tmp_path: Path, upload: Upload) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Length": str(len(upload.packed))}
    with running(tmp_path) as server:
        first = server.create_source("first")
        second = server.create_source("second")
        with server.connect(120.0) as connection:
            answer = connection.post(first.path, upload.packed, headers)
        assert answer.status == 200
        assert answer.counts == (upload.row_count, 0)

        with server.connect() as connection:
            half = len(upload.packed) // 2
            connection.send_raw(head_bytes("POST", second.path, headers))
            connection.send_raw(upload.packed[:half])
            time.sleep(1.0)  # most of the first half is decoded and inserted by now
            server.kill()
            with pytest.raises(NoAnswer):
                connection.read_answer()
        server.start()
        _check_counts(server, first, upload)
        assert _count(server, second) == 0

        # The client sends the unanswered one again.
        with server.connect(120.0) as connection:
            answer = connection.post(second.path, upload.packed, headers)
        assert answer.counts == (upload.row_count, 0)
        server.kill()  # right after the acknowledgement
        server.start()
        _check_counts(server, first, upload)
        _check_counts(server, second, upload)
        assert server.stop() == 0
        _check_counts(server, first, upload)


def _count(server: Server, keys: SourceKeys) -> int:
    found = server.value(f"SELECT count(*) FROM events WHERE source = '{keys.name}'")
    assert isinstance(found, int)
    return found


def _check_counts(server: Server, keys: SourceKeys, upload: Upload) -> None:
    rows = server.query(
        "SELECT action, count(*) AS n, count(DISTINCT session_id) AS distinct_n, "
        "count(DISTINCT id) AS ids, sum(strlen(body::VARCHAR)) AS bytes "
        f"FROM events WHERE source = '{keys.name}' GROUP BY action"
    )
    assert {row["action"]: row["n"] for row in rows} == upload.actions
    assert sum(row["distinct_n"] for row in rows) == upload.row_count
    assert sum(row["ids"] for row in rows) == upload.row_count
    assert sum(int(row["bytes"]) for row in rows) == upload.body_bytes


def test_the_mapping_keeps_every_line_and_makes_json(upload: Upload) -> None:
    body = gzip.decompress(upload.packed).split(b"\n")
    assert len(body) == upload.row_count == 59_707
    for line in body[:: len(body) // 200]:
        event = json.loads(line)
        assert event["accountId"]
        assert str(event["event"].get("EventID", "unknown")) == event["action"]
