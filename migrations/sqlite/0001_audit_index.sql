-- The audit index, in a file of its own: an index of the journal, which is the truth. Migrations are append-only.
--
-- Every write here is an append. Indexes over random keys (a request id, a user) would cost more than all else that a
-- request costs, so records lie in lots instead, each with a Bloom filter of what its records can be asked by.

-- How far each journal is indexed; written in one transaction with the records, which makes it exactly once.
CREATE TABLE audit_chains (
    chain_id       TEXT    NOT NULL PRIMARY KEY CHECK (length(chain_id) = 36),
    segment        INTEGER NOT NULL,
    segment_offset INTEGER NOT NULL,
    head_seq       INTEGER NOT NULL,
    head_hash      TEXT    NOT NULL CHECK (length(head_hash) = 64),
    -- The lot that is being filled.
    open_lot       INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE audit_lots (
    lot        INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    chain_id   TEXT    NOT NULL,
    records    INTEGER NOT NULL,
    first_time INTEGER NOT NULL,
    last_time  INTEGER NOT NULL,
    terms      BLOB    NOT NULL
) STRICT;
CREATE INDEX audit_lots_by_time ON audit_lots (last_time);

-- The columns are what is asked for; the record itself is `body`.
CREATE TABLE audit_records (
    -- lot * 65536 + place in it.
    n                 INTEGER NOT NULL PRIMARY KEY,
    -- A UUIDv7, so that its index grows at its end.
    id                TEXT    NOT NULL CHECK (length(id) = 36),
    time              INTEGER NOT NULL,
    kind              TEXT    NOT NULL,
    partner_id        TEXT,
    user_id           TEXT,
    managed_tenant_id TEXT,
    action            TEXT,
    decision          TEXT    NOT NULL,
    request_id        TEXT,
    -- The tenants of a consolidated request stand in `body`.
    has_slices        INTEGER NOT NULL CHECK (has_slices IN (0, 1)),
    body              TEXT    NOT NULL
) STRICT;
CREATE UNIQUE INDEX audit_by_id ON audit_records (id);
