-- +goose Up
-- What starts again and again. body is the JSON of what was asked for, with its
-- caller, and state that of a berth.ScheduleState: who starts it writes that alone.
CREATE TABLE schedules (
    owner          TEXT NOT NULL,
    name           TEXT NOT NULL,
    infrastructure TEXT NOT NULL,
    paused         INTEGER NOT NULL,
    body           BLOB NOT NULL,
    state          BLOB NOT NULL,
    PRIMARY KEY (owner, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX schedules_infrastructure ON schedules (infrastructure);

-- +goose Down
DROP TABLE schedules;
