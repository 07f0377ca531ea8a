//! How long `linkgate policy replay` takes over a journal of many records: 1,000,000 in under a minute on 2 cores is the
//! goal. Writes the journal first, then runs the command as an operator does and prints its time and processor time.
//!
//! A plain harness, because one run of the whole command is what is wanted. `cargo bench --bench replay [-- --records N]`.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use linkgate::{
    audit::{Asked, AuditSettings, Completion, Decision, Durability, Holds, Journal, Opening},
    domain::{
        Approval, DecisionId, Facts, Link, LinkFacts, LinkId, LinkRole, LinkVersion, Millis, PartnerId, Permission,
        PermissionSet, TenantId, UserFacts,
    },
    policy::{Bundle, Memo, decide},
};
use uuid::Uuid;

type Failed = Box<dyn std::error::Error>;

/// Links, each of another tenant, over a hundred partners.
const LINKS: u128 = 5_000;
const PARTNERS: u128 = 100;
/// A guardrail that reads the address is one more fact in the memo's key.
const CHANGE: &str = "@id(\"writes-from-the-office\")\nforbid (principal, action in [Action::\"billing.write\"], resource)\nunless { context.ip.isInRange(ip(\"203.0.113.0/25\")) };\n";

fn main() -> Result<(), Failed> {
    // `cargo bench` passes `--bench`; `cargo test --benches` must not take minutes.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let full = arguments.iter().any(|argument| argument == "--bench");
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench-replay");
    let asked = arguments.iter().skip_while(|argument| *argument != "--records").nth(1);
    let records: u64 = match asked {
        Some(number) => number.parse()?,
        None if full => 1_000_000,
        None => 500,
    };
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    write(&dir.join("audit"), records)?;
    let set = changed_set(&dir)?;
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("policies");
    for (name, set) in [("the set that decided", own), ("a set with one guardrail more", set)] {
        replay(&dir.join("audit"), &set, name)?;
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn changed_set(dir: &Path) -> Result<PathBuf, Failed> {
    let (own, set) = (PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("policies"), dir.join("set"));
    std::fs::create_dir_all(set.join("guardrails"))?;
    for name in ["schema.cedarschema", "roles.toml"] {
        std::fs::copy(own.join(name), set.join(name))?;
    }
    std::fs::write(set.join("guardrails/change.cedar"), CHANGE)?;
    Ok(set)
}

fn links() -> Result<Vec<LinkFacts>, Failed> {
    let make = |at: u128| -> Result<LinkFacts, Failed> {
        let role = LinkRole::ALL.get(usize::try_from(at % 6)?).copied().unwrap_or(LinkRole::Auditor);
        let link = Link {
            id: LinkId(Uuid::from_u128(at + 1)),
            partner_id: PartnerId(Uuid::from_u128(at % PARTNERS + 1)),
            tenant_id: TenantId::new(&Uuid::from_u128(at + 10_000).to_string())?,
            role,
            granted: PermissionSet::EMPTY,
            denied: if at.is_multiple_of(50) {
                PermissionSet::from_name("billing.write")?
            } else {
                PermissionSet::EMPTY
            },
            approval: Approval::Approved,
            is_active: !at.is_multiple_of(97),
            start: Millis(1_700_000_000_000),
            end: (at.is_multiple_of(10)).then_some(Millis(1_900_000_000_000)),
            allowed_cidrs: if at.is_multiple_of(20) { vec!["203.0.113.0/24".parse()?].into() } else { Box::default() },
            require_mfa: at.is_multiple_of(30),
            version: LinkVersion(7),
        };
        Ok(LinkFacts {
            link,
            partner_active: true,
            suspended: false,
            tenant_status: "active".into(),
            ancestors: Box::default(),
        })
    };
    (0..LINKS).map(make).collect()
}

/// Decides each request as the gateway does, and records it.
fn write(dir: &Path, records: u64) -> Result<(), Failed> {
    let settings = AuditSettings {
        dir: dir.to_owned(),
        segment_bytes: 64 << 20,
        segment_age: None,
        writes: Durability::Memory,
        reads: Durability::Memory,
        commit_timeout: Duration::from_secs(10),
        flush_interval: Duration::from_millis(50),
    };
    let (journal, _) = Journal::open(settings)?;
    let (bundle, links, mut memo) = (Bundle::load(None)?, links()?, Memo::new(65_536));
    let roles: [Arc<str>; 1] = ["partner_msp_full".into()];
    let holds = Holds::of(&roles, &[]);
    let permissions: Vec<Permission> = Permission::all().collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let start = Instant::now();
    runtime.block_on(async {
        for at in 0..usize::try_from(records)? {
            let (Some(facts), Some(permission)) =
                (links.get(at * 7 % links.len()), permissions.get(at % permissions.len()))
            else {
                continue;
            };
            let user = UserFacts {
                issuer: "https://id.example.net/".into(),
                sub: format!("user-{}", at % 1_000).into(),
                partner_id: facts.link.partner_id,
                holds: PermissionSet::ALL,
                suspended: false,
            };
            let ip = std::net::IpAddr::from([203, 0, 113, u8::try_from(at % 250)?]);
            let asked = Facts {
                user: &user,
                link: Some(facts),
                permission: *permission,
                switch_context: true,
                now: Millis::now(),
                ip,
                mfa: at % 3 == 0,
                method: "GET",
                route_class: "read",
            };
            let outcome = decide(&bundle, Some(&mut memo), &asked);
            let denial = outcome.verdict.as_ref().err();
            let opening = Opening {
                user_id: Some(&user.sub),
                username: Some("jane.doe"),
                partner_id: Some(facts.link.partner_id),
                partner_name: Some("Acme Managed Services"),
                partner_tenant_id: Some("0b9b9f0e-6f0e-4a53-b0b1-4d1c3c1d5f00"),
                session_id: Some("9f1c0c60-0c7a-4a49-8d9d-1ad7f7f3a2a1"),
                issuer: Some(&user.issuer),
                action: Some(permission.name()),
                managed_tenant_id: Some(facts.link.tenant_id.as_str()),
                link_id: Some(facts.link.id),
                link_version: Some(facts.link.version),
                decision: if denial.is_none() { Decision::Allow } else { Decision::Deny },
                reason: denial.and_then(|denial| match denial {
                    linkgate::policy::Refusal::Denied(denial) => Some(denial.word()),
                    linkgate::policy::Refusal::Unavailable => None,
                }),
                policies: &outcome.policies,
                policy_version: bundle.version(),
                client_ip: Some(ip),
                user_agent: Some("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
                mfa: asked.mfa,
                asked: Some(Asked {
                    holds: &holds,
                    user_suspended: false,
                    switch_context: true,
                    caller_only: false,
                    class: "read",
                    allowed: denial.is_none(),
                    link: Some(facts),
                }),
                ..Opening::new(
                    DecisionId::generate(),
                    asked.now,
                    "GET",
                    "/api/v1/billing/invoices?status=open",
                    "req_0af7",
                )
            };
            let completion =
                Completion { status: Some(200), bytes: 4_096, duration_us: 1_834, ..Completion::default() };
            journal.admit(&opening, Durability::Memory).await?.complete(completion);
        }
        journal.settle().await?;
        Ok::<_, Failed>(())
    })?;
    journal.close();
    println!("{records} records written in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn replay(journal: &Path, set: &Path, name: &str) -> Result<(), Failed> {
    let start = Instant::now();
    let cpu = children_cpu()?;
    let output = Command::new(env!("CARGO_BIN_EXE_linkgate"))
        .args(["--json", "policy", "replay", "--max-flips", "1000000", "--policies"])
        .arg(set)
        .arg("--journal")
        .arg(journal)
        .output()?;
    let wall = start.elapsed().as_secs_f64();
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let number = |name: &str| report.get(name).and_then(serde_json::Value::as_u64).unwrap_or_default();
    println!(
        "{name}: {} decisions made again in {wall:.1} s ({:.1} s of processor time), {} allow -> deny, {} deny -> allow, {} contradictions, {} not replayed",
        number("replayed"),
        children_cpu()? - cpu,
        number("allow_to_deny"),
        number("deny_to_allow"),
        number("contradictions"),
        number("cannot_be_replayed"),
    );
    Ok(())
}

/// Processor time of children that were waited for, from `/proc/self/stat`.
fn children_cpu() -> Result<f64, Failed> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let seconds =
        |at: usize| -> Result<f64, Failed> { Ok(fields.get(at).ok_or("short stat")?.parse::<f64>()? / 100.0) };
    Ok(seconds(13)? + seconds(14)?)
}
