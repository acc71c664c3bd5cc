"""Watching: rules on what arrives, alerts by the clock, monitors over buckets of time.

1. What is decided is decided by pure functions of rows, settings and state (`plan`, `judge`,
   `cron`): a back-test is the same function over stored data.
2. What a decision changes (cursor, state, incidents, outbox) is one transaction of the control
   store; evaluated again after a crash it comes to the same.
3. The wall clock and its jumps are looked at in one place (`clock`).

Refuses to send anything: that is `delivery`'s.
"""

from __future__ import annotations
