//! Floor 2: partners, tenants, users, links, audit index on SQLite and Postgres.
