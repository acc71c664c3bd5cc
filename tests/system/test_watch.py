"""Rules, alerts, monitors and incidents of a running server, as a user sees them."""

from __future__ import annotations

import json
import random
import secrets
import signal
import threading
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.system.doors import Doors, open_doors
from tests.system.server import wait_until

ALLOW_LOOPBACK = {"INGESTER_DELIVERY_ALLOW_NETWORKS": "127.0.0.0/8"}


@contextmanager
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook's address, and the bodies that have come."""
    bodies: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", bodies
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    environment = {**ALLOW_LOOPBACK, "INGESTER_WATCH_DELAY_SECONDS": "0"}
    with open_doors(tmp_path_factory.mktemp("watch"), environment) as made:
        # Its first minute passes beside the other tests.
        made.server.command(
            *("alert", "create", "clock", "--cron", "* * * * *"),
            *("--query", "SELECT 1 AS one WHERE $window_start < $window_end"),
        )
        yield made


def incidents(doors: Doors, name: str) -> list[dict[str, Any]]:
    listed = doors.api("GET", "incidents")["incidents"]
    return [one for one in listed if any(each["name"] == name for each in one["affected"])]


def refused(doors: Doors, path: str, body: object) -> tuple[int, dict[str, Any]]:
    with pytest.raises(urllib.error.HTTPError) as error:
        doors.api("POST", path, body)
    with error.value as answer:
        return answer.code, json.loads(answer.read())


def test_a_matching_log_is_told_at_once(doors: Doors) -> None:
    with receiver() as (url, bodies):
        made = doors.server.command("destination", "create", "ops", "--url", url)
        doors.server.command(
            *("rule", "create", "disk", "--lql", "disk full", "--destination", "ops"),
            *("--label", "sev1", "--resolve-after", "1s"),
        )
        doors.log({"message": "disk is full", "level": "error"})
        wait_until(lambda: bodies, 10, "the incident is told")
        (first,) = incidents(doors, "disk")
        assert bodies[0]["id"] == first["id"]
        assert bodies[0]["status"] == "opened"
        assert [label["name"] for label in bodies[0]["labels"]] == ["sev1"]
        assert bodies[0]["affectedMonitors"][0]["monitor"]["type"] == "RULE"
        wait_until(lambda: len(bodies) > 1, 15, "its end is told")
        assert bodies[-1]["status"] == "resolved"
        assert doors.api("DELETE", f"destinations/{made['id']}")


def test_a_rule_on_events_sees_those_of_the_event_door(doors: Doors) -> None:
    made = doors.api("POST", "rules", {"name": "on", "lql": "account_id:settle", "on": "events"})
    doors.rows("SELECT 1")  # which sends such an event
    wait_until(lambda: incidents(doors, "on"), 10, "the rule matches")
    (found,) = incidents(doors, "on")
    assert found["affected"][0]["absolute_path"] == "events.settle"
    assert (found["acknowledged"], found["acknowledged_at"]) == (False, None)
    doors.api("DELETE", f"rules/{made['id']}")


def test_sql_and_lql_alerts_can_be_tested_before_they_are_saved(doors: Doors) -> None:
    doors.log({"message": "an alerting line"})
    assert doors.row("SELECT count(*) FROM logs WHERE message = 'an alerting line'") == (1,)
    alert = {"name": "t", "cron": "* * * * *", "query": "SELECT count(*) AS n FROM logs"}
    found = doors.api("POST", "alerts/test", alert)
    assert found["would_fire"]
    assert found["result"][0]["n"] >= 1
    none = {**alert, "query": "SELECT 1 AS x WHERE $window_start > $window_end"}
    assert doors.api("POST", "alerts/test", none)["rows"] == 0
    lql = {**alert, "language": "lql", "query": "no such word"}
    assert doors.api("POST", "alerts/test", lql)["rows"] == 0
    status, document = refused(doors, "alerts", {**alert, "query": "SELECT nothing FROM logs"})
    assert (status, document["field"]) == (422, "query")
    assert "nothing" in document["error"]
    status, document = refused(doors, "alerts", {**alert, "query": "DROP TABLE logs"})
    assert status == 422


def test_refusals_name_the_field_and_the_column(doors: Doors) -> None:
    status, document = refused(doors, "rules", {"name": "r", "lql": "level:!=x"})
    assert (status, document["field"], document["column"]) == (422, "lql", 7)
    status, document = refused(doors, "rules", {"name": "r", "lql": "t:today x"})
    assert (status, document["field"], document["column"]) == (422, "lql", 1)
    body = {"name": "m", "target": {"kind": "logs"}, "operator": ">"}
    status, document = refused(doors, "monitors", body)
    assert (status, document["field"]) == (422, "threshold")
    body = {"name": "r", "lql": "x", "destinations": ["dst_99"]}
    status, document = refused(doors, "rules", body)
    assert (status, document["field"]) == (422, "destinations")


def test_a_sql_monitor_opens_and_is_back_tested(doors: Doors) -> None:
    body = {
        "name": "sql rows",
        "target": {
            "kind": "sql",
            "query": "SELECT 'a' AS kind, 7 AS value WHERE $window_end > $window_start",
        },
        "operator": ">",
        "threshold": 5,
        "window_s": 10,
        "group_by": ["kind"],
    }
    span = {"since": "2026-01-01T00:00:00Z", "until": "2026-01-01T00:00:30Z"}
    tried = doors.api("POST", "monitors/backtest", {"monitor": body, **span})
    assert (tried["buckets"], tried["firing_buckets"]) == (3, 3)
    made = doors.api("POST", "monitors", body)
    wait_until(lambda: incidents(doors, "sql rows"), 30, "the monitor fires")
    (found,) = incidents(doors, "sql rows")
    assert found["affected"][0]["group"] == {"kind": "a"}
    assert doors.api("GET", f"monitors/{made['id']}")["groups"][0]["firing"]
    doors.api("DELETE", f"monitors/{made['id']}")
    (found,) = incidents(doors, "sql rows")
    assert found["status"] == "resolved"


def test_an_alert_runs_by_the_clock(doors: Doors) -> None:
    (made,) = [one for one in doors.api("GET", "alerts")["alerts"] if one["name"] == "clock"]
    wait_until(lambda: incidents(doors, "clock"), 75, "the alert ran")
    (run, *_) = doors.api("GET", f"alerts/{made['id']}/runs")["runs"]
    assert (run["rows"], run["error"]) == (1, None)
    doors.server.command("alert", "delete", "clock")


def test_watch_files_are_read_again_on_sighup(tmp_path: Path) -> None:
    file = tmp_path / "watch.toml"
    file.write_text('[[rules]]\nname = "declared"\nlql = "needle"\n')
    with open_doors(tmp_path, {"INGESTER_WATCH_FILES": str(file)}) as doors:
        (rule,) = doors.api("GET", "rules")["rules"]
        assert rule["file"] == str(file)
        with pytest.raises(urllib.error.HTTPError) as conflict:
            doors.api("PATCH", f"rules/{rule['id']}", {"lql": "x"})
        with conflict.value as answer:
            assert answer.code == 409
        file.write_text('[[rules]]\nname = "declared"\nlql = "m.x:"\n')
        doors.server.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
        wait_until(lambda: "watch files refused" in doors.server.log_text(), 10, "a refusal")
        assert "rules 1" in doors.server.log_text()
        assert doors.api("GET", "rules")["rules"][0]["lql"] == "needle"
        file.write_text('[[rules]]\nname = "other"\nlql = "needle"\n')
        doors.server.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
        wait_until(
            lambda: [one["name"] for one in doors.api("GET", "rules")["rules"]] == ["other"],
            10,
            "the new rule",
        )


def test_commands_work_on_a_stopped_folder(tmp_path: Path) -> None:
    with open_doors(tmp_path) as doors:
        doors.log({"message": "one error", "level": "error"})
        doors.row("SELECT count(*) FROM logs")
        assert doors.server.stop() == 0
        command = doors.server.command
        command("rule", "create", "r", "--lql", "error")
        sql = ("--cron", "* * * * *", "--query", "SELECT count(*) AS n FROM logs")
        command("alert", "create", "a", *sql)
        assert command("alert", "test", "a")["result"] == [{"n": 1}]
        command(
            *("monitor", "create", "m", "--logs", "level:error", "--operator", ">="),
            *("--threshold", "1", "--window", "10s", "--datapoints", "1/2"),
        )
        found = command("monitor", "backtest", "m", "--since", "10m")
        assert found["firing_buckets"] <= 2
        assert command("silence", "create", "service=web", "--for", "1m")["active"]
        assert command("monitor", "create", "x", exit_codes=(2,))["error"]


@pytest.mark.timeout(600)
def test_rules_see_each_acknowledged_log_once_across_kills(tmp_path: Path, long_form: bool) -> None:
    seed = secrets.randbelow(1 << 32)
    print(f"watch kill run, seed {seed}")
    rng = random.Random(seed)
    acknowledged = 0
    with open_doors(tmp_path) as doors:
        doors.api("POST", "rules", {"name": "needle", "lql": "needle", "resolve_after_s": 86_400})
        for _ in range(50 if long_form else 3):
            ends = time.monotonic() + rng.uniform(0.2, 1.2)
            while time.monotonic() < ends:
                count = rng.choice([1, 1, 3, 2000])
                lines = [b'{"message":"a needle"}'] * count
                answer = doors.lines(*lines)
                assert answer.status == 200
                acknowledged += count
            doors.server.kill()
            doors.start_again()
        doors.row("SELECT count(*) FROM logs")

        def matched() -> int:
            return sum(one["affected"][0]["matches"] for one in incidents(doors, "needle"))

        wait_until(lambda: matched() >= acknowledged, 20, f"{acknowledged} matches")
        assert matched() == acknowledged == doors.row("SELECT count(*) FROM logs")[0]
        assert len(incidents(doors, "needle")) == 1
