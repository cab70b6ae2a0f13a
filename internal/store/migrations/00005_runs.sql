-- +goose Up
-- Runs of workflows. program and body are JSON: what runs and what nobody is
-- shown (the files, the packages that are fixed, whose run it is), and a
-- berth.Run; cancelled_at is in nanoseconds since 1970, UTC; 0 is never.
CREATE TABLE runs (
    id             TEXT PRIMARY KEY,
    key            TEXT NOT NULL UNIQUE,
    infrastructure TEXT NOT NULL,
    owner          TEXT NOT NULL,
    state          TEXT NOT NULL,
    cancelled_at   INTEGER NOT NULL,
    program        BLOB NOT NULL,
    body           BLOB NOT NULL
) STRICT;
CREATE INDEX runs_owner ON runs (owner, id);
CREATE INDEX runs_live ON runs (infrastructure, id) WHERE state = 'running';

-- The calls of runs. key is a call's own within its run, the same each time
-- that the run is replayed; body is the JSON of a berth.RunCall.
CREATE TABLE run_calls (
    run   TEXT NOT NULL,
    key   TEXT NOT NULL,
    seq   INTEGER NOT NULL,
    state TEXT NOT NULL,
    body  BLOB NOT NULL,
    PRIMARY KEY (run, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX run_calls_seq ON run_calls (run, seq);

-- What calls gave that are to be answered again. created_at is in nanoseconds
-- since 1970, UTC; body is the JSON of a berth.CachedCall.
CREATE TABLE cached_calls (
    id         TEXT PRIMARY KEY,
    owner      TEXT NOT NULL,
    digest     TEXT NOT NULL,
    package    TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    body       BLOB NOT NULL,
    UNIQUE (owner, digest)
) STRICT;

-- +goose Down
DROP TABLE cached_calls;
DROP TABLE run_calls;
DROP TABLE runs;
