-- The audit index: an index of the journal, which is the truth. Migrations are append-only.
--
-- Every write here is an append. Indexes over random keys (a request id, a user) would cost more than all else that a
-- request costs, so records lie in lots instead, each with a Bloom filter of what its records can be asked by.

-- How far each journal is indexed; written in one transaction with the records, which makes it exactly once.
CREATE TABLE audit_chains (
    chain_id       UUID NOT NULL PRIMARY KEY,
    segment        BIGINT NOT NULL,
    segment_offset BIGINT NOT NULL,
    head_seq       BIGINT NOT NULL,
    head_hash      TEXT NOT NULL CHECK (char_length(head_hash) = 64),
    -- The lot that is being filled.
    open_lot       BIGINT
);

CREATE TABLE audit_lots (
    lot        BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chain_id   UUID NOT NULL,
    records    BIGINT NOT NULL,
    first_time BIGINT NOT NULL,
    last_time  BIGINT NOT NULL,
    terms      BYTEA NOT NULL
);
CREATE INDEX audit_lots_by_time ON audit_lots (last_time);

-- The columns are what is asked for; the record itself is `body`.
CREATE TABLE audit_records (
    -- lot * 65536 + place in it.
    n                 BIGINT NOT NULL PRIMARY KEY,
    -- A UUIDv7, so that its index grows at its end.
    id                UUID NOT NULL,
    time              BIGINT NOT NULL,
    kind              TEXT NOT NULL,
    partner_id        UUID,
    user_id           TEXT,
    managed_tenant_id TEXT COLLATE "C",
    action            TEXT,
    decision          TEXT NOT NULL,
    request_id        TEXT,
    -- The tenants of a consolidated request stand in `body`.
    has_slices        BOOLEAN NOT NULL,
    body              TEXT NOT NULL
);
CREATE UNIQUE INDEX audit_by_id ON audit_records (id);
