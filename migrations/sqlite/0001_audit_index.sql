-- The audit index, in a file of its own: an index of the journal, which is the truth. Migrations are append-only.

-- How far each journal is indexed; written in one transaction with the records, which makes it exactly once.
CREATE TABLE audit_chains (
    chain_id       TEXT    NOT NULL PRIMARY KEY CHECK (length(chain_id) = 36),
    segment        INTEGER NOT NULL,
    segment_offset INTEGER NOT NULL,
    head_seq       INTEGER NOT NULL,
    head_hash      TEXT    NOT NULL CHECK (length(head_hash) = 64)
) STRICT, WITHOUT ROWID;

-- The columns are what is asked for; the record itself is `body`.
CREATE TABLE audit_records (
    n                 INTEGER NOT NULL PRIMARY KEY,
    id                TEXT    NOT NULL CHECK (length(id) = 36),
    time              INTEGER NOT NULL,
    kind              TEXT    NOT NULL,
    partner_id        TEXT,
    user_id           TEXT,
    managed_tenant_id TEXT,
    action            TEXT,
    decision          TEXT    NOT NULL,
    request_id        TEXT,
    body              TEXT    NOT NULL
) STRICT;
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
    managed_tenant_id TEXT    NOT NULL,
    record_n          INTEGER NOT NULL REFERENCES audit_records (n),
    PRIMARY KEY (managed_tenant_id, record_n)
) STRICT, WITHOUT ROWID;
