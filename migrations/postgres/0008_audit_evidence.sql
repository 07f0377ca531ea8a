-- Signed checkpoints of the audit chains, and the Merkle trees that they are about. Migrations are append-only.

CREATE TABLE audit_checkpoints (
    chain_id       UUID   NOT NULL,
    -- The last line that it covers.
    last_seq       BIGINT NOT NULL,
    cause          TEXT   NOT NULL,
    -- Where the next line begins.
    segment        BIGINT NOT NULL,
    segment_offset BIGINT NOT NULL,
    -- As signed.
    note           TEXT   NOT NULL,
    -- Right edge of the tree: hashes of 32 bytes, one behind the other.
    peaks          BYTEA  NOT NULL,
    PRIMARY KEY (chain_id, last_seq)
);

-- Up to 256 hashes each: level 0 holds leaves, level 1 the roots of 256 leaves, and so on.
CREATE TABLE audit_tree (
    chain_id UUID   NOT NULL,
    level    BIGINT NOT NULL,
    tile     BIGINT NOT NULL,
    hashes   BYTEA  NOT NULL,
    PRIMARY KEY (chain_id, level, tile)
);
-- Hashes cannot be compressed.
ALTER TABLE audit_tree ALTER COLUMN hashes SET STORAGE EXTERNAL;
