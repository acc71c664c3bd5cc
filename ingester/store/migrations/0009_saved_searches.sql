-- Searches that people keep. `since` and `until` as they were typed, so that `now-1h` stays relative;
-- `columns` is a JSON list of field names. Times are epoch seconds.

CREATE TABLE saved_searches (
    search_id INTEGER PRIMARY KEY AUTOINCREMENT,
    searched TEXT NOT NULL CHECK (searched IN ('logs', 'events')),
    name TEXT NOT NULL,
    query TEXT NOT NULL,
    since TEXT NOT NULL,
    until TEXT NOT NULL,
    columns TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    UNIQUE (searched, name)
) STRICT;
