"""Bearer keys in the doors: reading the header, finding whose key it is, refusing.

`Authorization: Bearer <key>`, the scheme in any case, blanks tolerated (RFC 6750 and RFC 9110,
11.6.2). The sentence of a refusal says what was expected and repeats nothing of what came: it may
have been a key under the wrong scheme.

1. A key is found by its SHA-256 in a table: how long that takes tells nothing about any key.
2. 401: no header, a malformed one, an unknown, revoked or expired key, a key of another door.
   403: a valid key of this door without the scope.
3. Only attempts with a key nobody has are slowed (`failed_attempts.py`).
"""

from __future__ import annotations

from collections.abc import Collection

from ingester.doors.admission import Admission
from ingester.doors.exchange import Request, Response, error_response
from ingester.doors.key_ring import KeyRing, UnknownKey
from ingester.errors import Unauthorized
from ingester.messages import Credential, CredentialKind, Scope
from ingester.protocol.http1 import RequestHead

__all__ = [
    "authenticate",
    "bearer_key",
    "check_credential",
    "credential_nowait",
    "maybe_credential",
    "refusal_response",
]

EXPECTED = 'send the header "Authorization: Bearer <key>"'

_KEY_CHARACTERS_MAX = 512


class DeniedCredential(Unauthorized):
    """A valid key that opens another door, or lacks the scope (then 403)."""

    def __init__(self, sentence: str, credential: str, status_hint: int) -> None:
        super().__init__(sentence)
        self.credential = credential
        self.status_hint = status_hint


_DOORS: dict[CredentialKind, str] = {
    "token": "a token (ingester token create)",
    "connection": "the API key of a connection (ingester connection create)",
}


async def authenticate(
    request: Request,
    admission: Admission,
    *,
    kinds: Collection[CredentialKind],
    scope: Scope = "ingest",
) -> Credential:
    """Whose key the request carries. Raises Unauthorized, after taking note of it;
    `refusal_response` makes the answer.
    """
    try:
        credential = admission.keys.credential_of(key_of(request.head))
        check_credential(credential, kinds=kinds, scope=scope)
        return credential
    except Unauthorized as error:
        known = error.credential if isinstance(error, DeniedCredential) else ""
        admission.usage.refuse(
            known,
            status=error.status_hint,
            reason=str(error),
            address=request.client_address,
            path=request.head.path,
        )
        if isinstance(error, UnknownKey):
            await admission.failures.slow_down(request.client_address)
        raise


def credential_nowait(
    head: RequestHead,
    keys: KeyRing,
    *,
    kinds: Collection[CredentialKind],
    scope: Scope = "ingest",
) -> Credential | None:
    """The credential of a request that `authenticate` would let pass, else None. For a shortcut,
    which remembers it: a key that will expire is left to the long way.
    """
    credential = maybe_credential(head, keys, kinds=kinds, scope=scope)
    return credential if credential is None or credential.expires_at is None else None


def maybe_credential(
    head: RequestHead,
    keys: KeyRing,
    *,
    kinds: Collection[CredentialKind],
    scope: Scope = "ingest",
) -> Credential | None:
    """The same of now; nothing is noted of a key that is wrong."""
    try:
        credential = keys.credential_of(key_of(head))
        check_credential(credential, kinds=kinds, scope=scope)
    except Unauthorized:
        return None
    return credential


def check_credential(
    credential: Credential, *, kinds: Collection[CredentialKind], scope: Scope
) -> None:
    """Raises when this door is not for that key."""
    if credential.kind not in kinds:
        expected = " or ".join(_DOORS[kind] for kind in kinds)
        raise DeniedCredential(
            f"this key is for another door; here {expected} is expected", credential.credential, 401
        )
    if scope not in credential.scopes:
        has = ", ".join(sorted(credential.scopes))
        raise DeniedCredential(
            f"this token lacks the scope {scope}; it has {has}", credential.credential, 403
        )


def key_of(head: RequestHead) -> str:
    """The bearer key of a request. Raises Unauthorized."""
    values = [value for name, value in head.headers if name == b"authorization"]
    if len(values) > 1:
        raise Unauthorized(f"there is more than one Authorization header; {EXPECTED} once")
    return bearer_key(values[0] if values else None)


def bearer_key(value: bytes | None) -> str:
    """The key in the value of an Authorization header. Raises Unauthorized."""
    if value is None:
        raise Unauthorized(f"there is no Authorization header; {EXPECTED}")
    scheme, _, rest = value.replace(b"\t", b" ").strip(b" ").partition(b" ")
    if scheme.lower() != b"bearer":
        raise Unauthorized(f"the Authorization header has another scheme than Bearer; {EXPECTED}")
    key = rest.strip(b" ")
    if not key:
        raise Unauthorized(f"the Authorization header has no key behind Bearer; {EXPECTED}")
    if len(key) > _KEY_CHARACTERS_MAX or not all(0x21 <= byte <= 0x7E for byte in key):
        raise Unauthorized(
            f"a key is one word of at most {_KEY_CHARACTERS_MAX} visible ASCII characters;"
            f" {EXPECTED}"
        )
    return key.decode("ascii")


def refusal_response(error: Unauthorized) -> Response:
    """The answer to what `authenticate` raised."""
    response = error_response(error.status_hint, str(error))
    challenge = b"Bearer" if error.status_hint == 401 else b'Bearer error="insufficient_scope"'
    response.headers = (*response.headers, (b"WWW-Authenticate", challenge))
    return response
