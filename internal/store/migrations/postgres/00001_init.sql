-- +goose Up
-- The tables of ../00001_init.sql and those after it, in PostgreSQL's terms: in
-- one step, as there was no database of an earlier version. What is compared
-- and sorted is so by its bytes, as in SQLite.
CREATE TABLE meta (
    key   TEXT COLLATE "C" PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE tasks (
    id             TEXT COLLATE "C" PRIMARY KEY,
    key            TEXT COLLATE "C" NOT NULL UNIQUE,
    state          TEXT COLLATE "C" NOT NULL,
    infrastructure TEXT COLLATE "C" NOT NULL,
    name           TEXT COLLATE "C" NOT NULL,
    owner          TEXT COLLATE "C" NOT NULL,
    live           SMALLINT NOT NULL,
    share          TEXT COLLATE "C" NOT NULL,
    precedence     BIGINT NOT NULL,
    array_id       TEXT COLLATE "C" NOT NULL,
    array_index    BIGINT NOT NULL,
    labels         JSONB NOT NULL, -- of the task's spec, to be searched by
    life           BYTEA NOT NULL  -- JSON; jsonb takes no \u0000, and sorts keys
);
CREATE INDEX tasks_live ON tasks (infrastructure, id) WHERE live = 1;
CREATE INDEX tasks_queue ON tasks (infrastructure, share, precedence, id) WHERE live = 2;
CREATE INDEX tasks_array ON tasks (array_id, state, array_index) WHERE array_id <> '';
CREATE INDEX tasks_state ON tasks (state, id);
CREATE INDEX tasks_owner ON tasks (owner, id);
CREATE INDEX tasks_labels ON tasks USING gin (labels jsonb_path_ops);

CREATE TABLE arrays (
    id             TEXT COLLATE "C" PRIMARY KEY,
    key            TEXT COLLATE "C" NOT NULL UNIQUE,
    infrastructure TEXT COLLATE "C" NOT NULL,
    owner          TEXT COLLATE "C" NOT NULL,
    cancelled_at   BIGINT NOT NULL,
    body           BYTEA NOT NULL
);
CREATE INDEX arrays_owner ON arrays (owner, id);

CREATE TABLE events (
    seq     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id TEXT COLLATE "C" NOT NULL,
    attempt BIGINT NOT NULL,
    type    TEXT COLLATE "C" NOT NULL,
    message TEXT NOT NULL,
    at      BIGINT NOT NULL -- nanoseconds since 1970, UTC
);
CREATE INDEX events_task ON events (task_id, seq);

CREATE TABLE infrastructures (
    name     TEXT COLLATE "C" PRIMARY KEY,
    address  TEXT NOT NULL,
    identity TEXT NOT NULL,
    seen_at  BIGINT NOT NULL
);

CREATE TABLE tokens (
    id              TEXT COLLATE "C" PRIMARY KEY,
    hash            BYTEA NOT NULL UNIQUE,
    name            TEXT COLLATE "C" NOT NULL,
    role            TEXT NOT NULL,
    infrastructures TEXT NOT NULL, -- a JSON array; empty: all
    created_at      BIGINT NOT NULL,
    expires_at      BIGINT NOT NULL,
    last_used_at    BIGINT NOT NULL,
    revoked_at      BIGINT NOT NULL
);
CREATE INDEX tokens_name ON tokens (name);

CREATE TABLE meters (
    task_id TEXT COLLATE "C" NOT NULL,
    attempt BIGINT NOT NULL,
    meter   BYTEA NOT NULL,
    PRIMARY KEY (task_id, attempt)
);
CREATE TABLE samples (
    task_id      TEXT COLLATE "C" NOT NULL,
    attempt      BIGINT NOT NULL,
    seq          BIGINT NOT NULL,
    at           BIGINT NOT NULL,
    cpu_seconds  DOUBLE PRECISION NOT NULL,
    memory_bytes BIGINT NOT NULL,
    PRIMARY KEY (task_id, attempt, seq)
);

-- The last commit of each writer, by which one whose answer was lost with the
-- connection is known to have been made or not. See begin_commit.
CREATE TABLE commits (
    writer TEXT COLLATE "C" PRIMARY KEY,
    serial BIGINT NOT NULL,
    at     TIMESTAMPTZ NOT NULL
) WITH (fillfactor = 50);

-- Servers that share this database. All times here are of the database's clock.
CREATE TABLE servers (
    id              TEXT COLLATE "C" PRIMARY KEY,
    url             TEXT NOT NULL,
    ca              TEXT NOT NULL, -- PEM that its certificate is verified by; empty: the system's
    infrastructures JSONB NOT NULL, -- names of those that it can reconcile
    started_at      TIMESTAMPTZ NOT NULL,
    expires_at      TIMESTAMPTZ NOT NULL
);

-- Who may reconcile an infrastructure. fence counts the times that it was
-- taken, so that who held it before is known from who holds it.
CREATE TABLE leases (
    infrastructure TEXT COLLATE "C" PRIMARY KEY,
    holder         TEXT COLLATE "C" NOT NULL,
    fence          BIGINT NOT NULL,
    expires_at     TIMESTAMPTZ NOT NULL
) WITH (fillfactor = 50);

-- +goose StatementBegin
-- begin_commit marks a commit as the writer's newest, in its transaction. Made
-- again for the same one it fails where that was committed, and otherwise keeps
-- it from being committed later.
CREATE FUNCTION begin_commit(by TEXT, number BIGINT) RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO commits (writer, serial, at) VALUES (by, number, clock_timestamp())
        ON CONFLICT (writer) DO UPDATE SET serial = excluded.serial, at = excluded.at WHERE commits.serial < excluded.serial;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'this commit was made or given up before' USING ERRCODE = 'BE002';
    END IF;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- fence fails unless a lease is held, and keeps it from being taken until the
-- transaction ends.
CREATE FUNCTION fence(of TEXT, by TEXT, number BIGINT) RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM leases l WHERE l.infrastructure = of AND l.holder = by AND l.fence = number AND l.expires_at > clock_timestamp() FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the lease is not held' USING ERRCODE = 'BE001';
    END IF;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION fence;
DROP FUNCTION begin_commit;
DROP TABLE leases;
DROP TABLE servers;
DROP TABLE commits;
DROP TABLE samples;
DROP TABLE meters;
DROP TABLE tokens;
DROP TABLE infrastructures;
DROP TABLE events;
DROP TABLE arrays;
DROP TABLE tasks;
DROP TABLE meta;
