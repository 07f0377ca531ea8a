-- Retention of journals that are kept in the database, and of the index of replicas that are idle.

-- The last line that its last server wrote, once somebody has closed the journal of a server that is gone: when all up to
-- there was given up, the journal goes as a whole. Whoever takes the chain takes this back.
ALTER TABLE audit_journals ADD COLUMN ended_seq BIGINT NULL;
-- Why the journal cannot be gone on with: nobody takes it, and nothing of it goes, until this is taken back.
ALTER TABLE audit_journals ADD COLUMN fault TEXT NULL;

-- The last segment that was given up. `set_at` is when the chain's server was heard of last: each notes it every hour.
ALTER TABLE audit_floors ADD COLUMN segment BIGINT NOT NULL DEFAULT 0;

-- What of a month must stay: rows with a record of `cutoff` or later, and rows that their chain has not given up. That holds
-- for chains whose server was heard of since then (or nearly), however little it wrote, and for journals that are kept here, of which
-- the index is the only copy. The server of any other is gone: nobody would ever give it up.
CREATE OR REPLACE FUNCTION audit_month_kept(own TEXT, cutoff BIGINT) RETURNS BIGINT LANGUAGE plpgsql STABLE AS
$$
DECLARE
    kept BIGINT;
BEGIN
    EXECUTE format(
        'WITH living AS (SELECT DISTINCT chain_id FROM audit_chunks WHERE last_time >= $1
             UNION SELECT chain_id FROM audit_floors WHERE set_at >= $1 - 7200000
             UNION SELECT chain_id FROM audit_journals)
         SELECT count(*) FROM %I one LEFT JOIN audit_floors floor USING (chain_id)
         WHERE one.last_time >= $1
             OR (one.last_seq > coalesce(floor.last_seq, 0) AND one.chain_id IN (SELECT chain_id FROM living))',
        own) INTO kept USING cutoff;
    RETURN kept;
END
$$;
