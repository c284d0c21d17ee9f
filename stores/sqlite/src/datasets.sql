-- Datasets. The rows of a dataset are in the table `rows_GENERATION`. Its columns are `row`, the number of the row;
-- `c1`, `c2`, ..., the texts of the cells; and `n1`, `n2`, ..., the numbers that these texts represent, or NULL.
CREATE TABLE datasets (
    name        TEXT    NOT NULL PRIMARY KEY,
    generation  INTEGER NOT NULL, -- Unix microseconds
    columns     TEXT    NOT NULL, -- a JSON array
    version     INTEGER NOT NULL,
    is_finished INTEGER NOT NULL,
    rows        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The most popular queries.
CREATE TABLE popular (
    query  TEXT NOT NULL PRIMARY KEY,
    weight REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The greatest version of all deleted datasets.
INSERT INTO meta VALUES ('last_version', 0);

-- Imported files. `import` is a JSON object.
CREATE TABLE imports (
    id         TEXT    NOT NULL PRIMARY KEY, -- a UUID
    import     TEXT    NOT NULL,
    is_loading INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The chunks of imported files. `chunk` and `loaded`, the result of the chunk, are JSON objects. A pending chunk has no
-- `loaded`.
CREATE TABLE chunks (
    import  TEXT    NOT NULL,
    number  INTEGER NOT NULL,
    chunk   TEXT    NOT NULL,
    done_at INTEGER, -- Unix milliseconds
    loaded  TEXT,
    PRIMARY KEY (import, number)
) STRICT, WITHOUT ROWID;
