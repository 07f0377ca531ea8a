-- Writes that are repeated safely, and exports made in the background. Migrations are append-only: never edit this file.
--
-- Times are milliseconds since the Unix epoch, UTC. Uuids are hyphenated text. JSON is text.

-- One row a claimed `Idempotency-Key`. The scope is a digest over partner, issuer, user, tenant, route and key.
CREATE TABLE idempotency_keys (
    scope        BLOB    NOT NULL PRIMARY KEY CHECK (length(scope) = 32),
    -- Over what was asked: another question under the same key is refused.
    request_hash BLOB    NOT NULL CHECK (length(request_hash) = 32),
    -- Who holds the claim: only they may settle or free it.
    claim        TEXT    NOT NULL CHECK (length(claim) = 36),
    -- `running` is also what a crash leaves behind: then nobody knows what became of it.
    state        TEXT    NOT NULL CHECK (state IN ('running', 'unknown', 'done')),
    tenant_id    TEXT,
    status       INTEGER,
    -- As it was sent, byte for byte.
    answer       TEXT,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    CHECK ((state = 'done') = (status IS NOT NULL AND answer IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at);

-- One row an export. A job is worked on by whoever holds its lease.
CREATE TABLE export_jobs (
    id           TEXT    NOT NULL PRIMARY KEY CHECK (length(id) = 36),
    partner_id   TEXT    NOT NULL,
    issuer       TEXT    NOT NULL,
    sub          TEXT    NOT NULL,
    -- What to write, for which tenants, with whose rights.
    request      TEXT    NOT NULL CHECK (json_type(request) = 'object'),
    state        TEXT    NOT NULL CHECK (state IN ('queued', 'running', 'completed', 'failed', 'expired')),
    attempts     INTEGER NOT NULL DEFAULT 0,
    lease        TEXT             CHECK (length(lease) = 36),
    lease_until  INTEGER,
    row_count    INTEGER NOT NULL DEFAULT 0,
    file_name    TEXT,
    file_size    INTEGER,
    error        TEXT,
    created_at   INTEGER NOT NULL,
    completed_at INTEGER,
    expires_at   INTEGER NOT NULL,
    CHECK ((state = 'running') = (lease IS NOT NULL AND lease_until IS NOT NULL)),
    CHECK (state <> 'completed' OR (file_name IS NOT NULL AND file_size IS NOT NULL AND completed_at IS NOT NULL)),
    CHECK (state <> 'failed' OR error IS NOT NULL)
) STRICT, WITHOUT ROWID;
CREATE INDEX export_jobs_waiting ON export_jobs (created_at) WHERE state IN ('queued', 'running');
CREATE INDEX export_jobs_by_expiry ON export_jobs (expires_at);
