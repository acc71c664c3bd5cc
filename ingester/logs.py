"""Structured logs: one sink on standard error, and nothing in it that could be a key.

Keys of the Natero door are path segments, tokens are headers and query fields, so any line that
quotes a request could give one away, and so could a traceback or another library's message. All
lines, ours and those of the standard `logging` module (Hypercorn, Quart, trio), therefore pass
through one handler whose last steps mask.

Invariants:

1. The event is masked as a structure, last before it is rendered: names such as `authorization`
   lose their value whatever it is, every text is searched (tracebacks and `repr` of unknown
   objects too), and what is left for the renderer is plain data. The finished line is searched
   once more for the shape of an issued key.
2. A line that cannot be rendered is replaced by a fixed sentence, never by its raw arguments.
3. Tracebacks are plain: no local variables.
4. Standard output is never written; it belongs to the machine-readable line of `serve`.

It refuses to guess at secrets of other shapes: a password pasted into free text stays readable.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import IO, Any

import structlog
from structlog.typing import Processor

from ingester.config import LogConfig
from ingester.errors import ConfigError

__all__ = ["LEVELS", "MASK", "configure_logging", "mask_secrets", "mask_text"]

LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
FORMATS = ("auto", "console", "json")
MASK = "***"

# Nesting below this is shown as one masked `repr`; also ends cycles.
_DEPTH_MAX = 6

# Fields whose value is a secret whatever it looks like; compared without case, "-" as "_".
_SECRET_NAME = re.compile(
    r".*(?:authorization|auth_?key|api_?key|secret|password|passwd|token|cookie|credential)s?",
    re.DOTALL,
)

_SLASH = r"(?:\\{0,4}/|%(?:25){0,4}2f)"
_SEGMENT = r"(?:(?!%(?:25){0,4}(?:2f|3f))[^/\\?#\s\"'<>,;])"

# `/v1/<auth>/<api>` and what follows; `/v1/ping` is no key and `/api/v1/…` is the console's.
_KEY_PATH = re.compile(
    rf"(?<!/api)({_SLASH}v1)({_SLASH})(?!ping(?![^/?#\s\"'\\]))"
    rf"{_SEGMENT}+(?:({_SLASH}){_SEGMENT}*)?",
    re.IGNORECASE,
)

# An Authorization header or a bearer credential in any quoting, in a list, a `repr` or a dump.
_AUTHORIZATION = re.compile(
    r"((?:proxy-)?authorization(?:\\*[\"'\]\)])*\s*[:=,]\s*(?:b?\\*[\"'])?)"
    r"(?:[a-z][a-z0-9_-]*[ \t]+)?[^\s\"'\\,;)\]}]+",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(bearer|basic)(?:[ \t]+|%20|\+)[^\s\"'\\,;)\]}]+", re.IGNORECASE)

# `token=…`, `api_key: …`, `"secret": "…"` inside free text.
_ASSIGNMENT = re.compile(
    r"((?:auth_?key|api_?key|token|secret|password|passwd|cookie)s?"
    r"(?:\\*[\"'])?\s*(?:=|:|%3d)\s*(?:b?\\*[\"'])?)(?![\s\"'])[^\s\"'\\&,;)\]}]+",
    re.IGNORECASE,
)

# Issued keys are 28 letters and digits; a longer run may be one with an escape in front ("%2F").
# Our own identifiers stay well below (a request id has 16 digits).
_KEY_SHAPE = re.compile(r"[A-Za-z0-9]{28,}")

_MARKS = re.compile(r"v1|auth|bearer|basic|key|token|secret|passw|cookie", re.IGNORECASE)


def configure_logging(config: LogConfig, *, stream: IO[str] | None = None) -> None:
    """Route structlog and `logging` to `stream` (standard error). May be called again (SIGHUP)."""
    level = LEVELS.get(config.level.lower())
    if level is None:
        raise ConfigError("log.level", f"one of {', '.join(LEVELS)}, got {config.level!r}")
    if config.format not in FORMATS:
        raise ConfigError("log.format", f"one of {', '.join(FORMATS)}, got {config.format!r}")
    sink = sys.stderr if stream is None else stream
    for_people = config.format == "console" or (config.format == "auto" and sink.isatty())
    before: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[*before, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )
    handler = _Handler(sink)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                mask_secrets,
                _masked(_renderer(for_people=for_people, colors=sink.isatty())),
            ],
        )
    )
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(True)


def mask_secrets(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """A structlog processor: the event with every secret replaced by `***`."""
    return {mask_text(str(name)): _masked_value(name, value, 0) for name, value in event.items()}


def mask_text(text: str) -> str:
    """`text` without keys: paths, headers, assignments, and runs that look like an issued key."""
    if _MARKS.search(text):
        text = _KEY_PATH.sub(_masked_path, text)
        text = _AUTHORIZATION.sub(rf"\1{MASK}", text)
        text = _BEARER.sub(rf"\1 {MASK}", text)
        text = _ASSIGNMENT.sub(rf"\1{MASK}", text)
    return _KEY_SHAPE.sub(MASK, text)


def _masked_path(match: re.Match[str]) -> str:
    root, first, second = match.groups()
    return f"{root}{first}{MASK}{second}{MASK}" if second else f"{root}{first}{MASK}"


def _masked_value(name: object, value: object, depth: int) -> object:
    if _is_secret_name(name):
        return MASK
    if value is None or isinstance(value, bool | float) or _is_small_int(value):
        return value
    if isinstance(value, str):
        return mask_text(value)
    if depth < _DEPTH_MAX:
        if isinstance(value, Mapping):
            return {
                mask_text(_text(key)): _masked_value(key, item, depth + 1)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple | set | frozenset):
            return _masked_items(value, depth)
    return mask_text(_text(value))


def _masked_items(items: Iterable[object], depth: int) -> list[object]:
    """A sequence; what follows the name of a secret in it is a header's or field's value."""
    masked: list[object] = []
    previous: object = None
    for item in items:
        masked.append(_masked_value(previous, item, depth + 1))
        previous = item
    return masked


def _is_small_int(value: object) -> bool:
    """Longer numbers are shown as text, so that the search of the line cannot cut into one."""
    return isinstance(value, int) and abs(value) < 1 << 64


def _is_secret_name(name: object) -> bool:
    if not isinstance(name, str | bytes):
        return False
    return _SECRET_NAME.fullmatch(_text(name).lower().replace("-", "_")) is not None


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "backslashreplace")
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(value).__name__}: repr failed with {type(error).__name__}>"


def _renderer(*, for_people: bool, colors: bool) -> Callable[..., str | bytes]:
    if for_people:
        return structlog.dev.ConsoleRenderer(
            colors=colors,
            timestamp_key="time",
            exception_formatter=structlog.dev.plain_traceback,
        )
    return structlog.processors.JSONRenderer(ensure_ascii=False)


def _masked(render: Callable[..., str | bytes]) -> Callable[..., str]:
    """The renderer with its finished line searched once more."""

    def masked(logger: object, method: str, event: MutableMapping[str, Any]) -> str:
        line = render(logger, method, event)
        return _KEY_SHAPE.sub(MASK, line if isinstance(line, str) else line.decode())

    return masked


class _Handler(logging.StreamHandler[IO[str]]):
    """A handler that stays silent about the record it could not write."""

    def handleError(self, record: logging.LogRecord) -> None:
        """The library's version prints the raw message and its arguments."""
        try:
            self.stream.write(f"a log line of {record.name} could not be written\n")
        except (OSError, ValueError):
            # Standard error is gone; nothing is left to tell it to.
            return
