"""Certificates of a listener, re-readable while it serves.

1. `context` is always a usable pair: a pair that does not load is refused and the old one stays.
2. TLS 1.2 or newer; ALPN offers `http/1.1` only.

A connection keeps the certificate it began with. The key file must not need a passphrase: nobody
is there to type it.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from ingester.errors import ConfigError

__all__ = ["Certificates"]


class Certificates:
    """A certificate chain and its key, as PEM files. `section` names the settings in errors."""

    def __init__(self, cert_file: Path, key_file: Path, *, section: str = "intake") -> None:
        self._cert_file = cert_file
        self._key_file = key_file
        self._section = section
        self._context = self._read()

    @property
    def context(self) -> ssl.SSLContext:
        """The pair read last; for the next handshake."""
        return self._context

    def reload(self) -> None:
        """Read both files again. Raises `ConfigError` and keeps the old pair when they are bad."""
        self._context = self._read()

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        for key, path in (("cert", self._cert_file), ("key", self._key_file)):
            if not path.is_file():
                raise ConfigError(f"{self._section}.tls_{key}_file", f"{path} is not a file")
        try:
            # An empty passphrase: without one OpenSSL would ask on the terminal and block.
            context.load_cert_chain(self._cert_file, self._key_file, password="")
        except (ssl.SSLError, OSError) as error:
            reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
            raise ConfigError(
                f"{self._section}.tls_cert_file",
                f"certificate and key do not load as a pair of PEM files ({reason})",
            ) from None
        return context
