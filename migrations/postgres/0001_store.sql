-- Partners, tenants, users, links, and the change feed behind them. Migrations are append-only: never edit this file.
--
-- Times are milliseconds since the Unix epoch, UTC: the unit in which decisions compare (contract, section 5).
-- Money and percentages are whole hundredths. Tenant ids are compared byte for byte.

CREATE TABLE tenants (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY CHECK (char_length(id) BETWEEN 1 AND 255),
    name       TEXT NOT NULL CHECK (char_length(name) BETWEEN 1 AND 255),
    slug       TEXT CHECK (char_length(slug) BETWEEN 1 AND 255),
    domain     TEXT CHECK (char_length(domain) BETWEEN 1 AND 255),
    status     TEXT NOT NULL CHECK (char_length(status) BETWEEN 1 AND 32),
    version    BIGINT NOT NULL DEFAULT 1 CHECK (version >= 1),
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    updated_by TEXT NOT NULL
);

CREATE TABLE partners (
    id             UUID NOT NULL PRIMARY KEY,
    name           TEXT NOT NULL CHECK (char_length(name) BETWEEN 1 AND 255),
    home_tenant_id TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    is_active      BOOLEAN NOT NULL,
    version        BIGINT NOT NULL DEFAULT 1 CHECK (version >= 1),
    created_at     BIGINT NOT NULL,
    updated_at     BIGINT NOT NULL,
    created_by     TEXT NOT NULL,
    updated_by     TEXT NOT NULL,
    UNIQUE (id, home_tenant_id)
);

CREATE TABLE partner_users (
    id         UUID NOT NULL PRIMARY KEY,
    -- Empty: the legacy issuer without `iss`.
    issuer     TEXT NOT NULL CHECK (char_length(issuer) <= 512),
    sub        TEXT NOT NULL CHECK (char_length(sub) BETWEEN 1 AND 255),
    partner_id UUID NOT NULL REFERENCES partners (id),
    username   TEXT CHECK (char_length(username) <= 255),
    is_active  BOOLEAN NOT NULL,
    version    BIGINT NOT NULL DEFAULT 1 CHECK (version >= 1),
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    updated_by TEXT NOT NULL,
    CONSTRAINT one_user_per_subject UNIQUE (issuer, sub)
);
CREATE INDEX partner_users_by_partner ON partner_users (partner_id);

CREATE TABLE partner_tenant_links (
    id                          UUID NOT NULL PRIMARY KEY,
    partner_id                  UUID NOT NULL,
    managed_tenant_id           TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    -- Copied here so that a constraint can hold it apart from the managed tenant.
    partner_tenant_id           TEXT COLLATE "C" NOT NULL,
    access_role                 TEXT NOT NULL CHECK (access_role IN ('msp_full', 'msp_billing', 'msp_support', 'enterprise_hq', 'auditor', 'reseller', 'delegate')),
    custom_permissions          JSONB NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(custom_permissions) = 'object'),
    relationship_type           TEXT NOT NULL CHECK (relationship_type IN ('msp_managed', 'enterprise_subsidiary', 'reseller_channel', 'audit_only')),
    start_date                  BIGINT NOT NULL,
    end_date                    BIGINT,
    is_active                   BOOLEAN NOT NULL,
    notify_on_sla_breach        BOOLEAN NOT NULL,
    notify_on_billing_threshold BOOLEAN NOT NULL,
    billing_alert_threshold     BIGINT CHECK (billing_alert_threshold BETWEEN 0 AND 999999999999999),
    sla_response_hours          BIGINT CHECK (sla_response_hours BETWEEN 0 AND 8784),
    sla_uptime_target           BIGINT CHECK (sla_uptime_target BETWEEN 0 AND 10000),
    notes                       TEXT CHECK (char_length(notes) <= 10000),
    metadata                    JSONB NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    approval                    TEXT NOT NULL CHECK (approval IN ('pending', 'approved', 'rejected')),
    allowed_cidrs               JSONB NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(allowed_cidrs) = 'array'),
    require_mfa                 BOOLEAN NOT NULL,
    parent_link_id              UUID REFERENCES partner_tenant_links (id),
    version                     BIGINT NOT NULL DEFAULT 1 CHECK (version >= 1),
    created_at                  BIGINT NOT NULL,
    updated_at                  BIGINT NOT NULL,
    created_by                  TEXT NOT NULL,
    updated_by                  TEXT NOT NULL,
    FOREIGN KEY (partner_id, partner_tenant_id) REFERENCES partners (id, home_tenant_id) ON UPDATE CASCADE,
    CONSTRAINT one_link_per_pair UNIQUE (partner_id, managed_tenant_id),
    CONSTRAINT own_tenant_is_never_managed CHECK (partner_tenant_id <> managed_tenant_id),
    CONSTRAINT ends_after_it_starts CHECK (end_date IS NULL OR end_date >= start_date),
    CONSTRAINT delegated_links_are_delegates CHECK (parent_link_id IS NULL OR access_role = 'delegate'),
    CONSTRAINT no_link_is_its_own_parent CHECK (parent_link_id IS NULL OR parent_link_id <> id)
);
CREATE INDEX links_by_tenant ON partner_tenant_links (managed_tenant_id);
CREATE INDEX links_by_parent ON partner_tenant_links (parent_link_id) WHERE parent_link_id IS NOT NULL;
CREATE UNIQUE INDEX one_full_role_per_tenant ON partner_tenant_links (managed_tenant_id)
    WHERE is_active AND access_role IN ('msp_full', 'enterprise_hq');

-- Rows are never deleted, and no change goes without its version.
CREATE FUNCTION refuse_write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING MESSAGE = TG_ARGV[0], ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER links_are_never_deleted BEFORE DELETE ON partner_tenant_links
    FOR EACH ROW EXECUTE FUNCTION refuse_write('links are never deleted: revoke instead');
CREATE TRIGGER links_are_never_truncated BEFORE TRUNCATE ON partner_tenant_links
    EXECUTE FUNCTION refuse_write('links are never deleted: revoke instead');
CREATE TRIGGER links_change_with_their_version BEFORE UPDATE ON partner_tenant_links
    FOR EACH ROW WHEN (NEW.version <> OLD.version + 1)
    EXECUTE FUNCTION refuse_write('a change of a link raises its version by one');

CREATE TABLE link_history (
    link_id      UUID NOT NULL REFERENCES partner_tenant_links (id),
    version      BIGINT NOT NULL,
    seq          BIGINT NOT NULL,
    change       TEXT NOT NULL CHECK (change IN ('created', 'updated', 'reactivated', 'revoked', 'superseded', 'parent_changed')),
    changed_at   BIGINT NOT NULL,
    changed_by   TEXT NOT NULL,
    before_state JSONB,
    after_state  JSONB NOT NULL,
    PRIMARY KEY (link_id, version)
);
CREATE TRIGGER history_is_never_deleted BEFORE DELETE ON link_history
    FOR EACH ROW EXECUTE FUNCTION refuse_write('history is never deleted');
CREATE TRIGGER history_is_never_truncated BEFORE TRUNCATE ON link_history
    EXECUTE FUNCTION refuse_write('history is never deleted');
CREATE TRIGGER history_is_never_changed BEFORE UPDATE ON link_history
    FOR EACH ROW EXECUTE FUNCTION refuse_write('history is never changed');

-- Raised first thing in every changing transaction, so that changes commit in the order of their numbers.
CREATE TABLE change_counter (
    id  BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    seq BIGINT NOT NULL
);
INSERT INTO change_counter (id, seq) VALUES (1, 0);

-- At least one row for each number; old rows are pruned, and a reader that meets a gap reloads everything.
CREATE TABLE change_log (
    seq        BIGINT NOT NULL,
    kind       TEXT NOT NULL CHECK (kind IN ('partner', 'member', 'suspension', 'all', 'none')),
    partner_id UUID,
    issuer     TEXT,
    sub        TEXT,
    at         BIGINT NOT NULL,
    CHECK (kind <> 'partner' OR partner_id IS NOT NULL),
    CHECK (kind <> 'member' OR (issuer IS NOT NULL AND sub IS NOT NULL))
);
CREATE INDEX change_log_by_seq ON change_log (seq);

-- The emergency overlay: covers what it names until it is lifted, and never touches the rows it covers.
CREATE TABLE suspensions (
    id        UUID NOT NULL PRIMARY KEY,
    scope     TEXT NOT NULL CHECK (scope IN ('user', 'session', 'jti', 'partner', 'tenant', 'link', 'all')),
    -- Only for users: the issuer that `subject` belongs to; null: of any issuer.
    issuer    TEXT,
    subject   TEXT NOT NULL CHECK (char_length(subject) <= 512),
    reason    TEXT NOT NULL,
    by_actor  TEXT NOT NULL,
    at        BIGINT NOT NULL,
    lifted_at BIGINT,
    lifted_by TEXT,
    CHECK (issuer IS NULL OR scope = 'user'),
    CHECK ((scope = 'all') = (subject = '')),
    CHECK ((lifted_at IS NULL) = (lifted_by IS NULL))
);
CREATE UNIQUE INDEX one_suspension_at_a_time ON suspensions (scope, subject, coalesce(issuer, E'\x01')) WHERE lifted_at IS NULL;

-- Changes on their way into an audit chain: written with the change, chained by a server exactly once.
CREATE TABLE audit_outbox (
    -- Given out under the lock of the change counter, so in the order of commits.
    seq        BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id         UUID NOT NULL UNIQUE,
    change_seq BIGINT NOT NULL,
    at         BIGINT NOT NULL,
    body       JSONB NOT NULL,
    claimed_by TEXT,
    chained_at BIGINT,
    CHECK (chained_at IS NULL OR claimed_by IS NOT NULL)
);
CREATE INDEX outbox_unclaimed ON audit_outbox (seq) WHERE claimed_by IS NULL;
CREATE INDEX outbox_unchained ON audit_outbox (claimed_by, seq) WHERE claimed_by IS NOT NULL AND chained_at IS NULL;
