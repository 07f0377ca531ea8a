//! The commands over the store, as a person would run them, against an SQLite file.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed, which is what it is for")]

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use clap::Parser;
use linkgate::{
    cli::{
        import, link, migrate,
        outcome::{Console, Exit, Failure},
        partner,
        store_context::StoreContext,
        tenant, user,
    },
    config::settings::{DatabaseSettings, LinkSettings},
    domain::{LinkRole, PermissionSet, RoleTable},
    store::{
        Admin, Database, LinkRecord,
        admin::{LinkFilter, Page},
    },
};

#[derive(Debug, Parser)]
enum Cli {
    Partner(partner::PartnerArgs),
    Tenant(tenant::TenantArgs),
    User(user::UserArgs),
    Link(link::LinkArgs),
    Import(import::ImportArgs),
    Migrate(migrate::MigrateArgs),
}

struct Shell {
    dir: tempfile::TempDir,
    database: DatabaseSettings,
    roles: RoleTable,
}

impl Shell {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let database = DatabaseSettings::Sqlite { path: dir.path().join("linkgate.db") };
        let roles = RoleTable::new(
            [
                (LinkRole::MspFull, PermissionSet::ALL),
                (LinkRole::Auditor, PermissionSet::from_claim("partner.tenants.*")),
            ],
            BTreeMap::new(),
        );
        Self { dir, database, roles }
    }

    /// Runs one command line; `--yes` as the global flag of the real command line.
    fn run(&self, line: &[&str]) -> Result<(), Failure> {
        let yes = line.contains(&"--yes");
        let words = ["linkgate"].into_iter().chain(line.iter().copied().filter(|word| *word != "--yes"));
        let cli = Cli::try_parse_from(words).map_err(|error| Failure::new(Exit::Usage, error))?;
        let console = Console { json: true, yes, ..Console::default() };
        let links = LinkSettings {
            max_staleness: Duration::from_secs(1),
            heartbeat: Duration::from_millis(250),
            cached_partners: 10,
            approvals: false.into(),
        };
        let context = StoreContext { database: &self.database, links: &links, roles: &self.roles, console: &console };
        match cli {
            Cli::Partner(args) => partner::run(args, &context),
            Cli::Tenant(args) => tenant::run(args, &context),
            Cli::User(args) => user::run(args, &context),
            Cli::Link(args) => link::run(args, &context),
            Cli::Import(args) => import::run(args, &context),
            Cli::Migrate(args) => migrate::run(&args, &self.database, &console),
        }
    }

    fn exit(&self, line: &[&str]) -> Exit {
        let failure = self.run(line).expect_err("the command failed");
        println!("{line:?}: {}", failure.message);
        failure.exit
    }

    fn links(&self) -> Vec<LinkRecord> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let db = Database::open(&self.database).await.unwrap();
            let admin = Admin::new(&db, std::sync::Arc::new(self.roles.clone()), false);
            admin.links(&LinkFilter::default(), Page::default()).await.unwrap()
        })
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

const PARTNER: &str = "018f0000-0000-7000-8000-000000000001";

fn prepared() -> Shell {
    let shell = Shell::new();
    shell.run(&["migrate"]).unwrap();
    for tenant in ["home", "t1", "t2", "t3"] {
        shell.run(&["tenant", "create", tenant, "--name", "Tenant"]).unwrap();
    }
    shell.run(&["partner", "create", "--id", PARTNER, "--name", "Blue", "--home-tenant", "home"]).unwrap();
    shell
}

#[test]
fn a_database_must_be_migrated_first() {
    let shell = Shell::new();
    assert_eq!(shell.exit(&["tenant", "list"]), Exit::Database);
    assert_eq!(shell.exit(&["migrate", "--check"]), Exit::Database);
    assert!(!Path::new(&shell.dir.path().join("linkgate.db")).exists());
    shell.run(&["migrate"]).unwrap();
    shell.run(&["migrate"]).unwrap();
    shell.run(&["migrate", "--check"]).unwrap();
    shell.run(&["tenant", "list"]).unwrap();
}

#[test]
fn a_link_goes_through_its_life() {
    let shell = prepared();
    shell
        .run(&[
            "link",
            "create",
            "--partner",
            PARTNER,
            "--tenant",
            "t1",
            "--role",
            "auditor",
            "--override",
            "partner.tenants.list=true",
            "--cidr",
            "10.0.0.0/8",
            "--cidr",
            "192.0.2.1",
            "--require-mfa",
            "--end",
            "2040-01-01",
            "--sla-uptime-target",
            "99.95",
            "--metadata",
            "{\"a\":1}",
            "--actor",
            "api:me",
        ])
        .unwrap();
    let made = shell.links().remove(0);
    assert_eq!(made.stamps.created_by, "api:me");
    assert!(made.terms.require_mfa);
    assert_eq!(made.terms.allowed_cidrs.len(), 2);
    let id = made.id.to_string();
    for line in [
        &["link", "list"][..],
        &["link", "list", "--partner", PARTNER, "--tenant", "t1", "--active", "true"],
        &["link", "show", &id],
        &["link", "show", &id, "--history"],
        &["link", "update", &id, "--override", "billing.write=false", "--expect-version", "1"],
        &["link", "update", &id, "--clear", "end", "--clear", "cidrs", "--require-mfa", "false"],
    ] {
        shell.run(line).unwrap();
    }
    let updated = shell.links().remove(0);
    assert_eq!(updated.stamps.version, 3);
    assert!(updated.stamps.updated_by.starts_with("cli:"));
    let overrides: Vec<_> = updated.terms.custom_permissions.into_iter().collect();
    assert_eq!(overrides, [("billing.write".to_owned(), false), ("partner.tenants.list".to_owned(), true)]);
    assert_eq!(
        (updated.terms.end_date, updated.terms.allowed_cidrs.len(), updated.terms.require_mfa),
        (None, 0, false)
    );

    // Destructive: without a terminal and without --yes the answer is no.
    assert_eq!(shell.exit(&["link", "revoke", &id]), Exit::Declined);
    assert!(shell.links()[0].terms.is_active);
    shell.run(&["link", "revoke", &id, "--yes"]).unwrap();
    assert!(!shell.links()[0].terms.is_active);
    shell.run(&["link", "update", &id, "--active", "true"]).unwrap();
    assert_eq!(shell.exit(&["link", "revoke-all", "--partner", PARTNER]), Exit::Declined);
    shell.run(&["link", "revoke-all", "--partner", PARTNER, "--yes"]).unwrap();
    assert!(!shell.links()[0].terms.is_active);
}

#[test]
fn every_kind_of_failure_has_its_exit_code() {
    let shell = prepared();
    let grant = |tenant: &'static str, more: &[&'static str]| {
        let mut line = vec!["link", "create", "--partner", PARTNER, "--tenant", tenant, "--role", "auditor"];
        line.extend(more);
        shell.run(&line).map_err(|failure| failure.exit)
    };
    assert_eq!(grant("t1", &[]), Ok(()));
    assert_eq!(grant("t1", &[]), Err(Exit::Conflict));
    assert_eq!(grant("home", &[]), Err(Exit::Invalid));
    assert_eq!(grant("t2", &["--override", "billing.write=true"]), Err(Exit::Invalid));
    assert_eq!(grant("t2", &["--override", "billing.write"]), Err(Exit::Usage));
    let twice = ["--override", "partner.tenants.list=false", "--override", "partner.tenants.list=true"];
    assert_eq!(grant("t2", &twice), Err(Exit::Invalid));
    assert_eq!(grant("t2", &["--actor", "\u{1b}[2Jmallory"]), Err(Exit::Invalid));
    assert_eq!(grant("t2", &["--metadata", r#"{"a": 1, "a": 2}"#]), Err(Exit::Usage));
    assert_eq!(grant("nowhere", &[]), Err(Exit::NotFound));
    assert_eq!(shell.exit(&["link", "show", PARTNER]), Exit::NotFound);
    assert_eq!(shell.exit(&["user", "show", "--sub", "nobody"]), Exit::NotFound);
    assert_eq!(shell.exit(&["partner", "update", PARTNER, "--active", "false"]), Exit::Declined);
    shell.run(&["partner", "update", PARTNER, "--active", "false", "--yes"]).unwrap();
    shell.run(&["user", "create", "--partner", PARTNER, "--sub", "u", "--issuer", "https://idp"]).unwrap();
    shell.run(&["user", "show", "--sub", "u", "--issuer", "https://idp"]).unwrap();
    assert_eq!(
        shell.exit(&["user", "create", "--partner", PARTNER, "--sub", "u", "--issuer", "https://idp"]),
        Exit::Conflict
    );
    shell.run(&["user", "list", "--partner", PARTNER]).unwrap();
    shell.run(&["tenant", "update", "t1", "--status", "suspended", "--expect-version", "1"]).unwrap();
    assert_eq!(shell.exit(&["tenant", "update", "t1", "--name", "x", "--expect-version", "1"]), Exit::Conflict);
}

#[test]
fn an_import_reports_what_it_refused() {
    let shell = prepared();
    let links = shell.file(
        "links.csv",
        &format!(
            "partner_id,managed_tenant_id,access_role,end_date\n{PARTNER},t1,auditor,2040-01-01\n{PARTNER},nowhere,auditor,\n\
             {PARTNER},t2,king,\n{PARTNER},t3,msp_full,\n"
        ),
    );
    let told = shell.dir.path().join("refused.csv");
    let told = told.to_str().unwrap();
    assert_eq!(shell.exit(&["import", &links, "--refused", told]), Exit::Invalid);
    assert_eq!(shell.links().len(), 2);
    let written = fs::read_to_string(told).unwrap();
    let again = shell.file("again.csv", &format!("partner_id,managed_tenant_id,access_role\n{PARTNER},t2,auditor\n"));
    let failure = shell.run(&["import", &again, "--refused", told]).unwrap_err();
    assert_eq!(failure.exit, Exit::Failed, "{}", failure.message);
    assert!(failure.message.contains("nothing was imported"), "{}", failure.message);
    assert_eq!(shell.links().len(), 2, "the report of before stands in the way, so nothing is imported");
    let told = fs::read_to_string(told).unwrap();
    assert_eq!(told, written);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 3, "{told}");
    assert!(lines[1].starts_with("3,\"TENANT_NOT_FOUND\","), "{told}");
    assert!(lines[2].starts_with("4,\"VALIDATION_ERROR\",\"access_role\","), "{told}");

    let tenants = shell.file("more.jsonl", "{\"tenant_id\": \"t4\"}\n{\"tenant_id\": \"t5\", \"status\": \"trial\"}\n");
    shell.run(&["import", &tenants, "--what", "tenants"]).unwrap();
    shell.run(&["tenant", "show", "t5"]).unwrap();
    let list = shell.file("list.jsonl", "[\"t6\", \"Six\"]\n");
    assert_eq!(shell.exit(&["import", &list, "--what", "tenants"]), Exit::Invalid);
    assert_eq!(shell.exit(&["tenant", "show", "t6"]), Exit::NotFound);
    assert_eq!(shell.exit(&["import", &shell.file("odd.csv", "tenant,role\nx,y\n")]), Exit::Invalid);
    assert_eq!(shell.exit(&["import", &shell.file("links.txt", "")]), Exit::Usage);
    assert_eq!(shell.exit(&["import", "/nonexistent/links.csv"]), Exit::NotFound);
}
