"""Keys of rows: where a row stands in time order, where it lies, and how clients name both.

Rows are ordered by (time, request number, line number): total, and the same after a replay. An
id is the two numbers; a cursor is the last key of a page and the instant that relative times of
the query were resolved against, so that every page asks for the same span.
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime, timedelta

import msgspec
from msgspec import Struct

from ..errors import InvalidField, NotFound

__all__ = ["Cursor", "Key", "cursor_text", "key_of_id", "parse_cursor"]

_ID = re.compile(r"([0-9a-f]{16})-([0-9]{1,18})")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Key(Struct, frozen=True):
    """`time` is naive UTC, as stored; what names its place is as in `store.relations`."""

    time: datetime
    request_number: int
    line_number: int
    arm_number: int = 0
    file_name: str = ""
    place: int = 0

    @property
    def position(self) -> tuple[datetime, int, int]:
        return self.time, self.request_number, self.line_number


class Cursor(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Microseconds since 1970, and the numbers of the last row shown."""

    now_us: int
    time_us: int
    request_number: int
    line_number: int

    @property
    def now(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self.now_us)

    @property
    def key(self) -> Key:
        moment = _EPOCH + timedelta(microseconds=self.time_us)
        return Key(moment.replace(tzinfo=None), self.request_number, self.line_number)


def cursor_text(now: datetime, last: Key) -> str:
    cursor = Cursor(
        (now - _EPOCH) // _MICROSECOND,
        (last.time.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND,
        last.request_number,
        last.line_number,
    )
    return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode().rstrip("=")


def parse_cursor(text: str) -> Cursor:
    """Raises InvalidField."""
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        cursor = msgspec.json.decode(packed, type=Cursor)
        _ = cursor.now, cursor.key  # within the calendar
        if max(abs(cursor.request_number), abs(cursor.line_number)) >= 2**63:
            raise ValueError
    except (msgspec.MsgspecError, binascii.Error, ValueError, OverflowError):
        raise InvalidField("cursor", "cursor is none that an answer has given") from None
    return cursor


def key_of_id(text: str) -> tuple[int, int]:
    """Request and line number of an id. Raises NotFound: there is no such row."""
    found = _ID.fullmatch(text)
    if found is None or int(found[1], 16) >= 2**63:
        raise NotFound("there is no row with this id")
    return int(found[1], 16), int(found[2])
