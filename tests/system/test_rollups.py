"""`kill -9` under mixed load: after each start rollups are a recount of what is stored."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.system.kill_run import IngesterSubject, run_rounds
from tests.system.ledger import Sent
from tests.system.server import Server

_ROUNDS = 5
_ROUNDS_LONG = 100
_CATCH_UP_SECONDS_MAX = 60

_RECOUNTS = {
    "SELECT bucket, source, account_id, action, events, users, sessions FROM events_hourly": (
        "SELECT date_trunc('hour', created_at)::TIMESTAMP AS bucket, source, account_id, action, "
        "count(*), count(DISTINCT user_id), count(DISTINCT session_id) FROM events GROUP BY ALL"
    ),
    "SELECT bucket, source, account_id, events, users, sessions FROM accounts_daily": (
        "SELECT date_trunc('day', created_at)::TIMESTAMP AS bucket, source, account_id, "
        "count(*), count(DISTINCT user_id), count(DISTINCT session_id) FROM events GROUP BY ALL"
    ),
    "SELECT source, account_id, user_id, first_seen, last_seen FROM users": (
        "SELECT source, account_id, user_id, min(created_at), max(created_at) FROM events "
        "GROUP BY ALL"
    ),
}


class _Rolled(IngesterSubject):
    """Looks at rollups too, after each start."""

    def request_problems(self, requests: Sequence[Sent]) -> list[str]:
        return [*super().request_problems(requests), *self._rollup_problems()]

    def _rollup_problems(self) -> list[str]:
        problems = []
        for told, counted in _RECOUNTS.items():
            gives_up_at = time.monotonic() + _CATCH_UP_SECONDS_MAX
            while rows := self.server.query(
                f"(({told}) EXCEPT ALL ({counted})) UNION ALL "
                f"(({counted}) EXCEPT ALL ({told})) LIMIT 3"
            ):
                if time.monotonic() > gives_up_at:
                    problems.append(f"rollups differ from a recount: {rows}")
                    break
                time.sleep(0.2)
        return problems


@pytest.mark.timeout(7200)
def test_rollups_are_a_recount_after_each_kill(tmp_path: Path, long_form: bool) -> None:
    seed = int(os.environ.get("KILL_SEED") or secrets.randbelow(1 << 32))
    server = Server(tmp_path / "data", tmp_path / "server.log")
    keys = server.create_source("kill")
    try:
        report = run_rounds(
            _Rolled(server, keys),
            tmp_path,
            rounds=_ROUNDS_LONG if long_form else _ROUNDS,
            seed=seed,
        )
    finally:
        server.kill()
    assert report.problems == [], f"{report}\n" + "\n".join(report.problems[:20])
    assert report.total.acknowledged_rows > 0
