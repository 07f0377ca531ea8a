//! `linkgate audit query | export`: records of the index or the journal, as a table or as JSON lines.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};

use crate::{
    audit::{
        AuditSettings, Decision, Kind, Record, RecordFilter, RecordSource,
        scan::{self, ScanError},
    },
    cli::{
        outcome::{Console, Failure, printed},
        trouble::{unanswered, unreadable},
    },
    domain::{Millis, PartnerId},
    ops::plain,
};

#[derive(Clone, Debug, Args)]
pub struct QueryArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Most records to show.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Records to skip.
    #[arg(long, default_value_t = 0)]
    offset: u32,
    /// Read the journal instead of the database's index.
    #[arg(long)]
    pub(super) journal: bool,
}

#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Most records to print.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Begin at this segment.
    #[arg(long, value_name = "NUMBER")]
    from_segment: Option<u64>,
    /// Write to this file, which must not exist, instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Behind the records of another chain.
    #[arg(skip)]
    pub(super) goes_on: bool,
}

#[derive(Clone, Debug, Default, Args)]
struct FilterArgs {
    /// Partner id.
    #[arg(long, value_name = "UUID")]
    partner: Option<PartnerId>,
    /// Managed tenant id; slices of consolidated requests included.
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// User id (the token's `sub`).
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// Permission, or name of a change such as `link.revoke`.
    #[arg(long, value_name = "NAME")]
    action: Option<String>,
    #[arg(long)]
    decision: Option<DecisionWord>,
    #[arg(long)]
    kind: Option<KindWord>,
    /// From this time on: RFC 3339, or a date.
    #[arg(long, value_name = "TIME", value_parser = Millis::parse)]
    from: Option<Millis>,
    /// Before this time.
    #[arg(long, value_name = "TIME", value_parser = Millis::parse)]
    to: Option<Millis>,
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DecisionWord {
    Allow,
    Deny,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindWord {
    Access,
    Link,
    Policy,
    Config,
    Admin,
}

impl FilterArgs {
    fn filter(self) -> RecordFilter {
        RecordFilter {
            id: None,
            request_id: self.request_id,
            partner_id: self.partner,
            managed_tenant_id: self.tenant,
            user_id: self.user,
            action: self.action,
            decision: self.decision.map(|word| match word {
                DecisionWord::Allow => Decision::Allow,
                DecisionWord::Deny => Decision::Deny,
            }),
            kind: self.kind.map(|word| match word {
                KindWord::Access => Kind::Access,
                KindWord::Link => Kind::Link,
                KindWord::Policy => Kind::Policy,
                KindWord::Config => Kind::Config,
                KindWord::Admin => Kind::Admin,
            }),
            from: self.from,
            to: self.to,
            limit: None,
            offset: 0,
        }
    }
}

pub(super) async fn query<S: RecordSource>(
    args: QueryArgs,
    audit: &AuditSettings,
    source: Option<&S>,
    console: &Console,
) -> Result<(), Failure> {
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let offset = usize::try_from(args.offset).unwrap_or(usize::MAX);
    let filter = RecordFilter { limit: Some(limit), offset, ..args.filter.filter() };
    let records = match source.filter(|_| !args.journal) {
        Some(source) => source.query(&filter).await.map_err(unanswered)?,
        None => scan::newest(&audit.dir, &filter, limit).map_err(unreadable)?,
    };
    let header = ["time", "id", "decision", "reason", "status", "user", "action", "tenant", "what"];
    console.list(&records, &header, row)
}

/// What a table shows of a record; `explain` shows all of it.
fn row(record: &Record) -> Vec<String> {
    let text = |value: &Option<String>| value.as_deref().map(plain).unwrap_or_default();
    let status = match (record.status, record.aborted) {
        (Some(status), Some(true)) => format!("{status} (aborted)"),
        (Some(status), _) => status.to_string(),
        (None, Some(true)) => "aborted".to_owned(),
        (None, None) if !record.is_whole() => "open".to_owned(),
        // Another proxy carried it out: what it answered, linkgate did not see.
        (None, Some(false)) if record.kind == Kind::Access => "-".to_owned(),
        (None, _) => String::new(),
    };
    let tenant = match (&record.managed_tenant_id, record.slices.len()) {
        (None, slices @ 1..) => format!("{slices} tenants"),
        (tenant, _) => text(tenant),
    };
    let what = match (&record.method, &record.path) {
        (Some(method), Some(path)) => format!("{} {}", plain(method), plain(path)),
        _ => [&record.resource_type, &record.resource_id].map(text).join(" "),
    };
    vec![
        record.time.to_string(),
        record.id.to_string(),
        record.decision.as_str().to_owned(),
        text(&record.reason),
        status,
        record.username.as_ref().or(record.user_id.as_ref()).map(|name| plain(name)).unwrap_or_default(),
        text(&record.action),
        tenant,
        what,
    ]
}

pub(super) fn export(args: ExportArgs, audit: &AuditSettings) -> Result<(), Failure> {
    let limit = args.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let filter = RecordFilter { limit, ..args.filter.filter() };
    let (mut file, mut stdout);
    let out: &mut dyn Write = match &args.output {
        Some(path) => {
            // A further chain goes behind those before it.
            let mut options = std::fs::OpenOptions::new();
            let how = if args.goes_on { options.append(true) } else { options.write(true).create_new(true) };
            let created = how
                .open(path)
                .map_err(|error| Failure::failed(format_args!("cannot create `{}`: {error}", path.display())))?;
            file = io::BufWriter::new(created);
            &mut file
        }
        None => {
            stdout = io::BufWriter::new(io::stdout().lock());
            &mut stdout
        }
    };
    let exported = scan::export(&audit.dir, args.from_segment, &filter, |record| {
        serde_json::to_writer(&mut *out, &record)?;
        out.write_all(b"\n")
    });
    let flushed = out.flush();
    match exported {
        Err(ScanError::Output(error)) => written(args.output.as_deref(), Err(error)),
        Err(error) => Err(unreadable(error)),
        Ok(_) => written(args.output.as_deref(), flushed),
    }
}

fn written(file: Option<&Path>, done: io::Result<()>) -> Result<(), Failure> {
    match file {
        Some(path) => done.map_err(|error| Failure::failed(format_args!("cannot write `{}`: {error}", path.display()))),
        None => printed(done),
    }
}
