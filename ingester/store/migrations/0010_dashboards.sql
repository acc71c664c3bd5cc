-- Dashboards of the console. `settings` is JSON: description, span, refreshing, widgets. `revision`
-- rises with each change; who saves names the one that was read.

CREATE TABLE dashboards (
    dashboard_id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    settings TEXT NOT NULL,
    revision INTEGER NOT NULL DEFAULT 1,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    updated_by TEXT NOT NULL
) STRICT;
