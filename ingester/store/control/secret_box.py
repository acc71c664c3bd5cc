"""The secret box: keys that may be copied again, sealed with `secret.key`.

Whoever reads `control.sqlite` alone (a backup, a support bundle) learns no key: what can be shown
again lies there under AES-256-GCM, and its key in a file of its own.

1. `secret.key` is made at the first need, with mode 0600, and synced before anything is sealed
   with it. It is read anew for every use: a lost or restored file counts at once.
2. The context (the digest of the sealed key) is authenticated: a sealed value cannot be moved to
   another row.
3. Without a usable `secret.key` nothing else stops working: keys are looked up by digest.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import secrets
from pathlib import Path

from ingester.errors import Conflict

__all__ = ["NotRetrievable", "SecretBox"]

_VERSION = b"\x01"
_NONCE_BYTES = 12
_KEY_BYTES = 32


class NotRetrievable(Conflict):
    """The key cannot be shown again; the sentence says why and offers the way on (409)."""


class SecretBox:
    """Seals and opens short texts. Blocking; called under the control store's lock."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def seal(self, plain: str, *, context: bytes) -> bytes | None:
        """The sealed text; None when `secret.key` is there and unusable."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            key = self._read()
        except FileNotFoundError:
            key = self._make()
        except NotRetrievable:
            return None
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _VERSION + nonce + AESGCM(key).encrypt(nonce, plain.encode(), context)

    def open(self, sealed: bytes, *, context: bytes) -> str:
        """The text again. Raises NotRetrievable."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            key = self._read()
        except FileNotFoundError:
            raise NotRetrievable(
                "secret.key is missing from the data folder, so stored keys cannot be shown;"
                " put it back, or rotate to get a new key"
            ) from None
        nonce, content = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            if sealed[:1] != _VERSION:
                raise InvalidTag
            return AESGCM(key).decrypt(nonce, content, context).decode()
        except InvalidTag:
            raise NotRetrievable(
                "this key was stored under another secret.key and cannot be shown; put that file"
                " back, or rotate to get a new key"
            ) from None

    def _read(self) -> bytes:
        try:
            key = base64.b64decode(self._path.read_bytes().strip(), validate=True)
        except FileNotFoundError:
            raise
        except (OSError, binascii.Error):
            key = b""
        if len(key) != _KEY_BYTES:
            raise NotRetrievable(
                "secret.key in the data folder is damaged or may not be read, so stored keys cannot"
                " be shown; put back a copy of it, or rotate to get a new key"
            )
        return key

    def _make(self) -> bytes:
        key = secrets.token_bytes(_KEY_BYTES)
        partial_path = self._path.with_name(f".{self._path.name}.partial")
        with contextlib.suppress(FileNotFoundError):
            partial_path.unlink()
        descriptor = os.open(partial_path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with open(descriptor, "wb") as file:
            file.write(base64.b64encode(key) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        partial_path.rename(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return key
