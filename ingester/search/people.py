"""Users and accounts: who they are, as events said it, and when they were seen.

Pages are in the order of source, account and user; a cursor is the last of these that was shown, so
that nobody is left out or shown twice, whoever is seen meanwhile.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime
from typing import cast

import msgspec

from ..errors import InvalidField
from . import answers
from .documents import json_text
from .page import cost_of
from .reading import Reading, Row
from .requests import AccountsQuery, PeopleQuery, UsersQuery
from .times import aware, instant, spelled

__all__ = ["accounts", "users"]

_SEEN = {
    "user": "SELECT person AS its, any_value(source) AS source, any_value(account_id) AS "
    "account_id, any_value(user_id) AS user_id, min(first_seen) AS first_seen, max(last_seen) AS "
    "last_seen FROM memory.main.rollup_user_seen WHERE {where} GROUP BY person",
    "account": "SELECT gid AS its, any_value(source) AS source, "
    "any_value(account_id) AS account_id, min(first_seen) AS first_seen, "
    "max(last_seen) AS last_seen FROM "
    "memory.main.rollup_account_seen JOIN memory.main.rollup_groups USING (gid) "
    "WHERE {where} GROUP BY gid",
}
_SAID_BY = {"user": "person", "account": "gid"}
# What was said last of each key of `details`.
_LATEST = (
    "SELECT {key}, key, arg_max(value, (time, request, line, place)) AS value "
    "FROM memory.main.rollup_details WHERE {key} IS NOT NULL AND {where} GROUP BY {key}, key"
)


def users(reading: Reading, request: UsersQuery) -> answers.UserPage:
    """Raises InvalidField."""
    rows, details, up_to = _people(
        reading, request, "user", {"account_id": request.account_id, "user_id": request.user_id}
    )
    found = [
        answers.User(
            source=cast(str, row[1]),
            account_id=cast(str, row[2]),
            user_id=cast(str, row[3]),
            first_seen=spelled(aware(row[4])),
            last_seen=spelled(aware(row[5])),
            details=details.get(row[0], {}),
        )
        for row in rows[: request.limit]
    ]
    last = found[-1] if len(rows) > request.limit else None
    return answers.UserPage(
        users=found,
        cursor=None if last is None else _cursor([last.source, last.account_id, last.user_id]),
        complete_up_to=spelled(up_to),
        cost=cost_of(reading),
    )


def accounts(reading: Reading, request: AccountsQuery) -> answers.AccountPage:
    """Raises InvalidField."""
    rows, details, up_to = _people(reading, request, "account", {"account_id": request.account_id})
    found = [
        answers.Account(
            source=cast(str, row[1]),
            account_id=cast(str, row[2]),
            first_seen=spelled(aware(row[3])),
            last_seen=spelled(aware(row[4])),
            details=details.get(row[0], {}),
        )
        for row in rows[: request.limit]
    ]
    last = found[-1] if len(rows) > request.limit else None
    return answers.AccountPage(
        accounts=found,
        cursor=None if last is None else _cursor([last.source, last.account_id]),
        complete_up_to=spelled(up_to),
        cost=cost_of(reading),
    )


def _people(
    reading: Reading, request: PeopleQuery, kind: str, named: dict[str, str | None]
) -> tuple[list[Row], dict[object, object], datetime]:
    """One more than asked for, what is known of each, and until when it is complete."""
    up_to = reading.catch_up()
    key = ("source", "account_id", "user_id")[: 3 if kind == "user" else 2]
    conditions, params = ["true"], list[object]()
    for name, value in {"source": request.source, **named}.items():
        if value is not None:
            conditions.append(f"{name} = ?")
            params.append(value)
    if request.search:
        conditions.append(_has_text(kind, key))
        params += [request.search.lower()] * len(key)
    if request.cursor is not None:
        conditions.append(f"({', '.join(key)}) > ({', '.join('?' * len(key))})")
        params += _parsed(request.cursor, len(key))
    seen = ["true"]
    for column, sign, text, field in (
        ("last_seen", ">=", request.seen_since, "seen_since"),
        ("last_seen", "<", request.seen_until, "seen_until"),
    ):
        if text is not None:
            seen.append(f"{column} {sign} ?")
            params.append(instant(field, text, reading.now).replace(tzinfo=None))
    rows = reading.rows(
        f"SELECT * FROM ({_SEEN[kind].format(where=' AND '.join(conditions))}) "
        f"WHERE {' AND '.join(seen)} ORDER BY {', '.join(key)} LIMIT {request.limit + 1:d}",
        params,
    )
    return rows, _details(reading, _SAID_BY[kind], [row[0] for row in rows]), up_to


def _has_text(kind: str, key: Sequence[str]) -> str:
    """A condition with a parameter for each id that is looked at, and one for the details."""
    its = _SAID_BY[kind]
    ids = " OR ".join(f"contains(lower({name}), ?)" for name in key[1:])
    return (
        f"({ids} OR {its} IN (SELECT {its} FROM ({_LATEST.format(key=its, where='true')}) "
        "WHERE json_type(value) <> 'NULL' AND contains(lower(value::VARCHAR), ?)))"
    )


def _details(reading: Reading, key: str, ids: Sequence[object]) -> dict[object, object]:
    if not ids:
        return {}
    kind = "UHUGEINT" if key == "person" else "INTEGER"
    listed = ", ".join(f"'{each}'::{kind}" for each in ids)
    rows = reading.rows(
        f"SELECT {key}, json_group_object(key, value)::VARCHAR FROM ("
        f"{_LATEST.format(key=key, where=f'{key} IN ({listed})')}) "
        f"WHERE json_type(value) <> 'NULL' GROUP BY {key}"
    )
    return {row[0]: json_text(row[1]) for row in rows}


def _cursor(values: list[str]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(values)).decode().rstrip("=")


def _parsed(text: str, count: int) -> list[str]:
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        values = msgspec.json.decode(packed, type=list[str])
        if len(values) != count:
            raise ValueError
    except (msgspec.MsgspecError, binascii.Error, ValueError):
        raise InvalidField("cursor", "cursor is none that an answer has given") from None
    return values
