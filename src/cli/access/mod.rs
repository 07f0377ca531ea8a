//! `linkgate access`: reviews of access. Who could do what, by whose approval, and which rights nobody uses.
//!
//! The questions stand in `ops::access`; here they are asked of the configured database and journal, and shown.

use std::{num::NonZero, sync::Arc, thread::available_parallelism};

use clap::{Args, Subcommand, ValueEnum};

use super::{
    context::Context,
    outcome::{Failure, print, tell},
    policy::{SetArgs, flips::Bar, name_of},
    store_context::runtime,
    tenant::TenantArg,
};
use crate::{
    domain::{LinkId, Millis, PartnerId},
    ops::{
        Trouble, Window,
        access::{
            Desk, Set,
            unused::{self, Question as Unused},
            who::{self, Question as Who, Subject},
        },
    },
    store::{Admin, AuditStore, Database, Side},
};

/// Review access: who could do what by whose approval, and which rights nobody uses
#[derive(Debug, Args)]
pub struct AccessArgs {
    #[command(subcommand)]
    command: AccessCommand,
}

#[derive(Debug, Subcommand)]
enum AccessCommand {
    /// Who could do what in a tenant at a time, by whose approval
    ///
    /// Links and suspensions are shown as they stood then. What their roles, overrides and rules amount to is by the
    /// policies of today, and what a user may do at most is what their last token before then granted: both are said in
    /// the output.
    ///
    /// Example: linkgate access who --tenant isp-north --at 2026-03-31
    Who {
        #[arg(long, value_name = "ID")]
        tenant: TenantArg,
        #[command(flatten)]
        when: WhenArgs,
    },
    /// What the users of a partner could do at a time, in every tenant
    ///
    /// The same from the partner's side.
    ///
    /// Example: linkgate access what --partner <UUID> --csv users
    What {
        #[arg(long, value_name = "UUID")]
        partner: PartnerId,
        #[command(flatten)]
        when: WhenArgs,
    },
    /// Rights that nobody used, with a tighter override for each link
    ///
    /// What counts is requests that were let through. A right that may have been used without a record of its own is kept,
    /// as is what another partner used through a link delegated onward. The override is held against the policies before
    /// it is shown: it takes only what was not used.
    ///
    /// Example: linkgate access unused --tenant isp-north --days 90
    Unused(UnusedArgs),
}

#[derive(Clone, Debug, Args)]
struct WhenArgs {
    #[command(flatten)]
    set: SetArgs,
    /// At this time, RFC 3339 or a date (its midnight, UTC) [default: now]
    #[arg(long, value_name = "TIME", value_parser = Millis::parse)]
    at: Option<Millis>,
    /// Look for users' tokens in the records of so many days before then; 0: not at all
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=3650))]
    token_days: u32,
    /// Print CSV for an auditor: one row for each link and permission, or for each link and user
    #[arg(long, value_enum, value_name = "ROWS", num_args = 0..=1, default_missing_value = "permissions")]
    csv: Option<Rows>,
}

/// What a row of the CSV is about, beside its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Rows {
    Permissions,
    Users,
}

/// Rights that nobody used
#[derive(Debug, Args)]
struct UnusedArgs {
    #[command(flatten)]
    set: SetArgs,
    #[command(flatten)]
    of: Of,
    /// Looked at are the requests of so many days back from now
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Print CSV for an auditor: one row for each link and permission that it grants
    #[arg(long)]
    csv: bool,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Of {
    /// Links to this tenant
    #[arg(long, value_name = "ID")]
    tenant: Option<TenantArg>,
    /// Links of this partner
    #[arg(long, value_name = "UUID")]
    partner: Option<PartnerId>,
    /// This link
    #[arg(long, value_name = "UUID")]
    link: Option<LinkId>,
}

impl Of {
    fn side(&self) -> Option<Side> {
        let tenant = self.tenant.as_ref().map(|tenant| Side::Tenant(tenant.0.clone()));
        tenant.or_else(|| self.partner.map(Side::Partner)).or_else(|| self.link.map(Side::Link))
    }
}

pub fn run(args: AccessArgs, context: &Context) -> Result<(), Failure> {
    match args.command {
        AccessCommand::Who { tenant, when } => who(&Subject::Tenant(tenant.0), &when, context),
        AccessCommand::What { partner, when } => who(&Subject::Partner(partner), &when, context),
        AccessCommand::Unused(args) => unused(&args, context),
    }
}

fn who(subject: &Subject, args: &WhenArgs, context: &Context) -> Result<(), Failure> {
    let asked = Who {
        at: args.at.unwrap_or_else(Millis::now),
        token_days: args.token_days,
        window: Window::ALL,
        most_users: usize::MAX,
    };
    let report = with(context, &args.set, async |set, desk| who::report(subject, asked, set, desk).await)?;
    match args.csv.filter(|_| !context.console.json) {
        Some(Rows::Permissions) => print_csv(|text| report.permissions_csv(text)),
        Some(Rows::Users) => print_csv(|text| report.users_csv(text)),
        None => context.console.show(&report, report.text()),
    }
}

fn unused(args: &UnusedArgs, context: &Context) -> Result<(), Failure> {
    let side = args.of.side().ok_or_else(|| Failure::failed("no side was named"))?;
    let asked = Unused { side, days: args.days, window: Window::ALL };
    let (report, journal) = with(context, &args.set, async |set, desk| {
        Ok((unused::report(&asked, set, desk).await?, desk.journal.display().to_string()))
    })?;
    if !report.complete {
        tell(format_args!("warning: {}", report.incomplete(&journal)));
    }
    if args.csv && !context.console.json {
        return print_csv(|text| report.csv(text));
    }
    context.console.show(&report, report.text())
}

fn print_csv(write: impl FnOnce(&mut Vec<u8>) -> Result<(), csv::Error>) -> Result<(), Failure> {
    let mut text = Vec::new();
    write(&mut text).map_err(Failure::failed)?;
    print(&text)
}

/// Opens the database, runs one question on it, closes it.
fn with<T>(
    context: &Context,
    set: &SetArgs,
    work: impl AsyncFnOnce(&Set, &Desk) -> Result<T, Trouble>,
) -> Result<T, Failure> {
    let set = Set { bundle: Arc::new(set.load(context)?), name: name_of(set.dir(context).as_deref()) };
    let config = context.config()?;
    runtime()?.block_on(async {
        let db = Database::open(&config.database).await?;
        db.check_migrated().await?;
        let roles = Arc::new(set.bundle.roles().clone());
        let bar = Arc::new(Bar::start());
        let desk = Desk {
            admin: Admin::new(&db, roles, config.links.approvals),
            index: AuditStore::new(&db, &config.audit.dir),
            journal: config.audit.dir.clone(),
            progress: bar.clone(),
            threads: available_parallelism().map_or(1, NonZero::get),
        };
        let done = work(&set, &desk).await;
        bar.clear();
        db.close().await;
        Ok(done?)
    })
}
