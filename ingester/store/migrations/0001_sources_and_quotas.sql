-- Event sources, their key pairs, and the request counts of the running quota hours.
-- Times are epoch seconds (UTC). A key pair is known by its SHA-256 only; `tail` is the last four
-- characters of its api key, so that a person can tell two pairs apart.

CREATE TABLE sources (
    source_id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    lenient_session INTEGER NOT NULL DEFAULT 0 CHECK (lenient_session IN (0, 1)),
    requests_per_hour INTEGER NOT NULL DEFAULT 0 CHECK (requests_per_hour >= 0),
    created_at REAL NOT NULL
) STRICT;

CREATE TABLE source_keys (
    key_id INTEGER PRIMARY KEY AUTOINCREMENT,
    source_id INTEGER NOT NULL REFERENCES sources (source_id),
    digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    tail TEXT NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL,
    revoked_at REAL
) STRICT;

CREATE INDEX source_keys_by_source ON source_keys (source_id);

CREATE TABLE quota_hours (
    hour INTEGER NOT NULL,
    credential TEXT NOT NULL,
    requests INTEGER NOT NULL CHECK (requests >= 0),
    PRIMARY KEY (hour, credential)
) STRICT, WITHOUT ROWID;
