"""Routes of usage, refused requests and the audit list."""

from __future__ import annotations

import time

from ingester.management import answers
from ingester.management.answers import time_text
from ingester.management.calls import Call, Nothing
from ingester.management.requests import AuditQuery, RefusedQuery, UsageQuery
from ingester.store.control import RefusedRequest

_HOUR_S = 3600
_REFUSED_SHOWN = 100

UsageCall = Call[Nothing, UsageQuery]


def source_usage(call: UsageCall) -> answers.UsageAnswer:
    source = call.control.source(call.names["name"]).source
    return _usage(call, source.credential, source.requests_per_hour)


def token_usage(call: UsageCall) -> answers.UsageAnswer:
    token = call.control.token(call.names["id"])
    return _usage(call, token.id, token.requests_per_hour)


def connection_usage(call: UsageCall) -> answers.UsageAnswer:
    connection = call.control.connection(call.names["id"])
    return _usage(call, connection.id, connection.limit)


def list_audit(call: Call[Nothing, AuditQuery]) -> answers.AuditList:
    entries = call.control.audit(limit=call.query.limit, before=call.query.before)
    return answers.AuditList(
        entries=[
            answers.AuditRow(
                id=entry.id,
                time=time_text(entry.time),
                actor=entry.actor,
                action=entry.action,
                target=entry.target,
                detail=entry.detail,
            )
            for entry in entries
        ]
    )


def list_refused(call: Call[Nothing, RefusedQuery]) -> answers.RefusedList:
    query = call.query
    refused = call.control.refused_requests(credential=query.credential, limit=query.limit)
    return answers.RefusedList(refused=[_refused(one) for one in refused])


def _usage(call: UsageCall, credential: str, limit: int) -> answers.UsageAnswer:
    this_hour = int(time.time()) // _HOUR_S
    hours = call.control.usage_hours(credential, since_hour=this_hour - call.query.hours + 1)
    use = call.control.last_uses().get(credential)
    used = call.control.hour_counts(this_hour).get(credential, 0) if limit else None
    refused = call.control.refused_requests(credential=credential, limit=_REFUSED_SHOWN)
    return answers.UsageAnswer(
        credential=credential,
        hours=[
            answers.UsageHourRow(
                hour=time_text(row.hour * _HOUR_S),
                requests=row.requests,
                accepted=row.accepted,
                rejected=row.rejected,
                refused=row.refused,
            )
            for row in hours
        ],
        last_used_at=None if use is None else time_text(use.last_used_at),
        last_address=None if use is None else use.last_address or None,
        requests_per_hour=limit,
        quota_used=used,
        quota_left=None if used is None else max(0, limit - used),
        refused=[_refused(one) for one in refused],
    )


def _refused(one: RefusedRequest) -> answers.Refused:
    return answers.Refused(
        time=time_text(one.time),
        credential=one.credential,
        status=one.status,
        reason=one.reason,
        address=one.address,
        path=one.path,
    )
