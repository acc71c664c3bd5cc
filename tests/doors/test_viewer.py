"""The instrumentation viewer shows what came, without keys and within bounds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ingester.doors.viewer import LINES_SHOWN_MAX, Viewer, warnings_of
from ingester.messages import LineReject

from .rig import API, AUTH, head_of


def add(viewer: Viewer, **changes: Any) -> None:
    viewer.add(**{
        "number": 0xABC,
        "head": head_of(),
        "client_address": "192.0.2.1",
        "source": "shop",
        "status": 200,
        "bytes_in": 1,
        "bytes_raw": 2,
        "accepted": 3,
        "rejected": 4,
        "lines": [b"{}"],
        "line_numbers": [3],
        "rejects": [LineReject(9, "missing_field", "x is missing", b"{ }", "x", 5)],
        "warnings": ["careful"],
        **changes,
    })


def test_a_document_says_what_came_and_how_it_was_judged() -> None:
    viewer = Viewer(5)
    add(viewer, head=head_of(headers=[(b"host", b"a"), (b"user-agent", b"curl\xff")]))
    [document] = viewer.documents()
    assert isinstance(document.pop("received_at"), str)
    assert document == {
        "request_id": "0000000000000abc",
        "method": "POST",
        "path": "/v1/***/***",
        "client_address": "192.0.2.1",
        "source": "shop",
        "status": 200,
        "headers": [["host", "a"], ["user-agent", "curl\xff"]],
        "bytes_in": 1,
        "bytes_raw": 2,
        "accepted": 3,
        "rejected": 4,
        "events": ["{}"],
        "event_lines": [3],
        "rejects": [
            {
                "line": 9,
                "column": 5,
                "field": "x",
                "reason": "missing_field",
                "detail": "x is missing",
                "excerpt": "{ }",
            }
        ],
        "warnings": ["careful"],
    }
    json.dumps(document)


@pytest.mark.parametrize(
    "name",
    [
        b"authorization",
        b"proxy-authorization",
        b"cookie",
        b"x-api-key",
        b"apikey",
        b"x-auth-token",
        b"x-amz-security-token",
        b"client-secret",
        b"x-hub-signature-256",
    ],
)
def test_credentials_in_headers_are_masked(name: bytes) -> None:
    viewer = Viewer(5)
    add(viewer, head=head_of(headers=[(name, b"hunter2")]))
    assert viewer.documents()[0]["headers"] == [[name.decode(), "***"]]


@pytest.mark.parametrize("path", [f"/v1/{AUTH}/{API}", f"/test/v1/{AUTH}/{API}/", f"/v1/{AUTH}"])
def test_keys_of_the_path_are_nowhere_in_a_document(path: str) -> None:
    """Proxies repeat the path they were asked for."""
    viewer = Viewer(5)
    headers = [
        (b"x-original-uri", path.encode()),
        (b"referer", b"http://a" + path.encode() + b"?x"),
        (b"x-forwarded-for", b"192.0.2.9"),
    ]
    add(viewer, head=head_of(path, headers=headers))
    text = json.dumps(viewer.documents())
    assert AUTH not in text
    assert path.count(API) == 0 or API not in text
    assert "192.0.2.9" in text


def test_the_ring_keeps_the_newest_and_shows_them_first() -> None:
    viewer = Viewer(2)
    for number in (1, 2, 3):
        add(viewer, number=number)
    assert [document["request_id"] for document in viewer.documents()] == [
        "0000000000000003",
        "0000000000000002",
    ]
    assert viewer.request_count == 3


def test_a_viewer_that_is_off_keeps_nothing() -> None:
    viewer = Viewer(0)
    add(viewer)
    assert viewer.documents() == []
    assert viewer.request_count == 1


def test_what_is_shown_of_a_request_is_bounded() -> None:
    viewer = Viewer(1)
    reject = LineReject(1, "invalid_utf8", "x", b"\xff" * 65_536)
    for lines in ([b"\xff" * 65_536] * 5000, [b"x"] * 5000):
        add(
            viewer,
            lines=lines,
            rejects=[reject] * 5000,
            head=head_of(headers=[(b"x-long", b"y" * 30_000)]),
        )
        [document] = viewer.documents()
        assert len(json.dumps(document)) < 200_000
        events, rejects = document["events"], document["rejects"]
        assert isinstance(events, list)
        assert isinstance(rejects, list)
        assert 1 <= len(events) <= LINES_SHOWN_MAX
        assert 1 <= len(rejects) <= LINES_SHOWN_MAX
    assert len(events) == LINES_SHOWN_MAX


def test_bytes_that_are_no_text_are_shown_as_escapes() -> None:
    viewer = Viewer(1)
    add(viewer, lines=["é".encode() + b"\xff\x00"])
    assert viewer.documents()[0]["events"] == ["é\\xff\x00"]


def reject(reason: Any, line: bytes = b"") -> LineReject:
    return LineReject(1, reason, "", line)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("PUT", [], []), "-X POST"),
        (("POST", [1_700_000_000.0], []), "seconds"),
        (("POST", [1_800_000_000_001.0 + 86_400_000], []), "a day ahead"),
        (("POST", [], [reject("several_values")]), "--data-binary"),
        (("POST", [], [reject("not_an_object", b"[{}]")]), "a JSON array"),
        (("POST", [], [reject("wrong_encoding")]), "Content-Encoding"),
    ],
)
def test_the_usual_mistakes_are_named(arguments: tuple[Any, Any, Any], word: str) -> None:
    method, times, rejects = arguments
    head = head_of(method=method)
    [warning] = warnings_of(head, times, rejects, now_ms=1_800_000_000_000)
    assert word in warning


def test_nothing_is_said_about_what_is_right() -> None:
    times = [0.0, 1_000_000_000_000.0, 1_800_000_000_000.0 + 86_400_000]
    rejects = [reject("not_an_object", b"5"), reject("invalid_json"), reject("too_long")]
    head = head_of(headers=[(b"content-encoding", b"GZIP")])
    assert warnings_of(head, times, rejects, 1_800_000_000_000) == []


def test_an_encoding_nobody_knows_and_a_refused_body_are_named() -> None:
    head = head_of(headers=[(b"content-encoding", b"br, gzip")])
    [encoding, refused] = warnings_of(head, [], [], 0, refusal="the stream is cut")
    assert "'br, gzip'" in encoding
    assert "zstd" in encoding
    assert refused.endswith("the stream is cut")


def test_missing_fields_are_named_once() -> None:
    rejects = [
        LineReject(1, "missing_field", "x", b"{}", "userId"),
        LineReject(2, "missing_field", "x", b"{}", "accountId"),
        LineReject(3, "missing_field", "x", b"{}", "userId"),
        LineReject(4, "wrong_type", "x", b"{}", "createdAt"),
    ]
    [missing, time] = warnings_of(head_of(), [], rejects, 0)
    assert missing.startswith("lines lack accountId, userId:")
    assert time.startswith("createdAt must be a number")
