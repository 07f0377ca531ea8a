-- Audit journals that are kept in the database itself (`audit.store = "postgres"`), for replicas without a volume.

CREATE TABLE audit_journals (
    chain_id UUID   NOT NULL PRIMARY KEY,
    -- Raised by each server that takes the chain: what one before it still wants to add is refused.
    epoch    BIGINT NOT NULL,
    -- Whose it was last, for people.
    holder   TEXT   NOT NULL,
    taken_at BIGINT NOT NULL
);

-- Runs of bytes of segments, until the index has the lines. A run may begin where another one does that ended earlier.
CREATE TABLE audit_journal_runs (
    chain_id      UUID   NOT NULL REFERENCES audit_journals (chain_id),
    segment       BIGINT NOT NULL,
    segment_start BIGINT NOT NULL,
    segment_end   BIGINT NOT NULL,
    lines         BYTEA  NOT NULL,
    PRIMARY KEY (chain_id, segment, segment_start)
);
ALTER TABLE audit_journal_runs ALTER COLUMN lines SET STORAGE EXTERNAL;

-- How far targets of shipping are: the files `ship-TARGET.json`.
CREATE TABLE audit_journal_targets (
    chain_id UUID  NOT NULL REFERENCES audit_journals (chain_id),
    target   TEXT  NOT NULL,
    state    TEXT  NOT NULL,
    PRIMARY KEY (chain_id, target)
);

-- As before, and what a journal that is kept here has in the index is its only copy: it stays.
CREATE OR REPLACE FUNCTION audit_month_kept(own TEXT, cutoff BIGINT) RETURNS BIGINT LANGUAGE plpgsql STABLE AS
$$
DECLARE
    kept BIGINT;
BEGIN
    EXECUTE format(
        'WITH living AS (SELECT DISTINCT chain_id FROM audit_chunks WHERE last_time >= $1)
         SELECT count(*) FROM %I one LEFT JOIN audit_floors floor USING (chain_id)
         WHERE one.last_time >= $1 OR one.chain_id IN (SELECT chain_id FROM audit_journals)
             OR (one.last_seq > coalesce(floor.last_seq, 0) AND one.chain_id IN (SELECT chain_id FROM living))',
        own) INTO kept USING cutoff;
    RETURN kept;
END
$$;
