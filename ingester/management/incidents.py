"""Routes of incidents, labels and silences."""

from __future__ import annotations

import time

from ingester.delivery.incident import incident_url
from ingester.errors import InvalidField
from ingester.management import watch_answers as answers
from ingester.management.answers import Deleted, time_text
from ingester.management.calls import Call, Nothing
from ingester.management.watch_requests import (
    CreateLabel,
    CreateSilence,
    IncidentsQuery,
    PatchIncident,
    PatchSilence,
    PreviewSilence,
    SilencesQuery,
)
from ingester.management.watches import ring
from ingester.store.control import IncidentInfo, LabelInfo, SilenceInfo

# The last moment of the calendar that answers can show.
_TIME_MAX = 253_402_300_799


def list_incidents(call: Call[Nothing, IncidentsQuery]) -> answers.IncidentPage:
    query = call.query
    before = None if query.before is None else int(query.before.removeprefix("inc_"))
    found = call.control.list_incidents(status=query.status, limit=query.limit + 1, before=before)
    shown = found[: query.limit]
    return answers.IncidentPage(
        incidents=[_incident(call.links.console(), info) for info in shown],
        next=shown[-1].incident.id if len(found) > query.limit else None,
    )


def get_incident(call: Call[Nothing, Nothing]) -> answers.IncidentRow:
    return _incident(call.links.console(), call.control.incident(call.names["id"]))


def get_incident_history(call: Call[Nothing, Nothing]) -> answers.IncidentHistory:
    incident_id = call.names["id"]
    return answers.IncidentHistory(
        id=incident_id,
        revisions=[
            answers.HistoryRow(
                updated_at=time_text(one.updated_at_ms / 1000),
                kind=one.kind,
                actor=one.actor,
                note=one.note,
                told=one.is_told,
            )
            for one in call.control.incident_history(incident_id)
        ],
    )


def patch_incident(call: Call[PatchIncident, Nothing]) -> answers.IncidentRow:
    console_base = call.links.console()
    info = call.control.patch_incident(
        call.names["id"],
        labels=call.body.labels,
        owner=call.body.owner,
        is_resolved=call.body.status == "resolved",
        console_base=console_base,
        actor=call.actor.name,
    )
    ring(call)
    return _incident(console_base, info)


def list_labels(call: Call[Nothing, Nothing]) -> answers.LabelList:
    return answers.LabelList(labels=[_label(info) for info in call.control.list_labels()])


def get_label(call: Call[Nothing, Nothing]) -> answers.LabelRow:
    return _label(call.control.label(call.names["id"]))


def create_label(call: Call[CreateLabel, Nothing]) -> answers.LabelRow:
    return _label(call.control.create_label(call.body.name, actor=call.actor.name))


def patch_label(call: Call[CreateLabel, Nothing]) -> answers.LabelRow:
    return _label(
        call.control.rename_label(call.names["id"], call.body.name, actor=call.actor.name)
    )


def delete_label(call: Call[Nothing, Nothing]) -> Deleted:
    call.control.delete_label(call.names["id"], actor=call.actor.name)
    return Deleted(id=call.names["id"])


def list_silences(call: Call[Nothing, SilencesQuery]) -> answers.SilenceList:
    found = call.control.list_silences(with_ended=call.query.ended)
    return answers.SilenceList(silences=[_silence(info) for info in found])


def get_silence(call: Call[Nothing, Nothing]) -> answers.SilenceRow:
    return _silence(call.control.silence(call.names["id"]))


def create_silence(call: Call[CreateSilence, Nothing]) -> answers.SilenceRow:
    body = call.body
    starts_at = time.time() if body.starts_at is None else body.starts_at.timestamp()
    ends_at = starts_at + body.seconds if body.ends_at is None else body.ends_at.timestamp()
    if not 0 <= starts_at <= ends_at <= _TIME_MAX:
        raise InvalidField("ends_at", "ends_at must be behind starts_at, both after 1970")
    return _silence(
        call.control.create_silence(
            body.matchers,
            reason=body.reason,
            starts_at=starts_at,
            ends_at=ends_at,
            actor=call.actor.name,
        )
    )


def patch_silence(call: Call[PatchSilence, Nothing]) -> answers.SilenceRow:
    ends_at = None if call.body.ends_at is None else call.body.ends_at.timestamp()
    if ends_at is not None and ends_at > _TIME_MAX:
        raise InvalidField("ends_at", "ends_at is beyond the calendar")
    return _silence(call.control.end_silence(call.names["id"], ends_at, actor=call.actor.name))


def delete_silence(call: Call[Nothing, Nothing]) -> Deleted:
    call.control.delete_silence(call.names["id"], actor=call.actor.name)
    return Deleted(id=call.names["id"])


def preview_silence(call: Call[PreviewSilence, Nothing]) -> answers.SilencePreview:
    console_base = call.links.console()
    found = call.control.preview_silence(call.body.matchers)
    return answers.SilencePreview(incidents=[_incident(console_base, info) for info in found])


def _incident(console_base: str, info: IncidentInfo) -> answers.IncidentRow:
    incident = info.incident
    counts = {one.id: one for one in info.counts}
    return answers.IncidentRow(
        id=incident.id,
        status=incident.status,
        title=incident.title,
        description=incident.description,
        created_at=_ms_text(incident.created_at_ms),
        updated_at=_ms_text(incident.updated_at_ms),
        resolved_at=None if info.resolved_at_ms is None else _ms_text(info.resolved_at_ms),
        acknowledged=False,
        acknowledged_at=None,
        owner=info.owner,
        labels=[answers.NamedLabel(id=one.id, name=one.name) for one in incident.labels],
        silenced=info.is_silenced,
        told=info.is_told,
        url=incident_url(console_base, incident.id),
        affected=[
            answers.AffectedRow(
                id=one.id,
                monitor_id=one.monitor_id,
                type=one.type,
                name=one.name,
                absolute_path=one.absolute_path,
                group=None if one.group is None else {each.name: each.value for each in one.group},
                linked_at=_ms_text(one.linked_at_ms),
                resolved_at=None if one.resolved_at_ms is None else _ms_text(one.resolved_at_ms),
                firings=counts[one.id].firings,
                matches=counts[one.id].matches,
                last_fired_at=_ms_text(counts[one.id].last_fired_ms),
            )
            for one in incident.affected_monitors
        ],
    )


def _label(info: LabelInfo) -> answers.LabelRow:
    return answers.LabelRow(id=info.id, name=info.name, incidents=info.incidents)


def _silence(info: SilenceInfo) -> answers.SilenceRow:
    return answers.SilenceRow(
        id=info.id,
        matchers=list(info.matchers),
        reason=info.reason,
        created_by=info.created_by,
        created_at=time_text(info.created_at),
        starts_at=time_text(info.starts_at),
        ends_at=time_text(info.ends_at),
        active=info.starts_at <= time.time() < info.ends_at,
    )


def _ms_text(epoch_ms: int) -> str:
    return time_text(epoch_ms / 1000)
