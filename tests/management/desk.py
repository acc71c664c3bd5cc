"""The dispatcher over a control store, with short calls: what tests of the routes share."""

from __future__ import annotations

import json
from typing import Any

from ingester.management import Actor, Answer, Links, Management
from ingester.management.calls import LOCAL_ADMIN
from ingester.store.control import ControlStore

__all__ = ["VIEWER", "Desk"]

VIEWER = Actor(name="tok_1", role="viewer")


class Desk:
    """Paths are under `base`; `desks` are those that `Management` takes."""

    base = "/api/v1"

    def __init__(self, control: ControlStore, **desks: Any) -> None:
        self.control = control
        links = Links(intake=lambda: "https://in.example", console=lambda: "https://c.example/")
        self.management = Management(control, links, **desks)

    def ask(
        self, method: str, path: str = "", body: object = None, *, actor: Actor = LOCAL_ADMIN
    ) -> Answer:
        path, _, query = path.partition("?")
        pairs = dict(pair.split("=", 1) for pair in query.split("&") if pair)
        data = b"" if body is None else json.dumps(body).encode()
        return self.management.handle(method, self.base + path, pairs, data, actor)

    def document(
        self, method: str, path: str = "", body: object = None, *, actor: Actor = LOCAL_ADMIN
    ) -> dict[str, Any]:
        answer = self.ask(method, path, body, actor=actor)
        assert 200 <= answer.status < 300, answer.document
        return dict(answer.document)

    def refused(self, method: str, path: str, body: object = None) -> tuple[int, object]:
        """The status, and the field that is named."""
        answer = self.ask(method, path, body)
        assert answer.status >= 400, answer.document
        return answer.status, answer.document.get("field")
