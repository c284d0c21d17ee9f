-- Datasets. Each has its rows in a table `rows_GENERATION` with the columns `row`, its number, `c1`, `c2`, ..., its texts, and
-- `n1`, `n2`, ..., the numbers that they look like.
CREATE TABLE datasets (
    name        TEXT    NOT NULL PRIMARY KEY,
    generation  INTEGER NOT NULL, -- Unix microseconds
    columns     TEXT    NOT NULL, -- a JSON array
    version     INTEGER NOT NULL,
    is_finished INTEGER NOT NULL,
    rows        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The questions that were asked most.
CREATE TABLE popular (
    question TEXT NOT NULL PRIMARY KEY,
    weight   REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The greatest version of datasets that were deleted.
INSERT INTO meta VALUES ('last_version', 0);

-- Files that are imported, or were. `import` is a JSON object.
CREATE TABLE imports (
    id         TEXT    NOT NULL PRIMARY KEY, -- a UUID
    import     TEXT    NOT NULL,
    is_loading INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Their chunks. `chunk`, and `loaded`, what became of one, are JSON objects; an undone one has no `loaded`.
CREATE TABLE chunks (
    import  TEXT    NOT NULL,
    number  INTEGER NOT NULL,
    chunk   TEXT    NOT NULL,
    done_at INTEGER, -- Unix milliseconds
    loaded  TEXT,
    PRIMARY KEY (import, number)
) STRICT, WITHOUT ROWID;
