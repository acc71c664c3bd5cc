"""`/openapi.json`: OpenAPI 3.1 of every route of the console and the intake door.

It is made from the tables the routes are served by or tested against (`management.ROUTES`,
`console/routes.py`, `doors/routes.py`) and from the types that decode and encode their bodies, so
it cannot tell anything else than they do. It holds no key and no data: anyone may read it.
"""

from __future__ import annotations

from ingester.console.openapi.document import openapi_document, openapi_json

__all__ = ["openapi_document", "openapi_json"]
