-- The ledger has two tables. `ballots` shows whether a ballot is in the ledger: its rows are short, and its keys are
-- random. `votes` has the votes: its rows are long, and new rows are appended. Inserting into both tables is twice as
-- fast as inserting into one table with long rows and random keys.
CREATE TABLE ballots (
    key       TEXT    NOT NULL PRIMARY KEY,
    partition INTEGER NOT NULL,
    "offset"  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- `last_duplicate` is the highest offset of a recorded duplicate of this vote.
CREATE TABLE votes (
    partition      INTEGER NOT NULL,
    "offset"       INTEGER NOT NULL,
    key            TEXT    NOT NULL,
    vote_id        BLOB    NOT NULL,
    contest        TEXT    NOT NULL,
    name           TEXT    NOT NULL,
    album          TEXT,
    year           INTEGER,
    rank           REAL,
    voter          BLOB,
    accepted_at    INTEGER NOT NULL, -- Unix milliseconds
    producer       TEXT    NOT NULL,
    last_duplicate INTEGER,
    PRIMARY KEY (partition, "offset")
) STRICT, WITHOUT ROWID;

-- Records that repeat a ballot. `key` is the ballot, and `original` is the offset of the vote that counts.
CREATE TABLE duplicates (
    partition INTEGER NOT NULL,
    "offset"  INTEGER NOT NULL,
    key       TEXT    NOT NULL,
    original  INTEGER NOT NULL,
    PRIMARY KEY (partition, "offset")
) STRICT, WITHOUT ROWID;

-- The counts of the expired votes of a partition. `kind` is band, album, producer or minute. `name` is the band, the
-- producer, or the start of the minute in Unix milliseconds. `album` is empty unless the kind is album.
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

-- `offset` is B, the first offset that is not yet in the ledger. `last_offset` and `last_vote_id` identify the last
-- vote before B. Votes below `cut_off` have expired. `youngest_expired` is the youngest age at which a vote expired.
CREATE TABLE checkpoints (
    partition        INTEGER NOT NULL PRIMARY KEY,
    "offset"         INTEGER NOT NULL,
    last_offset      INTEGER,
    last_vote_id     BLOB,
    cut_off          INTEGER NOT NULL DEFAULT 0,
    youngest_expired INTEGER -- milliseconds
) STRICT;

-- The tallies. `offset` is T, the first offset that is not yet in the tallies. `last_offset` and `last_vote_id` identify
-- a vote before T that was counted.
CREATE TABLE positions (
    partition    INTEGER NOT NULL PRIMARY KEY,
    "offset"     INTEGER NOT NULL,
    last_offset  INTEGER,
    last_vote_id BLOB
) STRICT;

-- The positions up to which the votes of a partition are, or were, counted again after the tallies lost data.
CREATE TABLE recounts (
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

CREATE TABLE producers (
    contest  TEXT    NOT NULL,
    producer TEXT    NOT NULL,
    votes    INTEGER NOT NULL,
    PRIMARY KEY (contest, producer)
) STRICT, WITHOUT ROWID;

-- Votes by window of the time of acceptance.
CREATE TABLE windows (
    size    INTEGER NOT NULL, -- milliseconds
    start   INTEGER NOT NULL, -- Unix milliseconds
    contest TEXT    NOT NULL,
    votes   INTEGER NOT NULL,
    PRIMARY KEY (size, start, contest)
) STRICT, WITHOUT ROWID;

-- `version` is the version of the tallies; each change raises it.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO meta VALUES ('version', 0);
