"""Delivery: what is told to others of an incident, and how it gets there.

Why a room of its own: a body is made where an incident changes (inside a transaction of the control
store) and sent elsewhere, later and perhaps often; both need the same pure parts.

1. `incident`, `metaplane`, `incident_io`, `generic`, `bodies`, `signing`, `schedule`, `routing`
   and `settings` do no I/O. Only `client` and `ssrf` know trio.
2. A body is made once, when its revision or firing is written down; whatever is sent afterwards
   sends those bytes.

Refuses to know the store: what is sent, to whom and when is asked of it by the delivery actor.
"""
