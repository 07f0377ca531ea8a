//! What the commands that read or change the database share: the connection, the actor, and how records are shown.

use std::{fs, future::Future, sync::Arc};

use clap::Args;
use serde::Serialize;
use serde_json::Value as Json;

use super::{
    help::GLOBAL,
    outcome::{Console, Exit, Failure},
};
use crate::{
    config::settings::{DatabaseSettings, LinkSettings},
    domain::{ErrorCode, RoleTable},
    store::{Actor, Admin, Database, StoreError, admin::Page},
};

/// Which database, under which rules, and how to speak.
#[derive(Clone, Copy, Debug)]
pub struct StoreContext<'a> {
    pub database: &'a DatabaseSettings,
    /// `[links]` of the configuration.
    pub links: &'a LinkSettings,
    /// The role table in force.
    pub roles: &'a RoleTable,
    pub console: &'a Console,
}

impl StoreContext<'_> {
    /// Opens the migrated database and runs one piece of work on it.
    pub(super) fn with<T, F>(&self, work: impl FnOnce(Admin) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        runtime()?.block_on(async {
            let db = Database::open(self.database).await?;
            db.check_migrated().await?;
            let done = work(Admin::new(&db, Arc::new(self.roles.clone()), self.links.approvals)).await;
            db.close().await;
            done
        })
    }

    /// A record, as JSON or as one line a field.
    pub(super) fn show(&self, record: &impl Serialize) -> Result<(), Failure> {
        self.console.show(record, fields(record)?)
    }
}

/// A runtime for one command.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let exit = match &error {
            StoreError::NotFound { .. } => Exit::NotFound,
            StoreError::Refused(refusal) if refusal.code == ErrorCode::Conflict => Exit::Conflict,
            StoreError::Refused(_) => Exit::Invalid,
            StoreError::Damaged { .. } | StoreError::Vault(_) => Exit::Failed,
            StoreError::Unavailable(_)
            | StoreError::Address(_)
            | StoreError::NotMigrated(_)
            | StoreError::Newer(_)
            | StoreError::Migration(_) => Exit::Database,
        };
        let code = match &error {
            StoreError::Refused(refusal) => format!(" ({})", refusal.code),
            _ => String::new(),
        };
        // For the operator at the keyboard the cause is what helps; no driver puts the address's password into it.
        let cause = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        Self::new(exit, format!("{error}{code}{cause}"))
    }
}

/// Who is named in history and audit.
#[derive(Clone, Debug, Args)]
pub struct ActorArgs {
    /// Name that history and audit will show [default: cli:USER, by your account]
    ///
    /// For `links.four_eyes` your account counts beside this name, whatever the name is.
    #[arg(long, value_name = "NAME", global = true, help_heading = GLOBAL)]
    actor: Option<String>,
}

impl ActorArgs {
    pub(super) fn actor(&self) -> Actor {
        let account = format!("cli:{}", os_user());
        let name = self.actor.clone().unwrap_or_else(|| account.clone());
        Actor { account: Some(account), ..Actor::new(name) }
    }
}

/// Who logged in, where the kernel knows it (`sudo` and `su` do not change that), else the process's user: never a
/// variable that anyone can set.
fn os_user() -> String {
    let login = fs::read_to_string("/proc/self/loginuid").ok().and_then(|text| text.trim().parse::<u32>().ok());
    // All ones: nobody logged in, as in a container or a service.
    let uid = login.filter(|uid| *uid != u32::MAX).unwrap_or_else(|| rustix::process::getuid().as_raw()).to_string();
    let named = fs::read_to_string("/etc/passwd").ok().and_then(|passwd| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == uid).then(|| name.to_owned())
        })
    });
    named.unwrap_or(uid)
}

/// Which rows of a list.
#[derive(Clone, Copy, Debug, Args)]
pub struct PageArgs {
    /// Most rows to show
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Rows to skip
    #[arg(long, default_value_t = 0)]
    offset: u32,
}

impl PageArgs {
    pub(super) fn page(self) -> Page {
        Page { limit: self.limit, offset: self.offset }
    }
}

/// One line a field, names padded to one width.
pub(super) fn fields(record: &impl Serialize) -> Result<String, Failure> {
    let Json::Object(fields) = serde_json::to_value(record).map_err(Failure::failed)? else {
        return Ok(String::new());
    };
    let width = fields.keys().map(String::len).max().unwrap_or_default();
    // A further line of a value stands under its first: none passes for a field.
    let under = format!("\n{:width$}  ", "");
    let lines = fields.iter().map(|(name, value)| format!("{name:width$}  {}", word(value).replace('\n', &under)));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// A value as a person reads it.
pub(super) fn word(value: &Json) -> String {
    match value {
        Json::Null => "-".to_owned(),
        Json::Bool(flag) => if *flag { "yes" } else { "no" }.to_owned(),
        Json::String(text) => text.clone(),
        Json::Array(items) if items.is_empty() => "-".to_owned(),
        Json::Object(items) if items.is_empty() => "-".to_owned(),
        Json::Array(items) => items.iter().map(word).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// An update that names no field would end as if it had changed something.
pub(super) fn nothing_to_change(what: &str) -> Failure {
    Failure::new(Exit::Usage, format!("no field to change is given: see `linkgate {what} update --help`"))
}

/// `yes` or `no` in a table.
pub(super) fn yes(flag: bool) -> String {
    if flag { "yes" } else { "no" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_shown_one_field_a_line() {
        let record = serde_json::json!({"id": "a", "cidrs": ["x", "y"], "end": null, "active": true, "o": {}});
        assert_eq!(fields(&record).unwrap(), "id      a\ncidrs   x, y\nend     -\nactive  yes\no       -");
        let notes = serde_json::json!({"id": "a", "notes": "one\nid     b"});
        assert_eq!(fields(&notes).unwrap(), "id     a\nnotes  one\n       id     b");
    }

    #[test]
    fn errors_have_the_exit_code_of_their_kind() {
        use crate::domain::link_rules::Refusal;
        let exit = |error: StoreError| Failure::from(error).exit;
        assert_eq!(exit(StoreError::NotFound { what: "link", id: "x".into() }), Exit::NotFound);
        assert_eq!(exit(Refusal::conflict("taken").into()), Exit::Conflict);
        assert_eq!(exit(Refusal::field("link", "end_date", "is before the start").into()), Exit::Invalid);
        assert_eq!(exit(StoreError::NotMigrated("no table".into())), Exit::Database);
        let shown = Failure::from(StoreError::from(Refusal::conflict("taken"))).message;
        assert_eq!(shown, "taken (CONFLICT)");
    }
}
