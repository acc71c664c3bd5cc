"""Destinations, routes and deliveries as a user meets them: commands beside a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from ingester.store.control import ControlStore
from ingester.store.control.outbox import append_revision
from tests.delivery.incidents import revision
from tests.system.server import CommandFailed, Server, running, wait_until
from tests.system.webhooks import Webhooks, webhooks

LOOPBACK = {"INGESTER_DELIVERY_ALLOW_NETWORKS": "127.0.0.0/8"}


@pytest.fixture(scope="module")
def hooks() -> Iterator[Webhooks]:
    with webhooks() as listening:
        yield listening


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("delivery"), LOOPBACK) as started:
        yield started
        assert started.stop() == 0


def append(server: Server, incident_id: str, *destinations: str) -> None:
    """By another process than the server's, as its own rules and monitors would."""
    with (
        closing(ControlStore.open(server.data_dir / "control.sqlite")) as control,
        control._transaction() as connection,
    ):
        append_revision(connection, revision(incident_id), destinations=destinations)


def deliveries(server: Server, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.command("delivery", "list", *arguments)["deliveries"]
    return found


def test_verify_sends_a_signed_sample_on_the_real_way(server: Server, hooks: Webhooks) -> None:
    made = server.command(
        "destination", "create", "verified", "--url", hooks.url, "--secret", "generate",
        "--header", "Authorization:Bearer hidden",
    )  # fmt: skip
    before = len(hooks.received)
    told = server.command("destination", "verify", "verified")
    assert (told["ok"], told["status"], told["body"]) == (True, 200, "ok")
    assert told["id"].startswith("sample-")
    assert "hidden" not in json.dumps(told)
    [sample] = hooks.received[before:]
    read = Webhook(made["secret"]).verify(sample.body, sample.headers)
    assert (read["id"], read["status"]) == (told["id"], "opened")
    assert sample.headers["authorization"] == "Bearer hidden"
    assert deliveries(server, "--destination", "verified") == []


def test_verify_of_incident_io_resolves_and_pages_nobody(server: Server, hooks: Webhooks) -> None:
    base = hooks.url.removesuffix("/hook")
    server.command(
        "destination", "create", "pager", "--type", "incident_io", "--api-token", "tok",
        "--alert-source-config-id", "01ABC", "--base-url", base,
        "--metadata", "priority=high,service=logflare",
    )  # fmt: skip
    told = server.command("destination", "verify", "pager")
    assert told["request"]["url"] == f"{base}/v2/alert_events/http/01ABC"
    event = json.loads(hooks.received[-1].body)
    assert event["status"] == "resolved"
    assert {key: event["metadata"][key] for key in ("priority", "service")} == {
        "priority": "high",
        "service": "logflare",
    }
    assert hooks.received[-1].headers["authorization"] == "Bearer tok"


def test_a_verify_that_fails_says_why_and_exits_1(server: Server) -> None:
    server.command("destination", "create", "closed", "--url", "http://127.0.0.1:1/")
    told = server.command("destination", "verify", "closed", exit_codes=(1,))
    assert (told["ok"], told["status"], told["error"]) == (False, None, "Connection refused")
    server.command("destination", "create", "metadata", "--url", "http://169.254.169.254/")
    told = server.command("destination", "verify", "metadata", exit_codes=(1,))
    assert "169.254.169.254 is not a public address" in told["error"]
    assert "[delivery] allow_networks" in told["error"]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [((), "api_token"), (("--api-token", "k"), "alert_source_config_id")],
)
def test_what_incident_io_needs_is_named(
    server: Server, arguments: tuple[str, ...], field: str
) -> None:
    with pytest.raises(CommandFailed, match=f"needs {field}"):
        server.command("destination", "create", "half", "--type", "incident_io", *arguments)


def test_an_incident_is_delivered_and_can_be_sent_again(server: Server, hooks: Webhooks) -> None:
    to = server.command("destination", "create", "ops", "--url", hooks.url)["id"]
    append(server, "inc_1", to)
    wait_until(
        lambda: deliveries(server, "--destination", "ops", "--state", "delivered"), 15, "delivery"
    )
    [one] = deliveries(server, "--incident", "inc_1")
    assert (one["kind"], one["attempts"], one["status"]) == ("opened", 1, 200)
    shown = server.command("delivery", "show", one["id"])
    assert len(shown["attempt_log"]) == 1
    assert shown["attempt_log"][0]["answer"] == "ok"
    server.command("delivery", "resend", one["id"])
    wait_until(
        lambda: len([hook for hook in hooks.received if hook.id == one["event_id"]]) == 2,
        15,
        "the same again",
    )
    first, again = [hook for hook in hooks.received if hook.id == one["event_id"]]
    assert first.body == again.body == shown["body"].encode()


def test_a_route_brings_what_names_no_destination(server: Server, hooks: Webhooks) -> None:
    server.command("destination", "create", "routed", "--url", hooks.url)
    route = server.command(
        "route", "create", "routed", "--allow", "table$=orders", "--ignore", "label=muted"
    )
    test = server.command("route", "test", "--table", "shop.orders")
    assert [one["name"] for one in test["destinations"]] == ["routed"]
    muted = server.command("route", "test", "--table", "shop.orders", "--label", "muted")
    assert muted["destinations"] == []
    append(server, "inc_routed")
    wait_until(lambda: deliveries(server, "--destination", "routed"), 15, "delivery")
    server.command("route", "delete", route["id"])
    assert server.command("route", "list")["routes"] == []


def test_what_was_given_up_comes_back_with_failed_since(server: Server, hooks: Webhooks) -> None:
    with webhooks(410) as gone:
        to = server.command("destination", "create", "gone", "--url", gone.url)["id"]
        append(server, "inc_gone", to)
        wait_until(
            lambda: deliveries(server, "--destination", "gone", "--state", "dead"), 15, "410"
        )
    shown = server.command("destination", "show", "gone")
    assert shown["enabled"] is False
    assert "410" in shown["disabled_reason"]
    server.command("destination", "set", "gone", "--url", hooks.url, "--enable")
    assert server.command(
        "delivery", "resend", "--failed-since", "1h", "--destination", "gone"
    ) == {"resent": 1, "disabled": 0}
    wait_until(
        lambda: deliveries(server, "--destination", "gone", "--state", "delivered"), 15, "resend"
    )


def test_commands_work_on_a_stopped_folder(tmp_path: Path, hooks: Webhooks) -> None:
    server = Server(tmp_path / "data", tmp_path / "log", LOOPBACK)
    server.command("destination", "create", "ops", "--url", hooks.url)
    assert server.command("destination", "verify", "ops")["ok"] is True
    secret = server.command("destination", "rotate", "ops")
    assert secret["secret"].startswith("whsec_")
    listed = server.command("destination", "list")
    assert listed["destinations"][0]["secret"] == "REDACTED"
    assert server.command("delivery", "list")["deliveries"] == []


def test_sigterm_waits_for_what_is_under_way(tmp_path: Path) -> None:
    with webhooks() as hooks, running(tmp_path, LOOPBACK) as server:
        to = server.command("destination", "create", "ops", "--url", hooks.url)["id"]

        def stop_sender() -> None:
            server.signal_stop()
            # The answer goes out after the server has begun to drain.
            wait_until(lambda: "draining" in server.log_text(), 10, "draining")

        hooks.before_answer = stop_sender
        append(server, "inc_1", to)
        assert server.wait_exit() == 0
        hooks.before_answer = lambda: None
        [one] = deliveries(server)
        assert (one["state"], one["attempts"]) == ("delivered", 1)
