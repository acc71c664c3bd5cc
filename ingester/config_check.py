"""Ranges and syntax of settings: what a merged configuration must satisfy.

The bounds refuse what cannot work, not what is unwise: zero where one is needed, an address that
is none, half of a TLS pair, a limit that makes another one unreachable.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from ingester.config import (
    RETENTION_TABLES,
    Config,
    ConsoleConfig,
    DeliveryConfig,
    IntakeConfig,
    StoreConfig,
)
from ingester.errors import ConfigError

__all__ = ["checked", "normalised", "split_address"]

KiB = 1024
MiB = 1024 * KiB

# Every other number is at least 1. What 0 means stands in config.example.toml.
_ZERO_ALLOWED = frozenset({
    "intake.body_bytes_max",
    "intake.connections_per_address_max",
    "intake.bytes_per_second_min",
    "intake.wait_seconds_max",
    "intake.rejects_per_request_max",
    "intake.rejects_bytes_max",
    "intake.idempotency_keys_max",
    "intake.viewer_requests_max",
    "metrics.future_seconds_max",
    "journal.retention_hours",
    "journal.retention_bytes_max",
    "store.linger_ms_max",
    "store.disk_reserve_bytes",
    "store.store_bytes_max",
    "store.rollup_retention_days",
    "server.drain_seconds_max",
    "watch.delay_seconds",
    "watch.late_seconds_max",
})

# (lowest, highest) where the general rule is not enough.
_BOUNDS = {
    # Python's own recursion limit is 1000; a deeper value could not be walked.
    "intake.depth_max": (1, 512),
    # A request line and a few headers must fit.
    "intake.head_bytes_max": (1 * KiB, 16 * MiB),
    "intake.target_bytes_max": (128, 16 * MiB),
    "intake.header_count_max": (8, 10_000),
    "store.linger_ms_max": (0, 60_000),
    "watch.delay_seconds": (0, 3600),
    "watch.late_seconds_max": (0, 7 * 86_400),
    "watch.groups_max": (1, 1000),
    "delivery.timeout_seconds_max": (1, 300),
    "delivery.concurrency_per_destination_max": (1, 8),
    "delivery.incident_io_events_per_minute": (1, 60_000),
    # DuckDB cannot commit a row group in less.
    "store.memory_bytes_max": (32 * MiB, 2**53),
    "store.query_memory_bytes_max": (32 * MiB, 2**53),
    "store.threads": (1, 1024),
    # A hundred years.
    "store.rollup_retention_days": (0, 36_500),
    "journal.segment_bytes": (64 * KiB, 2**53),
}

# Counts above this are not exact in every JSON reader.
_NUMBER_MAX = 2**53

_CHOICES = {
    "log.level": ("debug", "info", "warning", "error"),
    "log.format": ("auto", "console", "json"),
}

_DAYS = re.compile(r"[0-9]{1,6}")

_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\.?")


def normalised(name: str, value: object) -> object:
    """One spelling where several mean the same."""
    if name.endswith(".public_url") and isinstance(value, str):
        return value.rstrip("/")
    if name == "intake.test_hosts" and isinstance(value, tuple):
        return tuple(str(host).lower() for host in value)
    if name == "intake.cors_origins" and isinstance(value, tuple):
        return tuple(str(origin).rstrip("/") for origin in value)
    if name in _CHOICES and isinstance(value, str):
        return value.lower()
    return value


def checked(config: Config, origins: Mapping[str, str]) -> Config:
    """The configuration itself; raises `ConfigError` at the first value that cannot work."""
    try:
        _check(config)
    except ConfigError as error:
        origin = origins.get(error.key, "default")
        if origin == "default":
            raise
        raise ConfigError(error.key, f"{error.hint} (from {origin})") from None
    return config


def split_address(text: str) -> tuple[str, int] | None:
    """`host:port` or `[v6]:port` as its parts; None when it is neither."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65_535:
        return None
    if host.startswith("[") and host.endswith("]"):
        return (host[1:-1], int(port)) if _is_ip(host[1:-1], 6) else None
    return (host, int(port)) if _HOST_NAME.fullmatch(host) else None


def _check(config: Config) -> None:
    for section in msgspec.structs.fields(Config):
        values = getattr(config, section.name)
        for field in msgspec.structs.fields(section.type):
            name = f"{section.name}.{field.name}"
            if field.type is int:
                _check_number(name, getattr(values, field.name))
    for name, choices in _CHOICES.items():
        section_name, key = name.split(".")
        value = getattr(getattr(config, section_name), key)
        if value not in choices:
            raise ConfigError(name, f"must be one of {', '.join(choices)}, got {value!r}")
    _check_listener("intake", config.intake)
    _check_listener("console", config.console)
    _check_intake(config.intake)
    _check_delivery(config.delivery)
    if not config.store.data_dir:
        raise ConfigError("store.data_dir", "must name a folder, such as ./ingester-data")
    _check_retention(config.store)
    _check_fit(config)


def _check_retention(store: StoreConfig) -> None:
    for each in store.retention_days:
        table, equals, days = (part.strip() for part in each.partition("="))
        if table not in RETENTION_TABLES or not equals or not _DAYS.fullmatch(days):
            known = ", ".join(RETENTION_TABLES)
            raise ConfigError(
                "store.retention_days",
                f'must be tables and days such as ["events=365", "logs=30"], a table one of {known}'
                f", got {each!r}",
            )


def _check_number(name: str, value: int) -> None:
    lowest, highest = _BOUNDS.get(name, (0 if name in _ZERO_ALLOWED else 1, _NUMBER_MAX))
    if not lowest <= value <= highest:
        upper = f" to {highest}" if highest < _NUMBER_MAX else " upwards"
        raise ConfigError(name, f"must be a whole number from {lowest}{upper}, got {value}")


def _check_listener(section: str, listener: IntakeConfig | ConsoleConfig) -> None:
    _check_address(f"{section}.bind", listener.bind)
    for here, there in (("cert", "key"), ("key", "cert")):
        if getattr(listener, f"tls_{here}_file") and not getattr(listener, f"tls_{there}_file"):
            raise ConfigError(
                f"{section}.tls_{there}_file",
                f"must be set together with {section}.tls_{here}_file (PEM), or neither",
            )
    for which in ("cert", "key"):
        file = getattr(listener, f"tls_{which}_file")
        if file and not (Path(file).is_file() and os.access(file, os.R_OK)):
            raise ConfigError(
                f"{section}.tls_{which}_file", f"must be a PEM file that can be read, got {file!r}"
            )
    url = listener.public_url
    if url and not _is_base_url(url, path_allowed=True):
        raise ConfigError(
            f"{section}.public_url",
            f'must look like "https://events.example.com", got {url!r}',
        )


def _check_intake(intake: IntakeConfig) -> None:
    if intake.test_bind:
        _check_address("intake.test_bind", intake.test_bind)
    for host in intake.test_hosts:
        if not (_HOST_NAME.fullmatch(host) or _is_ip(host.strip("[]"), 6)):
            raise ConfigError(
                "intake.test_hosts",
                f'must be host names without scheme and port, such as "test.example.com",'
                f" got {host!r}",
            )
    _check_networks("intake.trusted_proxies", intake.trusted_proxies)
    for origin in intake.cors_origins:
        if origin != "*" and not _is_base_url(origin, path_allowed=False):
            raise ConfigError(
                "intake.cors_origins",
                f'must be "*" or origins such as "https://app.example.com", got {origin!r}',
            )


def _check_delivery(delivery: DeliveryConfig) -> None:
    _check_networks("delivery.allow_networks", delivery.allow_networks)
    file = delivery.tls_ca_file
    if file and not (Path(file).is_file() and os.access(file, os.R_OK)):
        raise ConfigError(
            "delivery.tls_ca_file", f"must be a PEM file that can be read, got {file!r}"
        )


def _check_networks(name: str, networks: Sequence[str]) -> None:
    for network in networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise ConfigError(
                name, f'must be addresses or CIDRs such as "10.0.0.0/8", got {network!r}: {error}'
            ) from None


def _check_fit(config: Config) -> None:
    """Limits that would make another one unreachable."""
    intake, journal = config.intake, config.journal
    if intake.target_bytes_max > intake.head_bytes_max:
        raise ConfigError(
            "intake.target_bytes_max",
            f"must not exceed intake.head_bytes_max ({intake.head_bytes_max}),"
            f" got {intake.target_bytes_max}",
        )
    for name, limit in (
        ("intake.body_budget_bytes", intake.body_budget_bytes),
        ("journal.segment_bytes", journal.segment_bytes),
        ("journal.backlog_bytes_max", journal.backlog_bytes_max),
    ):
        if limit < intake.small_body_bytes_max:
            raise ConfigError(
                name,
                f"must hold one small body (intake.small_body_bytes_max ="
                f" {intake.small_body_bytes_max}), got {limit}",
            )


def _check_address(name: str, text: str) -> None:
    if split_address(text) is None:
        raise ConfigError(
            name,
            "must be host:port with a port from 0 (any free one) to 65535, such as"
            f" 127.0.0.1:8080, 0.0.0.0:8080 (every interface) or [::1]:8080, got {text!r}",
        )


def _is_base_url(text: str, *, path_allowed: bool) -> bool:
    try:
        parts = urlsplit(text)
        port_fits = parts.port is None or parts.port > 0
    except ValueError:
        return False
    return (
        parts.scheme in {"http", "https"}
        and bool(parts.hostname)
        and port_fits
        and not (parts.query or parts.fragment or parts.username or parts.password)
        and (path_allowed or not parts.path)
        and not any(character.isspace() for character in text)
    )


def _is_ip(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False
