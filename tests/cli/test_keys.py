"""`token`, `connection`, `project`, `member`, `audit` on a stopped folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ingester.cli import main
from ingester.store.control import ControlStore, key_digest


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No stray ./config.toml or variable of the developer counts."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("INGESTER_")]:
        monkeypatch.delenv(name)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments), "--data-dir", "d"])


def document(*arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_tokens_from_creation_to_deletion() -> None:
    made = document("token", "create", "--service", "web", "--environment", "prod")
    assert {"id", "token", "scope", "service", "environment"} <= set(made)
    assert (made["scope"], made["service"], made["environment"]) == ("ingest", "web", "prod")
    listed = document("token", "list")["tokens"]
    assert [entry["id"] for entry in listed] == [made["id"]]
    assert made["token"] not in json.dumps(listed)
    assert document("token", "reveal", made["id"])["token"] == made["token"]
    rotated = document("token", "rotate", made["id"], "--overlap", "1h")
    assert (rotated["id"], rotated["token"] != made["token"]) == (made["id"], True)
    store = ControlStore.open(Path("d/control.sqlite"))
    assert set(store.key_tables().bearers) == {
        key_digest(made["token"]),
        key_digest(rotated["token"]),
    }
    store.close()
    assert "never used" in run("token", "usage", made["id"]).stdout
    assert document("token", "revoke", made["id"]) == {"id": made["id"], "revoked": 2}
    assert run("token", "reveal", made["id"]).exit_code == 1
    assert document("token", "delete", made["id"])["deleted"]
    assert document("token", "list") == {"tokens": []}
    assert "no tokens yet" in run("token", "list").stderr


@pytest.mark.parametrize("scope", ["read", "admin"])
def test_a_token_that_opens_the_console_is_shown_once(scope: str) -> None:
    made = document("token", "create", "--scope", scope, "--expires", "8h")
    assert made["expires_at"]
    shown = run("token", "create", "--scope", scope)
    assert "only a hash" in shown.stderr
    refused = run("token", "reveal", made["id"])
    assert refused.exit_code == 1
    assert "rotate" in refused.stderr
    assert made["token"] not in run("token", "list").stdout


def test_connections_and_projects() -> None:
    made = document("connection", "create", "cron", "--project", "acme", "--tier", "free")
    assert {"id", "name", "webhook_url", "api_key", "project_id"} <= set(made)
    assert made["webhook_url"] == "http://127.0.0.1:8080/api/webhooks/custom"
    assert made["project_id"] == "acme"
    assert document("connection", "reveal", "cron")["api_key"] == made["api_key"]
    assert document("connection", "reveal", made["id"])["api_key"] == made["api_key"]
    rotated = document("connection", "rotate", "cron", "--overlap", "0")
    assert rotated["project_id"] == "acme"
    assert document("connection", "set", "cron", "--tier", "pro")["limit"] == 1000
    assert document("connection", "usage", "cron")["quota_left"] == 1000
    assert "1000 requests an hour" in run("connection", "list").stdout
    refused = run("project", "delete", "acme")
    assert refused.exit_code == 1
    assert "connection uses" in refused.stderr
    assert document("connection", "revoke", "cron")["revoked"] == 1
    assert document("connection", "delete", "cron")["deleted"]
    assert document("project", "delete", "acme")["deleted"]
    document("project", "create", "other", "--name", "Other Ltd")
    assert {entry["id"] for entry in document("project", "list")["projects"]} == {
        "default",
        "other",
    }
    assert "Other Ltd" in run("project", "list").stdout


def test_sources_have_settings_and_can_be_shown_again() -> None:
    made = document(
        *("source", "create", "github", "--dedup-field", "id"),
        *("--map", "account_id=/org/id", "--map", "user_id==nobody"),
    )
    assert made["map"] == {"account_id": "/org/id", "user_id": "=nobody"}
    shown = run("source", "list").stdout
    assert "no repeats by id in 24 h" in shown
    assert document("source", "reveal", "github")["api_key"] == made["api_key"]
    patched = document("source", "set", "github", "--requests-per-hour", "9", "--dedup-field", "")
    assert (patched["requests_per_hour"], patched["dedup_field"]) == (9, None)
    assert run("source", "set", "github").exit_code == 2
    assert run("source", "set", "github", "--map", "nonsense").exit_code == 2
    assert run("source", "set", "github", "--map", "colour=/a").exit_code == 1
    bound = ("token", "create", "--service", "s", "--environment", "e", "--source", "github")
    assert document(*bound)["source"] == "github"
    assert document("source", "delete", "github")["deleted"]
    assert document("token", "list")["tokens"][0]["source"] is None


def test_members_are_invited_and_changes_are_audited() -> None:
    made = document("member", "create", "ada@example.org", "--role", "admin")
    assert made["link"].startswith("http://127.0.0.1:8081/invite?token=")
    again = document("member", "invite", "ADA@example.org")
    assert again["link"] != made["link"]
    assert "has no password yet" in run("member", "list").stdout
    document("member", "create", "bob@example.org")
    assert document("member", "role", "bob@example.org", "admin")["role"] == "admin"
    document("member", "role", "bob@example.org", "viewer")
    assert document("member", "delete", "bob@example.org")["deleted"]
    refused = run("member", "delete", "ada@example.org")
    assert "last administrator" in refused.stderr
    entries = document("audit")["entries"]
    assert entries[0]["action"] == "member deleted"
    assert {entry["actor"] for entry in entries} == {"local"}
    text = run("audit", "--limit", "2").stdout
    assert len(text.splitlines()) == 2
    assert made["link"].partition("=")[2] not in json.dumps(entries)


@pytest.mark.parametrize(
    "arguments",
    [
        ("token", "create", "--service", "s"),
        ("token", "create", "--scope", "root"),
        ("token", "rotate", "tok_9"),
        ("token", "rotate", ""),
        ("connection", "create", ""),
        ("connection", "rotate", "nope"),
        ("connection", "create", "c", "--tier", "gold"),
        ("project", "create", "a b"),
        ("member", "create", "nobody"),
        ("member", "invite", "nobody@example.org"),
        ("source", "reveal", "nope"),
        ("source", "reveal", "\udcff"),
        ("token", "create", "--service", "\udcff", "--environment", "e"),
    ],
)
def test_what_cannot_be_done_is_a_sentence_and_no_traceback(arguments: tuple[str, ...]) -> None:
    Path("d").mkdir()

    result = run(*arguments)
    assert result.exit_code in {1, 2}
    assert "Error" in result.stderr
    assert "Traceback" not in result.stderr
