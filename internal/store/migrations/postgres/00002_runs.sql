-- +goose Up
-- The tables of ../00005_runs.sql.
CREATE TABLE runs (
    id             TEXT COLLATE "C" PRIMARY KEY,
    key            TEXT COLLATE "C" NOT NULL UNIQUE,
    infrastructure TEXT COLLATE "C" NOT NULL,
    owner          TEXT COLLATE "C" NOT NULL,
    state          TEXT COLLATE "C" NOT NULL,
    cancelled_at   BIGINT NOT NULL,
    program        BYTEA NOT NULL,
    body           BYTEA NOT NULL
);
CREATE INDEX runs_owner ON runs (owner, id);
CREATE INDEX runs_live ON runs (infrastructure, id) WHERE state = 'running';

CREATE TABLE run_calls (
    run   TEXT COLLATE "C" NOT NULL,
    key   TEXT COLLATE "C" NOT NULL,
    seq   BIGINT NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    body  BYTEA NOT NULL,
    PRIMARY KEY (run, key)
);
CREATE INDEX run_calls_seq ON run_calls (run, seq);

CREATE TABLE cached_calls (
    id         TEXT COLLATE "C" PRIMARY KEY,
    owner      TEXT COLLATE "C" NOT NULL,
    digest     TEXT COLLATE "C" NOT NULL,
    package    TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    body       BYTEA NOT NULL,
    UNIQUE (owner, digest)
);

-- +goose Down
DROP TABLE cached_calls;
DROP TABLE run_calls;
DROP TABLE runs;
