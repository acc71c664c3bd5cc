-- The manifest: which Parquet files hold the rows of parts that are sealed. Times in microseconds,
-- UTC; `name` and `path` are relative to the folders `sealed` and the data folder.

CREATE TABLE sealed_files (
    name TEXT PRIMARY KEY,
    table_name TEXT NOT NULL,
    day TEXT NOT NULL,
    first_part INTEGER NOT NULL,
    last_part INTEGER NOT NULL,
    row_count INTEGER NOT NULL,
    byte_count INTEGER NOT NULL,
    line_bytes INTEGER NOT NULL,
    time_low_us INTEGER NOT NULL,
    time_high_us INTEGER NOT NULL,
    received_low_us INTEGER NOT NULL,
    received_high_us INTEGER NOT NULL,
    batch_low INTEGER NOT NULL,
    batch_high INTEGER NOT NULL,
    request_low INTEGER NOT NULL,
    request_high INTEGER NOT NULL,
    sealed_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- One row a part that is sealed: its commits, the rows they brought, and the high water marks that
-- the next parts carry. A part file of such a number is no part any more.
CREATE TABLE sealed_parts (
    part_number INTEGER PRIMARY KEY,
    commit_low INTEGER NOT NULL,
    commit_high INTEGER NOT NULL,
    row_count INTEGER NOT NULL,
    batch_high INTEGER NOT NULL,
    seq_high INTEGER NOT NULL,
    request_high INTEGER NOT NULL,
    sealed_at REAL NOT NULL
) STRICT;

-- Files whose rows lie elsewhere or were to go: removed as soon as nobody reads them.
CREATE TABLE sealed_removals (
    path TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
