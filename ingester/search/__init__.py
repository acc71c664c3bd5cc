"""Search: questions over logs, events and metrics, asked in LQL or by parameters.

Pure builders make statements with parameters; `Reading` runs them on a lease of the store with a
deadline, and ends them when the client has left; `Searches` admits a few at a time, in threads of
their own that give way to the intake. A live tail is the same search over committed batches behind
its own cursor.

Nothing of a query ever becomes SQL text, and nothing here changes the store.
"""

from __future__ import annotations

from .routes import ROUTES, SearchRoute
from .service import Searches, answer_search

__all__ = ["ROUTES", "SearchRoute", "Searches", "answer_search"]
