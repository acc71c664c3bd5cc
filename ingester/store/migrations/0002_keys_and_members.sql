-- Tokens, connections, projects; members, invitations, sessions; audit, usage, refused requests;
-- settings of sources. Times are epoch seconds (UTC). Secrets of every kind are known by SHA-256;
-- `sealed` is the key itself under AES-GCM with the key of `secret.key`, NULL when it cannot be
-- shown again (pairs made before this version, and keys that must not be copied).

ALTER TABLE sources ADD COLUMN dedup_field TEXT;
ALTER TABLE sources ADD COLUMN dedup_hours INTEGER NOT NULL DEFAULT 24 CHECK (dedup_hours >= 1);
ALTER TABLE sources ADD COLUMN map TEXT;
ALTER TABLE sources ADD COLUMN copyable INTEGER NOT NULL DEFAULT 1 CHECK (copyable IN (0, 1));

ALTER TABLE source_keys ADD COLUMN sealed BLOB;

CREATE TABLE projects (
    project_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    created_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO projects VALUES ('default', 'default', unixepoch());

CREATE TABLE tokens (
    token_id INTEGER PRIMARY KEY AUTOINCREMENT,
    service TEXT NOT NULL,
    environment TEXT NOT NULL,
    scopes TEXT NOT NULL,
    source_id INTEGER REFERENCES sources (source_id) ON DELETE SET NULL,
    requests_per_hour INTEGER NOT NULL DEFAULT 0 CHECK (requests_per_hour >= 0),
    copyable INTEGER NOT NULL CHECK (copyable IN (0, 1)),
    created_at REAL NOT NULL,
    expires_at REAL
) STRICT;

CREATE TABLE connections (
    connection_id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    project_id TEXT NOT NULL REFERENCES projects (project_id),
    tier TEXT NOT NULL CHECK (tier IN ('free', 'pro', 'scale', 'unlimited')),
    requests_per_hour INTEGER CHECK (requests_per_hour >= 0),
    copyable INTEGER NOT NULL CHECK (copyable IN (0, 1)),
    created_at REAL NOT NULL
) STRICT;

CREATE INDEX connections_by_project ON connections (project_id);

CREATE TABLE bearer_keys (
    key_id INTEGER PRIMARY KEY AUTOINCREMENT,
    token_id INTEGER REFERENCES tokens (token_id) ON DELETE CASCADE,
    connection_id INTEGER REFERENCES connections (connection_id) ON DELETE CASCADE,
    digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    tail TEXT NOT NULL,
    sealed BLOB,
    created_at REAL NOT NULL,
    expires_at REAL,
    revoked_at REAL,
    CHECK ((token_id IS NULL) <> (connection_id IS NULL))
) STRICT;

CREATE INDEX bearer_keys_by_token ON bearer_keys (token_id);
CREATE INDEX bearer_keys_by_connection ON bearer_keys (connection_id);

-- The first administrator has no address until the one-time link was used.
CREATE TABLE members (
    member_id INTEGER PRIMARY KEY AUTOINCREMENT,
    email TEXT UNIQUE,
    role TEXT NOT NULL CHECK (role IN ('admin', 'viewer')),
    password_hash TEXT,
    created_at REAL NOT NULL
) STRICT;

CREATE TABLE invites (
    digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
    member_id INTEGER NOT NULL REFERENCES members (member_id) ON DELETE CASCADE,
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX invites_by_member ON invites (member_id);

CREATE TABLE sessions (
    digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
    member_id INTEGER NOT NULL REFERENCES members (member_id) ON DELETE CASCADE,
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    last_seen_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_by_member ON sessions (member_id);

CREATE TABLE audit (
    audit_id INTEGER PRIMARY KEY AUTOINCREMENT,
    time REAL NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    object TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;

CREATE TABLE usage_hours (
    credential TEXT NOT NULL,
    hour INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    accepted INTEGER NOT NULL,
    rejected INTEGER NOT NULL,
    refused INTEGER NOT NULL,
    PRIMARY KEY (credential, hour)
) STRICT, WITHOUT ROWID;

CREATE TABLE credential_use (
    credential TEXT PRIMARY KEY,
    last_used_at REAL NOT NULL,
    last_address TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE refused_requests (
    refused_id INTEGER PRIMARY KEY AUTOINCREMENT,
    credential TEXT NOT NULL,
    time REAL NOT NULL,
    status INTEGER NOT NULL,
    reason TEXT NOT NULL,
    address TEXT NOT NULL,
    path TEXT NOT NULL
) STRICT;

CREATE INDEX refused_by_credential ON refused_requests (credential);
