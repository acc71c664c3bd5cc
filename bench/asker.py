"""Asking a server's console: one connection that is kept, one question at a time."""

from __future__ import annotations

import http.client
from typing import Any

import msgspec

__all__ = ["Asker", "Refused"]

_TIMEOUT_S = 900.0  # beyond every deadline of the server's


class Refused(Exception):
    """An answer other than 200; `status` says which, the message what it said."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


class Asker:
    """`address` is host and port of the console, `token` one that may read."""

    def __init__(self, address: str, token: str) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=_TIMEOUT_S)
        self._headers = {"Authorization": f"Bearer {token}"}

    def get(self, target: str) -> bytes:
        """The whole body of a 200. Raises Refused."""
        return self._ask("GET", target, None)

    def query(self, sql: str) -> bytes:
        """The same of one SELECT at the SQL door."""
        return self._ask("POST", "/api/v1/query", {"sql": sql, "format": "json"})

    def close(self) -> None:
        self._connection.close()

    def _ask(self, method: str, target: str, document: Any) -> bytes:
        body = None if document is None else msgspec.json.encode(document)
        headers = self._headers
        if body is not None:
            headers = {**headers, "Content-Type": "application/json"}
        try:
            try:
                answer = self._sent(method, target, body, headers)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                # The server closes a connection that rested while the rival was asked.
                self._connection.close()
                answer = self._sent(method, target, body, headers)
            content = answer.read()
        except BaseException:
            self._connection.close()  # its state is unknown; the next question opens it again
            raise
        if answer.status != 200:
            raise Refused(answer.status, content[:500].decode(errors="replace"))
        return content

    def _sent(
        self, method: str, target: str, body: bytes | None, headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        self._connection.request(method, target, body=body, headers=headers)
        return self._connection.getresponse()
