-- +goose Up
-- What attempts used. meter is the JSON of a berth.Meter: totals and peaks of
-- all readings, of which samples keeps a bounded number.
CREATE TABLE meters (
    task_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    meter   BLOB NOT NULL,
    PRIMARY KEY (task_id, attempt)
) STRICT, WITHOUT ROWID;
CREATE TABLE samples (
    task_id      TEXT NOT NULL,
    attempt      INTEGER NOT NULL,
    seq          INTEGER NOT NULL, -- of the reading, from 0 on
    at           INTEGER NOT NULL, -- nanoseconds since 1970, UTC
    cpu_seconds  REAL NOT NULL,    -- since the attempt began
    memory_bytes INTEGER NOT NULL,
    PRIMARY KEY (task_id, attempt, seq)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE samples;
DROP TABLE meters;
