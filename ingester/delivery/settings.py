"""Settings of a destination: checked, shown without their secrets, merged with what comes back.

1. Secrets are the signing secrets, `api_token`, the values of headers that carry credentials, and
   the user-info of the URL. They are shown as `REDACTED`; `REDACTED` that comes back keeps what is
   stored.
2. Each type has its own fields; a field of another type is refused by name, a missing one too.
3. Headers that the delivery sets itself (framing, content type, signature) are left out or refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import msgspec
from msgspec import Struct

from ingester.delivery.bodies import DestinationType, KeyMode
from ingester.delivery.incident_io import BASE_URL, events_url
from ingester.delivery.signing import BadSecret, check_secret
from ingester.errors import InvalidField

__all__ = [
    "REDACTED",
    "DestinationSettings",
    "OldSecret",
    "checked",
    "merged",
    "redacted",
    "target_url",
    "user_info",
]

REDACTED = "REDACTED"

FIELDS: Mapping[DestinationType, frozenset[str]] = {
    "webhook": frozenset({"url", "headers", "secret", "gzip"}),
    "generic": frozenset({"url", "headers", "secret", "gzip"}),
    "incident_io": frozenset({
        "api_token",
        "alert_source_config_id",
        "metadata",
        "base_url",
        "key_mode",
    }),
}
_REQUIRED: Mapping[DestinationType, tuple[str, ...]] = {
    "webhook": ("url",),
    "generic": ("url",),
    "incident_io": ("api_token", "alert_source_config_id"),
}

CREDENTIAL_HEADERS = frozenset({
    "api-key",
    "apikey",
    "authorization",
    "cookie",
    "dd-api-key",
    "ocp-apim-subscription-key",
    "private-token",
    "proxy-authorization",
    "x-access-token",
    "x-amz-security-token",
    "x-api-key",
    "x-apikey",
    "x-auth-key",
    "x-auth-token",
    "x-csrf-token",
    "x-functions-key",
    "x-goog-api-key",
    "x-secret",
    "x-token",
    "x-vault-token",
    "x-webhook-secret",
})

# What says how the body is framed, or who signed it.
_REFUSED_HEADERS = frozenset({
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
})

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?|")
_URL_CHARACTERS_MAX = 4096
_HEADERS_MAX = 50
_HEADER_CHARACTERS_MAX = 4096
_METADATA_BYTES_MAX = 64 * 1024


class OldSecret(Struct, frozen=True, kw_only=True):
    """A secret that still signs until then."""

    secret: str
    until_s: float


class DestinationSettings(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Settings of all types; those that a type has not are None. `repr` shows none of them."""

    url: str | None = None
    headers: dict[str, str] | None = None
    secret: str | None = None
    gzip: bool | None = None
    api_token: str | None = None
    alert_source_config_id: str | None = None
    metadata: dict[str, object] | None = None
    base_url: str | None = None
    key_mode: KeyMode | None = None
    old_secrets: tuple[OldSecret, ...] = ()

    def __repr__(self) -> str:
        return "DestinationSettings(…)"

    def secrets(self, now_s: float) -> list[str]:
        """Those that sign now, the newest first."""
        if self.secret is None:
            return []
        return [self.secret, *(old.secret for old in self.old_secrets if old.until_s > now_s)]


def checked(type_: DestinationType, settings: DestinationSettings) -> DestinationSettings:
    """The settings, with the defaults of their type. Raises InvalidField."""
    for name in FIELDS["webhook"] | FIELDS["incident_io"]:
        if getattr(settings, name) is not None and name not in FIELDS[type_]:
            raise InvalidField(name, f"a destination of type {type_} has no {name}")
    for name in _REQUIRED[type_]:
        value = getattr(settings, name)
        if value is None or not value.strip():
            raise InvalidField(name, f"a destination of type {type_} needs {name}")
    if type_ == "incident_io":
        return _checked_incident_io(settings)
    assert settings.url is not None
    _check_url("url", settings.url)
    _check_headers(settings.headers or {})
    if settings.secret is not None:
        try:
            check_secret(settings.secret)
        except BadSecret as error:
            raise InvalidField("secret", str(error)) from None
    return msgspec.structs.replace(
        settings, headers=settings.headers or {}, gzip=bool(settings.gzip)
    )


def _checked_incident_io(settings: DestinationSettings) -> DestinationSettings:
    assert settings.api_token is not None
    base_url = settings.base_url or BASE_URL
    _check_url("base_url", base_url)
    if user_info(base_url) is not None:
        raise InvalidField("base_url", "base_url must hold no user name; the key is api_token")
    if not re.fullmatch(r"[\x21-\x7e]{1,4096}", settings.api_token):
        raise InvalidField("api_token", "api_token must be visible ASCII characters")
    metadata = settings.metadata or {}
    if len(msgspec.json.encode(metadata)) > _METADATA_BYTES_MAX:
        raise InvalidField("metadata", f"metadata must be at most {_METADATA_BYTES_MAX} bytes")
    return msgspec.structs.replace(
        settings, base_url=base_url, metadata=metadata, key_mode=settings.key_mode or "incident"
    )


def _check_url(field: str, url: str) -> None:
    sentence = f"{field} must be a URL like https://example.org/path"
    try:
        parts = urlsplit(url)
        port_is_legal = parts.port != 0
    except ValueError:
        raise InvalidField(field, sentence) from None
    is_plain = len(url) <= _URL_CHARACTERS_MAX and all("!" <= one <= "~" for one in url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_legal:
        raise InvalidField(field, sentence)
    if not is_plain or "\\" in url:
        raise InvalidField(
            field, f"{field} must be at most {_URL_CHARACTERS_MAX} visible ASCII characters"
        )
    if parts.fragment:
        raise InvalidField(field, f"{field} must have no part behind #")


def _check_headers(headers: Mapping[str, str]) -> None:
    if len(headers) > _HEADERS_MAX:
        raise InvalidField("headers", f"at most {_HEADERS_MAX} headers")
    seen = set()
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise InvalidField("headers", f"{name[:80]!r} is no name of a header")
        if len(value) > _HEADER_CHARACTERS_MAX or not _HEADER_VALUE.fullmatch(value):
            raise InvalidField(
                f"headers.{name}",
                f"the value of {name} must be at most {_HEADER_CHARACTERS_MAX} printable ASCII"
                " characters, without blanks at its ends",
            )
        if name.lower() in _REFUSED_HEADERS:
            raise InvalidField(f"headers.{name}", f"{name} is set by the delivery itself")
        if name.lower() in seen:
            raise InvalidField(f"headers.{name}", f"{name} is given twice")
        seen.add(name.lower())


def redacted(settings: DestinationSettings) -> DestinationSettings:
    """What may be shown."""
    headers = settings.headers
    if headers is not None:
        headers = {
            name: REDACTED if name.lower() in CREDENTIAL_HEADERS else value
            for name, value in headers.items()
        }
    return msgspec.structs.replace(
        settings,
        url=None if settings.url is None else _with_user_info(settings.url, None),
        headers=headers,
        secret=settings.secret and REDACTED,
        api_token=settings.api_token and REDACTED,
        old_secrets=tuple(
            OldSecret(secret=REDACTED, until_s=old.until_s) for old in settings.old_secrets
        ),
    )


def merged(stored: DestinationSettings, sent: Mapping[str, object]) -> DestinationSettings:
    """`stored` with the fields that were sent; where they say `REDACTED`, what is stored stays.
    Raises InvalidField when nothing is stored there.
    """
    changes = dict(sent)
    for field in ("secret", "api_token"):
        if changes.get(field) == REDACTED:
            changes[field] = _kept(field, getattr(stored, field))
    if "secret" in changes and changes["secret"] != stored.secret:
        changes["old_secrets"] = ()
    url = changes.get("url")
    if isinstance(url, str) and user_info(url) == REDACTED:
        changes["url"] = _with_user_info(url, _kept("url", stored.url and user_info(stored.url)))
    headers = changes.get("headers")
    if isinstance(headers, dict):
        own = {name.lower(): value for name, value in (stored.headers or {}).items()}
        changes["headers"] = {
            name: _kept(f"headers.{name}", own.get(name.lower())) if value == REDACTED else value
            for name, value in headers.items()
        }
    return msgspec.structs.replace(stored, **changes)


def _kept(field: str, value: str | None) -> str:
    if value is None:
        raise InvalidField(field, f"{field} is {REDACTED}, and there is no stored value to keep")
    return value


def target_url(type_: DestinationType, settings: DestinationSettings) -> str:
    """Where bodies are sent, without user-info: in full, for the request only."""
    if type_ == "incident_io":
        assert settings.alert_source_config_id is not None
        return events_url(settings.base_url or BASE_URL, settings.alert_source_config_id)
    assert settings.url is not None
    parts = urlsplit(settings.url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def user_info(url: str) -> str | None:
    """`user:password` of a URL as it stands there."""
    found, at, _ = urlsplit(url).netloc.rpartition("@")
    return found if at else None


def decoded_user_info(url: str) -> str | None:
    found = user_info(url)
    return None if found is None else unquote(found)


def _with_user_info(url: str, info: str | None) -> str:
    """`info` None: shown as REDACTED, when there is any."""
    parts = urlsplit(url)
    if user_info(url) is None:
        return url
    shown = quote(REDACTED) if info is None else info
    return urlunsplit(parts._replace(netloc=f"{shown}@{parts.netloc.rpartition('@')[2]}"))
