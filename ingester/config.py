"""Settings: one typed struct per section, defaults with their unit in the name.

Every key stands in `config.example.toml` with its unit, default and reason (a test compares the
two). Values come from, later wins: these defaults, the TOML file, the environment
(`INGESTER_<SECTION>_<KEY>`), the command line. `config_load.py` does the merging.
"""

from __future__ import annotations

from msgspec import Struct, field

__all__ = [
    "RETENTION_TABLES",
    "Config",
    "ConsoleConfig",
    "DeliveryConfig",
    "IntakeConfig",
    "JournalConfig",
    "LogConfig",
    "MetricsConfig",
    "ServerConfig",
    "StoreConfig",
    "WatchConfig",
]

# Tables whose rows can have an end.
RETENTION_TABLES = ("events", "logs", "metrics", "rejects", "requests")

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB


class IntakeConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The intake door: where it listens and what it takes."""

    bind: str = "127.0.0.1:8080"
    test_bind: str = ""
    test_hosts: tuple[str, ...] = ()
    tls_cert_file: str = ""
    tls_key_file: str = ""
    public_url: str = ""
    trusted_proxies: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    body_bytes_max: int = 16 * GiB
    value_bytes_max: int = 16 * MiB
    line_bytes_max: int = 1 * MiB
    depth_max: int = 128
    ratio_max: int = 1000
    small_body_bytes_max: int = 1 * MiB
    body_budget_bytes: int = 128 * MiB
    bulk_uploads_max: int = 2
    head_bytes_max: int = 32 * KiB
    target_bytes_max: int = 8 * KiB
    header_count_max: int = 100
    connections_max: int = 4096
    connections_per_address_max: int = 0
    stall_seconds_max: int = 30
    bytes_per_second_min: int = 1024
    keep_alive_seconds_max: int = 75
    wait_seconds_max: int = 30
    rejects_per_request_max: int = 10_000
    rejects_bytes_max: int = 1 * GiB
    idempotency_keys_max: int = 200_000
    idempotency_hours: int = 24
    viewer_requests_max: int = 500


class MetricsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The metric door."""

    future_seconds_max: int = 300


class JournalConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The journal: segment size, how far the loader may lag, how long segments are kept."""

    segment_bytes: int = 64 * MiB
    backlog_bytes_max: int = 256 * MiB
    retention_hours: int = 24
    retention_bytes_max: int = 1 * GiB


class StoreConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The store: folder, batching, memory, rotation of the open part."""

    data_dir: str = "./ingester-data"
    linger_ms_max: int = 250
    batch_rows_max: int = 65_536
    batch_bytes_max: int = 16 * MiB
    upload_file_bytes_min: int = 8 * MiB
    memory_bytes_max: int = 192 * MiB
    threads: int = 1
    part_bytes_max: int = 16 * GiB
    part_hours_max: int = 24
    checkpoint_bytes: int = 64 * MiB
    checkpoint_seconds: int = 60
    disk_reserve_bytes: int = 0
    retention_days: tuple[str, ...] = ()
    store_bytes_max: int = 0
    rollup_retention_days: int = 0
    query_seconds_max: int = 60
    query_memory_bytes_max: int = 256 * MiB

    def days_kept(self) -> dict[str, int]:
        """`retention_days` by table; where there is none, rows stay."""
        days = (each.partition("=") for each in self.retention_days)
        return {table.strip(): int(text) for table, _, text in days}


class DeliveryConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Delivery of incidents: where to, how long, until when."""

    allow_networks: tuple[str, ...] = ()
    tls_ca_file: str = ""
    timeout_seconds_max: int = 15
    concurrency_per_destination_max: int = 4
    incident_io_events_per_minute: int = 120
    disable_hours: int = 120
    keep_days: int = 30


class ConsoleConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The console door: web console, JSON API, metrics."""

    bind: str = "127.0.0.1:8081"
    tls_cert_file: str = ""
    tls_key_file: str = ""
    public_url: str = ""
    session_hours: int = 336


class WatchConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rules, alerts and monitors: files that declare them, and how time is judged."""

    files: tuple[str, ...] = ()
    delay_seconds: int = 5
    late_seconds_max: int = 3600
    groups_max: int = 100


class LogConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The server's own log lines, on standard error."""

    level: str = "info"
    format: str = "auto"


class ServerConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The process as a whole."""

    drain_seconds_max: int = 30


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set."""

    intake: IntakeConfig = field(default_factory=IntakeConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    journal: JournalConfig = field(default_factory=JournalConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    console: ConsoleConfig = field(default_factory=ConsoleConfig)
    delivery: DeliveryConfig = field(default_factory=DeliveryConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    log: LogConfig = field(default_factory=LogConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
