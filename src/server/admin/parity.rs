//! The command line beside the admin API: which operations do what a command does, and why a command has none.
//!
//! What has none is one of these:
//!
//! - *of the machine*: it runs, sets up or describes the program itself (`serve`, `demo`, `check`, `config`, `migrate`,
//!   `completions`, `man`), or needs the disk that a server stands on: `audit prune` removes files for good, and
//!   `audit outbox release` needs the journal of a server that is gone, or somebody's word that it is lost.
//! - *of a pipeline*: it judges a set before it is put in force, for as long as that takes, beside no traffic: `policy prove`
//!   runs a solver, `policy replay` decides the recorded traffic of weeks anew under a folder that the gateway does not
//!   know. No call names a folder or a file of the gateway's machine.
//! - *needs nothing of the gateway*: `audit prove-check` is for those who do not trust it; `token` makes tokens for trying
//!   things out with a key that an administrator's token must never reach.
//!
//! A test of the command line walks all commands against this list: a new one needs a line here.

use super::table::Operation as Op;

/// What the admin API has for a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counterpart {
    Operations(&'static [Op]),
    /// None, because.
    None(&'static str),
}

use Counterpart::{None, Operations};

const MACHINE: Counterpart = None("runs, sets up or describes the program on its machine");
const PIPELINE: Counterpart = None("judges a set before it is put in force, for as long as that takes");

/// Every command without commands below it, in the order of the help.
pub static COMMANDS: &[(&str, Counterpart)] = &[
    ("serve", MACHINE),
    ("demo", MACHINE),
    ("check", MACHINE),
    ("config print-default", MACHINE),
    ("config json-schema", MACHINE),
    ("config connectors", MACHINE),
    ("migrate", MACHINE),
    ("completions", MACHINE),
    ("man", MACHINE),
    ("tenant create", Operations(&[Op::CreateTenant])),
    ("tenant list", Operations(&[Op::ListTenants])),
    ("tenant show", Operations(&[Op::ShowTenant])),
    ("tenant update", Operations(&[Op::UpdateTenant])),
    ("partner create", Operations(&[Op::CreatePartner])),
    ("partner list", Operations(&[Op::ListPartners])),
    ("partner show", Operations(&[Op::ShowPartner])),
    ("partner update", Operations(&[Op::UpdatePartner])),
    ("user create", Operations(&[Op::CreateUser])),
    ("user list", Operations(&[Op::ListUsers])),
    // By issuer and subject: a list of one.
    ("user show", Operations(&[Op::ShowUser, Op::ListUsers])),
    ("user update", Operations(&[Op::UpdateUser])),
    ("link create", Operations(&[Op::CreateLink])),
    // With `parent_link_id`.
    ("link delegate", Operations(&[Op::CreateLink])),
    ("link approve", Operations(&[Op::ApproveLink])),
    ("link reject", Operations(&[Op::RejectLink])),
    ("link list", Operations(&[Op::ListLinks, Op::ListApprovals, Op::ListEnding])),
    ("link show", Operations(&[Op::ShowLink, Op::LinkAccess, Op::LinkHistory])),
    ("link update", Operations(&[Op::UpdateLink])),
    ("link revoke", Operations(&[Op::RevokeLink])),
    ("link revoke-all", Operations(&[Op::RevokeAll])),
    ("import", Operations(&[Op::ImportTenants, Op::ImportPartners, Op::ImportUsers, Op::ImportLinks])),
    ("webhook create", Operations(&[Op::CreateWebhook])),
    ("webhook list", Operations(&[Op::ListWebhooks])),
    ("webhook show", Operations(&[Op::ShowWebhook])),
    ("webhook update", Operations(&[Op::UpdateWebhook, Op::RotateWebhook])),
    ("webhook delete", Operations(&[Op::DeleteWebhook])),
    ("webhook test", Operations(&[Op::TestWebhook])),
    ("webhook reseal", Operations(&[Op::ResealWebhooks])),
    ("webhook deliveries", Operations(&[Op::ListDeliveries])),
    ("webhook redeliver", Operations(&[Op::Redeliver, Op::RedeliverDead])),
    ("suspend user", Operations(&[Op::Suspend])),
    ("suspend session", Operations(&[Op::Suspend])),
    ("suspend token", Operations(&[Op::Suspend])),
    ("suspend partner", Operations(&[Op::Suspend])),
    ("suspend tenant", Operations(&[Op::Suspend])),
    ("suspend link", Operations(&[Op::Suspend])),
    ("suspend everything", Operations(&[Op::Suspend])),
    ("restore", Operations(&[Op::Restore])),
    ("suspensions", Operations(&[Op::ListSuspensions, Op::ShowSuspension])),
    ("policy check", Operations(&[Op::CheckPolicies])),
    ("policy test", Operations(&[Op::TestPolicies])),
    ("policy show", Operations(&[Op::LinkPolicy, Op::RolePolicy, Op::ShowPolicies])),
    ("policy prove", PIPELINE),
    ("policy replay", PIPELINE),
    ("policy shadow report", Operations(&[Op::ShadowReport])),
    ("decide", Operations(&[Op::Decide])),
    ("explain", Operations(&[Op::ExplainRecord, Op::Explain])),
    ("access who", Operations(&[Op::ReviewTenant])),
    ("access what", Operations(&[Op::ReviewPartner])),
    ("access unused", Operations(&[Op::UnusedOfTenant, Op::UnusedOfPartner, Op::UnusedOfLink])),
    ("audit query", Operations(&[Op::ListRecords, Op::ShowRecord])),
    ("audit verify", Operations(&[Op::VerifyJournal])),
    ("audit checkpoint", Operations(&[Op::ListCheckpoints])),
    ("audit export", Operations(&[Op::ExportRecords])),
    (
        "audit prove-check",
        None("is for those who do not trust the gateway: needs a saved log and public keys, nothing else"),
    ),
    ("audit prune", None("removes files of the machine's disk for good, after a look at what would go")),
    ("audit outbox list", Operations(&[Op::ListOutbox])),
    ("audit outbox release", None("needs the journal of a server that is gone, or somebody's word that it is lost")),
    ("token", None("makes tokens for trying things out, with a key that no token of this API may reach")),
];

/// Operations that no command has.
pub static WITHOUT_A_COMMAND: &[(Op, &str)] = &[(Op::OpenApi, "describes the others")];
