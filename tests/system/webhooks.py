"""A receiver of webhooks in a thread of the test, which outlives the server it hears from."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["Webhook", "Webhooks", "webhooks"]


@dataclass(frozen=True)
class Webhook:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers.get("webhook-id", "")


@dataclass
class Webhooks:
    """What has come. `before_answer` and `after_answer` may end the sender."""

    url: str = ""
    received: list[Webhook] = field(default_factory=list)
    before_answer: Callable[[], None] = lambda: None
    after_answer: Callable[[], None] = lambda: None


@contextmanager
def webhooks(status: int = 200) -> Iterator[Webhooks]:
    """A receiver on a free port of loopback."""
    hooks = Webhooks()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            if len(body) < length:  # the sender was killed while sending
                self.close_connection = True
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            hooks.received.append(Webhook(self.path, headers, body))
            hooks.before_answer()
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")
            hooks.after_answer()

        def log_message(self, *_: object) -> None:
            return

    class Quiet(http.server.ThreadingHTTPServer):
        daemon_threads = True
        # Deliveries come by the dozen at once; beyond the usual five they would be closed.
        request_queue_size = 128

        def handle_error(self, *_: object) -> None:
            """A sender that was killed is what these tests are about."""

    with Quiet(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        hooks.url = f"http://127.0.0.1:{server.server_port}/hook"
        try:
            yield hooks
        finally:
            server.shutdown()
            thread.join()
