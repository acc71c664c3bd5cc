-- Rules, alerts and monitors; what they have found; incidents, labels and silences. Times are epoch
-- seconds, those of incidents epoch milliseconds (they are shown so, and rise by at least one).

CREATE TABLE watches (
    watch_id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('rule', 'alert', 'monitor')),
    name TEXT NOT NULL,
    settings TEXT NOT NULL,
    file TEXT,
    version INTEGER NOT NULL DEFAULT 1,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    UNIQUE (kind, name)
) STRICT;

-- Where an alert or a monitor stands (JSON), replaced in the transaction of what it found.
CREATE TABLE watch_states (
    watch_id INTEGER PRIMARY KEY REFERENCES watches ON DELETE CASCADE,
    state TEXT NOT NULL
) STRICT;

-- Judged buckets of a monitor: value and verdict by group (JSON), for as long as rows may be late.
CREATE TABLE monitor_buckets (
    watch_id INTEGER NOT NULL REFERENCES watches ON DELETE CASCADE,
    bucket INTEGER NOT NULL,
    points TEXT NOT NULL,
    PRIMARY KEY (watch_id, bucket)
) STRICT, WITHOUT ROWID;

CREATE TABLE alert_runs (
    run_id INTEGER PRIMARY KEY AUTOINCREMENT,
    watch_id INTEGER NOT NULL REFERENCES watches ON DELETE CASCADE,
    window_start REAL NOT NULL,
    window_end REAL NOT NULL,
    ran_at REAL NOT NULL,
    attempts INTEGER NOT NULL,
    row_count INTEGER,
    digest TEXT,
    error TEXT
) STRICT;

CREATE INDEX alert_runs_by_watch ON alert_runs (watch_id, run_id);

-- How far a reader of committed batches is, in the transaction of what it made of them; and when
-- watching was last alive (reader `alive`, epoch milliseconds).
CREATE TABLE read_cursors (
    reader TEXT PRIMARY KEY,
    position INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE incidents (
    incident_id INTEGER PRIMARY KEY AUTOINCREMENT,
    status TEXT NOT NULL CHECK (status IN ('opened', 'resolved')),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    resolved_at INTEGER,
    title TEXT NOT NULL,
    description TEXT NOT NULL,
    owner TEXT,
    incident_group TEXT NOT NULL,
    is_told INTEGER NOT NULL CHECK (is_told IN (0, 1))
) STRICT;

CREATE INDEX incidents_open ON incidents (incident_group) WHERE status = 'opened';

-- A rule, an alert, or one group of a monitor in an incident; `detail` is what is told of it (JSON).
CREATE TABLE affected (
    affected_id INTEGER PRIMARY KEY AUTOINCREMENT,
    incident_id INTEGER NOT NULL REFERENCES incidents,
    watch_id INTEGER NOT NULL,
    group_key TEXT NOT NULL,
    detail TEXT NOT NULL,
    destinations TEXT NOT NULL,
    linked_at INTEGER NOT NULL,
    resolved_at INTEGER,
    firings INTEGER NOT NULL DEFAULT 0,
    matches INTEGER NOT NULL DEFAULT 0,
    last_fired_at INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX affected_open ON affected (watch_id, group_key) WHERE resolved_at IS NULL;
CREATE INDEX affected_by_incident ON affected (incident_id);

CREATE TABLE revisions (
    incident_id INTEGER NOT NULL REFERENCES incidents,
    updated_at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    actor TEXT NOT NULL,
    note TEXT NOT NULL,
    is_told INTEGER NOT NULL CHECK (is_told IN (0, 1)),
    PRIMARY KEY (incident_id, updated_at)
) STRICT, WITHOUT ROWID;

CREATE TABLE labels (
    label_id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    created_at REAL NOT NULL
) STRICT;

CREATE TABLE incident_labels (
    incident_id INTEGER NOT NULL REFERENCES incidents,
    label_id INTEGER NOT NULL REFERENCES labels ON DELETE CASCADE,
    PRIMARY KEY (incident_id, label_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE silences (
    silence_id INTEGER PRIMARY KEY AUTOINCREMENT,
    matchers TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at REAL NOT NULL,
    starts_at REAL NOT NULL,
    ends_at REAL NOT NULL
) STRICT;
