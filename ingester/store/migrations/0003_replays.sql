-- What became of rejects that were replayed. `replay_number` is the request that the line went into;
-- `claimed`: it may be stored or not, which is found out by a look for that request.
-- `reason` is why the line was rejected first, `refusal` why a replay was refused.

CREATE TABLE replays (
    request_number INTEGER NOT NULL,
    line_number INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('claimed', 'replayed', 'refused')),
    time REAL NOT NULL,
    replay_number INTEGER,
    door TEXT NOT NULL,
    source TEXT NOT NULL,
    reason TEXT NOT NULL,
    received_at REAL NOT NULL,
    refusal TEXT,
    detail TEXT,
    PRIMARY KEY (request_number, line_number)
) STRICT, WITHOUT ROWID;

CREATE INDEX replays_claimed ON replays (replay_number) WHERE state = 'claimed';
