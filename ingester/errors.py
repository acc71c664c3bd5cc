"""Error tree: whose fault, and what should happen next.

`RequestError`   the client's: answered with `status_hint`, nothing is stored.
`Overloaded`     ours and temporary: 503 with `Retry-After`.
`ConfigError`    the operator's: refused before start, names the key and a hint.
`StoreBusy`      the store cannot take this now; the same call may be tried again.
`StoreFailed`    the store cannot be brought back by itself; the process ends non-zero.

What is not an exception: a refused line is a `LineReject` value (`messages.py`). Bugs are
assertions and stay uncaught.
"""

from __future__ import annotations

__all__ = [
    "BodyTooLarge",
    "ClientGone",
    "ConfigError",
    "Conflict",
    "Forbidden",
    "IngesterError",
    "InvalidField",
    "JournalFailed",
    "MalformedBody",
    "MalformedRequest",
    "NotFound",
    "Overloaded",
    "QueryError",
    "RequestError",
    "RequestStalled",
    "StoreBusy",
    "StoreError",
    "StoreFailed",
    "Unauthorized",
    "UnsupportedEncoding",
]


class IngesterError(Exception):
    """Root of every error this package raises on purpose."""


class RequestError(IngesterError):
    """The client sent something that is refused; `str(error)` is the sentence it is told."""

    status_hint: int = 400


class MalformedRequest(RequestError):
    """The HTTP framing or a header is wrong; the connection is closed after the answer."""

    def __init__(self, detail: str, status_hint: int = 400) -> None:
        super().__init__(detail)
        self.status_hint = status_hint


class MalformedBody(RequestError):
    """The body is cut, corrupt or not what its headers say."""


class UnsupportedEncoding(RequestError):
    """A content coding this door does not decode."""

    status_hint = 415


class BodyTooLarge(RequestError):
    """Over a size or ratio limit; the sentence advises to split the upload."""

    status_hint = 413


class RequestStalled(RequestError):
    """The sender stopped, or stays below the minimum rate."""

    status_hint = 408


class NotFound(RequestError):
    """The named thing does not exist."""

    status_hint = 404


class Unauthorized(RequestError):
    """No key, a malformed header, or a key that is not valid here; the sentence repeats none."""

    status_hint = 401


class Forbidden(RequestError):
    """A valid key or session that may not do this."""

    status_hint = 403


class Conflict(RequestError):
    """The named thing exists already, or is in a state that forbids this."""

    status_hint = 409


class InvalidField(RequestError):
    """A well-formed request whose `field` has a value that cannot be taken."""

    status_hint = 422

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field


class QueryError(RequestError):
    """A query that is refused. `column` counts its characters from 1; one past the end is legal."""

    def __init__(self, detail: str, column: int) -> None:
        super().__init__(f"column {column}: {detail}")
        self.detail = detail
        self.column = column


class ClientGone(IngesterError):
    """The peer closed the connection before its request was whole; nobody is left to answer."""


class Overloaded(IngesterError):
    """We cannot take this now: full, draining, or the disk is."""

    def __init__(self, detail: str, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class ConfigError(IngesterError):
    """A setting is wrong. `key` is `section.key`; `hint` says what would work."""

    def __init__(self, key: str, hint: str) -> None:
        super().__init__(f"{key}: {hint}")
        self.key = key
        self.hint = hint


class JournalFailed(IngesterError):
    """A journal write or sync failed: the group was not made durable and is refused (503)."""


class StoreError(IngesterError):
    """Something in the store."""


class StoreBusy(StoreError):
    """Not now; the caller may try again (no space, reopening, conflicting state)."""


class StoreFailed(StoreError):
    """Cannot be mended in this process; start-up replays what was acknowledged."""
