//! The section `exports`: where files go, and by what their links are signed.

use super::{DAY, FieldPath, Resolver, seconds, secrets::SecretWays};
use crate::config::{
    raw::portal::RawExports,
    settings::{DatabaseSettings, ExportSettings},
};

/// As for every HMAC key here.
const SECRET_MIN_BYTES: usize = 32;
/// A PDF is put together in memory.
const MOST_PDF_ROWS: u32 = 200_000;

impl Resolver<'_> {
    pub(super) fn exports(&mut self, raw: &RawExports, database: &DatabaseSettings) -> ExportSettings {
        let table = FieldPath::default().key("exports");
        let dir = match (&raw.dir, database) {
            (Some(text), _) => self.path(&table.key("dir"), text),
            (None, DatabaseSettings::Sqlite { path }) => path.with_file_name("exports"),
            (None, DatabaseSettings::Postgres { .. }) => self.base.join("exports"),
        };
        let ways = SecretWays {
            table: &table,
            name: "secret",
            file: raw.secret_file.as_ref(),
            env: raw.secret_env.as_ref(),
            inline: raw.secret.as_ref(),
        };
        let secret = self.secret(&ways, SECRET_MIN_BYTES);
        if raw.pdf_rows == 0 || raw.pdf_rows > MOST_PDF_ROWS {
            self.fail(&table.key("pdf_rows"), format!("{} is out of range: 1 to {MOST_PDF_ROWS}", raw.pdf_rows));
        }
        ExportSettings {
            dir,
            secret,
            concurrency: self.at_least_one(&table.key("concurrency"), raw.concurrency),
            queue_per_partner: self.at_least_one(&table.key("queue_per_partner"), raw.queue_per_partner) as u64,
            lease: self.duration(&table.key("lease"), &raw.lease, seconds(1)..=DAY),
            max_duration: self.duration(&table.key("max_duration"), &raw.max_duration, seconds(1)..=DAY),
            pdf_rows: usize::try_from(raw.pdf_rows).unwrap_or(usize::MAX),
        }
    }
}
