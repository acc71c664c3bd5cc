"""Browsers and TLS on the log, metric and honest doors; the source documents' samples over https.

The samples are those of the documents, but for host, key and project. The libraries they use are
replaced by a few lines each, so that nothing has to be installed.
"""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.doors import HONEST, LOGS, METRICS, bearer
from tests.system.secure_door import ORIGIN, Secure, ask, open_secure

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


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    with open_secure(tmp_path_factory.mktemp("tls")) as secure:
        yield secure


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
        status, headers, text = ask(secure, "OPTIONS", path, Origin=ORIGIN, **asked)
        assert (status, text) == (204, b"")
        assert headers["access-control-allow-origin"] == ORIGIN
        for name in ("Authorization", "Idempotency-Key", "Content-Encoding", "Content-Type"):
            assert name in headers["access-control-allow-headers"]
        assert "POST" in headers["access-control-allow-methods"]
        assert "vary" in headers
        status, headers, _ = ask(secure, "OPTIONS", path, Origin="https://evil.example", **asked)
        assert (status, "access-control-allow-origin" in headers) == (405, False)
        key = secure.words["api_key" if path == METRICS else "token"]
        good = {**bearer(key), "Origin": ORIGIN}
        for sent, expected in (({"Origin": ORIGIN}, 401), (good, 400 if path == METRICS else 200)):
            for _ in range(2):
                status, headers, _ = ask(secure, "POST", path, body, **sent)
                assert status == expected
                assert headers["access-control-allow-origin"] == ORIGIN
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
