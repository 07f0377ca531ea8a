//! `linkgate access`: reviews of access. Who could do what, by whose approval, and which rights nobody uses.
//!
//! One file a question; `scene` reads what they share: links of then from their history, what records say of use and of
//! tokens, and the policies of today. `table` is their CSV.

mod scene;
mod table;
mod unused;
mod who;

use clap::{Args, Subcommand, ValueEnum};

use self::{unused::UnusedArgs, who::Subject};
use super::{
    context::Context,
    outcome::{Exit, Failure},
    policy::SetArgs,
    tenant::TenantArg,
};
use crate::{
    domain::{Millis, PartnerId},
    store::Side,
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

pub fn run(args: AccessArgs, context: &Context) -> Result<(), Failure> {
    match args.command {
        AccessCommand::Who { tenant, when } => who::run(&Subject::Tenant(tenant.0), &when, context),
        AccessCommand::What { partner, when } => who::run(&Subject::Partner(partner), &when, context),
        AccessCommand::Unused(args) => unused::run(&args, context),
    }
}

/// The time asked for, which must not lie ahead.
fn not_ahead(at: Option<Millis>) -> Result<Millis, Failure> {
    let now = Millis::now();
    match at {
        Some(at) if at > now => Err(Failure::new(
            Exit::Invalid,
            format_args!(
                "{at} lies ahead (it is {now}): what will be is not known; `link list --expiring` tells of ends"
            ),
        )),
        Some(at) => Ok(at),
        None => Ok(now),
    }
}

impl From<&Subject> for Side {
    fn from(subject: &Subject) -> Self {
        match subject {
            Subject::Tenant(id) => Self::Tenant(id.clone()),
            Subject::Partner(id) => Self::Partner(*id),
        }
    }
}
