"""The tables of a state's index, in SQL."""

VERSION = 1
"""Of the schema."""

SCHEMA = """
CREATE TABLE facts (                      -- `current`, and what the first stage has fixed
    name TEXT PRIMARY KEY, value TEXT NOT NULL  -- JSON
);
CREATE TABLE classes (                    -- append-only
    number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE
);
CREATE TABLE stages (
    number INTEGER PRIMARY KEY,
    parent INTEGER,                       -- the stage that it was trained on from; NULL for the first
    state TEXT NOT NULL,                  -- training, promoted, rejected
    reason TEXT NOT NULL DEFAULT '',      -- why it ended so
    settings TEXT NOT NULL,               -- JSON
    data_sha256 TEXT NOT NULL,            -- of data/NNNN.safetensors, what arrived
    test_file TEXT NOT NULL DEFAULT '',   -- in data/; empty for the held-out fifth
    arrived INTEGER NOT NULL,             -- examples of that file
    new INTEGER NOT NULL,                 -- examples trained on that the parent was not
    seen INTEGER NOT NULL,                -- all examples trained on
    held_out INTEGER NOT NULL,            -- examples tested
    began REAL NOT NULL,                  -- seconds since 1970, for people; nothing depends on it
    ended REAL,
    classes INTEGER NOT NULL,             -- how many there were
    attempt TEXT NOT NULL DEFAULT 'first',  -- the training whose network is the stage's
    kept INTEGER NOT NULL DEFAULT 1,      -- 0: its weights have been pruned
    followed INTEGER NOT NULL DEFAULT 0   -- 1: once in service, it was exported and registered as asked
);
CREATE TABLE runs (                       -- a stage's trainings: first, slower, cold
    stage INTEGER NOT NULL, attempt TEXT NOT NULL, result TEXT NOT NULL, report TEXT NOT NULL,  -- JSON
    PRIMARY KEY (stage, attempt)
);
CREATE TABLE metrics (stage INTEGER NOT NULL, name TEXT NOT NULL, value REAL, PRIMARY KEY (stage, name));
CREATE TABLE files (                      -- of the data folder, when they were last read
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, changed INTEGER NOT NULL,
    class TEXT NOT NULL,                  -- of an image; empty for a shard
    digests BLOB NOT NULL,                -- 16 bytes for each example
    bad TEXT NOT NULL                     -- why it cannot be read; empty where it can
);
CREATE TABLE quarantine (stage INTEGER NOT NULL, path TEXT NOT NULL, reason TEXT NOT NULL);
CREATE TABLE events (stage INTEGER, kind TEXT NOT NULL, text TEXT NOT NULL, at REAL NOT NULL);
"""

LATER = """
CREATE TABLE IF NOT EXISTS withdrawn (    -- examples that are left out, and since which stage
    digest BLOB NOT NULL, stage INTEGER NOT NULL, PRIMARY KEY (digest, stage)
);
CREATE TABLE IF NOT EXISTS refused (      -- examples that were withdrawn by hand: they do not arrive again
    digest BLOB PRIMARY KEY
);
CREATE TABLE IF NOT EXISTS hooks (        -- commands that are due, oldest first, and what they are told
    command TEXT NOT NULL, stage INTEGER NOT NULL, result TEXT NOT NULL, reason TEXT NOT NULL
);
"""
"""What the first indexes of this version do not have."""
