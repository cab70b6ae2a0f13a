-- +goose Up
-- Compute clusters. body is the JSON of a berth.Cluster with what nobody is shown;
-- who keeps the infrastructure writes it. wanted is what people change: a JSON of
-- how many workers each group is to have, and when the cluster is to be gone. named
-- is the name while the cluster has not ended, and NULL from then on.
CREATE TABLE clusters (
    id             TEXT NOT NULL PRIMARY KEY,
    key            TEXT NOT NULL UNIQUE,
    owner          TEXT NOT NULL,
    name           TEXT NOT NULL,
    named          TEXT,
    infrastructure TEXT NOT NULL,
    live           INTEGER NOT NULL,
    wanted         BLOB NOT NULL,
    body           BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX clusters_named ON clusters (owner, named);
CREATE INDEX clusters_name ON clusters (name);
CREATE INDEX clusters_live ON clusters (infrastructure) WHERE live = 1;

-- +goose Down
DROP TABLE clusters;
