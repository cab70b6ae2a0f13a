-- +goose Up
-- The table of ../00007_clusters.sql.
CREATE TABLE clusters (
    id             TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    key            TEXT COLLATE "C" NOT NULL UNIQUE,
    owner          TEXT COLLATE "C" NOT NULL,
    name           TEXT COLLATE "C" NOT NULL,
    named          TEXT COLLATE "C",
    infrastructure TEXT COLLATE "C" NOT NULL,
    live           SMALLINT NOT NULL,
    wanted         BYTEA NOT NULL,
    body           BYTEA NOT NULL
);
CREATE UNIQUE INDEX clusters_named ON clusters (owner, named);
CREATE INDEX clusters_name ON clusters (name);
CREATE INDEX clusters_live ON clusters (infrastructure) WHERE live = 1;

-- +goose Down
DROP TABLE clusters;
