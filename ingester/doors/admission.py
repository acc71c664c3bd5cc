"""Admission: what every intake door shares. Keys, quotas, budget, lanes, idempotency.

A door parses its path and gives its own answers; how a body gets from the socket to a safe place
is the same for all and lives in `receive.py`, on top of what is here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import trio

from ..config import IntakeConfig, MetricsConfig
from ..errors import Overloaded
from ..flow import ByteBudget, Mark
from ..messages import RejectReason
from .bulk_lane import BulkLane
from .dedup import DedupWindows
from .disk import DiskWatch
from .failed_attempts import FailedAttempts
from .idempotency import IdempotencyKeys
from .key_ring import KeyRing
from .metric_labels import MetricLabels
from .quota import HourQuotas
from .small_lane import JournalGate
from .usage import UsageCounters
from .viewer import Viewer

__all__ = ["Admission", "KeyRing"]


class Admission:
    """The doors' view of the process."""

    def __init__(
        self,
        config: IntakeConfig,
        *,
        keys: KeyRing,
        quotas: HourQuotas,
        idempotency: IdempotencyKeys,
        disk: DiskWatch,
        small: JournalGate,
        bulk: BulkLane,
        applied: Mark,
        decode_turn: trio.CapacityLimiter,
        dedup: DedupWindows | None = None,
        metrics: MetricsConfig | None = None,
    ) -> None:
        self.config = config
        self.metrics = metrics or MetricsConfig()
        self.keys = keys
        self.quotas = quotas
        self.idempotency = idempotency
        self.disk = disk
        self.small = small
        self.bulk = bulk
        self.applied = applied
        self.decode_turn = decode_turn
        self.dedup = DedupWindows() if dedup is None else dedup
        whole_bytes = config.body_budget_bytes // 4
        self.budget = ByteBudget(config.body_budget_bytes - whole_bytes)
        self.whole_budget = ByteBudget(whole_bytes)
        self.viewer = Viewer(config.viewer_requests_max)
        self.failures = FailedAttempts()
        self.usage = UsageCounters()
        self.metric_labels = MetricLabels()
        self.is_draining = False
        self.failed = trio.Event()
        self.accepted_count = 0
        self.rejected: Counter[tuple[str, str]] = Counter()

    def fail(self) -> None:
        """The store cannot be mended in this process: refuse from now on; the topology ends it."""
        self.failed.set()

    def refuse_if_closed(self, credential: str = "") -> None:
        """Before a body is taken: raises Overloaded when draining, behind, or out of disk.

        Also after a commit whose outcome could not be found out: a repeat of that request would
        store it twice. The next start reads what is there.
        """
        if self.failed.is_set():
            raise Overloaded("the store has failed", retry_after_s=5)
        if self.is_draining:
            raise Overloaded("the server is shutting down", retry_after_s=5)
        if self.small.is_full_for(credential):
            raise Overloaded("the store is behind; send again shortly", retry_after_s=2)
        self.disk.refuse_if_full()

    def is_closed_for(self, credential: str) -> bool:
        """Whether `refuse_if_closed` would raise."""
        return (
            self.is_draining
            or self.disk.is_full
            or self.small.is_full_for(credential)
            or self.failed.is_set()
        )

    def readiness(self) -> list[str]:
        """Reasons against sending traffic here; empty when ready."""
        reasons = []
        if self.failed.is_set():
            reasons.append("the store has failed")
        if self.is_draining:
            reasons.append("draining")
        if self.small.is_full:
            reasons.append("the journal's backlog is full")
        if self.disk.is_full:
            reasons.append("the disk is nearly full")
        return reasons

    def count(self, source: str, accepted: int, reasons: Mapping[RejectReason, int]) -> None:
        """Take note of an acknowledged request."""
        self.accepted_count += accepted
        for reason, count in reasons.items():
            self.rejected[source, reason] += count

    def statistics(self) -> dict[str, object]:
        by_source: dict[str, dict[str, object]] = {}
        for (source, reason), count in self.rejected.items():
            entry = by_source.setdefault(source, {"by_reason": {}})
            reasons = entry["by_reason"]
            assert isinstance(reasons, dict)
            reasons[reason] = count
        return {
            "accepted_total": self.accepted_count,
            "rejects_total": {"by_source": by_source},
            "quota_refused_total": self.quotas.refused_count,
            "viewer_requests_total": self.viewer.request_count,
            **{f"attempts_{name}": value for name, value in self.failures.statistics().items()},
            **{f"budget_{name}": value for name, value in self.budget.statistics().items()},
            **{
                f"whole_budget_{name}": value
                for name, value in self.whole_budget.statistics().items()
            },
        }
