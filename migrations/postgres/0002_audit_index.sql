-- The audit index: an index of the journal, which is the truth. Migrations are append-only.

-- How far each journal is indexed; written in one transaction with the records, which makes it exactly once.
CREATE TABLE audit_chains (
    chain_id       UUID NOT NULL PRIMARY KEY,
    segment        BIGINT NOT NULL,
    segment_offset BIGINT NOT NULL,
    head_seq       BIGINT NOT NULL,
    head_hash      TEXT NOT NULL CHECK (char_length(head_hash) = 64)
);

-- The columns are what is asked for; the record itself is `body`.
CREATE TABLE audit_records (
    n                 BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id                UUID NOT NULL,
    time              BIGINT NOT NULL,
    kind              TEXT NOT NULL,
    partner_id        UUID,
    user_id           TEXT,
    managed_tenant_id TEXT COLLATE "C",
    action            TEXT,
    decision          TEXT NOT NULL,
    request_id        TEXT,
    body              TEXT NOT NULL
);
CREATE UNIQUE INDEX audit_by_id ON audit_records (id);
CREATE INDEX audit_by_time ON audit_records (time);
CREATE INDEX audit_by_partner ON audit_records (partner_id, time) WHERE partner_id IS NOT NULL;
CREATE INDEX audit_by_tenant ON audit_records (managed_tenant_id, time) WHERE managed_tenant_id IS NOT NULL;
CREATE INDEX audit_by_user ON audit_records (user_id, time) WHERE user_id IS NOT NULL;
CREATE INDEX audit_by_request ON audit_records (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX audit_denials ON audit_records (time) WHERE decision = 'deny';
CREATE INDEX audit_changes ON audit_records (time) WHERE kind <> 'access';

-- The tenants of consolidated requests.
CREATE TABLE audit_slices (
    managed_tenant_id TEXT COLLATE "C" NOT NULL,
    record_n          BIGINT NOT NULL REFERENCES audit_records (n),
    PRIMARY KEY (managed_tenant_id, record_n)
);
