"""What the parts of a running server share: channels, budgets, counters, and what they tell.

`topology` makes one and gives its parts to the actors; nothing else holds it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog
import trio

from .actors.bulk.worker import SLICES_CAPACITY, BulkCounters
from .actors.delivery import HELD_MAX, DeliveryCounters
from .actors.intake import IntakeServer
from .actors.sealer import Load, SealerCounters
from .actors.tls import Certificates
from .actors.watch import WatchCounters
from .config import Config, IntakeConfig
from .console.connection import ConsoleCounters
from .descriptors import connections_allowed
from .doors.admission import Admission, KeyRing
from .doors.bulk_lane import PIECES_CAPACITY, BulkLane, BulkUpload
from .doors.disk import DiskWatch
from .doors.router import make_handler
from .doors.shortcut import make_shortcut
from .doors.small_lane import JournalGate, JournalledGroup
from .flow import Doorbell
from .sandbox.queries import Queries
from .startup import Opened
from .store.retention import Keeping

__all__ = ["Process"]

_log = structlog.get_logger()

UPLOADS_CAPACITY = 0
# The loader takes up to 16 MiB at a time: so much waits when it has fallen behind.
_BUSY_BACKLOG_BYTES = 16 * 1024 * 1024
# Some 200 small requests a second.
_LOOK_EVERY_S = 0.1
_SOME_REQUESTS_A_LOOK = 20


class Process:
    """What the parts of `serve` share."""

    def __init__(self, config: Config, opened: Opened) -> None:
        self.config = config
        self.opened = opened
        data_dir = Path(config.store.data_dir)
        self.uploads_send, self.uploads = trio.open_memory_channel[BulkUpload](UPLOADS_CAPACITY)
        self.groups_send, self.groups = trio.open_memory_channel[JournalledGroup](float("inf"))
        self.gate = JournalGate(backlog_bytes_max=config.journal.backlog_bytes_max)
        self.disk = DiskWatch(
            [data_dir / "journal", data_dir / "open"], config.store.disk_reserve_bytes
        )
        self.trouble = Doorbell()
        # Rung after a transaction that has appended to the outbox.
        self.outbox = Doorbell()
        self.delivery_counters = DeliveryCounters()
        self.watch_counters = WatchCounters()
        self.bulk_counters = BulkCounters()
        self.console_counters = ConsoleCounters()
        self.sealer_counters = SealerCounters()
        self.decode_turn = trio.CapacityLimiter(1)
        self.journal_turn = threading.Lock()
        self.admission = Admission(
            config.intake,
            keys=KeyRing({}),
            quotas=opened.quotas,
            idempotency=opened.idempotency,
            disk=self.disk,
            small=self.gate,
            bulk=BulkLane(self.uploads_send),
            applied=opened.applied,
            decode_turn=self.decode_turn,
            dedup=opened.dedup,
            metrics=config.metrics,
        )
        self.server = IntakeServer(
            make_handler(self.admission),
            _within_descriptors(config.intake),
            opened.numbers,
            {"intake": make_shortcut(self.admission)},
            is_short_of_memory=lambda: self.admission.budget.is_waited_for,
        )
        self.queries = Queries(
            opened.increments,
            lambda: self.config.store,
            on_broken=lambda error: opened.store.recover(error.generation),
            has_room=lambda: not self.disk.is_half_gone,
        )
        self._looked_at, self._seq_seen, self._has_requests = 0.0, 0, False
        self.intake_url = ""
        self.console_url = ""
        self.certificates: list[Certificates] = []
        self.restarts: dict[str, int] = {}

    def reconfigure(self, config: Config) -> None:
        """Take over what can change while running. Raises ConfigError, and nothing has changed."""
        self.server.take(_within_descriptors(config.intake))
        self.config = config
        self.admission.config = config.intake
        self.admission.metrics = config.metrics

    def load(self) -> Load:
        """How much comes in, for what can wait. From one thread at a time."""
        if (
            self.bulk_counters.active_count
            or self.decode_turn.borrowed_tokens
            or self.gate.backlog_bytes > _BUSY_BACKLOG_BYTES
        ):
            return "busy"
        now, seq = time.monotonic(), self.opened.writer.statistics().next_seq
        if now - self._looked_at >= _LOOK_EVERY_S:
            self._has_requests = seq - self._seq_seen > _SOME_REQUESTS_A_LOOK
            self._looked_at, self._seq_seen = now, seq
        return "some" if self._has_requests else "idle"

    def keeping(self) -> Keeping:
        """What is kept, and for how long. Blocking."""
        tables = self.opened.control.key_tables()
        return Keeping.of(
            self.config.store,
            idempotency_hours=self.config.intake.idempotency_hours,
            dedup_hours=[source.dedup_hours for source in tables.sources.values()],
        )

    def statistics(self) -> Mapping[str, Mapping[str, object]]:
        """A snapshot per actor; `console.metrics` turns it into metrics."""
        intake = self.server.statistics()
        by_door: dict[str, dict[str, dict[str, int]]] = {}
        for (door, status), count in intake.requests.items():
            by_door.setdefault(door or "none", {"by_status": {}})["by_status"][str(status)] = count
        groups = self.groups.statistics()
        uploads = self.uploads.statistics()
        return {
            "intake": {
                "connections": intake.connections_open,
                "connections_accepted_total": intake.connections_accepted,
                "connections_refused_total": intake.connections_refused,
                "connections_ended_total": intake.connections_ended,
                "requests_total": {"by_door": by_door},
                "received_bytes_total": intake.received_bytes,
                "sent_bytes_total": intake.sent_bytes,
                "stalls_total": intake.stalls,
                "faults_total": intake.faults,
            },
            "admission": self.admission.statistics(),
            "idempotency": self.opened.idempotency.statistics(),
            "dedup": self.opened.dedup.statistics(),
            "metric_labels": self.admission.metric_labels.statistics(),
            "journal": {
                **self.gate.statistics(),
                "lag_records": max(
                    0, self.opened.writer.statistics().next_seq - 1 - self.opened.applied.value
                ),
                "lag_bytes": self.gate.backlog_bytes,
                "backlog_bytes_max": self.gate.backlog_bytes_max,
            },
            "loader": self.opened.loader_counters.statistics(),
            "bulk": {
                **self.bulk_counters.statistics(),
                "workers": self.config.intake.bulk_uploads_max,
            },
            "channels": {
                "depth": {
                    "by_edge": {
                        "journal-loader": groups.current_buffer_used,
                        "door-bulk": uploads.tasks_waiting_send,
                    }
                },
                "waiting_receivers": {
                    "by_edge": {
                        "journal-loader": groups.tasks_waiting_receive,
                        "door-bulk": uploads.tasks_waiting_receive,
                    }
                },
                # Of `journal-loader` there is none: the gate bounds its bytes.
                "capacity": {
                    "by_edge": {
                        "door-bulk": UPLOADS_CAPACITY,
                        "socket-decode": PIECES_CAPACITY,
                        "decode-insert": SLICES_CAPACITY,
                        "outbox-lane": HELD_MAX,
                    }
                },
                "blocked_seconds_total": {
                    "by_edge": {
                        "door-bulk": self.admission.bulk.worker_waits.seconds,
                        "socket-decode": self.admission.bulk.piece_waits.seconds,
                        "decode-insert": self.bulk_counters.slice_waits.seconds,
                        "door-memory": self.admission.budget.waits.seconds
                        + self.admission.whole_budget.waits.seconds,
                    }
                },
            },
            "console": self.console_counters.snapshot(),
            "store": self.opened.store.statistics(),
            "sealer": self.sealer_counters.statistics(),
            "rollups": self.opened.rollups.statistics(),
            "queries": self.queries.statistics(),
            "watch": self.watch_counters.statistics(),
            "delivery": self.delivery_counters.statistics(),
            "disk": self.disk.statistics(),
            "rejects": {
                "kept_bytes": self.opened.rejects.kept_bytes,
                "dropped_total": self.opened.rejects.dropped_count,
            },
            "restarts": {"total": {"by_actor": dict(self.restarts)}},
        }


def _within_descriptors(intake: IntakeConfig) -> IntakeConfig:
    wanted = intake.connections_max
    allowed = connections_allowed(wanted)
    if allowed < wanted:
        _log.warning("fewer connections than set: raise `ulimit -n`", connections_max=allowed)
    return msgspec.structs.replace(intake, connections_max=allowed)
