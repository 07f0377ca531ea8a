-- Partners, tenants, users, links, and the change feed behind them. Migrations are append-only: never edit this file.
--
-- Times are milliseconds since the Unix epoch, UTC: the unit in which decisions compare (contract, section 5).
-- Money and percentages are whole hundredths. Uuids are hyphenated text. JSON is text.

CREATE TABLE tenants (
    id         TEXT    NOT NULL PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 255),
    name       TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
    slug       TEXT             CHECK (length(slug) BETWEEN 1 AND 255),
    domain     TEXT             CHECK (length(domain) BETWEEN 1 AND 255),
    status     TEXT    NOT NULL CHECK (length(status) BETWEEN 1 AND 32),
    version    INTEGER NOT NULL DEFAULT 1 CHECK (version >= 1),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    created_by TEXT    NOT NULL,
    updated_by TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE partners (
    id             TEXT    NOT NULL PRIMARY KEY CHECK (length(id) = 36),
    name           TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
    home_tenant_id TEXT    NOT NULL REFERENCES tenants (id),
    is_active      INTEGER NOT NULL CHECK (is_active IN (0, 1)),
    version        INTEGER NOT NULL DEFAULT 1 CHECK (version >= 1),
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL,
    created_by     TEXT    NOT NULL,
    updated_by     TEXT    NOT NULL,
    UNIQUE (id, home_tenant_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE partner_users (
    id         TEXT    NOT NULL PRIMARY KEY CHECK (length(id) = 36),
    -- Empty: the legacy issuer without `iss`.
    issuer     TEXT    NOT NULL CHECK (length(issuer) <= 512),
    sub        TEXT    NOT NULL CHECK (length(sub) BETWEEN 1 AND 255),
    partner_id TEXT    NOT NULL REFERENCES partners (id),
    username   TEXT             CHECK (length(username) <= 255),
    is_active  INTEGER NOT NULL CHECK (is_active IN (0, 1)),
    version    INTEGER NOT NULL DEFAULT 1 CHECK (version >= 1),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    created_by TEXT    NOT NULL,
    updated_by TEXT    NOT NULL,
    CONSTRAINT one_user_per_subject UNIQUE (issuer, sub)
) STRICT;
CREATE INDEX partner_users_by_partner ON partner_users (partner_id);

CREATE TABLE partner_tenant_links (
    id                          TEXT    NOT NULL PRIMARY KEY CHECK (length(id) = 36),
    partner_id                  TEXT    NOT NULL,
    managed_tenant_id           TEXT    NOT NULL REFERENCES tenants (id),
    -- Copied here so that a constraint can hold it apart from the managed tenant.
    partner_tenant_id           TEXT    NOT NULL,
    access_role                 TEXT    NOT NULL CHECK (access_role IN ('msp_full', 'msp_billing', 'msp_support', 'enterprise_hq', 'auditor', 'reseller', 'delegate')),
    custom_permissions          TEXT    NOT NULL DEFAULT '{}' CHECK (json_type(custom_permissions) = 'object'),
    relationship_type           TEXT    NOT NULL CHECK (relationship_type IN ('msp_managed', 'enterprise_subsidiary', 'reseller_channel', 'audit_only')),
    start_date                  INTEGER NOT NULL,
    end_date                    INTEGER,
    is_active                   INTEGER NOT NULL CHECK (is_active IN (0, 1)),
    notify_on_sla_breach        INTEGER NOT NULL CHECK (notify_on_sla_breach IN (0, 1)),
    notify_on_billing_threshold INTEGER NOT NULL CHECK (notify_on_billing_threshold IN (0, 1)),
    billing_alert_threshold     INTEGER          CHECK (billing_alert_threshold BETWEEN 0 AND 999999999999999),
    sla_response_hours          INTEGER          CHECK (sla_response_hours BETWEEN 0 AND 8784),
    sla_uptime_target           INTEGER          CHECK (sla_uptime_target BETWEEN 0 AND 10000),
    notes                       TEXT             CHECK (length(notes) <= 10000),
    metadata                    TEXT    NOT NULL DEFAULT '{}' CHECK (json_type(metadata) = 'object'),
    approval                    TEXT    NOT NULL CHECK (approval IN ('pending', 'approved', 'rejected')),
    allowed_cidrs               TEXT    NOT NULL DEFAULT '[]' CHECK (json_type(allowed_cidrs) = 'array'),
    require_mfa                 INTEGER NOT NULL CHECK (require_mfa IN (0, 1)),
    parent_link_id              TEXT             REFERENCES partner_tenant_links (id),
    version                     INTEGER NOT NULL DEFAULT 1 CHECK (version >= 1),
    created_at                  INTEGER NOT NULL,
    updated_at                  INTEGER NOT NULL,
    created_by                  TEXT    NOT NULL,
    updated_by                  TEXT    NOT NULL,
    FOREIGN KEY (partner_id, partner_tenant_id) REFERENCES partners (id, home_tenant_id) ON UPDATE CASCADE,
    CONSTRAINT one_link_per_pair UNIQUE (partner_id, managed_tenant_id),
    CONSTRAINT own_tenant_is_never_managed CHECK (partner_tenant_id <> managed_tenant_id),
    CONSTRAINT ends_after_it_starts CHECK (end_date IS NULL OR end_date >= start_date),
    CONSTRAINT delegated_links_are_delegates CHECK (parent_link_id IS NULL OR access_role = 'delegate'),
    CONSTRAINT no_link_is_its_own_parent CHECK (parent_link_id IS NULL OR parent_link_id <> id)
) STRICT;
CREATE INDEX links_by_tenant ON partner_tenant_links (managed_tenant_id);
CREATE INDEX links_by_parent ON partner_tenant_links (parent_link_id) WHERE parent_link_id IS NOT NULL;
CREATE UNIQUE INDEX one_full_role_per_tenant ON partner_tenant_links (managed_tenant_id)
    WHERE is_active = 1 AND access_role IN ('msp_full', 'enterprise_hq');

-- Rows are never deleted, and no change goes without its version.
CREATE TRIGGER links_are_never_deleted BEFORE DELETE ON partner_tenant_links
BEGIN
    SELECT RAISE(ABORT, 'links are never deleted: revoke instead');
END;
CREATE TRIGGER links_change_with_their_version BEFORE UPDATE ON partner_tenant_links
WHEN NEW.version <> OLD.version + 1
BEGIN
    SELECT RAISE(ABORT, 'a change of a link raises its version by one');
END;

CREATE TABLE link_history (
    link_id      TEXT    NOT NULL REFERENCES partner_tenant_links (id),
    version      INTEGER NOT NULL,
    seq          INTEGER NOT NULL,
    change       TEXT    NOT NULL CHECK (change IN ('created', 'updated', 'reactivated', 'revoked', 'superseded', 'parent_changed')),
    changed_at   INTEGER NOT NULL,
    changed_by   TEXT    NOT NULL,
    before_state TEXT             CHECK (json_valid(before_state)),
    after_state  TEXT    NOT NULL CHECK (json_valid(after_state)),
    PRIMARY KEY (link_id, version)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER history_is_never_deleted BEFORE DELETE ON link_history
BEGIN
    SELECT RAISE(ABORT, 'history is never deleted');
END;
CREATE TRIGGER history_is_never_changed BEFORE UPDATE ON link_history
BEGIN
    SELECT RAISE(ABORT, 'history is never changed');
END;

-- Raised first thing in every changing transaction, so that changes commit in the order of their numbers.
CREATE TABLE change_counter (
    id  INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    seq INTEGER NOT NULL
) STRICT;
INSERT INTO change_counter (id, seq) VALUES (1, 0);

-- At least one row for each number; old rows are pruned, and a reader that meets a gap reloads everything.
CREATE TABLE change_log (
    seq        INTEGER NOT NULL,
    kind       TEXT    NOT NULL CHECK (kind IN ('partner', 'member', 'suspension', 'all', 'none')),
    partner_id TEXT,
    issuer     TEXT,
    sub        TEXT,
    at         INTEGER NOT NULL,
    CHECK (kind <> 'partner' OR partner_id IS NOT NULL),
    CHECK (kind <> 'member' OR (issuer IS NOT NULL AND sub IS NOT NULL))
) STRICT;
CREATE INDEX change_log_by_seq ON change_log (seq);

-- The emergency overlay: covers what it names until it is lifted, and never touches the rows it covers.
CREATE TABLE suspensions (
    id        TEXT    NOT NULL PRIMARY KEY CHECK (length(id) = 36),
    scope     TEXT    NOT NULL CHECK (scope IN ('user', 'session', 'jti', 'partner', 'tenant', 'link', 'all')),
    -- Only for users: the issuer that `subject` belongs to; null: of any issuer.
    issuer    TEXT,
    subject   TEXT    NOT NULL CHECK (length(subject) <= 512),
    reason    TEXT    NOT NULL,
    by_actor  TEXT    NOT NULL,
    at        INTEGER NOT NULL,
    lifted_at INTEGER,
    lifted_by TEXT,
    CHECK (issuer IS NULL OR scope = 'user'),
    CHECK ((scope = 'all') = (subject = '')),
    CHECK ((lifted_at IS NULL) = (lifted_by IS NULL))
) STRICT;
CREATE UNIQUE INDEX one_suspension_at_a_time ON suspensions (scope, subject, ifnull(issuer, char(0))) WHERE lifted_at IS NULL;

-- Changes on their way into an audit chain: written with the change, chained by a server exactly once.
CREATE TABLE audit_outbox (
    -- Given out under the lock of the change counter, so in the order of commits.
    seq        INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id         TEXT    NOT NULL UNIQUE CHECK (length(id) = 36),
    change_seq INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    body       TEXT    NOT NULL CHECK (json_valid(body)),
    claimed_by TEXT,
    chained_at INTEGER,
    CHECK (chained_at IS NULL OR claimed_by IS NOT NULL)
) STRICT;
CREATE INDEX outbox_unclaimed ON audit_outbox (seq) WHERE claimed_by IS NULL;
CREATE INDEX outbox_unchained ON audit_outbox (claimed_by, seq) WHERE claimed_by IS NOT NULL AND chained_at IS NULL;
