-- The vote log. A record's offset is its place in its partition, from 0 (or from its start) without gaps.
CREATE TABLE records (
    partition   INTEGER NOT NULL,
    "offset"    INTEGER NOT NULL,
    accepted_at INTEGER NOT NULL, -- Unix milliseconds
    key         TEXT    NOT NULL, -- the ballot key
    value       BLOB    NOT NULL, -- ovation.v1.VoteRecord
    traceparent TEXT,
    PRIMARY KEY (partition, "offset")
) STRICT, WITHOUT ROWID;

-- Where a partition's records begin, if some have expired.
CREATE TABLE starts (
    partition INTEGER NOT NULL PRIMARY KEY,
    "offset"  INTEGER NOT NULL
) STRICT;

-- Records that can't be read as votes, as they are, and why.
CREATE TABLE dead (
    partition   INTEGER NOT NULL,
    "offset"    INTEGER NOT NULL,
    accepted_at INTEGER NOT NULL, -- Unix milliseconds
    key         BLOB    NOT NULL,
    value       BLOB    NOT NULL,
    reason      TEXT    NOT NULL,
    PRIMARY KEY (partition, "offset")
) STRICT, WITHOUT ROWID;

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO meta VALUES ('partitions', 12);
