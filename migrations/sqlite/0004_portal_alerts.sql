-- Alerts, their evaluation, and webhooks with their delivery queue. Migrations are append-only: never edit this file.
--
-- `metadata` and `data` hold money as exact JSON numbers, so they are kept as text on both databases.

-- One life each: active, acknowledged, resolved. A partner has one live alert of a key at most.
CREATE TABLE alerts (
    id              TEXT    NOT NULL PRIMARY KEY CHECK (length(id) = 36),
    partner_id      TEXT    NOT NULL,
    link_id         TEXT    NOT NULL REFERENCES partner_tenant_links (id),
    tenant_id       TEXT    NOT NULL,
    kind            TEXT    NOT NULL CHECK (kind IN ('sla', 'billing')),
    alert_type      TEXT    NOT NULL,
    severity        TEXT    NOT NULL CHECK (severity IN ('critical', 'warning', 'info')),
    title           TEXT    NOT NULL,
    message         TEXT    NOT NULL,
    dedup_key       TEXT    NOT NULL,
    -- An incident that has an id at its source: the same one never makes a second alert, live or not.
    incident        INTEGER NOT NULL CHECK (incident IN (0, 1)),
    triggered_at    INTEGER NOT NULL,
    acknowledged_at INTEGER,
    acknowledged_by TEXT,
    resolved_at     INTEGER,
    status          TEXT    NOT NULL CHECK (status IN ('active', 'acknowledged', 'resolved')),
    metadata        TEXT    NOT NULL CHECK (json_type(metadata) = 'object'),
    CHECK ((status = 'resolved') = (resolved_at IS NOT NULL)),
    CHECK (status <> 'acknowledged' OR acknowledged_at IS NOT NULL)
) STRICT;
CREATE UNIQUE INDEX one_live_alert_per_key ON alerts (partner_id, dedup_key) WHERE status <> 'resolved';
CREATE UNIQUE INDEX one_alert_per_incident ON alerts (partner_id, dedup_key) WHERE incident = 1;
CREATE INDEX alerts_by_partner ON alerts (partner_id, kind, triggered_at);
CREATE INDEX alerts_by_link ON alerts (link_id, kind, status);

-- When a link was looked at last, and who looks at it now.
CREATE TABLE alert_evaluations (
    link_id      TEXT    NOT NULL REFERENCES partner_tenant_links (id),
    kind         TEXT    NOT NULL CHECK (kind IN ('sla', 'billing')),
    partner_id   TEXT    NOT NULL,
    -- Facts older than those of this reading never overwrite what came of it.
    read_at      INTEGER,
    due_at       INTEGER NOT NULL,
    leased_until INTEGER,
    lease_owner  TEXT,
    last_error   TEXT,
    PRIMARY KEY (link_id, kind)
) STRICT, WITHOUT ROWID;
CREATE INDEX alert_evaluations_by_partner ON alert_evaluations (partner_id);
CREATE INDEX alert_evaluations_due ON alert_evaluations (due_at);

CREATE TABLE webhook_subscriptions (
    id              TEXT    NOT NULL PRIMARY KEY CHECK (length(id) = 36),
    partner_id      TEXT    NOT NULL REFERENCES partners (id),
    url             TEXT    NOT NULL CHECK (length(url) BETWEEN 1 AND 2048),
    description     TEXT             CHECK (length(description) <= 255),
    -- Event types; never empty.
    events          TEXT    NOT NULL CHECK (json_type(events) = 'array'),
    enabled         INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    secret          TEXT    NOT NULL,
    -- The secret before the last rotation signs too, until then.
    previous_secret TEXT,
    previous_until  INTEGER,
    version         INTEGER NOT NULL DEFAULT 1 CHECK (version >= 1),
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    created_by      TEXT    NOT NULL,
    updated_by      TEXT    NOT NULL,
    CHECK ((previous_secret IS NULL) = (previous_until IS NULL))
) STRICT;
CREATE INDEX webhook_subscriptions_by_partner ON webhook_subscriptions (partner_id);

-- What happened: written in the transaction in which it happened, with a delivery for each subscription.
CREATE TABLE webhook_events (
    id         TEXT    NOT NULL PRIMARY KEY CHECK (length(id) = 36),
    type       TEXT    NOT NULL,
    partner_id TEXT    NOT NULL,
    link_id    TEXT    NOT NULL,
    tenant_id  TEXT    NOT NULL,
    -- What it tells of: the tenant needs a live link when it is sent, the link itself only an active one.
    about      TEXT    NOT NULL CHECK (about IN ('tenant', 'link')),
    at         INTEGER NOT NULL,
    data       TEXT    NOT NULL CHECK (json_type(data) = 'object')
) STRICT;

CREATE TABLE webhook_deliveries (
    id              TEXT    NOT NULL PRIMARY KEY CHECK (length(id) = 36),
    event_id        TEXT    NOT NULL REFERENCES webhook_events (id),
    subscription_id TEXT    NOT NULL REFERENCES webhook_subscriptions (id) ON DELETE CASCADE,
    -- pending, delivered, dead (tried for the last time), dropped (the link was no longer live).
    status          TEXT    NOT NULL CHECK (status IN ('pending', 'delivered', 'dead', 'dropped')),
    attempts        INTEGER NOT NULL DEFAULT 0,
    next_attempt_at INTEGER NOT NULL,
    leased_until    INTEGER,
    lease_owner     TEXT,
    last_status     INTEGER,
    last_error      TEXT,
    created_at      INTEGER NOT NULL,
    finished_at     INTEGER,
    UNIQUE (event_id, subscription_id)
) STRICT;
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (next_attempt_at) WHERE status = 'pending';
CREATE INDEX webhook_deliveries_by_subscription ON webhook_deliveries (subscription_id, created_at);
CREATE INDEX webhook_deliveries_finished ON webhook_deliveries (finished_at) WHERE finished_at IS NOT NULL;

-- Which ends of links were announced, and how many days before.
CREATE TABLE link_expiry_notices (
    link_id  TEXT    NOT NULL REFERENCES partner_tenant_links (id),
    end_date INTEGER NOT NULL,
    days     INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    PRIMARY KEY (link_id, end_date, days)
) STRICT, WITHOUT ROWID;
