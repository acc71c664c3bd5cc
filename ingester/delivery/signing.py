"""Signatures of webhooks, as the Standard Webhooks specification has them.

1. `webhook-id` is the message's id, the same for each retry; `webhook-timestamp` the time of this
   attempt; `webhook-signature` HMAC-SHA256 over `<id>.<timestamp>.<body>`, one for each secret
   that is valid, separated by blanks.
2. A secret is `whsec_` and the base64 of 24 to 64 bytes. While one is rotated both sign, so that a
   receiver may change over when it likes.
3. What is signed is the body before any compression.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence

__all__ = ["SECRET_PREFIX", "BadSecret", "check_secret", "new_secret", "signature_headers"]

SECRET_PREFIX = "whsec_"

_SECRET_BYTES_MIN = 24
_SECRET_BYTES_MAX = 64
_NEW_SECRET_BYTES = 32


class BadSecret(ValueError):
    """Not a secret; the sentence says what one looks like and repeats nothing of it."""


def new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_NEW_SECRET_BYTES)).decode()


def check_secret(secret: str) -> None:
    _key(secret)


def signature_headers(
    event_id: str, body: bytes, *, signed_at_s: float, secrets: Sequence[str]
) -> list[tuple[str, str]]:
    """The three headers; without secrets the first two, which help to tell repeats."""
    timestamp = str(int(signed_at_s))
    headers = [("webhook-id", event_id), ("webhook-timestamp", timestamp)]
    if secrets:
        content = f"{event_id}.{timestamp}.".encode() + body
        signed = (
            base64.b64encode(hmac.digest(_key(secret), content, hashlib.sha256)).decode()
            for secret in secrets
        )
        headers.append(("webhook-signature", " ".join(f"v1,{one}" for one in signed)))
    return headers


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not _SECRET_BYTES_MIN <= len(key) <= _SECRET_BYTES_MAX:
        raise BadSecret(
            f"a secret is {SECRET_PREFIX} and the base64 of {_SECRET_BYTES_MIN} to"
            f" {_SECRET_BYTES_MAX} random bytes (openssl rand -base64 32)"
        )
    return key
