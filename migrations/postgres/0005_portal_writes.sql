-- Writes that are repeated safely, and exports made in the background. Migrations are append-only: never edit this file.
--
-- Times are milliseconds since the Unix epoch, UTC. Digests are raw bytes.

-- One row a claimed `Idempotency-Key`. The scope is a digest over partner, issuer, user, tenant, route and key.
CREATE TABLE idempotency_keys (
    scope        BYTEA NOT NULL PRIMARY KEY CHECK (octet_length(scope) = 32),
    -- Over what was asked: another question under the same key is refused.
    request_hash BYTEA NOT NULL CHECK (octet_length(request_hash) = 32),
    -- Who holds the claim: only they may settle or free it.
    claim        UUID NOT NULL,
    -- `running` is also what a crash leaves behind: then nobody knows what became of it.
    state        TEXT NOT NULL CHECK (state IN ('running', 'unknown', 'done')),
    tenant_id    TEXT,
    status       BIGINT,
    -- As it was sent, byte for byte.
    answer       TEXT,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    CHECK ((state = 'done') = (status IS NOT NULL AND answer IS NOT NULL))
);
CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at);

-- One row an export. A job is worked on by whoever holds its lease.
CREATE TABLE export_jobs (
    id           UUID NOT NULL PRIMARY KEY,
    partner_id   UUID NOT NULL,
    issuer       TEXT NOT NULL,
    sub          TEXT NOT NULL,
    -- What to write, for which tenants, with whose rights.
    request      JSONB NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('queued', 'running', 'completed', 'failed', 'expired')),
    attempts     BIGINT NOT NULL DEFAULT 0,
    lease        UUID,
    lease_until  BIGINT,
    row_count    BIGINT NOT NULL DEFAULT 0,
    file_name    TEXT,
    file_size    BIGINT,
    error        TEXT,
    created_at   BIGINT NOT NULL,
    completed_at BIGINT,
    expires_at   BIGINT NOT NULL,
    CHECK ((state = 'running') = (lease IS NOT NULL AND lease_until IS NOT NULL)),
    CHECK (state <> 'completed' OR (file_name IS NOT NULL AND file_size IS NOT NULL AND completed_at IS NOT NULL)),
    CHECK (state <> 'failed' OR error IS NOT NULL)
);
CREATE INDEX export_jobs_waiting ON export_jobs (created_at) WHERE state IN ('queued', 'running');
CREATE INDEX export_jobs_by_expiry ON export_jobs (expires_at);
