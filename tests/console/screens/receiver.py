"""A small receiver of webhooks on loopback: keeps what it got, answers what it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.system.server import wait_until

__all__ = ["Receiver", "receiving"]


@dataclass
class Receiver:
    """`status` is the answer to what comes next."""

    url: str = ""
    status: int = 200
    bodies: list[Any] = field(default_factory=list)

    def wait_for(self, what: str, seconds_max: float = 18, **wanted: object) -> Any:
        """The first body whose fields are as wanted."""

        def found() -> Any:
            for body in list(self.bodies):
                if all(body.get(name) == value for name, value in wanted.items()):
                    return body
            return None

        return wait_until(found, seconds_max, what)


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.bodies.append(json.loads(body))
            self.send_response(receiver.status)
            self.end_headers()
            self.wfile.write(b"thank you")

        def log_message(self, *_args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
