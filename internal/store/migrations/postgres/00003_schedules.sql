-- +goose Up
-- The table of ../00006_schedules.sql.
CREATE TABLE schedules (
    owner          TEXT COLLATE "C" NOT NULL,
    name           TEXT COLLATE "C" NOT NULL,
    infrastructure TEXT COLLATE "C" NOT NULL,
    paused         SMALLINT NOT NULL,
    body           BYTEA NOT NULL,
    state          BYTEA NOT NULL,
    PRIMARY KEY (owner, name)
);
CREATE INDEX schedules_infrastructure ON schedules (infrastructure);

-- +goose Down
DROP TABLE schedules;
