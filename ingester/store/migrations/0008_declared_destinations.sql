-- The file that declares a destination, as `watches` has it; NULL for one made here.
ALTER TABLE destinations ADD COLUMN file TEXT;

-- Rows that an LQL alert has found before its window is over (a JSON array); their number, and how
-- far it has looked, are in its state.
CREATE TABLE alert_rows (
    watch_id INTEGER PRIMARY KEY REFERENCES watches ON DELETE CASCADE,
    rows BLOB NOT NULL
) STRICT;
