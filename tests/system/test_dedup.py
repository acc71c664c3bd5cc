"""Ids stay exact over both lanes at once, `kill -9`, and changes of the setting."""

from __future__ import annotations

import gzip
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.system.client import NoAnswer
from tests.system.server import Server, SourceKeys, running

_THREADS = 6
_IDS = 12_000
# Over 1 MiB decoded: the bulk lane.
_LARGE_IDS = 6_000


def body_of(ids: Iterable[int]) -> bytes:
    return b"".join(
        json.dumps({
            "accountId": "acme",
            "userId": "u",
            "createdAt": 1_700_000_000_000,
            "action": "open",
            "sessionId": "s",
            "pad": "p" * 100,
            "messageId": f"m-{number}",
        }).encode()
        + b"\n"
        for number in ids
    )


def create(server: Server, *settings: str) -> SourceKeys:
    made = server.command("source", "create", "once", *settings)
    return SourceKeys("once", made["auth_key"], made["api_key"], made["url"])


class _Senders:
    """Threads that send the same ids in parts small and large, until the server is gone."""

    def __init__(self, server: Server, keys: SourceKeys, seed: int) -> None:
        self.acknowledged: set[int] = set()
        self.accepted = 0
        self.statuses: Counter[int] = Counter()
        self._server, self._keys = server, keys
        self._address = server.address
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._send, args=(random.Random(seed * 100 + number),))
            for number in range(_THREADS)
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _send(self, randomness: random.Random) -> None:
        with self._server.connect() as connection:
            while True:
                count = randomness.choice((1, 5, 50, 1000, _LARGE_IDS))
                first = randomness.randrange(_IDS - count + 1)
                ids = range(first, first + count)
                body, headers = body_of(ids), {}
                if randomness.random() < 0.5:
                    body, headers = gzip.compress(body, 1), {"Content-Encoding": "gzip"}
                try:
                    answer = connection.post(self._keys.path, body, headers)
                except (NoAnswer, OSError):
                    return
                with self._lock:
                    self.statuses[answer.status] += 1
                    if answer.status == 200:
                        self.accepted += answer.accepted
                        self.acknowledged.update(ids)


def test_every_id_is_stored_once_whoever_sends_it_how_often(tmp_path: Path) -> None:
    acknowledged: set[int] = set()
    accepted = 0
    with running(tmp_path) as server:
        keys = create(server, "--dedup-field", "messageId")
        for seed in range(3):
            senders = _Senders(server, keys, seed)
            time.sleep(1.5)
            server.kill()
            senders.join()
            acknowledged |= senders.acknowledged
            accepted += senders.accepted
            assert set(senders.statuses) <= {200, 503}
            server.start()
        with server.connect() as connection:
            for start in range(0, _IDS, _LARGE_IDS):
                ids = range(start, start + _LARGE_IDS)
                answer = connection.post(keys.path, body_of(ids))
                assert answer.status == 200
                accepted += answer.accepted
                # And once more, in parts.
                for part in range(start, start + _LARGE_IDS, 2_000):
                    answer = connection.post(keys.path, body_of(range(part, part + 2_000)))
                    assert answer.counts == (0, 0)
        server.settle(keys)
        ((found),) = server.query(
            "SELECT count(*) AS rows, count(DISTINCT body->>'messageId') AS ids FROM events "
            "WHERE body->>'messageId' IS NOT NULL"
        )
        assert found == {"rows": _IDS, "ids": _IDS}
        # An unanswered request may have stored some.
        assert accepted <= _IDS
        assert len(acknowledged) > _IDS / 2, "the kills came before anything was acknowledged"
        told = server.value("SELECT sum(accepted) FROM requests WHERE source = 'once'")
        assert told == _IDS + 1, "counts are those of the rows; one is the settling event"
        assert server.command("check") == {"ok": True, "problems": []}


def test_the_setting_counts_from_when_it_is_made_and_comes_back_with_its_ids(
    tmp_path: Path,
) -> None:
    with running(tmp_path) as server:
        keys = create(server)

        def send(*ids: int) -> int:
            with server.connect() as connection:
                return connection.post(keys.path, body_of(ids)).accepted

        def set_field(field: str) -> None:
            server.command("source", "set", "once", "--dedup-field", field)

        assert send(1, 1) == 2
        set_field("messageId")
        assert send(1, 1, 2) == 2
        set_field("/messageId")
        assert send(1, 1) == 1
        server.kill()
        server.start()
        set_field("messageId")
        assert send(1, 2, 3) == 1
        set_field("")
        assert send(3, 3) == 2
