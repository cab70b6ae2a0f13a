-- +goose Up
-- What callers show to a server. hash is the SHA-256 of the secret, which is
-- random, so that it needs no salt; the secret itself is not here. Times are
-- nanoseconds since 1970, UTC; 0 is never.
CREATE TABLE tokens (
    id              TEXT PRIMARY KEY,
    hash            BLOB NOT NULL UNIQUE,
    name            TEXT NOT NULL,
    role            TEXT NOT NULL,
    infrastructures TEXT NOT NULL, -- a JSON array; empty: all
    created_at      INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL,
    last_used_at    INTEGER NOT NULL,
    revoked_at      INTEGER NOT NULL
) STRICT;
CREATE INDEX tokens_name ON tokens (name);

-- Each owner lists their own tasks.
CREATE INDEX tasks_owner ON tasks (owner, id);

-- +goose Down
DROP INDEX tasks_owner;
DROP TABLE tokens;
