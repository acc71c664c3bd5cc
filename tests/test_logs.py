"""Log lines: where they go, their form, and that no key is ever in one."""

from __future__ import annotations

import io
import json
import logging
import string
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.config import LogConfig
from ingester.errors import ConfigError
from ingester.logs import configure_logging, mask_secrets, mask_text
from ingester.store.control.keys import new_bearer_key, new_key, new_link_token

AUTH = "q7Zt0VbXy2LmNc8RkWfJdH3sPgAe"  # 28 letters and digits, the form of an issued key
API = "abcdefghijklmnopqrstuvwxyzAB"  # letters only, which is possible as well
SHORT = "hunter2"  # what a client may try as a key


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, show = root.handlers[:], root.level, warnings.showwarning
    yield
    logging.captureWarnings(False)
    warnings.showwarning = show
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def sink(format: str = "json", level: str = "info", *, tty: bool = False) -> io.StringIO:
    stream = Tty() if tty else io.StringIO()
    runners = [h for h in logging.getLogger().handlers if h.__class__.__module__[0] == "_"]
    for handler in runners:  # pytest's own would raise on a record it cannot format
        logging.getLogger().removeHandler(handler)
    configure_logging(LogConfig(level=level, format=format), stream=stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_line_has_time_level_logger_and_fields() -> None:
    stream = sink()
    structlog.get_logger("ingester.test").info("segment closed", segment=7, ok=True, ratio=0.5)
    (line,) = lines(stream)
    assert line.pop("time").endswith("Z")
    assert line == {
        "event": "segment closed",
        "level": "info",
        "logger": "ingester.test",
        "segment": 7,
        "ok": True,
        "ratio": 0.5,
    }


def test_auto_is_json_off_a_terminal_and_text_on_one() -> None:
    off, on = sink("auto"), None
    structlog.get_logger("a").info("hello")
    assert lines(off)[0]["event"] == "hello"
    on = sink("auto", tty=True)
    structlog.get_logger("a").info("hello")
    assert "hello" in on.getvalue()
    assert not on.getvalue().startswith("{")


def test_console_format_without_a_terminal_has_no_colours() -> None:
    stream = sink("console")
    structlog.get_logger("a").info("hello", count=3)
    assert "\x1b" not in stream.getvalue()
    assert "count=3" in stream.getvalue()


def test_level_filters_both_kinds_of_loggers() -> None:
    stream = sink(level="warning")
    structlog.get_logger("a").info("no")
    logging.getLogger("hypercorn.error").info("no")
    structlog.get_logger("a").warning("yes")
    logging.getLogger("quart.app").error("yes %s", 2)
    assert [line["event"] for line in lines(stream)] == ["yes", "yes 2"]


def test_configuring_again_moves_the_sink_and_does_not_double_lines() -> None:
    first = sink()
    logger = structlog.get_logger("a")
    logger.info("one")
    second = sink()
    logger.info("two")
    assert [line["event"] for line in lines(first)] == ["one"]
    assert [line["event"] for line in lines(second)] == ["two"]


@pytest.mark.parametrize(
    ("config", "key"),
    [(LogConfig(level="loud"), "log.level"), (LogConfig(format="xml"), "log.format")],
)
def test_wrong_setting_is_refused_by_name(config: LogConfig, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configure_logging(config, stream=io.StringIO())
    assert caught.value.key == key


def test_traceback_is_plain_and_masked() -> None:
    stream = sink()
    local_secret = AUTH
    try:
        raise ValueError(f"no source for /v1/{local_secret}/{API}")
    except ValueError:
        structlog.get_logger("a").exception("request failed")
    (line,) = lines(stream)
    assert "ValueError: no source for /v1/***/***" in line["exception"]
    assert AUTH not in stream.getvalue()


def test_unformattable_record_is_replaced_by_a_sentence() -> None:
    stream = sink()
    logging.getLogger("hypercorn.error").error("path %s %s", f"/v1/{AUTH}/{API}")
    assert stream.getvalue() == "a log line of hypercorn.error could not be written\n"


def test_warnings_become_log_lines() -> None:
    stream = sink()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn(f"old path /v1/{AUTH}/{API}", UserWarning, stacklevel=1)
    (line,) = lines(stream)
    assert line["logger"] == "py.warnings"
    assert AUTH not in stream.getvalue()


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("POST /v1/hunter2/hunter3 200", "POST /v1/***/*** 200"),
        ("/v1/hunter2", "/v1/***"),
        ("/v1/hunter2/hunter3?wait=query", "/v1/***/***?wait=query"),
        ("/test/v1/hunter2/hunter3/", "/test/v1/***/***/"),
        ("http://host:8080/v1/hunter2/hunter3", "http://host:8080/v1/***/***"),
        ("%2Fv1%2Fhunter2%2fhunter3", "%2Fv1%2F***%2f***"),
        ('{"path": "\\/v1\\/hunter2\\/hunter3"}', '{"path": "\\/v1\\/***\\/***"}'),
        ("/v1/ping", "/v1/ping"),
        ("/v1/pingpong/x", "/v1/***/***"),
        ("/api/v1/sources/shop/rotate", "/api/v1/sources/shop/rotate"),
        ("Authorization: Bearer hunter2", "Authorization: ***"),
        ("authorization=hunter2, rest", "authorization=***, rest"),
        ("(b'authorization', b'Bearer hunter2')", "(b'authorization', b'***')"),
        ('{\\"Authorization\\": \\"hunter2\\"}', '{\\"Authorization\\": \\"***\\"}'),
        ("sent bearer hunter2.x", "sent bearer ***"),
        ("GET /x?token=hunter2&a=1", "GET /x?token=***&a=1"),
        ("api_key: 'hunter2'", "api_key: '***'"),
        (f"x{AUTH}", "***"),
        ("00000000000000000001.seg", "00000000000000000001.seg"),
        ("request 01f2a3b4c5d6e7f8", "request 01f2a3b4c5d6e7f8"),
    ],
)
def test_mask_text(text: str, masked: str) -> None:
    assert mask_text(text) == masked


class Loud:
    def __repr__(self) -> str:
        return f"Loud(path='/v1/{AUTH}/{API}', api_key='{SHORT}')"


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError(AUTH)


CARRIERS: list[Callable[[], dict[str, Any]]] = [
    lambda: {"path": f"/v1/{AUTH}/{API}"},
    lambda: {"path": f"/v1/{SHORT}/{SHORT}"},
    lambda: {"raw_path": f"/v1/{AUTH}/{API}".encode()},
    lambda: {"target": memoryview(f"/v1/{SHORT}/{API}".encode())},
    lambda: {"headers": {"Authorization": SHORT, "Cookie": SHORT}},
    lambda: {"headers": [(b"authorization", SHORT.encode()), (b"host", b"a")]},
    lambda: {"headers": ("x-api-key", SHORT, "host", "a")},
    lambda: {"auth_key": SHORT, "api_key": SHORT, "AuthKey": SHORT, "secret": {"x": SHORT}},
    lambda: {"token": 1234567, "tokens": [SHORT], "password": None},
    lambda: {"request": Loud(), "other": Broken()},
    lambda: {"deep": [[[[[[[[[{"path": f"/v1/{SHORT}/{API}"}]]]]]]]]]},
    lambda: {AUTH: "as a field name", f"/v1/{SHORT}/x": 1},
    lambda: {"url": f"http://h/v1/{AUTH}/{API}?token={SHORT}", "set": {AUTH}},
    lambda: {"note": f"two words {AUTH} and {API}."},
    lambda: {"error": ValueError(f"bad key in /v1/{SHORT}/{SHORT}")},
]


@pytest.mark.parametrize("format", ["json", "console"])
@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize("carrier", CARRIERS)
def test_no_carrier_brings_a_key_to_the_sink(
    carrier: Callable[[], dict[str, Any]], format: str, tty: bool
) -> None:
    stream = sink(format, tty=tty)
    structlog.get_logger("a").warning("refused", **carrier())
    text = stream.getvalue()
    assert text.count("\n") >= 1
    for secret in (AUTH, API, SHORT, "1234567"):
        assert secret not in text
    if format == "json":
        assert lines(stream)[0]["event"] == "refused"


def test_event_text_and_stdlib_arguments_are_masked() -> None:
    stream = sink()
    structlog.get_logger("a").info(f"GET /v1/{SHORT}/{API}")
    logging.getLogger("hypercorn.error").warning("Bad %s from %s", f"/v1/{AUTH}/{SHORT}", "::1")
    assert [line["event"] for line in lines(stream)] == [
        "GET /v1/***/***",
        "Bad /v1/***/*** from ::1",
    ]


def test_a_cycle_ends() -> None:
    loop: list[Any] = [f"/v1/{AUTH}/{API}"]
    loop.append(loop)
    stream = sink()
    structlog.get_logger("a").info("x", loop=loop)
    assert AUTH not in stream.getvalue()


ISSUED = st.text(alphabet=string.ascii_letters + string.digits, min_size=28, max_size=28)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8))


@settings(max_examples=150, deadline=None)
@given(key=ISSUED, data=st.data())
def test_an_issued_key_never_survives_any_structure(key: str, data: st.DataObject) -> None:
    carrier = st.one_of(
        st.just(key),
        st.builds(lambda a, b: a + key + b, st.text(max_size=4), st.text(max_size=4)),
        st.just(key.encode()),
        st.just(f"/v1/{key}/x"),
    )
    shape = st.recursive(
        carrier,
        lambda inner: st.one_of(
            st.lists(st.one_of(LEAVES, inner), max_size=3),
            st.dictionaries(st.one_of(st.text(max_size=4), st.just(key)), inner, max_size=3),
            st.tuples(inner, LEAVES),
        ),
        max_leaves=6,
    )
    event = {"event": data.draw(st.text(max_size=5)), "value": data.draw(shape)}
    masked = mask_secrets(None, "info", event)
    json.dumps(masked)
    assert key not in repr(masked)
    assert key not in json.dumps(masked)


def test_every_kind_of_issued_key_is_masked_by_its_shape() -> None:
    keys = [new_key(), new_link_token(), *map(new_bearer_key, ("ingl_", "ingm_", "inga_"))]
    for key in keys:
        assert key[-28:] not in mask_text(f"found {key} somewhere")
