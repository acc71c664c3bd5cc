"""The control store: keys, members, usage, quotas, replays and the manifest of sealed files.

SQLite beside the event data. Small facts that change one at a time, and secrets, are kept out of
DuckDB: single-row updates are what it is worst at, and no query of a user can reach them here.

Invariants:

1. Of every secret SHA-256 is stored (scrypt for passwords), of a key also a 4-character tail. A key
   that may be copied again lies beside it sealed with `secret.key`; no list and no error holds one.
2. Every change is one transaction with its audit entry, synced before the call returns (WAL,
   `synchronous=FULL`).
3. One connection, one lock: any thread may call, one at a time.
4. The file and its `-wal`/`-shm` companions have mode 0600, as `secret.key`.
5. While it is open, nothing else in this process opens the file: closing any descriptor of it
   drops the POSIX locks of all. The file is created with `O_EXCL` before SQLite sees it.

Refuses a file of a newer schema, and names or keys that a route could mistake for its own.
"""

from __future__ import annotations

from ingester.store.control.audit import Audit, AuditEntry
from ingester.store.control.connections import (
    DEFAULT_PROJECT,
    TIERS,
    ConnectionInfo,
    ConnectionKey,
    Connections,
    ProjectInfo,
    Tier,
)
from ingester.store.control.dashboards import DashboardInfo, Dashboards
from ingester.store.control.deliveries import (
    Attempted,
    Deliveries,
    Due,
    DueDelivery,
    TargetRow,
)
from ingester.store.control.delivery_list import (
    AttemptInfo,
    DeliveryInfo,
    DeliveryList,
    DeliveryState,
)
from ingester.store.control.destinations import DestinationInfo, Destinations
from ingester.store.control.incident_list import (
    IncidentInfo,
    IncidentList,
    LabelInfo,
    RevisionInfo,
    SilenceInfo,
)
from ingester.store.control.keys import (
    RESERVED_SEGMENTS,
    KeyInfo,
    key_digest,
    new_key,
    pair_digest,
)
from ingester.store.control.members import (
    PASSWORD_CHARACTERS_MAX,
    PASSWORD_CHARACTERS_MIN,
    Invitation,
    MemberInfo,
    MemberRole,
    Members,
    Session,
    SignedIn,
)
from ingester.store.control.quotas import Quotas
from ingester.store.control.replays import ReplayCount, ReplayMark, Replays, ReplaySubject
from ingester.store.control.routes import RouteInfo, Routes
from ingester.store.control.saved_searches import SavedSearches, SavedSearchInfo
from ingester.store.control.sealed_files import SealedFile, SealedFiles, SealedPart
from ingester.store.control.secret_box import NotRetrievable
from ingester.store.control.sources import (
    SourceExists,
    SourceInfo,
    SourceKeys,
    Sources,
)
from ingester.store.control.tables import KeyTables, Tables
from ingester.store.control.tokens import TokenInfo, TokenKey, Tokens
from ingester.store.control.usage import (
    RefusedRequest,
    Usage,
    UsageChange,
    UsageHour,
    UsageSummary,
)
from ingester.store.control.watches import AlertRun, Watches, WatchInfo, WatchKind

__all__ = [
    "DEFAULT_PROJECT",
    "PASSWORD_CHARACTERS_MAX",
    "PASSWORD_CHARACTERS_MIN",
    "RESERVED_SEGMENTS",
    "TIERS",
    "AlertRun",
    "AttemptInfo",
    "Attempted",
    "AuditEntry",
    "ConnectionInfo",
    "ConnectionKey",
    "ControlStore",
    "DashboardInfo",
    "DeliveryInfo",
    "DeliveryState",
    "DestinationInfo",
    "Due",
    "DueDelivery",
    "IncidentInfo",
    "Invitation",
    "KeyInfo",
    "KeyTables",
    "LabelInfo",
    "MemberInfo",
    "MemberRole",
    "NotRetrievable",
    "ProjectInfo",
    "RefusedRequest",
    "ReplayCount",
    "ReplayMark",
    "ReplaySubject",
    "RevisionInfo",
    "RouteInfo",
    "SavedSearchInfo",
    "SealedFile",
    "SealedPart",
    "Session",
    "SignedIn",
    "SilenceInfo",
    "SourceExists",
    "SourceInfo",
    "SourceKeys",
    "TargetRow",
    "Tier",
    "TokenInfo",
    "TokenKey",
    "UsageChange",
    "UsageHour",
    "UsageSummary",
    "WatchInfo",
    "WatchKind",
    "key_digest",
    "new_key",
    "pair_digest",
]


class ControlStore(
    Sources,
    Tokens,
    Connections,
    Members,
    Audit,
    Usage,
    Quotas,
    Replays,
    SealedFiles,
    Tables,
    Destinations,
    Routes,
    Deliveries,
    DeliveryList,
    Watches,
    IncidentList,
    SavedSearches,
    Dashboards,
):
    """The opened file, with what each resource's module adds. Blocking."""
