"""A server whose intake door speaks TLS, and clients that trust its certificate."""

from __future__ import annotations

import ipaddress
import os
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.system.server import Server, running

__all__ = ["ORIGIN", "Secure", "ask", "open_secure"]

ORIGIN = "https://app.example"


class Secure(NamedTuple):
    """A server over TLS, a certificate to trust, and what a sample is filled in with."""

    server: Server
    certificate: Path
    words: dict[str, str]

    def run(self, *command: str, folder: Path) -> str:
        done = subprocess.run(
            [part.format_map(self.words) for part in command],
            cwd=folder,
            env={
                **os.environ,
                "SSL_CERT_FILE": str(self.certificate),
                "CURL_CA_BUNDLE": str(self.certificate),
                "NODE_EXTRA_CA_CERTS": str(self.certificate),
                "NODE_PATH": str(folder),
            },
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.returncode == 0, done
        return done.stdout


@contextmanager
def open_secure(folder: Path) -> Iterator[Secure]:
    """With a token, a connection and a source of its own; stopped at the end."""
    certificate, key = make_certificate(folder)
    environment = {
        "INGESTER_INTAKE_TLS_CERT_FILE": str(certificate),
        "INGESTER_INTAKE_TLS_KEY_FILE": str(key),
        "INGESTER_INTAKE_CORS_ORIGINS": ORIGIN,
    }
    with running(folder, environment) as server:
        token = server.command("token", "create", "--service", "pay", "--environment", "prod")
        source = server.command("source", "create", "app")
        words = {
            "url": f"https://localhost:{server.address[1]}",
            "token": token["token"],
            "api_key": server.command("connection", "create", "cron")["api_key"],
            "pair": f"{source['auth_key']}/{source['api_key']}",
        }
        yield Secure(server, certificate, words)
        assert server.stop() == 0
    assert "Traceback" not in server.log_text()


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed pair for localhost, good for an hour."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509
        .CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "door.crt", folder / "door.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


def ask(
    secure: Secure, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(secure.words["url"] + path, body, sent, method=method)
    context = ssl.create_default_context(cafile=str(secure.certificate))
    try:
        answer = urllib.request.urlopen(request, timeout=20, context=context)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        found = {name.lower(): value for name, value in answer.headers.items()}
        return answer.status, found, answer.read()
