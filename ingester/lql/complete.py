from __future__ import annotations

Suggestion = None


def complete() -> None: ...


__all__ = ["Suggestion", "complete"]
