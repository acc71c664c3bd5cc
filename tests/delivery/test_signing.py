"""Signatures, against the package that receivers verify with."""

from __future__ import annotations

import base64
import time

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from ingester.delivery.signing import BadSecret, check_secret, new_secret, signature_headers

BODY = b'{"id":"26345"}'


def headers(*secrets: str, body: bytes = BODY) -> dict[str, str]:
    return dict(signature_headers("msg/+=1", body, signed_at_s=time.time(), secrets=secrets))


def test_a_signature_verifies_with_the_standardwebhooks_package() -> None:
    secret = new_secret()
    assert Webhook(secret).verify(BODY, headers(secret)) == {"id": "26345"}


def test_another_secret_or_body_does_not_verify() -> None:
    secret = new_secret()
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(BODY, headers(secret))
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY + b" ", headers(secret))


def test_during_a_rotation_both_secrets_verify() -> None:
    new, old = new_secret(), new_secret()
    signed = headers(new, old)
    assert signed["webhook-signature"].count("v1,") == 2
    assert Webhook(new).verify(BODY, signed)
    assert Webhook(old).verify(BODY, signed)


def test_without_a_secret_the_id_is_told_and_nothing_is_signed() -> None:
    assert set(headers()) == {"webhook-id", "webhook-timestamp"}


@pytest.mark.parametrize("length", [24, 32, 64])
def test_secrets_of_every_legal_length_are_taken(length: int) -> None:
    check_secret("whsec_" + base64.b64encode(b"x" * length).decode())
    check_secret(base64.b64encode(b"x" * length).decode())


@pytest.mark.parametrize(
    "secret",
    ["", "whsec_", "topsecret", "whsec_" + "A" * 28, "whsec_" + "A" * 92, "whsec_ä" + "A" * 40],
)
def test_what_is_no_secret_is_refused_without_repeating_it(secret: str) -> None:
    with pytest.raises(BadSecret) as refused:
        check_secret(secret)
    assert not secret.removeprefix("whsec_") or secret not in str(refused.value)
