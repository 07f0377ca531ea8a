-- The audit index by chunks: a row for some thousand lines of the journal instead of one for each record.
--
-- What was indexed before is an index only: its records are dropped, and the journal is indexed again from its start at
-- the next run of the server. Nothing is lost. The heads in audit_chains stay, so that a journal which was cut off in the
-- meantime still shows.
DROP TABLE audit_records;
DROP TABLE audit_lots;

-- How far each journal is indexed; written in one transaction with the chunks, which makes it exactly once.
CREATE TABLE audit_positions (
    chain_id       TEXT    NOT NULL PRIMARY KEY CHECK (length(chain_id) = 36),
    segment        INTEGER NOT NULL,
    segment_offset INTEGER NOT NULL,
    head_seq       INTEGER NOT NULL,
    head_hash      TEXT    NOT NULL CHECK (length(head_hash) = 64)
) STRICT, WITHOUT ROWID;

-- Runs of lines of one segment. The lines themselves stay in the journal, which is on the same machine.
CREATE TABLE audit_chunks (
    chunk         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    chain_id      TEXT    NOT NULL,
    segment       INTEGER NOT NULL,
    -- Bytes of the segment.
    segment_start INTEGER NOT NULL,
    segment_end   INTEGER NOT NULL,
    first_seq     INTEGER NOT NULL,
    last_seq      INTEGER NOT NULL,
    -- Of the records opened in it; an empty range where none is.
    first_time    INTEGER NOT NULL,
    last_time     INTEGER NOT NULL,
    records       INTEGER NOT NULL,
    -- Of its final size: it is merged with no other.
    sealed        INTEGER NOT NULL CHECK (sealed IN (0, 1)),
    -- The words that its records can be asked by.
    terms         BLOB    NOT NULL
) STRICT;
CREATE UNIQUE INDEX audit_chunks_in_chain ON audit_chunks (chain_id, first_seq);
CREATE INDEX audit_chunks_by_time ON audit_chunks (last_time);
CREATE INDEX audit_chunks_open ON audit_chunks (chain_id, first_seq) WHERE NOT sealed;
