//! `linkgate policy replay`: what recorded requests would have been told by another policy set.
//!
//! Each recorded decision is made again with the facts of its record (link terms, what the token granted, address, MFA,
//! time) and compared with what the set said then. Flips are counted by rule, partner and tenant. The set that made a
//! record must say the same again: where it does not, facts are missing from the record and the replay is worth nothing,
//! which is told as such. What cannot be replayed is counted, never skipped.

use serde::Serialize;

use super::{
    SetArgs,
    flips::{self, Bar, Direction, Flips, Key, PeriodArgs, Row},
    name_of,
};
use crate::{
    audit::sweep::{Opened, sweep},
    cli::{
        context::Context,
        outcome::{Exit, Failure, tell},
        trouble::unreadable,
    },
    domain::Millis,
    ops::explain::recorded::{Again, One, Recorded, again},
    policy::{Bundle, Memo, Verdict},
};

const MEMO_ENTRIES: usize = 65_536;
/// Hand-written policies are told before generated ones: they are what a change is about.
const GENERATED: &str = "linkgate.";

/// Decide recorded requests again under another policy set
#[derive(clap::Args, Debug)]
pub struct ReplayArgs {
    #[command(flatten)]
    set: SetArgs,
    #[command(flatten)]
    period: PeriodArgs,
    /// End with exit code 6 if more decisions than this come out otherwise
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    max_flips: u64,
    /// Threads [default: one a processor]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    policies: String,
    policy_version: String,
    since: Millis,
    until: Option<Millis>,
    /// Records looked at.
    records: u64,
    /// Decisions made again; a consolidated request has one for each tenant.
    replayed: u64,
    /// Refused by a gate outside the policies: no set can change it.
    outside: u64,
    /// Came to no decision: at home, public, or refused before.
    not_decided: u64,
    /// Were decided, and do not say by which facts.
    cannot_be_replayed: u64,
    deny_to_allow: u64,
    allow_to_deny: u64,
    /// In groups beyond the most that are kept apart.
    ungrouped: u64,
    /// Made by this very set, and otherwise now: must be zero.
    contradictions: u64,
    /// What was recorded before this time was asked for and is not there.
    missing_before: Option<Millis>,
    flips: Vec<Row>,
}

pub fn run(args: &ReplayArgs, context: &Context) -> Result<(), Failure> {
    let dir = args.set.dir(context);
    let bundle = args.set.load(context)?;
    let journal = args.period.dir(context)?;
    let threads = args
        .threads
        .map_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get), usize::from);
    let workers = (0..threads).map(|_| Worker::new(&bundle)).collect();
    let bar = Bar::start();
    let swept = sweep(&journal, &args.period.wanted(), workers, &bar, Worker::see);
    bar.clear();
    let swept = swept.map_err(|error| unreadable(error.into()))?;
    let tally = swept.workers.into_iter().map(|worker| worker.tally).fold(Tally::default(), Tally::and);
    let (deny_to_allow, allow_to_deny, ungrouped) = tally.flips.counts();
    let flipped = tally.flips.total();
    let report = Report {
        policies: name_of(dir.as_deref()),
        policy_version: bundle.version().to_owned(),
        since: args.period.since,
        until: args.period.until,
        records: swept.records,
        replayed: tally.replayed,
        outside: tally.outside,
        not_decided: tally.not_decided,
        cannot_be_replayed: tally.missing,
        deny_to_allow,
        allow_to_deny,
        ungrouped,
        contradictions: tally.contradictions,
        missing_before: swept.missing_before,
        flips: tally.flips.rows(),
    };
    if let Some(warning) = flips::told_missing(report.since, report.missing_before) {
        tell(warning);
    }
    let rows: Vec<&Row> = report.flips.iter().collect();
    flips::show(&context.console, args.period.csv, &report, &rows, &summary(&report))?;
    verdict(&report, flipped, args.max_flips)
}

fn summary(report: &Report) -> String {
    let mut text = format!(
        "{}: {} records since {}, {} decisions made again, {} would come out otherwise ({} deny -> allow, {} allow -> deny)",
        report.policies,
        report.records,
        report.since,
        report.replayed,
        report.deny_to_allow + report.allow_to_deny + report.ungrouped,
        report.deny_to_allow,
        report.allow_to_deny,
    );
    text.push_str(&format!(
        "\nno set can change {} refusals (link, window, approval, suspension, address, MFA); {} records came to no decision",
        report.outside, report.not_decided
    ));
    if report.cannot_be_replayed > 0 {
        text.push_str(&format!(
            "\n{} records cannot be replayed: they do not say what was asked (an older version wrote them)",
            report.cannot_be_replayed
        ));
    }
    text
}

fn verdict(report: &Report, flipped: u64, max_flips: u64) -> Result<(), Failure> {
    if report.contradictions > 0 {
        return Err(Failure::new(
            Exit::Verification,
            format_args!(
                "{} decisions were made by this very set and come out otherwise now: their records lack facts, and the replay proves nothing",
                report.contradictions
            ),
        ));
    }
    if flipped > max_flips {
        return Err(Failure::new(
            Exit::Verification,
            format_args!("{flipped} decisions would come out otherwise; at most {max_flips} may (--max-flips)"),
        ));
    }
    // Nothing looked at is nothing known: never a pass.
    if report.replayed + report.outside == 0 {
        let why = if report.cannot_be_replayed > 0 { "could be replayed" } else { "is recorded in this period" };
        return Err(Failure::new(Exit::NotFound, format_args!("no decision {why}: nothing is known of the set")));
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Tally {
    replayed: u64,
    outside: u64,
    not_decided: u64,
    missing: u64,
    contradictions: u64,
    flips: Flips,
}

impl Tally {
    fn and(self, other: Self) -> Self {
        Self {
            replayed: self.replayed + other.replayed,
            outside: self.outside + other.outside,
            not_decided: self.not_decided + other.not_decided,
            missing: self.missing + other.missing,
            contradictions: self.contradictions + other.contradictions,
            flips: self.flips.and(other.flips),
        }
    }
}

/// One thread's.
struct Worker<'a> {
    bundle: &'a Bundle,
    memo: Memo,
    tally: Tally,
}

impl<'a> Worker<'a> {
    fn new(bundle: &'a Bundle) -> Self {
        Self { bundle, memo: Memo::new(MEMO_ENTRIES), tally: Tally::default() }
    }

    fn see(&mut self, opened: &Opened<'_>) {
        let record = Recorded::of_opening(opened);
        match again(&record, self.bundle) {
            Again::Fixed => self.tally.outside += 1,
            Again::NotAsked => self.tally.not_decided += 1,
            Again::Missing => self.tally.missing += 1,
            Again::Decisions(decisions) => decisions.iter().for_each(|one| self.again(opened, one)),
        }
    }

    fn again(&mut self, opened: &Opened<'_>, one: &One<'_>) {
        self.tally.replayed += 1;
        let now = one.what.decide(self.bundle, Some(&mut self.memo));
        if now.is_allow() == one.allowed {
            return;
        }
        if opened.private.policy_version.as_deref() == Some(self.bundle.version()) {
            self.tally.contradictions += 1;
        }
        self.tally.flips.add(key(opened, one, &now), opened.visible.id);
    }
}

fn key(opened: &Opened<'_>, one: &One<'_>, now: &Verdict) -> Key {
    let (visible, private) = (&opened.visible, &opened.private);
    let then = one.waived.map_or_else(
        || telling(private.policies.iter().map(AsRef::as_ref)),
        |other| telling(other.policies.iter().map(AsRef::as_ref)),
    );
    let after = telling(now.policies.iter().map(AsRef::as_ref));
    let (direction, refused_by, permitted_by) = if now.is_allow() {
        (Direction::DenyToAllow, by(one.reason, then), after.map(str::to_owned))
    } else {
        (Direction::AllowToDeny, by(now.word(), after), None)
    };
    Key {
        direction,
        partner_id: visible.partner_id,
        partner_name: visible.partner_name.as_deref().map(str::to_owned),
        tenant: one.tenant.map(str::to_owned),
        refused_by,
        permitted_by,
        action: visible.action.as_deref().unwrap_or_default().to_owned(),
    }
}

/// The one policy that says most: a hand-written one if there is one.
fn telling<'p>(mut policies: impl Iterator<Item = &'p str> + Clone) -> Option<&'p str> {
    let first = policies.clone().next();
    policies.find(|id| !id.starts_with(GENERATED)).or(first)
}

fn by(reason: Option<&str>, policy: Option<&str>) -> String {
    match (reason, policy) {
        (Some(reason), Some(policy)) => format!("{reason} ({policy})"),
        (one, other) => one.or(other).unwrap_or("permission").to_owned(),
    }
}
