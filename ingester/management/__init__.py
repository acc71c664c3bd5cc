"""Management: keys, sources, projects and members, by one code path for API and command line.

`Management.handle` takes a method, a path, a query, a body and who asks, and gives a status and a
document. The console serves it under `/api/v1/`; a command calls it in its own process when no
server runs. `ROUTES` says for every route what validates, what is answered and who may ask.

Refuses to know HTTP beyond that, sockets, and what runs: a change of keys is only told
(`Answer.is_change`), the caller makes it effective.
"""

from __future__ import annotations

from ingester.management.calls import Actor, Answer, Links
from ingester.management.dispatch import Management
from ingester.management.routes import ROUTES, Route

__all__ = ["ROUTES", "Actor", "Answer", "Links", "Management", "Route"]
