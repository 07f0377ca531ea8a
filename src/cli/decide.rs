//! `linkgate decide`: what-if in bulk. JSON lines in, decisions out, through the very `decide` of the proxy.
//!
//! Lines are decided in parallel, a memo a thread, and answered in their order. A line that cannot be decided gets an
//! `{"error": ...}` in its place and the others go on; the command then ends with exit code 3. Where a line leaves
//! something out, the value that refuses least is assumed (see `--help`), so that a question needs to name only what
//! it asks about.

use std::{
    fmt::Write as _,
    io::{BufWriter, Read, Write},
    path::PathBuf,
};

use super::{
    context::{Context, environment},
    outcome::{Exit, Failure, count, printed},
};
use crate::{
    config,
    domain::{Reason, plain::plain},
    ops::policy::decide::{Answer, answer},
    policy::{Bundle, Memo},
};

/// Most that is read, and then decided, at once; bounds the memory, whatever the input's length.
const CHUNK_BYTES: usize = 1 << 20;
/// Fewer lines than this are not worth a thread of their own.
const LINES_A_THREAD: usize = 32;
const MEMO_ENTRIES: usize = 65_536;
/// Longest line.
const MAX_LINE_BYTES: usize = 1 << 20;

const HELP: &str = r#"One JSON object a line on standard input:

  {"user": {"roles": ["partner_msp_full"], "permissions": [], "suspended": false},
   "link": {"access_role": "msp_billing", "custom_permissions": {"billing.export": false},
            "start_date": "2026-01-01T00:00:00Z", "end_date": null, "is_active": true, "approval": "approved",
            "allowed_cidrs": ["192.0.2.0/24"], "require_mfa": false, "partner_active": true, "suspended": false},
   "permission": "partner.billing.invoices.read", "now": "2026-06-01T00:00:00Z", "ip": "192.0.2.1",
   "mfa": true, "proxied": true}

`link` takes every name of the contract's section 5, and is null (or left out) where the partner has no link. `proxied`
says that the request names an active tenant, so that partner.tenants.switch_context is needed as well. Beyond that:
`user.issuer`, `user.sub`, `link.tenant_status`, `method` and `route_class`, which only guardrails read, and
`link.parents`, a list of links (nearest first) that a delegated link hangs on.

Left out, these mean: no roles, no permissions, nobody suspended, partner active, link approved and active, started long
ago, no end, no overrides, any address, no MFA asked and none shown, now = the clock, ip = 127.0.0.1, proxied = true.
`permission` and the link's `access_role` cannot be left out. An override set to true outside the role's own set grants
nothing (such a link cannot be stored). Unknown fields, permissions, link roles and malformed values are errors.

One JSON object a line on standard output, in the same order:

  {"allowed": true, "code": null, "reason": null}
  {"allowed": false, "code": "FORBIDDEN", "reason": "permission"}
  {"allowed": false, "code": "TENANT_LINK_EXPIRED", "reason": null}
  {"error": "..."}                    the line could not be decided; the exit code is 3 when all are done
"#;

/// Decide many what-if questions (JSON lines in, decisions out)
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// Folder with schema.cedarschema, roles.toml and guardrails/*.cedar [default: the set of the configuration that
    /// `--config` or LINKGATE_CONFIG names; where neither does, the built-in set]
    #[arg(long, value_name = "DIR")]
    pub policies: Option<PathBuf>,
}

pub fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let dir = match args.policies {
        Some(dir) => Some(dir),
        None => configured(context)?,
    };
    let bundle = Bundle::load(dir.as_deref())
        .map_err(|errors| Failure::new(Exit::Invalid, format!("{errors}\n\n{}", errors.render())))?;
    let stdout = std::io::stdout().lock();
    let bad =
        stream(&bundle, std::io::stdin().lock(), BufWriter::with_capacity(1 << 16, stdout), context.console.json)?;
    match bad {
        0 => Ok(()),
        some => Err(Failure::new(Exit::Invalid, format!("{} could not be decided", count(some, "line")))),
    }
}

/// The set of a configuration that was named; a file that only lies here changes no answer. One that was named and cannot be
/// read is an error: another set would answer as if it were the gateway's.
fn configured(context: &Context) -> Result<Option<PathBuf>, Failure> {
    let Some(named) = context.named.as_deref() else { return Ok(None) };
    match config::check(named.into(), environment()).policy {
        Some(policy) => Ok(policy.dir),
        None => context.config().map(|config| config.policy.dir),
    }
}

/// Decides every line of `input`; gives the number of lines that could not be.
fn stream(bundle: &Bundle, mut input: impl Read, mut output: impl Write, json: bool) -> Result<usize, Failure> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut memos: Vec<Memo> = (0..threads).map(|_| Memo::new(MEMO_ENTRIES)).collect();
    let mut lines = Lines::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut bad = 0;
    loop {
        // What one read gives is answered before more is awaited: the other side may wait for each answer.
        let length = match input.read(&mut chunk) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            other => other.map_err(|error| Failure::failed(format_args!("cannot read standard input: {error}")))?,
        };
        lines.take(chunk.get(..length).unwrap_or_default(), length == 0);
        let mut written = Ok(());
        for (text, failed) in batch(bundle, &lines.complete, &mut memos, json) {
            bad += failed;
            written = written.and_then(|()| output.write_all(text.as_bytes()));
        }
        let written = written.and_then(|()| output.flush());
        let unread = written.is_err();
        printed(written)?;
        lines.complete.clear();
        if length == 0 || unread {
            return Ok(bad);
        }
    }
}

/// A line with its number, counted from 1; `None` stands for one that is too long to be kept.
type Numbered = (u64, Option<Vec<u8>>);

/// Cuts chunks into lines.
#[derive(Default)]
struct Lines {
    complete: Vec<Numbered>,
    number: u64,
    pending: Vec<u8>,
    overlong: bool,
}

impl Lines {
    fn take(&mut self, chunk: &[u8], ended: bool) {
        let mut pieces = chunk.split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            if self.pending.len() + piece.len() > MAX_LINE_BYTES {
                self.overlong = true;
                self.pending.clear();
            } else if !self.overlong {
                self.pending.extend_from_slice(piece);
            }
            if pieces.peek().is_some() || ended {
                let line = std::mem::take(&mut self.pending);
                self.number += 1;
                if std::mem::take(&mut self.overlong) {
                    self.complete.push((self.number, None));
                } else if !line.trim_ascii().is_empty() {
                    self.complete.push((self.number, Some(line)));
                }
            }
        }
    }
}

/// The answers to these lines as text, in pieces that follow each other, and how many of each piece failed.
fn batch(bundle: &Bundle, lines: &[Numbered], memos: &mut [Memo], json: bool) -> Vec<(String, usize)> {
    let answer_all = |lines: &[Numbered], memo: &mut Memo| {
        let mut text = String::with_capacity(lines.len() * 64);
        let mut failed = 0;
        for (number, line) in lines {
            let answer = line.as_deref().map_or_else(
                || Err(format!("the line is longer than {MAX_LINE_BYTES} bytes")),
                |line| answer(bundle, Some(memo), line),
            );
            failed += usize::from(answer.is_err());
            write_answer(&mut text, *number, &answer, json);
        }
        (text, failed)
    };
    let share = lines.len().div_ceil(memos.len().max(1));
    if share < LINES_A_THREAD {
        return memos.first_mut().map(|memo| answer_all(lines, memo)).into_iter().collect();
    }
    std::thread::scope(|scope| {
        let parts = lines.chunks(share).zip(memos.iter_mut());
        let running: Vec<_> = parts.map(|(part, memo)| (part, scope.spawn(move || answer_all(part, memo)))).collect();
        running
            .into_iter()
            .map(|(part, thread)| {
                // A panic is a fault of ours; its lines are told as failed, never left out.
                thread.join().unwrap_or_else(|_| {
                    let mut text = String::new();
                    let failed = Err("internal error".to_owned());
                    part.iter().for_each(|(number, _)| write_answer(&mut text, *number, &failed, json));
                    (text, part.len())
                })
            })
            .collect()
    })
}

fn write_answer(out: &mut String, number: u64, answer: &Answer, json: bool) {
    // The parser saw one line, and calls it the first.
    let placed = |error: &str| format!("line {number}: {}", error.replace(" at line 1 column ", " at column "));
    let reason = |reason: &Option<Reason>| reason.map(Reason::as_str);
    // Writing to a string cannot fail.
    let _ = match (answer, json) {
        (Ok(Ok(())), true) => writeln!(out, r#"{{"allowed":true,"code":null,"reason":null}}"#),
        (Ok(Err((code, why))), true) => match reason(why) {
            Some(why) => writeln!(out, r#"{{"allowed":false,"code":"{code}","reason":"{why}"}}"#),
            None => writeln!(out, r#"{{"allowed":false,"code":"{code}","reason":null}}"#),
        },
        (Err(error), true) => writeln!(out, "{}", serde_json::json!({"error": placed(error)})),
        (Ok(Ok(())), false) => writeln!(out, "allow"),
        (Ok(Err((code, why))), false) => writeln!(out, "deny {code} {}", reason(why).unwrap_or("-")),
        (Err(error), false) => writeln!(out, "error {}", plain(&placed(error))),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(input: &str) -> (Vec<serde_json::Value>, usize) {
        let bundle = Bundle::load(None).unwrap();
        let mut output = Vec::new();
        let bad = stream(&bundle, input.as_bytes(), &mut output, true).unwrap();
        let lines = String::from_utf8(output).unwrap();
        (lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), bad)
    }

    #[test]
    fn answers_in_order_and_goes_on_after_a_bad_line() {
        let open = r#"{"user":{"permissions":["partner.*"]},"link":{"access_role":"auditor"},"permission":"partner.reports.export"}"#;
        let input = [
            open,
            "",
            "{",
            &open.replace("auditor", "msp_support"),
            &open.replace(r#""auditor""#, r#""auditor","end_date":"2020-01-01T00:00:00Z""#),
            &open.replace(r#""auditor""#, r#""auditor","require_nfa":true"#),
            &open.replace(r#"{"access_role":"auditor"}"#, "null"),
            &open.replace("reports.export", "reports.exports"),
            &open.replace("partner.reports.export", "partner.reports.*"),
            &open.replace("auditor", "auditors"),
            &open.replace(r#""auditor""#, r#""auditor","custom_permissions":{"report.sla":true}"#),
            &open.replace(r#""auditor""#, r#""auditor","custom_permissions":{"partner.*":true},"notes":{"a":[1]}"#),
            &open.replace(r#""auditor""#, r#""auditor","allowed_cidrs":["192.0.2.0/24"]"#),
            &open.replace(r#""auditor""#, r#""auditor","parent_link_id":"019a0000-0000-7000-8000-000000000001""#),
        ]
        .join("\n");
        let (answers, bad) = ask(&input);
        let told: Vec<_> = answers
            .iter()
            .map(|answer| match answer.get("error") {
                Some(_) => "error",
                None => answer["reason"].as_str().or(answer["code"].as_str()).unwrap_or("allowed"),
            })
            .collect();
        assert_eq!(
            told,
            [
                "allowed",
                "error",
                "permission",
                "TENANT_LINK_EXPIRED",
                "error",
                "no_link",
                "error",
                "error",
                "error",
                "error",
                "allowed",
                "ip_not_allowed",
                "error",
            ]
        );
        assert_eq!(bad, 7);
        assert_eq!(answers[3]["reason"], serde_json::Value::Null);
        assert!(answers[6]["error"].as_str().unwrap().contains("partner.reports.export"), "{}", answers[6]);
    }

    #[test]
    fn what_no_stored_link_can_be_is_not_decided() {
        let of = |link: &str| {
            format!(r#"{{"user":{{"permissions":["partner.*"]}},"link":{link},"permission":"partner.reports.export"}}"#)
        };
        let refused = [
            (of(r#"{"access_role":"auditor","parents":[{"access_role":"msp_full"}]}"#), "always of role `delegate`"),
            ("[]".to_owned(), "a JSON object"),
            (of(r#"["019a0000-0000-7000-8000-000000000001"]"#), "a JSON object"),
            (of(r#"{"access_role":"delegate","parents":[[]]}"#), "a JSON object"),
            (r#"{"user":[["partner_msp_full"]],"permission":"partner.reports.export"}"#.to_owned(), "a JSON object"),
        ];
        for (line, why) in refused {
            let (answers, bad) = ask(&line);
            assert_eq!(bad, 1, "{line}");
            assert!(answers[0]["error"].as_str().unwrap().contains(why), "{line}: {}", answers[0]);
        }
        let delegated = of(
            r#"{"access_role":"delegate","custom_permissions":{"partner.*":true},"parents":[{"access_role":"msp_full"}],
                "allowed_cidrs":["127.0.0.0/8"]}"#,
        );
        assert_eq!(ask(&delegated.replace('\n', " ")).0[0]["allowed"], true);
        assert_eq!(ask(&of(r#"{"access_role":"auditor","parents":[]}"#)).0[0]["allowed"], true);
    }

    #[test]
    fn proxied_asks_for_the_switch_as_well() {
        let line = r#"{"user":{"permissions":["partner.billing.*"]},"link":{"access_role":"msp_full"},"permission":"partner.billing.read"}"#;
        let (answers, _) =
            ask(&[line, &line.replace("\"permission\":", "\"proxied\":false,\"permission\":")].join("\n"));
        assert_eq!(answers[0]["reason"], "permission");
        assert_eq!(answers[1]["allowed"], true);
    }

    #[test]
    fn many_lines_keep_their_order_over_threads() {
        let allowed = r#"{"user":{"roles":["partner_msp_full"]},"link":{"access_role":"msp_full"},"permission":"partner.billing.read"}"#;
        let lines: Vec<_> = (0..5_000).map(|at| if at % 7 == 0 { "nonsense" } else { allowed }).collect();
        let (answers, bad) = ask(&lines.join("\n"));
        assert_eq!(answers.len(), 5_000);
        assert_eq!(bad, 5_000_usize.div_ceil(7));
        assert!(answers.iter().enumerate().all(|(at, answer)| answer.get("error").is_some() == (at % 7 == 0)));
    }

    #[test]
    fn a_line_without_end_is_an_error_and_the_next_is_answered() {
        let input = format!("{}\n{{\"permission\":\"partner.billing.read\"}}\n", "x".repeat(3 << 20));
        let (answers, bad) = ask(&input);
        assert_eq!(bad, 1);
        assert!(answers[0]["error"].as_str().unwrap().contains("longer"));
        assert_eq!(answers[1]["reason"], "no_link");
    }
}
