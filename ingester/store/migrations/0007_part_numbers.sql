-- The highest number that a part was ever given; one row, once there was a part.
CREATE TABLE newest_part (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    number INTEGER NOT NULL
) STRICT;

-- Commits that a start found to be gone, with a part or with its WAL: those above `low` up to
-- `high`. Until a repair upload files of parts up to number `through` are kept, listed or not.
-- `evaluated_ms`: when the last commit began that rules had evaluated by then.
CREATE TABLE lost_commits (
    low INTEGER PRIMARY KEY,
    high INTEGER NOT NULL,
    through INTEGER NOT NULL,
    evaluated_ms INTEGER NOT NULL,
    found_at REAL NOT NULL
) STRICT;
