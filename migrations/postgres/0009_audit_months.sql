-- The chunks of the audit index by months: retention drops a month as a whole instead of deleting its rows one by one.
--
-- The table of before becomes the first partition of a new one of its name, so a binary of the version before goes on: it
-- adds rows, to which the default gives their month, and finds those of everybody. Nothing is copied. While the lock is
-- held the rows are looked at for their month and indexed by it, without their lines, which lie elsewhere (a row stands for
-- up to 4,096 records). `linkgate migrate` waits for the lock in short tries.

ALTER TABLE audit_chunks RENAME TO audit_chunks_first;
-- A partition must not have an identity of its own.
ALTER TABLE audit_chunks_first ALTER COLUMN chunk DROP IDENTITY;
CREATE SEQUENCE audit_chunk_numbers AS BIGINT;
SELECT setval('audit_chunk_numbers', (SELECT coalesce(max(chunk), 0) + 1 FROM audit_chunks_first), false);

-- The number of a month, such as 202611.
CREATE FUNCTION audit_month_of(moment TIMESTAMPTZ) RETURNS BIGINT LANGUAGE sql STABLE AS
$$ SELECT CAST(to_char(moment AT TIME ZONE 'UTC', 'YYYYMM') AS BIGINT) $$;

-- Rows that are there get the month of now: they are older. Nothing is rewritten for it.
ALTER TABLE audit_chunks_first ADD COLUMN month BIGINT NOT NULL DEFAULT audit_month_of(now());
ALTER TABLE audit_chunks_first DROP CONSTRAINT audit_chunks_pkey;
DROP INDEX audit_chunks_in_chain;
DROP INDEX audit_chunks_by_time;
DROP INDEX audit_chunks_open;

CREATE TABLE audit_chunks (
    chunk         BIGINT  NOT NULL DEFAULT nextval('audit_chunk_numbers'),
    chain_id      UUID    NOT NULL,
    segment       BIGINT  NOT NULL,
    segment_start BIGINT  NOT NULL,
    segment_end   BIGINT  NOT NULL,
    first_seq     BIGINT  NOT NULL,
    last_seq      BIGINT  NOT NULL,
    first_time    BIGINT  NOT NULL,
    last_time     BIGINT  NOT NULL,
    records       BIGINT  NOT NULL,
    sealed        BOOLEAN NOT NULL,
    terms         BYTEA   NOT NULL,
    lines         BYTEA   NOT NULL,
    -- When it was indexed: its records are older, or as old.
    month         BIGINT  NOT NULL DEFAULT audit_month_of(now()),
    PRIMARY KEY (chunk, month)
) PARTITION BY RANGE (month);
ALTER TABLE audit_chunks ALTER COLUMN terms SET STORAGE EXTERNAL;
ALTER TABLE audit_chunks ALTER COLUMN lines SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX audit_chunks_in_chain ON audit_chunks (chain_id, first_seq, month);
CREATE INDEX audit_chunks_by_time ON audit_chunks (last_time);
CREATE INDEX audit_chunks_open ON audit_chunks (chain_id, first_seq) WHERE NOT sealed;
DO $$ BEGIN
    EXECUTE format('ALTER TABLE audit_chunks ATTACH PARTITION audit_chunks_first FOR VALUES FROM (MINVALUE) TO (%s)',
        audit_month_of(date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' + INTERVAL '32 days'));
END $$;

-- The partitions, oldest first, and the first month that each does not hold.
CREATE VIEW audit_chunk_months AS
SELECT CAST(child.relname AS TEXT) AS name,
       CAST(substring(pg_get_expr(child.relpartbound, child.oid) FROM 'TO \(''?(\d+)''?\)') AS BIGINT) AS until
FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
WHERE inhparent = 'audit_chunks'::regclass
ORDER BY 2;

-- Makes the partitions of this month and of so many behind it; tells how many were missing. Every gateway does it, time
-- and again: without the partition of its month no row can be added.
CREATE FUNCTION audit_months_make(ahead BIGINT) RETURNS BIGINT LANGUAGE plpgsql AS
$$
DECLARE
    begins TIMESTAMP;
    own BIGINT;
    made BIGINT := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('linkgate audit months'));
    FOR n IN 0..least(ahead, 24) LOOP
        begins := date_trunc('month', now() AT TIME ZONE 'UTC') + n * INTERVAL '1 month';
        own := CAST(to_char(begins, 'YYYYMM') AS BIGINT);
        CONTINUE WHEN EXISTS (SELECT FROM audit_chunk_months
            WHERE name = 'audit_chunks_' || own OR (name = 'audit_chunks_first' AND until > own));
        -- Made first and attached then, for which nobody who reads or adds rows has to wait.
        EXECUTE format('CREATE TABLE audit_chunks_%s (LIKE audit_chunks INCLUDING DEFAULTS INCLUDING STORAGE)', own);
        EXECUTE format('ALTER TABLE audit_chunks ATTACH PARTITION audit_chunks_%s FOR VALUES FROM (%s) TO (%s)',
            own, own, to_char(begins + INTERVAL '1 month', 'YYYYMM'));
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;
SELECT audit_months_make(6);

-- Up to where retention has given up each chain: what lies below goes with its month.
CREATE TABLE audit_floors (
    chain_id UUID   NOT NULL PRIMARY KEY,
    last_seq BIGINT NOT NULL,
    set_at   BIGINT NOT NULL
);

-- What of a month must stay: rows with a record of `cutoff` or later, and those that their chain has not given up. A chain
-- of which nothing at all is that young belongs to a replica that is gone: nobody would ever give it up.
CREATE FUNCTION audit_month_kept(own TEXT, cutoff BIGINT) RETURNS BIGINT LANGUAGE plpgsql STABLE AS
$$
DECLARE
    kept BIGINT;
BEGIN
    EXECUTE format(
        'WITH living AS (SELECT DISTINCT chain_id FROM audit_chunks WHERE last_time >= $1)
         SELECT count(*) FROM %I one LEFT JOIN audit_floors floor USING (chain_id)
         WHERE one.last_time >= $1 OR (one.last_seq > coalesce(floor.last_seq, 0)
             AND one.chain_id IN (SELECT chain_id FROM living))',
        own) INTO kept USING cutoff;
    RETURN kept;
END
$$;

-- The database's clock, in milliseconds.
CREATE FUNCTION audit_clock() RETURNS BIGINT LANGUAGE sql STABLE AS
    'SELECT CAST(extract(epoch FROM now()) * 1000 AS BIGINT)';

-- Drops a month that was over at `cutoff` and of which nothing must stay; tells whether it is gone.
CREATE FUNCTION audit_month_drop(own TEXT, cutoff BIGINT) RETURNS BOOLEAN LANGUAGE plpgsql AS
$$
BEGIN
    -- By the clock of the database too: one gateway whose clock is ahead must not take everybody's records away.
    IF cutoff > audit_clock() - 3600000 OR NOT EXISTS (SELECT FROM audit_chunk_months
        WHERE name = own AND until <= audit_month_of(to_timestamp(cutoff / 1000.0))) THEN
        RETURN false;
    END IF;
    EXECUTE format('LOCK TABLE ONLY audit_chunks, %I IN ACCESS EXCLUSIVE MODE', own);
    IF audit_month_kept(own, cutoff) > 0 THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP TABLE %I', own);
    RETURN true;
END
$$;
