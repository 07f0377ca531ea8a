-- Signed checkpoints of the audit chains, and the Merkle trees that they are about. Migrations are append-only.

CREATE TABLE audit_checkpoints (
    chain_id       TEXT    NOT NULL CHECK (length(chain_id) = 36),
    -- The last line that it covers.
    last_seq       INTEGER NOT NULL,
    cause          TEXT    NOT NULL,
    -- Where the next line begins.
    segment        INTEGER NOT NULL,
    segment_offset INTEGER NOT NULL,
    -- As signed.
    note           TEXT    NOT NULL,
    -- Right edge of the tree: hashes of 32 bytes, one behind the other.
    peaks          BLOB    NOT NULL,
    PRIMARY KEY (chain_id, last_seq)
) STRICT, WITHOUT ROWID;

-- Up to 256 hashes each: level 0 holds leaves, level 1 the roots of 256 leaves, and so on.
CREATE TABLE audit_tree (
    chain_id TEXT    NOT NULL CHECK (length(chain_id) = 36),
    level    INTEGER NOT NULL,
    tile     INTEGER NOT NULL,
    hashes   BLOB    NOT NULL
) STRICT;
CREATE UNIQUE INDEX audit_tree_by_place ON audit_tree (chain_id, level, tile);
