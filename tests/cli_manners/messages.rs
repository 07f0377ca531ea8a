//! What is said when something is wrong: enough to put it right.

use std::{fs, path::Path, process::Stdio};

use super::{
    PARTNER, Shell,
    cli_support::{Ran, linkgate, run},
};

#[test]
fn what_is_refused_says_what_would_be_right() {
    let shell = Shell::new();
    let said = |code: i32, words: &[&str], what: &str| {
        let ran = shell.run(code, words);
        assert!(ran.err.contains(what), "{words:?}: {}", ran.err);
    };
    said(3, &["suspend", "user", "x", "--reason", "", "--yes"], "the suspension is not valid: `reason`: 1 to 1000");
    said(2, &["partner", "show", "blue"], "the id of a partner is a UUID, see `linkgate partner list`");
    said(2, &["link", "revoke", "x"], "the id of a link is a UUID, see `linkgate link list`");
    said(2, &["user", "show", "x"], "see `linkgate user list`");
    said(5, &["tenant", "create", "t1"], "the tenant `t1` exists already: change it with `linkgate tenant update t1`");
    said(2, &["tenant", "update", "t1"], "no field to change is given");
    said(2, &["partner", "update", PARTNER, "--expect-version", "1"], "no field to change is given");
    said(2, &["link", "update", PARTNER], "no field to change is given");
    said(2, &["token", "--sub", "x", "--ttl", "1 hour"], "is no duration");
    said(2, &["token", "--sub", "x", "--ttl", "0"], "30 days");
    said(2, &["audit", "export", "--limit", "0"], "0 is not in 1..");
    said(4, &["audit", "checkpoint"], "there is no folder `");
    let proven = shell.run(3, &["policy", "prove", "--invariants", "nosuch"]);
    assert_eq!(proven.err.matches("cannot be read").count(), 1, "{}", proven.err);
}

#[cfg(feature = "demo")]
#[test]
fn a_folder_that_the_demo_cannot_have_is_named() {
    let ran = run(&mut linkgate(&["demo", "--dir", "/proc/foo"]));
    assert!(ran.code == 1 && ran.err.contains("cannot use the folder `/proc/foo`"), "{}", ran.err);
}

#[test]
fn help_tells_what_an_id_is_and_which_options_are_for_all() {
    let help = run(&mut linkgate(&["link", "update", "--help"])).out;
    for part in
        ["Global options:", "as `link list` shows it", "the others stay as they are", "[create without it: ongoing]"]
    {
        assert!(help.contains(part), "{part}: {help}");
    }
    let help = run(&mut linkgate(&["tenant", "update", "--help"])).out;
    assert!(!help.contains("[default: active]") && help.contains("as `tenant list` shows it"), "{help}");
}

/// The built-in set in a folder, with one guardrail more.
fn policies(dir: &Path, guardrail: &str) -> String {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let to = dir.join("own-policies");
    fs::create_dir_all(to.join("guardrails")).unwrap();
    for name in ["schema.cedarschema", "roles.toml"] {
        fs::copy(own.join(name), to.join(name)).unwrap();
    }
    fs::write(to.join("guardrails/own.cedar"), guardrail).unwrap();
    to.to_str().unwrap().to_owned()
}

#[test]
fn one_mistake_is_told_once_and_the_same_every_time() {
    let dir = tempfile::tempdir().unwrap();
    let set = policies(
        dir.path(),
        "@id(\"a\")\nforbid (principal, action, resource) when { context.nope == 1 || context.neither == 2 };\n",
    );
    let told: Vec<Ran> = (0..4).map(|_| run(&mut linkgate(&["policy", "check", "--policies", &set]))).collect();
    assert_eq!(told[0].err, "error: 2 errors: the set cannot be loaded\n", "{}", told[0].out);
    let unwrapped = told[0].out.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
    assert!(unwrapped.contains("attribute `nope` in context for 26 actions not found"), "{unwrapped}");
    assert!(told.iter().all(|ran| ran.out == told[0].out));
}

#[test]
fn decide_asks_the_set_of_a_configuration_that_was_named() {
    let shell = Shell::new();
    let set = policies(shell.dir.path(), "@id(\"closed\")\nforbid (principal, action, resource);\n");
    let text = fs::read_to_string(&shell.config).unwrap();
    fs::write(&shell.config, format!("{text}[policy]\ndir = \"own-policies\"\n")).unwrap();
    // Not named, it is not looked at.
    fs::copy(&shell.config, shell.dir.path().join("linkgate.toml")).unwrap();
    let question = shell.file(
        "question.jsonl",
        "\n{\"user\":{\"roles\":[\"partner_msp_full\"]},\"link\":{\"access_role\":\"msp_full\"},\"permission\":\"partner.billing.read\"}\n",
    );
    let config = shell.config.to_str().unwrap();
    let broken = shell.file("broken.toml", "[policy\n");
    let ask = |words: &[&str], variable: Option<&str>| {
        let mut decide = linkgate(words);
        decide.current_dir(shell.dir.path()).stdin(Stdio::from(fs::File::open(&question).unwrap()));
        decide.envs(variable.map(|file| ("LINKGATE_CONFIG", file)));
        let ran = run(&mut decide);
        (ran.code, ran.out)
    };
    let (allowed, denied) = ((0, "allow\n".to_owned()), (0, "deny FORBIDDEN guardrail\n".to_owned()));
    assert_eq!(ask(&["decide"], None), allowed);
    assert_eq!(ask(&["decide", "--config", config], None), denied);
    assert_eq!(ask(&["decide"], Some(config)), denied);
    assert_eq!(ask(&["decide", "--policies", &set], None), denied);
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    assert_eq!(ask(&["decide", "--policies", own.to_str().unwrap()], Some(config)), allowed);
    // What was named and cannot be read is no reason to ask another set.
    assert_eq!(ask(&["decide", "--config", &broken], None).0, 3);
    assert_eq!(ask(&["decide", "--config", "nowhere.toml"], None).0, 3);

    let bad = shell.file("bad.jsonl", "{}\n\n{\"permission\": }\n");
    let ran = run(linkgate(&["decide"]).stdin(Stdio::from(fs::File::open(bad).unwrap())));
    assert_eq!(ran.code, 3);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines[0].starts_with("error line 1: ") && lines[1].starts_with("error line 3: "), "{lines:?}");
    assert!(lines[1].contains(" at column ") && !lines[1].contains("at line 1"), "{lines:?}");
    assert!(ran.err.contains("2 lines could not be decided"), "{}", ran.err);
}
