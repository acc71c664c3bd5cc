"""Where `ingester upload` sends: a URL as given, or a door of the server on this machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import cast
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from ingester.cli.common import EXIT_USAGE, CommandFailed, intake_base, natero_url
from ingester.cli.http_client import Target, parse_target
from ingester.cli.local import find_server, open_manager
from ingester.config_check import split_address
from ingester.config_load import Loaded

__all__ = ["Destination", "target_of"]

_TAIL_LENGTH = 4
_LABEL = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Destination(Struct, frozen=True, kw_only=True):
    """The options that say where to. Keys are in it: never print it."""

    url: str | None
    source: str | None
    auth_key: str | None
    api_key: str | None
    ingest: str | None
    token: str | None
    kind: str | None

    def __repr__(self) -> str:
        return "Destination(…)"


class _Status(Struct, frozen=True):
    intake: str


def target_of(destination: Destination, loaded: Loaded) -> Target:
    """Raises CommandFailed for options that do not go together, and for a source or port that is
    not known.
    """
    given = (destination.url, destination.source, destination.ingest)
    if sum(one is not None for one in given) != 1:
        raise CommandFailed("give one of --url, --source and --ingest", EXIT_USAGE)
    if destination.kind is not None and destination.ingest is None:
        raise CommandFailed("--as goes with --ingest", EXIT_USAGE)
    token = ""
    if destination.url is not None:
        url, token = destination.url, destination.token or ""
    elif destination.source is not None:
        url = _source_url(destination, destination.source, loaded)
    else:
        assert destination.ingest is not None
        url, token = _ingest_url(destination, destination.ingest, loaded), destination.token or ""
    target = parse_target(url)
    if target is None:
        raise CommandFailed(
            "--url must look like http://127.0.0.1:8080/v1/AUTH_KEY/API_KEY, or"
            " http://127.0.0.1:8080/ingest/NAME with --token",
            EXIT_USAGE,
        )
    return msgspec.structs.replace(target, token=token)


def _ingest_url(destination: Destination, label: str, loaded: Loaded) -> str:
    if not destination.token:
        raise CommandFailed("--ingest needs --token (or INGESTER_TOKEN)", EXIT_USAGE)
    if _LABEL.fullmatch(label) is None:
        raise CommandFailed(
            f"--ingest takes 1 to 64 letters, digits, dots, dashes, underscores, not {label!r}",
            EXIT_USAGE,
        )
    query = "" if destination.kind is None else "?" + urlencode({"as": destination.kind})
    return f"{_base(loaded).rstrip('/')}/ingest/{label}{query}"


def _source_url(destination: Destination, source: str, loaded: Loaded) -> str:
    auth_key, api_key = destination.auth_key, destination.api_key
    base = _base(loaded)
    if bool(auth_key) is not bool(api_key):
        raise CommandFailed("--auth-key and --api-key go together", EXIT_USAGE)
    if not auth_key or not api_key:
        with open_manager(loaded) as manager:
            pair = manager("POST", f"/api/v1/sources/{source}/reveal", {})
        return natero_url(base, pair["auth_key"], pair["api_key"])
    server = find_server(Path(loaded.config.store.data_dir))
    if server is not None:
        listed = msgspec.json.decode(server.call("GET", "/api/v1/sources"))["sources"]
        _check_tail(listed, source, api_key)
    return natero_url(base, auth_key, api_key)


def _base(loaded: Loaded) -> str:
    """A running server knows where it listens; its port may be another one than the settings say
    here (port 0, `--intake-bind`, another file).
    """
    config = loaded.config
    server = find_server(Path(config.store.data_dir))
    if server is not None:
        status = msgspec.json.decode(server.call("GET", "/api/v1/status"), type=_Status)
        return status.intake
    address = split_address(config.intake.bind)
    if not config.intake.public_url and address is not None and address[1] == 0:
        raise CommandFailed("the server's port is not known (port 0); give --url", EXIT_USAGE)
    return intake_base(config)


def _check_tail(listed: Sequence[dict[str, object]], source: str, api_key: str) -> None:
    """A key of another source would be accepted, and its events land there: say so before."""
    found = next((entry for entry in listed if entry["source"] == source), None)
    if found is None:
        raise CommandFailed(f"there is no source named {source!r}", EXIT_USAGE)
    keys = cast("list[dict[str, object]]", found["keys"])
    if not any(key["tail"] == api_key[-_TAIL_LENGTH:] for key in keys):
        raise CommandFailed(f"the api key is none of source {source!r}", EXIT_USAGE)
