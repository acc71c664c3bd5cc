-- Where incidents are told, by which routes, and the outbox: a message is a frozen body, a delivery
-- one message for one destination. Times are epoch seconds.

CREATE TABLE instance (
    instance_id TEXT NOT NULL,
    created_at REAL NOT NULL
) STRICT;

INSERT INTO instance VALUES (lower(hex(randomblob(8))), unixepoch());

-- `settings` is JSON without secrets; `sealed` holds those (secret.key), `tails` is what can be shown.
CREATE TABLE destinations (
    destination_id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL CHECK (type IN ('webhook', 'incident_io', 'generic')),
    settings TEXT NOT NULL,
    sealed BLOB,
    created_at REAL NOT NULL,
    disabled_at REAL,
    disabled_reason TEXT,
    failing_since REAL,
    last_success_at REAL
) STRICT;

CREATE TABLE routes (
    route_id INTEGER PRIMARY KEY AUTOINCREMENT,
    destination_id INTEGER NOT NULL REFERENCES destinations ON DELETE CASCADE,
    allow TEXT NOT NULL,
    ignore TEXT NOT NULL,
    created_at REAL NOT NULL
) STRICT;

CREATE INDEX routes_by_destination ON routes (destination_id);

CREATE TABLE messages (
    message_id INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL,
    format TEXT NOT NULL,
    incident_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    body BLOB NOT NULL,
    created_at REAL NOT NULL,
    UNIQUE (event_id, format)
) STRICT;

CREATE INDEX messages_by_age ON messages (created_at);
CREATE INDEX messages_of_incident ON messages (incident_id, kind);

-- `next_at` 0: at once. `superseded`: a later revision was sent in its place.
CREATE TABLE deliveries (
    delivery_id INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id INTEGER NOT NULL REFERENCES messages ON DELETE CASCADE,
    destination_id INTEGER NOT NULL REFERENCES destinations ON DELETE CASCADE,
    incident_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'dead', 'superseded')),
    attempt_count INTEGER NOT NULL DEFAULT 0,
    next_at REAL NOT NULL DEFAULT 0,
    created_at REAL NOT NULL,
    finished_at REAL,
    status INTEGER,
    error TEXT,
    UNIQUE (message_id, destination_id)
) STRICT;

CREATE INDEX deliveries_due ON deliveries (destination_id, next_at, delivery_id)
    WHERE state = 'pending';
CREATE INDEX deliveries_in_order ON deliveries (destination_id, incident_id, delivery_id)
    WHERE state = 'pending';
CREATE INDEX deliveries_by_incident ON deliveries (incident_id, destination_id);
CREATE INDEX deliveries_failed ON deliveries (finished_at) WHERE state = 'dead';

CREATE TABLE attempts (
    attempt_id INTEGER PRIMARY KEY AUTOINCREMENT,
    delivery_id INTEGER NOT NULL REFERENCES deliveries ON DELETE CASCADE,
    time REAL NOT NULL,
    status INTEGER,
    latency_ms REAL NOT NULL,
    error TEXT,
    answer TEXT
) STRICT;

CREATE INDEX attempts_by_delivery ON attempts (delivery_id);

-- The last rows of an open incident: a revision that brings none of its own shows them again.
CREATE TABLE incident_rows (
    incident_id TEXT PRIMARY KEY,
    rows BLOB NOT NULL
) STRICT, WITHOUT ROWID;
