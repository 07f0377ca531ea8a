-- Who approved a link, and who asked for what was approved. Migrations are append-only: never edit this file.
--
-- All of it may be null: rows from before this migration do not say, and the previous version goes on writing rows.

ALTER TABLE partner_tenant_links ADD COLUMN approved_by TEXT;
ALTER TABLE partner_tenant_links ADD COLUMN approved_at INTEGER
    CHECK ((approved_at IS NULL) = (approved_by IS NULL));
-- Everyone who created or widened the link since it was last approved: names and accounts, as a JSON list of texts.
ALTER TABLE partner_tenant_links ADD COLUMN widened_by TEXT
    CHECK (widened_by IS NULL OR json_type(widened_by) = 'array');

-- Ends of links are looked for every minute.
CREATE INDEX links_by_end ON partner_tenant_links (end_date) WHERE end_date IS NOT NULL;
