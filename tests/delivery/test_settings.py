"""Settings of destinations: what is refused, shown, and kept."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ingester.delivery.settings import (
    REDACTED,
    DestinationSettings,
    OldSecret,
    checked,
    merged,
    redacted,
    target_url,
)
from ingester.delivery.signing import new_secret
from ingester.errors import InvalidField

WEBHOOK = {"url": "https://example.org/hook"}
INCIDENT_IO = {"api_token": "key", "alert_source_config_id": "01/ABC"}


def settings(**fields: Any) -> DestinationSettings:
    return DestinationSettings(**fields)


@pytest.mark.parametrize(
    ("type_", "fields", "field"),
    [
        ("webhook", {}, "url"),
        ("webhook", {"url": " "}, "url"),
        ("webhook", {**WEBHOOK, "api_token": "k"}, "api_token"),
        ("webhook", {"url": "ftp://example.org"}, "url"),
        ("webhook", {"url": "https://"}, "url"),
        ("webhook", {"url": "https://example.org:0/"}, "url"),
        ("webhook", {"url": "https://example.org:99999/"}, "url"),
        ("webhook", {"url": "https://exa mple.org/"}, "url"),
        ("webhook", {"url": "https://example.org/a\r\nX: y"}, "url"),
        ("webhook", {"url": "https://example.org\\@evil.example/"}, "url"),
        ("webhook", {"url": "https://example.org/#part"}, "url"),
        ("webhook", {"url": "//example.org/"}, "url"),
        ("webhook", {"url": "https://[::1/"}, "url"),
        ("webhook", {**WEBHOOK, "secret": "short"}, "secret"),
        ("webhook", {**WEBHOOK, "headers": {"a b": "c"}}, "headers"),
        ("webhook", {**WEBHOOK, "headers": {"A": "b\r\nC: d"}}, "headers.A"),
        ("webhook", {**WEBHOOK, "headers": {"Host": "x"}}, "headers.Host"),
        ("webhook", {**WEBHOOK, "headers": {"webhook-id": "x"}}, "headers.webhook-id"),
        ("webhook", {**WEBHOOK, "headers": {"A": "1", "a": "2"}}, "headers.a"),
        ("incident_io", {}, "api_token"),
        ("incident_io", {"api_token": "k"}, "alert_source_config_id"),
        ("incident_io", {"alert_source_config_id": "1"}, "api_token"),
        ("incident_io", {**INCIDENT_IO, "url": "https://x.example"}, "url"),
        ("incident_io", {**INCIDENT_IO, "api_token": "k\n"}, "api_token"),
        ("incident_io", {**INCIDENT_IO, "base_url": "https://u:p@x.example"}, "base_url"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_field(
    type_: Any, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidField) as refused:
        checked(type_, settings(**fields))
    assert refused.value.field == field


def test_defaults_are_those_of_the_type() -> None:
    webhook = checked("webhook", settings(**WEBHOOK))
    assert (webhook.headers, webhook.gzip, webhook.key_mode) == ({}, False, None)
    incident_io = checked("incident_io", settings(**INCIDENT_IO))
    assert (incident_io.metadata, incident_io.key_mode) == ({}, "incident")
    expected = "https://api.incident.io/v2/alert_events/http/01%2FABC"
    assert target_url("incident_io", incident_io) == expected


def test_nothing_secret_is_shown_and_what_is_shown_comes_back_as_it_was() -> None:
    stored = settings(
        url="https://user:pass@example.org/hook?a=1",
        headers={"X-Api-Key": "hidden", "Authorization": "hidden", "X-Team": "data"},
        secret=new_secret(),
        old_secrets=(OldSecret(secret=new_secret(), until_s=2e9),),
        api_token="hidden",
    )
    shown = redacted(stored)
    text = msgspec.json.encode(shown).decode()
    for hidden in ("hidden", "pass", "user", stored.secret, stored.old_secrets[0].secret):
        assert hidden is not None
        assert hidden not in text
    assert shown.headers == {"X-Api-Key": REDACTED, "Authorization": REDACTED, "X-Team": "data"}
    sent = {name: getattr(shown, name) for name in ("url", "headers", "secret", "api_token")}
    assert merged(stored, sent) == stored
    assert "hidden" not in repr(stored)


def test_redacted_keeps_a_part_while_another_changes() -> None:
    stored = settings(
        url="https://user:pass@example.org/", headers={"X-Api-Key": "k", "X-Team": "a"}
    )
    changed = merged(
        stored,
        {"url": f"https://{REDACTED}@other.example/", "headers": {"x-api-key": REDACTED}},
    )
    assert changed.url == "https://user:pass@other.example/"
    assert changed.headers == {"x-api-key": "k"}


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"secret": REDACTED}, "secret"),
        ({"url": f"https://{REDACTED}@x.example/"}, "url"),
        ({"headers": {"A": REDACTED}}, "headers.A"),
    ],
)
def test_redacted_without_a_stored_value_is_refused(sent: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidField) as refused:
        merged(settings(**WEBHOOK), sent)
    assert refused.value.field == field


def test_user_info_is_never_part_of_the_target() -> None:
    stored = settings(url="https://user:p%40ss@example.org:8443/hook")
    assert target_url("webhook", stored) == "https://example.org:8443/hook"


def test_an_old_secret_signs_until_its_end() -> None:
    one = settings(secret="new", old_secrets=(OldSecret(secret="old", until_s=100.0),))
    assert one.secrets(99.0) == ["new", "old"]
    assert one.secrets(100.0) == ["new"]
    assert settings().secrets(0.0) == []
