-- The book. Whether a ballot is known is asked of a narrow table with random keys; what the vote said is appended to a wide
-- one. That is twice as fast as one wide table with random keys.
CREATE TABLE ballots (
    key       TEXT    NOT NULL PRIMARY KEY,
    partition INTEGER NOT NULL,
    "offset"  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE votes (
    partition   INTEGER NOT NULL,
    "offset"    INTEGER NOT NULL,
    key         TEXT    NOT NULL,
    vote_id     BLOB    NOT NULL,
    contest     TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    album       TEXT,
    year        INTEGER,
    rank        REAL,
    voter       BLOB,
    accepted_at INTEGER NOT NULL, -- Unix milliseconds
    door        TEXT    NOT NULL,
    PRIMARY KEY (partition, "offset")
) STRICT, WITHOUT ROWID;

-- Records that repeat a ballot, and the offset of the vote that stands for it.
CREATE TABLE repeats (
    partition INTEGER NOT NULL,
    "offset"  INTEGER NOT NULL,
    of        INTEGER NOT NULL,
    PRIMARY KEY (partition, "offset")
) STRICT, WITHOUT ROWID;

-- What the votes below a partition's cut-off came to. `kind` is band, album, door or minute; `name` is the band, the door or
-- the minute's start in Unix milliseconds; `album` is empty unless it is one.
CREATE TABLE summaries (
    partition INTEGER NOT NULL,
    contest   TEXT    NOT NULL,
    kind      TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    album     TEXT    NOT NULL,
    votes     INTEGER NOT NULL,
    PRIMARY KEY (partition, contest, kind, name, album)
) STRICT, WITHOUT ROWID;

CREATE INDEX votes_by_time ON votes (contest, accepted_at);

-- B: the first offset not yet in the book, and the last vote before it. Votes below the cut-off have expired.
CREATE TABLE checkpoints (
    partition    INTEGER NOT NULL PRIMARY KEY,
    "offset"     INTEGER NOT NULL,
    last_offset  INTEGER,
    last_vote_id BLOB,
    cut_off      INTEGER NOT NULL DEFAULT 0
) STRICT;

-- T: the first offset not yet in the tallies.
CREATE TABLE positions (
    partition INTEGER NOT NULL PRIMARY KEY,
    "offset"  INTEGER NOT NULL
) STRICT;

CREATE TABLE bands (
    contest TEXT    NOT NULL,
    name    TEXT    NOT NULL,
    votes   INTEGER NOT NULL,
    PRIMARY KEY (contest, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE albums (
    contest TEXT    NOT NULL,
    name    TEXT    NOT NULL,
    album   TEXT    NOT NULL,
    votes   INTEGER NOT NULL,
    PRIMARY KEY (contest, name, album)
) STRICT, WITHOUT ROWID;

CREATE TABLE doors (
    contest TEXT    NOT NULL,
    door    TEXT    NOT NULL,
    votes   INTEGER NOT NULL,
    PRIMARY KEY (contest, door)
) STRICT, WITHOUT ROWID;

-- Votes by window of acceptance time; size and start in milliseconds.
CREATE TABLE windows (
    size    INTEGER NOT NULL,
    start   INTEGER NOT NULL,
    contest TEXT    NOT NULL,
    votes   INTEGER NOT NULL,
    PRIMARY KEY (size, start, contest)
) STRICT, WITHOUT ROWID;

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO meta VALUES ('version', 0);
