-- The vote log. The offsets of a partition have no gaps. They begin at 0, or at the partition's start.
CREATE TABLE records (
    partition   INTEGER NOT NULL,
    "offset"    INTEGER NOT NULL,
    accepted_at INTEGER NOT NULL, -- Unix milliseconds
    key         TEXT    NOT NULL, -- the ballot key
    value       BLOB    NOT NULL, -- ovation.v1.VoteRecord
    traceparent TEXT,
    PRIMARY KEY (partition, "offset")
) STRICT, WITHOUT ROWID;

-- The first offset of each partition whose older records have expired.
CREATE TABLE starts (
    partition INTEGER NOT NULL PRIMARY KEY,
    "offset"  INTEGER NOT NULL
) STRICT;

-- Invalid records, unchanged, each with the reason.
CREATE TABLE dead_letters (
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
