"""The dispatcher: from method, path, query, body and who asks to a status and a document.

1. Every refusal is a document `{"error", "field"?}` with 400, 401, 403, 404, 405, 409 or 422; a
   store that is busy is 503. Anything else raised is a bug and passes.
2. Who may ask is looked at before the body is: a stranger learns nothing from the validation.
3. Blocking: call it in a thread. Two calls at once are two transactions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec
from msgspec import UNSET, Struct

from ingester.errors import (
    Forbidden,
    InvalidField,
    NotFound,
    Overloaded,
    RequestError,
    StoreBusy,
    Unauthorized,
)
from ingester.management.calls import (
    Actor,
    Answer,
    Call,
    DeliveryDesk,
    Links,
    RejectDesk,
    WatchDesk,
)
from ingester.management.routes import ROUTES, Route
from ingester.messages import ErrorBody
from ingester.store.control import ControlStore

__all__ = ["Management", "decode_body", "decode_query"]

DEFAULT_SESSION_SECONDS = 14 * 86_400

# "Object contains unknown field `x` - at `$.y[...]`"
_FIELD_IN_BACKTICKS = re.compile(r"field `([^`]+)`")
_PLACE = re.compile(r" - at `\$\.?([^`]*)`")
_PATTERN = re.compile(r"Expected `str` matching regex .*")
_LABEL_SENTENCE = "1 to 64 letters, digits, dots, dashes or underscores are taken"

BodyT = TypeVar("BodyT", bound=Struct)


class Management:
    """The routes over one control store."""

    def __init__(
        self,
        control: ControlStore,
        links: Links,
        *,
        session_seconds: int = DEFAULT_SESSION_SECONDS,
        rejects: RejectDesk | None = None,
        delivery: DeliveryDesk | None = None,
        watch: WatchDesk | None = None,
    ) -> None:
        self._control = control
        self._links = links
        self._session_seconds = session_seconds
        self._rejects = rejects
        self._delivery = delivery
        self._watch = watch

    def handle(
        self, method: str, path: str, query: Mapping[str, str], body: bytes, actor: Actor
    ) -> Answer:
        """`path` as it was sent (percent-encoded); `query` decoded; `body` JSON or empty."""
        try:
            return self._handle(method, path, query, body, actor)
        except RequestError as error:
            told = ErrorBody(
                error=str(error),
                column=getattr(error, "column", None) or UNSET,
                field=getattr(error, "field", None) or UNSET,
            )
            allow = error.allow if isinstance(error, MethodNotAllowed) else ""
            document = msgspec.to_builtins(told)
            return Answer(status=error.status_hint, document=document, allow=allow)
        except (StoreBusy, Overloaded) as error:
            return Answer(status=503, document=msgspec.to_builtins(ErrorBody(error=str(error))))

    def _handle(
        self, method: str, path: str, query: Mapping[str, str], body: bytes, actor: Actor
    ) -> Answer:
        route, names = find_route(method, path)
        _refuse_role(route, actor)
        call: Call[Any, Any] = Call(
            control=self._control,
            links=self._links,
            actor=actor,
            names=names,
            body=decode_body(body, route.request),
            query=decode_query(query, route.query),
            session_seconds=self._session_seconds,
            rejects=self._rejects,
            delivery=self._delivery,
            watch=self._watch,
        )
        answered = route.function(call)
        return Answer(
            status=route.status,
            document=msgspec.to_builtins(answered),
            is_change=route.changes_keys,
            session_secret=call.session_secret,
            session_seconds=self._session_seconds,
        )


class MethodNotAllowed(RequestError):
    """The path is there, the method is not."""

    status_hint = 405

    def __init__(self, allow: str) -> None:
        super().__init__(f"this path takes {allow}")
        self.allow = allow


def find_route(method: str, path: str) -> tuple[Route, dict[str, str]]:
    """The route and the variable parts of the path. Raises NotFound, MethodNotAllowed."""
    segments = tuple(_whole(unquote(segment)) for segment in path.rstrip("/").split("/"))
    allowed: list[str] = []
    for route in ROUTES:
        names = _matched(route.pattern.split("/"), segments)
        if names is None:
            continue
        if route.method == method or (method == "HEAD" and route.method == "GET"):
            return route, names
        allowed.append(route.method)
    if allowed:
        raise MethodNotAllowed(", ".join(sorted(allowed)))
    raise NotFound("there is nothing at this path")


def decode_body(body: bytes, body_type: type[BodyT]) -> BodyT:
    """The decoded body; an empty one counts as `{}`. Raises InvalidField, RequestError."""
    try:
        return msgspec.json.decode(body or b"{}", type=body_type)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the body must be one JSON object ({error})") from None


def decode_query(query: Mapping[str, str], query_type: type[BodyT]) -> BodyT:
    """The parameters of a query string. Raises InvalidField."""
    try:
        values = {_whole(name): _whole(value) for name, value in query.items()}
        found = msgspec.convert(values, query_type, strict=False)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    # msgspec takes the text `null` for None, which would ask for everything.
    names = zip(found.__struct_encode_fields__, found.__struct_fields__, strict=True)
    for name, field in names:
        if name in values and getattr(found, field) is None:
            raise InvalidField(name, f"{name}: {values[name]} is no value here; leave it out")
    return found


def _whole(text: str) -> str:
    """Text without lone surrogates: neither SQLite nor JSON could write them."""
    return text.encode("utf-8", "replace").decode()


def _invalid(message: str) -> InvalidField:
    place = _PLACE.search(message)
    named = _FIELD_IN_BACKTICKS.search(message)
    field = ".".join(part for part in (place and place.group(1), named and named.group(1)) if part)
    field = field.removesuffix("[...]")  # some value of an object: which one is not told
    is_label = "[A-Za-z0-9._-]{1,64}" in message
    sentence = _PLACE.sub("", message)
    if _PATTERN.match(sentence):
        sentence = _LABEL_SENTENCE if is_label else "this is no id as they are given here"
    if named is None and field:
        sentence = f"{field}: {sentence}"
    return InvalidField(field, sentence)


def _matched(pattern: list[str], segments: tuple[str, ...]) -> dict[str, str] | None:
    if len(pattern) != len(segments):
        return None
    names = {}
    for part, segment in zip(pattern, segments, strict=True):
        if part.startswith("{"):
            if not segment:
                return None
            names[part[1:-1]] = segment
        elif part != segment:
            return None
    return names


def _refuse_role(route: Route, actor: Actor) -> None:
    if route.role == "anyone" or actor.role == "admin":
        return
    if actor.role is None:
        raise Unauthorized("sign in, or send an admin or read token")
    if route.role == "admin":
        raise Forbidden("only an administrator may do this")
