-- +goose Up
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- A task and its attempts, as the JSON of a Life; the other columns are what
-- is searched by. live is 0 once nothing is left to be done for it.
CREATE TABLE tasks (
    id             TEXT PRIMARY KEY,
    key            TEXT NOT NULL UNIQUE,
    state          TEXT NOT NULL,
    infrastructure TEXT NOT NULL,
    name           TEXT NOT NULL,
    owner          TEXT NOT NULL,
    live           INTEGER NOT NULL,
    life           BLOB NOT NULL
) STRICT;
CREATE INDEX tasks_live ON tasks (infrastructure, id) WHERE live = 1;
CREATE INDEX tasks_state ON tasks (state, id);

-- What happened, in order; append-only.
CREATE TABLE events (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    task_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    type    TEXT NOT NULL,
    message TEXT NOT NULL,
    at      INTEGER NOT NULL -- nanoseconds since 1970, UTC
) STRICT;
CREATE INDEX events_task ON events (task_id, seq);

-- An infrastructure is known by name and by the UID of its namespace.
CREATE TABLE infrastructures (
    name     TEXT PRIMARY KEY,
    address  TEXT NOT NULL,
    identity TEXT NOT NULL,
    seen_at  INTEGER NOT NULL
) STRICT;

-- +goose Down
DROP TABLE infrastructures;
DROP TABLE events;
DROP TABLE tasks;
DROP TABLE meta;
