"""Browsers and TLS on the log, metric and honest doors; the source documents' samples over https.

The samples are those of the documents, but for host, key and project. The libraries they use are
replaced by a few lines each, so that nothing has to be installed.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.system.doors import HONEST, LOGS, METRICS, bearer
from tests.system.server import Server, running

_ORIGIN = "https://app.example"
_CURL_LOG = """curl -sS --fail-with-body -X POST {url}/api/v1/webhook/event/log \\
  -H "Authorization: Bearer {token}" \\
  -H "Content-Type: application/json" \\
  -d '{{
    "message": "Payment succeeded",
    "amount": 2000,
    "currency": "USD",
    "customer_id": "cus_111",
    "metadata": {{
      "source": "stripe"
    }},
    "level": "info"
  }}'
"""
_CURL_METRIC = """curl -sS --fail-with-body -X POST {url}/api/webhooks/custom \\
  -H "Authorization: Bearer {api_key}" \\
  -H "Content-Type: application/json" \\
  -d '{{
    "projectId": "default",
    "metrics": [{{
      "metricId": "daily_signups",
      "metricName": "Daily Signups",
      "value": 42,
      "unit": "count",
      "timestamp": 1234567890000
    }}]
  }}'
"""
_PYTHON = """
import requests
import time

def send_metric(metric_id, metric_name, value):
    url = '{url}/api/webhooks/custom'
    headers = {{
        'Authorization': 'Bearer {api_key}',
        'Content-Type': 'application/json'
    }}
    data = {{
        'projectId': 'default',
        'metrics': [{{
            'metricId': metric_id,
            'metricName': metric_name,
            'value': value,
            'unit': 'count',
            'timestamp': int(time.time() * 1000)
        }}]
    }}

    response = requests.post(url, json=data, headers=headers)
    print(f'Metric sent: {{response.json()}}')

# Usage
send_metric('daily_signups', 'Daily Signups', 42)
"""
_REQUESTS = """
import json as _json, urllib.request

def post(url, json, headers):
    sent = urllib.request.Request(url, _json.dumps(json).encode(), headers)
    with urllib.request.urlopen(sent, timeout=10) as answer:
        text = answer.read()
    class Response:
        def json(self):
            return _json.loads(text)
    return Response()
"""
_AXIOS = """
exports.post = async (url, data, {{headers}}) => {{
  const answer = await fetch(url, {{method: 'POST', body: JSON.stringify(data), headers}});
  if (!answer.ok) throw new Error(await answer.text());
  return {{data: await answer.json()}};
}};
"""
_JAVASCRIPT = """
const axios = require('axios');

async function sendMetric(metricId, metricName, value) {{
  try {{
    const response = await axios.post(
      '{url}/api/webhooks/custom',
      {{
        projectId: 'default',
        metrics: [{{
          metricId,
          metricName,
          value,
          unit: 'count',
          timestamp: Date.now()
        }}]
      }},
      {{
        headers: {{
          'Authorization': 'Bearer {api_key}',
          'Content-Type': 'application/json'
        }}
      }}
    );
    console.log('Metric sent:', response.data);
  }} catch (error) {{
    console.error('Error sending metric:', error.message);
  }}
}}

// Usage
sendMetric('daily_signups', 'Daily Signups', 42);
"""


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


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = make_certificate(folder)
    environment = {
        "INGESTER_INTAKE_TLS_CERT_FILE": str(certificate),
        "INGESTER_INTAKE_TLS_KEY_FILE": str(key),
        "INGESTER_INTAKE_CORS_ORIGINS": _ORIGIN,
    }
    with running(folder, environment) as server:
        token = server.command("token", "create", "--service", "pay", "--environment", "prod")
        words = {
            "url": f"https://localhost:{server.address[1]}",
            "token": token["token"],
            "api_key": server.command("connection", "create", "cron")["api_key"],
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
        answer = urllib.request.urlopen(request, timeout=10, context=context)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        found = {name.lower(): value for name, value in answer.headers.items()}
        return answer.status, found, answer.read()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
def test_the_curl_samples_of_the_sources_work_over_https(secure: Secure, tmp_path: Path) -> None:
    answer = secure.run("sh", "-c", _CURL_LOG, folder=tmp_path)
    assert json.loads(answer) == {"success": True, "logsStored": 1}
    answer = secure.run("sh", "-c", _CURL_METRIC, folder=tmp_path)
    assert json.loads(answer) == {"success": True, "metricsStored": 1}


def test_the_python_sample_of_the_source_works_over_https(secure: Secure, tmp_path: Path) -> None:
    (tmp_path / "requests.py").write_text(_REQUESTS)
    answer = secure.run(sys.executable, "-c", _PYTHON, folder=tmp_path)
    assert answer == "Metric sent: {'success': True, 'metricsStored': 1}\n"


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not here")
def test_the_axios_sample_of_the_source_works_over_https(secure: Secure, tmp_path: Path) -> None:
    (tmp_path / "axios.js").write_text(_AXIOS.format())
    answer = secure.run("node", "-e", _JAVASCRIPT, folder=tmp_path)
    assert answer == "Metric sent: { success: true, metricsStored: 1 }\n"


def test_a_browser_of_an_allowed_origin_may_ask_and_send(secure: Secure) -> None:
    for path, body in ((LOGS, b"{}"), (METRICS, b"{}"), (HONEST, b"{}")):
        asked = {"Access_Control_Request_Method": "POST"}
        status, headers, text = ask(secure, "OPTIONS", path, Origin=_ORIGIN, **asked)
        assert (status, text) == (204, b"")
        assert headers["access-control-allow-origin"] == _ORIGIN
        for name in ("Authorization", "Idempotency-Key", "Content-Encoding", "Content-Type"):
            assert name in headers["access-control-allow-headers"]
        assert "POST" in headers["access-control-allow-methods"]
        assert "vary" in headers
        status, headers, _ = ask(secure, "OPTIONS", path, Origin="https://evil.example", **asked)
        assert (status, "access-control-allow-origin" in headers) == (405, False)
        key = secure.words["api_key" if path == METRICS else "token"]
        good = {**bearer(key), "Origin": _ORIGIN}
        for sent, expected in (({"Origin": _ORIGIN}, 401), (good, 400 if path == METRICS else 200)):
            for _ in range(2):
                status, headers, _ = ask(secure, "POST", path, body, **sent)
                assert status == expected
                assert headers["access-control-allow-origin"] == _ORIGIN
                assert "Ingester-Accepted" in headers["access-control-expose-headers"]


def test_plain_http_on_a_tls_door_stores_nothing(secure: Secure) -> None:
    with socket.create_connection(("localhost", secure.server.address[1]), timeout=10) as plain:
        head = f"POST {LOGS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secure.words['token']}"
        plain.sendall(head.encode() + b'\r\nContent-Length: 11\r\n\r\n{"plain":1}')
        answer = b""
        while piece := plain.recv(4096):
            answer += piece
    assert b"HTTP/1.1 2" not in answer
    status, headers, _ = ask(
        secure, "POST", f"{LOGS}?wait=query", b"{}", **bearer(secure.words["token"])
    )
    assert (status, headers["ingester-queryable"]) == (200, "true")
    rows = secure.server.query("SELECT count(*) AS n FROM logs WHERE message LIKE '%plain%'")
    assert rows == [{"n": 0}]
