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
//! A test walks all commands against this list: a new one needs a line here.

use std::collections::BTreeSet;

use Counterpart::{NotOffered, Operations};

use crate::server::admin::table::{Operation as Op, TABLE};

/// What the admin API has for a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counterpart {
    Operations(&'static [Op]),
    /// Nothing, because.
    NotOffered(&'static str),
}

const MACHINE: Counterpart = NotOffered("runs, sets up or describes the program on its machine");
const PIPELINE: Counterpart = NotOffered("judges a set before it is put in force, for as long as that takes");

/// Every command without commands below it, in the order of the help.
static COMMANDS: &[(&str, Counterpart)] = &[
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
        NotOffered("is for those who do not trust the gateway: needs a saved log and public keys, nothing else"),
    ),
    ("audit prune", NotOffered("removes files of the machine's disk for good, after a look at what would go")),
    ("audit outbox list", Operations(&[Op::ListOutbox])),
    (
        "audit outbox release",
        NotOffered("needs the journal of a server that is gone, or somebody's word that it is lost"),
    ),
    ("token", NotOffered("makes tokens for trying things out, with a key that no token of this API may reach")),
];

/// Operations that no command has.
static WITHOUT_A_COMMAND: &[(Op, &str)] = &[(Op::OpenApi, "describes the others")];

/// Every command without commands below it, as it is typed.
fn leaves(command: &clap::Command, typed: &str, found: &mut BTreeSet<String>) {
    for one in command.get_subcommands().filter(|one| one.get_name() != "help") {
        let typed = format!("{typed} {}", one.get_name());
        if one.get_subcommands().next().is_some() {
            leaves(one, &typed, found);
        } else {
            found.insert(typed.trim_start().to_owned());
        }
    }
}

#[test]
fn every_command_has_its_operations_or_a_reason_to_have_none() {
    let mut commands = BTreeSet::new();
    leaves(&super::command(), "", &mut commands);
    let mut listed: BTreeSet<String> = COMMANDS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(listed.len(), COMMANDS.len(), "a command stands twice in `cli::parity`");
    if cfg!(not(feature = "demo")) {
        listed.remove("demo");
    }
    assert_eq!(listed, commands, "`cli::parity` and the command line differ");
    let mut named = Vec::new();
    for (name, counterpart) in COMMANDS {
        match counterpart {
            Operations(operations) => {
                assert!(!operations.is_empty(), "{name}");
                named.extend_from_slice(operations);
            }
            NotOffered(why) => assert!(why.len() > 20, "{name}: say why"),
        }
    }
    named.extend(WITHOUT_A_COMMAND.iter().map(|(operation, _)| *operation));
    for spec in TABLE {
        assert!(named.contains(&spec.operation), "no command is named for {}", spec.label());
    }
    for operation in named {
        assert!(TABLE.iter().any(|spec| spec.operation == operation), "{operation:?} is not in the table");
    }
}
