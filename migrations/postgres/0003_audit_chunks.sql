-- The audit index by chunks: a row for some thousand lines of the journal instead of one for each record.
--
-- What was indexed before is an index only: each journal is indexed again from its start at the next run of its server.
-- Nothing is lost. The old tables stay for replicas of the previous version that still run, which fill and ask them as
-- before, and for the heads in audit_chains: a journal which was cut off in the meantime still shows. A later migration
-- drops audit_records and audit_lots; whoever has replaced all replicas may do it now.

-- How far each journal is indexed; written in one transaction with the chunks, which makes it exactly once.
CREATE TABLE audit_positions (
    chain_id       UUID   NOT NULL PRIMARY KEY,
    segment        BIGINT NOT NULL,
    segment_offset BIGINT NOT NULL,
    head_seq       BIGINT NOT NULL,
    head_hash      TEXT   NOT NULL CHECK (char_length(head_hash) = 64)
);

-- Runs of lines of one segment, with the lines: each replica has a journal of its own and answers for all of them.
CREATE TABLE audit_chunks (
    chunk         BIGINT  NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chain_id      UUID    NOT NULL,
    segment       BIGINT  NOT NULL,
    -- Bytes of the segment.
    segment_start BIGINT  NOT NULL,
    segment_end   BIGINT  NOT NULL,
    first_seq     BIGINT  NOT NULL,
    last_seq      BIGINT  NOT NULL,
    -- Of the records opened in it; an empty range where none is.
    first_time    BIGINT  NOT NULL,
    last_time     BIGINT  NOT NULL,
    records       BIGINT  NOT NULL,
    -- Of its final size: it is merged with no other.
    sealed        BOOLEAN NOT NULL,
    -- The words that its records can be asked by.
    terms         BYTEA   NOT NULL,
    lines         BYTEA   NOT NULL
);
-- Written all the time and read seldom: compressing would cost more than the room that it saves.
ALTER TABLE audit_chunks ALTER COLUMN terms SET STORAGE EXTERNAL;
ALTER TABLE audit_chunks ALTER COLUMN lines SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX audit_chunks_in_chain ON audit_chunks (chain_id, first_seq);
CREATE INDEX audit_chunks_by_time ON audit_chunks (last_time);
CREATE INDEX audit_chunks_open ON audit_chunks (chain_id, first_seq) WHERE NOT sealed;
