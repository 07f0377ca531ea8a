//! `linkgate audit verify`: the walk over a journal, held against the database and against checkpoints, and what it found.

use std::path::PathBuf;

use clap::Args;

use super::evidence::Known;
use crate::{
    audit::{
        AuditSettings, ChainHeads,
        reader::chain_file,
        verify::{Verification, VerifyOptions, verify_against},
    },
    cli::{
        outcome::{Console, Exit, Failure},
        trouble::unreadable,
    },
    ops::{journal::segment_is_there, plain},
};

#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// Begin at this segment and believe its header (earlier ones were archived).
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    from_segment: Option<u64>,
    /// Do not compare with the head that the database has seen: a tail that was cut off is then not found.
    #[arg(long)]
    without_database: bool,
    /// A checkpoint that was kept elsewhere: the journal must hold what it was signed over. May be repeated.
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// Keys that checkpoints are signed by: the published key set, or a public key in PEM [default: those configured]
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
}

/// Verifies the journal in `audit.dir`.
pub(super) async fn verify<S: ChainHeads>(
    args: &VerifyArgs,
    audit: &AuditSettings,
    known: &Known,
    source: Option<&S>,
    console: &Console,
) -> Result<(), Failure> {
    let chain = chain_file(&audit.dir)
        .map_err(|error| Failure::failed(format_args!("cannot read `{}`: {error}", audit.dir.display())))?
        .ok_or_else(|| {
            Failure::new(Exit::NotFound, format_args!("there is no audit journal in `{}`", audit.dir.display()))
        })?;
    segment_is_there(&audit.dir, args.from_segment)?;
    // The head is read before the walk: a running server only moves on from it.
    let stored = match source.filter(|_| !args.without_database) {
        Some(source) => Some(source.head(chain.chain_id).await),
        None => None,
    };
    let head = stored.as_ref().and_then(|result| result.as_ref().ok()).copied().flatten();
    let options = VerifyOptions { from_segment: args.from_segment, stored_head: head };
    let mut witness = known.witness(chain.chain_id, audit, &args.checkpoint, &args.key, !args.without_database)?;
    let result = verify_against(&audit.dir, options, Some(&mut witness)).map_err(|error| unreadable(error.into()))?;
    console.show(&result, told(&result))?;
    if !result.is_sound() {
        let count = u64::try_from(result.findings.len()).unwrap_or(u64::MAX) + result.more_findings;
        return Err(Failure::new(
            Exit::Verification,
            format_args!(
                "the audit journal is not as it was written: {count} finding{}",
                if count == 1 { "" } else { "s" }
            ),
        ));
    }
    if let Some(Err(error)) = stored {
        let text = format_args!("the chain is whole, but it was not compared with the database: {error}");
        return Err(Failure::new(Exit::Database, text));
    }
    Ok(())
}

/// What a person reads.
fn told(result: &Verification) -> String {
    let mut text = format!(
        "{} lines in {} segment{}, last record {} {}",
        result.lines,
        result.segments,
        if result.segments == 1 { "" } else { "s" },
        result.head.seq,
        result.head.hash
    );
    match result.open_records {
        0 => {}
        1 => text.push_str("\n1 record is open"),
        many => text.push_str(&format!("\n{many} records are open")),
    }
    if result.being_written {
        text.push_str("\nthe last line is being written");
    }
    if let Some(from) = &result.from_checkpoint {
        text.push_str(&format!(
            "\nverified from the checkpoint at record {} on, signed {} by key {}",
            from.seq, from.time, from.kid
        ));
        match &result.pruned {
            Some(told) => {
                let by = told.by.as_deref().map(plain).unwrap_or_default();
                let why = told.reason.as_deref().map(|why| format!(" ({})", plain(why))).unwrap_or_default();
                text.push_str(&format!(": what lies before was pruned {} by {by}{why}", told.time));
            }
            None => text.push_str(": what lies before was pruned or moved away"),
        }
    }
    match result.checkpoints {
        0 => text.push_str("\nno signed checkpoint was compared: a chain rewritten as a whole would not be found"),
        1 => text.push_str("\n1 signed checkpoint holds"),
        many => text.push_str(&format!("\n{many} signed checkpoints hold")),
    }
    if result.unknown_checkpoints > 0 {
        text.push_str(&format!(
            "\n{} checkpoints are signed by keys that are not known here (`--key`)",
            result.unknown_checkpoints
        ));
    }
    if !result.compared {
        text.push_str("\nnot compared with a head stored elsewhere: a tail that was cut off would not be found");
    }
    for finding in &result.findings {
        text.push_str(&format!("\n{finding}"));
    }
    if result.more_findings > 0 {
        text.push_str(&format!("\nand {} more findings", result.more_findings));
    }
    text
}
