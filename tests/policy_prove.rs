//! `linkgate policy prove` as it is run: the shipped set proves, planted faults are shown by requests that replay, and no
//! solver, a false one or one that hangs is never a pass.
//!
//! Needs cvc5; `tests/run` installs it.
#![cfg(feature = "prove")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may stop")]

mod cli_support;

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use cli_support::{PATIENCE, Ran, linkgate, run};
use serde_json::Value;

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/policies");
const UNDECIDED: i32 = 9;
const BROKEN: i32 = 6;

/// A copy of the shipped set, to be changed.
struct Folder {
    dir: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("guardrails")).unwrap();
        for file in ["schema.cedarschema", "roles.toml", "invariants.toml", "guardrails/examples.cedar"] {
            fs::copy(Path::new(SHIPPED).join(file), dir.path().join(file)).unwrap();
        }
        Self { dir }
    }

    fn guardrail(self, text: &str) -> Self {
        fs::write(self.dir.path().join("guardrails/mine.cedar"), text).unwrap();
        self
    }

    fn replace(self, file: &str, old: &str, new: &str) -> Self {
        let path = self.dir.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(old), "{file} has no `{old}`");
        fs::write(path, text.replacen(old, new, 1)).unwrap();
        self
    }

    fn path(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }
}

fn prove(arguments: &[&str]) -> Ran {
    let mut command = linkgate(&["policy", "prove", "--json"]);
    // A folder without a configuration or policies of its own.
    run(command.args(arguments).env_remove("CVC5").current_dir(std::env::temp_dir()))
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {} {}", ran.out, ran.err))
}

/// Names of the verdicts in this state.
fn in_state<'a>(report: &'a Value, state: &str) -> Vec<&'a str> {
    let verdicts = report["verdicts"].as_array().unwrap().iter().filter(|verdict| verdict["state"] == state);
    verdicts.map(|verdict| verdict["name"].as_str().unwrap()).collect()
}

fn verdict<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["verdicts"].as_array().unwrap().iter().find(|verdict| verdict["name"] == name).unwrap()
}

/// What `linkgate decide` says to the counterexample's own line.
fn decided(policies: &str, verdict: &Value) -> Value {
    let mut child = linkgate(&["decide", "--json", "--policies", policies])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let line = verdict["counterexample"]["question"].to_string();
    child.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{line}");
    serde_json::from_slice(&out.stdout).unwrap()
}

#[test]
fn the_shipped_set_proves_in_every_environment_and_says_what_is_not_proved() {
    let dir = tempfile::tempdir().unwrap();
    let junit = dir.path().join("prove.xml");
    let ran = prove(&["--policies", SHIPPED, "--junit", junit.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let report = json(&ran);
    assert_eq!(report["state"], "proved");
    assert_eq!(report["environments"], 52, "26 permissions, with and without a link");
    assert_eq!(in_state(&report, "proved").len(), 16);
    assert_eq!(report["verdicts"].as_array().unwrap().len(), 16);
    assert!(report["solver"].as_str().unwrap().starts_with("cvc5 1."), "{}", report["solver"]);
    let outside = report["outside"].to_string();
    assert!(outside.contains("address lists") && outside.contains("gates in Rust"), "{outside}");
    let junit = fs::read_to_string(junit).unwrap();
    assert!(junit.contains(r#"tests="16" failures="0" errors="0""#), "{junit}");
}

#[test]
fn planted_faults_are_shown_by_requests_that_replay() {
    let folder = Folder::new()
        .replace("roles.toml", "auditor = [\n", "auditor = [\n  \"partner.alerts.acknowledge\",\n")
        .guardrail(
            r#"
            @id("trial-tenants-export") permit (principal, action == Action::"partner.reports.export", resource is Link)
            when { resource.tenant.status == "trial" };
            @id("far-ahead") permit (principal, action in [Action::"billing.write"], resource is Link)
            when { resource.role == Role::"msp_full" && context.now.offset(duration("9223372036854775000ms")) < resource.starts };"#,
        );
    let dir = tempfile::tempdir().unwrap();
    let junit = dir.path().join("prove.xml");
    let ran = prove(&["--policies", folder.path(), "--junit", junit.to_str().unwrap()]);
    assert_eq!(ran.code, BROKEN, "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("3 of 16 do not hold"), "{}", ran.err);
    let report = json(&ran);
    let broken = ["an-auditor-never-writes", "a-delegate-has-only-its-grants", "no-policy-can-fail"];
    assert_eq!(in_state(&report, "broken"), broken);
    assert_eq!(in_state(&report, "proved").len(), 13);
    for name in broken {
        assert_eq!(verdict(&report, name)["counterexample"]["confirmed"], "by_set", "{}", verdict(&report, name));
    }

    let auditor = verdict(&report, "an-auditor-never-writes");
    assert_eq!(auditor["where"], serde_json::json!(["partner.alerts.acknowledge through a link"]));
    assert_eq!(auditor["counterexample"]["policies"], serde_json::json!(["linkgate.role.auditor"]));
    assert_eq!(decided(folder.path(), auditor)["allowed"], true);
    assert_eq!(decided(SHIPPED, auditor)["reason"], "permission", "the shipped set refuses it");

    let delegate = verdict(&report, "a-delegate-has-only-its-grants");
    assert_eq!(delegate["counterexample"]["policies"], serde_json::json!(["trial-tenants-export"]));
    assert_eq!(delegate["counterexample"]["question"]["link"]["tenant_status"], "trial");
    assert_eq!(decided(folder.path(), delegate)["allowed"], true);

    let fails = verdict(&report, "no-policy-can-fail");
    assert!(fails["counterexample"]["policies"][0].as_str().unwrap().starts_with("far-ahead: "), "{fails}");
    assert_eq!(decided(folder.path(), fails)["code"], "POLICY_UNAVAILABLE");

    let junit = fs::read_to_string(junit).unwrap();
    assert!(junit.contains(r#"tests="16" failures="3" errors="0""#), "{junit}");
    assert!(junit.contains("trial-tenants-export"), "{junit}");
}

#[test]
fn a_set_is_held_against_an_older_one() {
    // Stricter: a role that lost something, a guardrail more, and a group that the older schema does not have.
    let stricter = Folder::new()
        .replace("roles.toml", "  \"partner.reports.revenue.read\",\n", "")
        .replace("schema.cedarschema", "action \"reports.sla\";", "action \"reports.sla\";\naction \"numbers\";")
        .replace(
            "schema.cedarschema",
            "in [\"partner.reports.usage.*\"]",
            "in [\"partner.reports.usage.*\", \"numbers\"]",
        )
        .guardrail(r#"@id("x") forbid (principal, action in [Action::"numbers"], resource) unless { context.mfa };"#);
    let ran = prove(&["--policies", stricter.path(), "--against", SHIPPED]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert_eq!(verdict(&json(&ran), "no-wider-than-the-older-set")["state"], "proved");

    // The other way round it is wider, and the request that shows it is refused by the stricter set.
    let ran = prove(&["--policies", SHIPPED, "--against", stricter.path()]);
    assert_eq!(ran.code, BROKEN, "{}{}", ran.out, ran.err);
    let report = json(&ran);
    let wider = verdict(&report, "no-wider-than-the-older-set");
    assert_eq!(wider["counterexample"]["confirmed"], "by_set", "{wider}");
    assert_eq!(decided(SHIPPED, wider)["allowed"], true);
    assert_eq!(decided(stricter.path(), wider)["allowed"], false);
    assert!(wider["why"].to_string().contains("`msp_billing` grants more: partner.reports.revenue.read"), "{wider}");
}

/// The user roles come to Cedar as facts, so that the solver sees nothing of them.
#[test]
fn a_wider_user_role_is_wider() {
    let wider = Folder::new().replace(
        "roles.toml",
        "partner_auditor = \"auditor\"",
        "partner_auditor = [\"partner.tenants.*\", \"billing.write\"]",
    );
    let ran = prove(&["--policies", wider.path(), "--against", SHIPPED]);
    assert_eq!(ran.code, BROKEN, "{}{}", ran.out, ran.err);
    let report = json(&ran);
    assert_eq!(in_state(&report, "broken"), ["no-wider-than-the-older-set"]);
    let verdict = verdict(&report, "no-wider-than-the-older-set");
    assert!(
        verdict["why"][0].as_str().unwrap().contains("`partner_auditor` grants more: partner.billing.invoices.write")
    );
    assert_eq!(verdict["counterexample"]["confirmed"], "by_set");
    assert_eq!(decided(wider.path(), verdict)["allowed"], true);
}

#[test]
fn what_cannot_be_compared_is_no_pass() {
    let grown = |member: &str| {
        Folder::new()
            .replace("schema.cedarschema", "action \"reports.sla\";", "action \"reports.sla\";\naction \"numbers\";")
            .replace("schema.cedarschema", member, &member.replace(']', ", \"numbers\"]"))
    };
    let usage = grown("in [\"partner.reports.usage.*\"]");
    let revenue = grown("in [\"partner.reports.revenue.*\"]");
    let ran = prove(&["--policies", usage.path(), "--against", revenue.path()]);
    assert_eq!(ran.code, UNDECIDED, "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("mean different things by the group `numbers`"), "{}", ran.err);

    let fails = Folder::new().guardrail(
        r#"@id("fails") permit (principal, action == Action::"partner.billing.read", resource is Link)
           when { context.now.offset(duration("9223372036854775000ms")) < resource.starts };"#,
    );
    let ran = prove(&["--policies", SHIPPED, "--against", fails.path()]);
    assert_eq!(ran.code, UNDECIDED, "{}{}", ran.out, ran.err);
    let report = json(&ran);
    let verdict = verdict(&report, "no-wider-than-the-older-set");
    assert_eq!(verdict["where"], serde_json::json!(["partner.billing.read through a link"]));
    assert!(verdict["why"].to_string().contains("`fails` of the older set can fail"), "{verdict}");
}

/// `check` and the solver see different things: what only `check` sees is no pass, and what only the solver sees is said.
#[test]
fn what_check_says_of_a_rule_stands_beside_the_proof() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "[[invariant]]\nname = 'safe'\nsays = 'x'\npolicies_never_fail = true\n").unwrap();
    let rule = |condition: &str| {
        Folder::new().guardrail(&format!(
            "@id(\"mine\") permit (principal, action == Action::\"partner.billing.read\", resource is Link) when {{ {condition} }};"
        ))
    };
    let proven = |folder: &Folder, code: i32| {
        let ran = prove(&["--policies", folder.path(), "--invariants", file.path().to_str().unwrap()]);
        assert_eq!(ran.code, code, "{}{}", ran.out, ran.err);
        verdict(&json(&ran), "safe").clone()
    };
    // Cedar knows the tenant of the question and no other; the solver takes all to be known.
    let unknown = rule(r#"resource.role == Role::"reseller" && Tenant::"acme".status == "trial""#);
    let verdict = proven(&unknown, BROKEN);
    assert_eq!(verdict["counterexample"]["confirmed"], "by_set", "{verdict}");
    assert!(verdict["why"][0].as_str().unwrap().contains("the solver takes every entity to be known"), "{verdict}");
    assert_eq!(decided(unknown.path(), &verdict)["code"], "POLICY_UNAVAILABLE");
    // The same where no ordinary request comes to it.
    let hidden = rule(r#"principal.sub == "u-4711" && Tenant::"acme".status == "trial""#);
    let verdict = proven(&hidden, UNDECIDED);
    assert!(verdict["why"][0].as_str().unwrap().contains("`mine`"), "{verdict}");
    let ran = prove(&["--policies", SHIPPED, "--against", hidden.path()]);
    assert_eq!(ran.code, UNDECIDED, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("in the older set: `mine`"), "{}", ran.out);

    let guarded = rule(
        r#"context.now < datetime("1970-01-01") && context.now.offset(duration("9223372036854775000ms")) < resource.starts"#,
    );
    let verdict = proven(&guarded, 0);
    assert!(verdict["why"][0].as_str().unwrap().contains("warns that `mine` can fail"), "{verdict}");
}

#[test]
fn invariants_of_ones_own() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mine.toml");
    let one = |condition: &str| {
        format!(
            "[[invariant]]\nname = 'mine'\nsays = 'x'\nresource = 'Link'\nactions = ['partner.billing.payments.*']\nnever_allowed = '{condition}'\n"
        )
    };
    fs::write(&file, one(r#"resource.role == Role::"msp_support" && context.method == "DELETE""#)).unwrap();
    let ran = prove(&["--policies", SHIPPED, "--invariants", file.to_str().unwrap()]);
    assert_eq!(ran.code, BROKEN, "{}{}", ran.out, ran.err);
    let report = json(&ran);
    assert_eq!(verdict(&report, "mine")["where"], serde_json::json!(["partner.billing.payments.read through a link"]));
    assert_eq!(verdict(&report, "mine")["counterexample"]["question"]["method"], "DELETE");
    assert_eq!(decided(SHIPPED, verdict(&report, "mine"))["allowed"], true);
    assert_eq!(report["not_asked"].as_array().unwrap().len(), 16, "what is shipped and not in the file is named");

    // The example in the shipped file, switched on.
    let shipped = fs::read_to_string(Path::new(SHIPPED).join("invariants.toml")).unwrap();
    let example: Vec<_> = shipped.lines().skip_while(|line| *line != "# [[invariant]]").take(6).collect();
    fs::write(&file, example.join("\n").replace("# ", "")).unwrap();
    let ran = prove(&["--policies", SHIPPED, "--invariants", file.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert_eq!(in_state(&json(&ran), "proved"), ["only-full-links-suspend-subscribers"]);

    fs::write(&file, one("resource.rolle")).unwrap();
    let ran = prove(&["--policies", SHIPPED, "--invariants", file.to_str().unwrap()]);
    assert_eq!(ran.code, 3, "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("mine.toml:6:18"), "{}", ran.err);
}

/// A program in the solver's place.
fn in_place_of_cvc5(dir: &Path, script: &str) -> PathBuf {
    let path = dir.join("solver");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn without_a_solver_it_fails_and_says_how_to_install_one() {
    let dir = tempfile::tempdir().unwrap();
    let junit = dir.path().join("prove.xml");
    let mut command = linkgate(&["policy", "prove", "--policies", SHIPPED, "--junit", junit.to_str().unwrap()]);
    let ran = run(command.env_remove("CVC5").env("PATH", dir.path()));
    assert_eq!(ran.code, UNDECIDED, "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("`cvc5` cannot be started"), "{}", ran.err);
    assert!(ran.err.contains("apt-get install cvc5") && ran.err.contains("CVC5") && ran.err.contains("no pass"));
    assert!(fs::read_to_string(junit).unwrap().contains(r#"tests="1" failures="0" errors="1""#));

    let ran = run(linkgate(&["policy", "prove", "--policies", SHIPPED]).env("CVC5", "/nowhere/cvc5"));
    assert_eq!(ran.code, UNDECIDED, "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("`/nowhere/cvc5` cannot be started"), "{}", ran.err);
}

#[test]
fn what_is_no_solver_decides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (script, told) in [
        ("echo unsat", "it answered `unsat` where the answer is sat"),
        ("echo sat", "it answered `sat` where the answer is unsat"),
        ("echo unknown", "it answered `unknown`"),
        ("echo sat; exit 1", "exit status: 1"),
        ("echo hello there", "`hello there`"),
        ("true", "``"),
        ("kill -SEGV $$", "signal: 11"),
        ("echo 'no such library' >&2; exit 127", "no such library"),
        ("exec head -c 100000000 /dev/zero", "is longer than"),
        ("printf 'sat\\n'; exec head -c 100000000 /dev/zero", "is longer than"),
    ] {
        let solver = in_place_of_cvc5(dir.path(), script);
        let began = Instant::now();
        let ran = run(linkgate(&["policy", "prove", "--policies", SHIPPED]).env("CVC5", &solver));
        assert_eq!(ran.code, UNDECIDED, "{script}: {}{}", ran.out, ran.err);
        assert!(ran.err.contains(told), "{script}: {}", ran.err);
        assert!(began.elapsed() < PATIENCE, "{script}");
    }
}

/// Passes the first test by asking cvc5, then does as it likes.
fn turncoat(dir: &Path, then: &str) -> PathBuf {
    let script = format!(
        "read -r line\ncase \"$line\" in\n*'(declare-const x Int)'*) {{ echo \"$line\"; cat; }} | cvc5 \"$@\" ;;\n*) {then} ;;\nesac"
    );
    in_place_of_cvc5(dir, &script)
}

#[test]
fn a_solver_that_hangs_is_killed_and_not_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let solver = turncoat(dir.path(), &format!("echo $$ >> {}; exec sleep 600", pids.display()));
    let began = Instant::now();
    let ran = run(linkgate(&["policy", "prove", "--policies", SHIPPED, "--timeout-ms", "1000", "--jobs", "2"])
        .env("CVC5", &solver));
    assert_eq!(ran.code, UNDECIDED, "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("did not end") && ran.err.contains("no pass"), "{}", ran.err);
    assert!(began.elapsed() < PATIENCE);
    all_gone(&pids);
}

#[test]
fn a_solver_that_gives_up_leaves_everything_undecided() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("two.toml");
    let one = |name: &str, resource: &str, condition: &str| {
        format!("[[invariant]]\nname = '{name}'\nsays = 'x'\nresource = '{resource}'\nnever_allowed = '{condition}'\n")
    };
    fs::write(&file, one("bare", "Tenant", "true") + &one("revoked", "Link", "!resource.active")).unwrap();
    for (then, told) in [("echo unknown", "gave up"), ("echo garbage", "garbage")] {
        let solver = turncoat(dir.path(), then);
        let mut command = linkgate(&["policy", "prove", "--json", "--policies", SHIPPED, "--invariants"]);
        command.arg(&file);
        let ran = run(command.env("CVC5", &solver));
        assert_eq!(ran.code, UNDECIDED, "{then}: {}{}", ran.out, ran.err);
        let report = json(&ran);
        assert_eq!(report["state"], "undecided");
        assert_eq!(in_state(&report, "undecided"), ["revoked"]);
        assert!(verdict(&report, "revoked")["why"].to_string().contains(told), "{report}");
        // This one needs no solver: no permit matches a bare tenant.
        assert_eq!(in_state(&report, "proved"), ["bare"]);
    }
}

#[test]
fn no_solver_outlives_an_interrupted_proof() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let solver = turncoat(dir.path(), &format!("echo $$ >> {}; exec sleep 600", pids.display()));
    let mut child = linkgate(&["policy", "prove", "--policies", SHIPPED])
        .env("CVC5", &solver)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let until = Instant::now() + PATIENCE;
    while fs::read_to_string(&pids).unwrap_or_default().lines().count() == 0 {
        assert!(Instant::now() < until && child.try_wait().unwrap().is_none(), "no solver was asked");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(UNDECIDED));
    assert!(String::from_utf8_lossy(&out.stderr).contains("interrupted"));
    all_gone(&pids);
}

/// Every process of the list has ended (or is a zombie that nobody waits for any more).
fn all_gone(pids: &Path) {
    let until = Instant::now() + PATIENCE;
    let text = fs::read_to_string(pids).unwrap();
    assert!(!text.is_empty());
    for pid in text.lines() {
        let alive = || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            !status.is_empty() && !status.contains("State:\tZ")
        };
        while alive() {
            assert!(Instant::now() < until, "the solver {pid} is still there");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
