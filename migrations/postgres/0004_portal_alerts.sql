-- Alerts, their evaluation, and webhooks with their delivery queue. Migrations are append-only: never edit this file.
--
-- `metadata` and `data` hold money as exact JSON numbers, so they are kept as text on both databases.

-- One life each: active, acknowledged, resolved. A partner has one live alert of a key at most.
CREATE TABLE alerts (
    id              UUID    NOT NULL PRIMARY KEY,
    partner_id      UUID    NOT NULL,
    link_id         UUID    NOT NULL REFERENCES partner_tenant_links (id),
    tenant_id       TEXT    NOT NULL,
    kind            TEXT    NOT NULL CHECK (kind IN ('sla', 'billing')),
    alert_type      TEXT    NOT NULL,
    severity        TEXT    NOT NULL CHECK (severity IN ('critical', 'warning', 'info')),
    title           TEXT    NOT NULL,
    message         TEXT    NOT NULL,
    dedup_key       TEXT    NOT NULL,
    -- An incident that has an id at its source: the same one never makes a second alert, live or not.
    incident        BOOLEAN NOT NULL,
    triggered_at    BIGINT  NOT NULL,
    acknowledged_at BIGINT,
    acknowledged_by TEXT,
    resolved_at     BIGINT,
    status          TEXT    NOT NULL CHECK (status IN ('active', 'acknowledged', 'resolved')),
    metadata        TEXT    NOT NULL CHECK (jsonb_typeof(metadata::jsonb) = 'object'),
    CHECK ((status = 'resolved') = (resolved_at IS NOT NULL)),
    CHECK (status <> 'acknowledged' OR acknowledged_at IS NOT NULL)
);
CREATE UNIQUE INDEX one_live_alert_per_key ON alerts (partner_id, dedup_key) WHERE status <> 'resolved';
CREATE UNIQUE INDEX one_alert_per_incident ON alerts (partner_id, dedup_key) WHERE incident;
CREATE INDEX alerts_by_partner ON alerts (partner_id, kind, triggered_at);
CREATE INDEX alerts_by_link ON alerts (link_id, kind, status);

-- When a link was looked at last, and who looks at it now.
CREATE TABLE alert_evaluations (
    link_id         UUID    NOT NULL REFERENCES partner_tenant_links (id),
    kind            TEXT    NOT NULL CHECK (kind IN ('sla', 'billing')),
    partner_id      UUID    NOT NULL,
    -- Facts older than those of this reading never overwrite what came of it.
    read_at      BIGINT,
    due_at          BIGINT  NOT NULL,
    leased_until BIGINT,
    lease_owner  TEXT,
    last_error   TEXT,
    PRIMARY KEY (link_id, kind)
);
CREATE INDEX alert_evaluations_by_partner ON alert_evaluations (partner_id);
CREATE INDEX alert_evaluations_due ON alert_evaluations (due_at);

CREATE TABLE webhook_subscriptions (
    id              UUID    NOT NULL PRIMARY KEY,
    partner_id      UUID    NOT NULL REFERENCES partners (id),
    url             TEXT    NOT NULL CHECK (char_length(url) BETWEEN 1 AND 2048),
    description     TEXT    CHECK (char_length(description) <= 255),
    -- Event types; never empty.
    events          JSONB   NOT NULL CHECK (jsonb_typeof(events) = 'array'),
    enabled         BOOLEAN NOT NULL,
    secret          TEXT    NOT NULL,
    -- The secret before the last rotation signs too, until then.
    previous_secret TEXT,
    previous_until  BIGINT,
    version         BIGINT  NOT NULL DEFAULT 1 CHECK (version >= 1),
    created_at      BIGINT  NOT NULL,
    updated_at      BIGINT  NOT NULL,
    created_by      TEXT    NOT NULL,
    updated_by      TEXT    NOT NULL,
    CHECK ((previous_secret IS NULL) = (previous_until IS NULL))
);
CREATE INDEX webhook_subscriptions_by_partner ON webhook_subscriptions (partner_id);

-- What happened: written in the transaction in which it happened, with a delivery for each subscription.
CREATE TABLE webhook_events (
    id              UUID    NOT NULL PRIMARY KEY,
    type            TEXT    NOT NULL,
    partner_id      UUID    NOT NULL,
    link_id         UUID    NOT NULL,
    tenant_id       TEXT    NOT NULL,
    -- What it tells of: the tenant needs a live link when it is sent, the link itself only an active one.
    about           TEXT    NOT NULL CHECK (about IN ('tenant', 'link')),
    at              BIGINT  NOT NULL,
    data            TEXT    NOT NULL CHECK (jsonb_typeof(data::jsonb) = 'object')
);

CREATE TABLE webhook_deliveries (
    id              UUID    NOT NULL PRIMARY KEY,
    event_id        UUID    NOT NULL REFERENCES webhook_events (id),
    subscription_id UUID    NOT NULL REFERENCES webhook_subscriptions (id) ON DELETE CASCADE,
    -- pending, delivered, dead (tried for the last time), dropped (the link was no longer live).
    status          TEXT    NOT NULL CHECK (status IN ('pending', 'delivered', 'dead', 'dropped')),
    attempts        BIGINT  NOT NULL DEFAULT 0,
    next_attempt_at BIGINT  NOT NULL,
    leased_until    BIGINT,
    lease_owner     TEXT,
    last_status     BIGINT,
    last_error      TEXT,
    created_at      BIGINT  NOT NULL,
    finished_at     BIGINT,
    UNIQUE (event_id, subscription_id)
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (next_attempt_at) WHERE status = 'pending';
CREATE INDEX webhook_deliveries_by_subscription ON webhook_deliveries (subscription_id, created_at);
CREATE INDEX webhook_deliveries_finished ON webhook_deliveries (finished_at) WHERE finished_at IS NOT NULL;

-- Which ends of links were announced, and how many days before.
CREATE TABLE link_expiry_notices (
    link_id         UUID    NOT NULL REFERENCES partner_tenant_links (id),
    end_date        BIGINT  NOT NULL,
    days            BIGINT  NOT NULL,
    at              BIGINT  NOT NULL,
    PRIMARY KEY (link_id, end_date, days)
);
