-- +goose Up
-- live tells what an infrastructure's loop has to keep at hand: 0 settled,
-- 1 something is under way, 2 it merely waits to be let through. Those are
-- read a page at a time, in the order of tasks_queue: precedence is the
-- priority with its sign turned.
ALTER TABLE tasks ADD COLUMN share TEXT NOT NULL DEFAULT '';
ALTER TABLE tasks ADD COLUMN precedence INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN array_id TEXT NOT NULL DEFAULT '';
ALTER TABLE tasks ADD COLUMN array_index INTEGER NOT NULL DEFAULT 0;
CREATE INDEX tasks_queue ON tasks (infrastructure, share, precedence, id) WHERE live = 2;
CREATE INDEX tasks_array ON tasks (array_id, state, array_index) WHERE array_id <> '';

-- Tasks that were submitted together. body is the JSON of a berth.Array;
-- cancelled_at is in nanoseconds since 1970, UTC; 0 is never.
CREATE TABLE arrays (
    id             TEXT PRIMARY KEY,
    key            TEXT NOT NULL UNIQUE,
    infrastructure TEXT NOT NULL,
    owner          TEXT NOT NULL,
    cancelled_at   INTEGER NOT NULL,
    body           BLOB NOT NULL
) STRICT;
CREATE INDEX arrays_owner ON arrays (owner, id);

-- +goose Down
DROP TABLE arrays;
DROP INDEX tasks_array;
DROP INDEX tasks_queue;
ALTER TABLE tasks DROP COLUMN array_index;
ALTER TABLE tasks DROP COLUMN array_id;
ALTER TABLE tasks DROP COLUMN precedence;
ALTER TABLE tasks DROP COLUMN share;
