"""What doors get and give shows no keys, and errors read the same everywhere."""

from __future__ import annotations

from ingester.doors.exchange import Request, Response, error_response
from ingester.protocol.http1 import HeadLimits
from ingester.protocol.http1_head import parse_head

LIMITS = HeadLimits(head_bytes_max=1024, target_bytes_max=256, header_count_max=10)


def test_error_response_is_json_with_retry_after() -> None:
    response = error_response(503, 'full "now"', retry_after_s=7)
    assert response.status == 503
    assert response.body == b'{"error":"full \\"now\\""}'
    assert response.content_type == b"application/json"
    assert response.headers == ((b"Retry-After", b"7"),)
    assert not response.close
    assert error_response(400, "no").headers == ()


def test_repr_shows_no_target_and_no_body() -> None:
    head = parse_head(b"POST /v1/secret/secret HTTP/1.1\r\nHost: a\r\nA: secret\r\n\r\n", LIMITS)
    request = Request(head, 5, "127.0.0.1", "intake", None)  # type: ignore[arg-type]
    assert "secret" not in repr(request)
    assert "secret" not in repr(Response(200, b"secret"))
