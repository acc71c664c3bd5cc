"""Forms on the log door: what Python's HTTPHandler really sends, and what is no form."""

from __future__ import annotations

import http.client
import json
import logging
import logging.handlers
from typing import Any
from urllib.parse import quote

import pytest

from ingester.errors import MalformedBody
from ingester.protocol.body_decoder import BodyLimits
from ingester.protocol.form import form_object

from ..helpers import sliced
from .log_bodies import NOW_US, TIGHT, log_door

ROOMY = BodyLimits()


class _Wire(http.client.HTTPConnection):
    """A connection that keeps what would be sent."""

    sent = b""

    def connect(self) -> None:
        pass

    def send(self, data: Any) -> None:
        type(self).sent += data

    def getresponse(self) -> Any:
        return None


def posted_by_http_handler(log: Any) -> bytes:
    """The body the standard library's handler sends for the record that `log` makes."""

    class Handler(logging.handlers.HTTPHandler):
        def getConnection(self, host: str, secure: bool) -> http.client.HTTPConnection:
            return _Wire(host)

    _Wire.sent = b""
    logger = logging.Logger("shop.cart")
    logger.addHandler(Handler("h", "/api/v1/webhook/event/log", method="POST"))
    log(logger)
    head, _, body = _Wire.sent.partition(b"\r\n\r\n")
    assert b"Content-type: application/x-www-form-urlencoded" in head
    return body


def test_records_of_pythons_http_handler_land_with_level_message_and_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.time", lambda: 1_795_262_000.25)
    body = posted_by_http_handler(lambda logger: logger.warning("saved é & +1=%d %%", 2))
    for pieces in sliced(body, rounds=3):
        [(number, text, log)] = log_door(pieces, ROOMY, is_form=True).rows
        assert (number, log) == (1, ("warning", "saved é & +1=%d %%", 1_795_262_000_250_000))
        fields = json.loads(text)
        assert (fields["name"], fields["levelname"], fields["args"]) == (
            "shop.cart", "WARNING", "(2,)"
        )  # fmt: skip
    assert log_door([body], ROOMY).error is not None

    body = posted_by_http_handler(lambda logger: logger.critical("boom\n\0"))
    [(_, _, log)] = log_door([body], ROOMY, is_form=True).rows
    assert (log.level, log.message) == ("critical", "boom\n\0")


def test_json_called_a_form_is_json() -> None:
    for body in (b'{"message":"a=b"}', b'[{"message":"a=b"}]', b"5", b"null", b"1\n2"):
        for pieces in sliced(body):
            assert log_door(pieces, is_form=True) == log_door(pieces)
    many = b'{"message":"a=b"}\n' * 1000  # longer than any one value may be
    assert len(log_door([many], is_form=True).rows) == 1000
    for body in (b'{"a=1" 2}', b'\n["a=b"', b'"a=b', b"\xef\xbb\xbf{a=b}"):
        assert log_door([body], is_form=True) == log_door([body])
        assert str(log_door([body], is_form=True).error).startswith("400 line")


@pytest.mark.parametrize("body", [b"", b"  \r\n", b"plain words", b"&&"])
def test_what_is_neither_json_nor_a_form_is_refused(body: bytes) -> None:
    assert log_door([body], is_form=True).error == log_door([body]).error is not None


def test_fields() -> None:
    assert form_object(b"a=1&b=&a=2&&c&=x\n") == b'{"a":"2","b":"","c":"","":"x"}'
    assert form_object(b"m=%F0%9F%98%80+%2B%26%3D%") == '{"m":"😀 +&=%"}'.encode()
    assert form_object(b"plain") is None
    with pytest.raises(MalformedBody, match="field 2 of the form is not UTF-8"):
        form_object(b"a=1&b=%ff")
    error = log_door([b"a=%ff"], is_form=True).error
    assert error == "400 field 1 of the form is not UTF-8"


def test_a_form_has_the_limits_of_a_value() -> None:
    start = f"message={quote('ä' * 10)}&x=".encode()
    for size, is_taken in [(TIGHT.value_bytes_max, True), (TIGHT.value_bytes_max + 1, False)]:
        body = start + b"y" * (size - len(start))
        for step in (size, 100, 1):
            pieces = [body[i : i + step] for i in range(0, size, step)]
            found = log_door(pieces, is_form=True)
            if is_taken:
                assert [log.message for _, _, log in found.rows] == ["ä" * 10]
                assert found.rows[0][2].time_us == NOW_US
            else:
                assert str(found.error).startswith("413 a form may have at most 1500 bytes")
