//! What becomes of output that nobody reads, and of errors where JSON was asked for.

use std::{fs::File, io::Write, process::Stdio};

use serde_json::Value;

use super::{
    PARTNER, Shell,
    cli_support::{linkgate, run},
};

#[test]
fn a_reader_that_has_enough_is_no_failure_and_hides_none() {
    let shell = Shell::new();
    let prepared = [
        (0, &["link", "list"][..]),
        (0, &["tenant", "list"]),
        (0, &["audit", "query"]),
        (0, &["policy", "show", "--role", "auditor"]),
        (0, &["policy", "check"]),
        (0, &["completions", "bash"]),
        (0, &["config", "json-schema"]),
        (0, &["config", "print-default"]),
        // The verdict stands, whoever reads the reasons.
        (3, &["policy", "check", "--policies", "nowhere"]),
    ];
    for (code, words) in prepared {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = linkgate(words)
            .current_dir(shell.dir.path())
            .env("LINKGATE_CONFIG", &shell.config)
            .stdout(writer)
            .spawn()
            .unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{words:?}");
    }
    let mut decide = shell.command(&["decide"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = decide.stdin(Stdio::piped()).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(b"{\"permission\":\"partner.billing.read\"}\n");
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), ended.stderr.len()), (Some(0), 0));

    for words in [&["tenant", "list"][..], &["config", "json-schema"], &["audit", "query"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let ended =
            shell.command(words).stdout(full).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        let err = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{words:?}");
        assert!(err.contains("cannot write to standard output: No space left"), "{words:?}: {err}");
    }
    // Standard error may be closed too.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = shell.command(&["tenant", "show", "nowhere"]).stderr(writer).spawn().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(4));
}

#[test]
fn a_command_line_that_is_wrong_is_told_as_json_where_that_was_asked_for() {
    for words in [
        &["--json", "link", "show"][..],
        &["link", "show", "--json"],
        &["--json", "nonsense"],
        &["--json", "link", "show", "x"],
        &["--json", "link"],
    ] {
        let ran = run(&mut linkgate(words));
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{words:?}");
        let told: Value = serde_json::from_str(&ran.err).unwrap_or_else(|_| panic!("{words:?}: {}", ran.err));
        assert_eq!(told["error"]["exit"], 2);
        assert!(!told["error"]["message"].as_str().unwrap().starts_with("error"), "{told}");
    }
    assert!(run(&mut linkgate(&["--json", "link", "show"])).err.contains("required arguments"));
    // Behind `--` it is no flag; and help is text.
    assert!(run(&mut linkgate(&["link", "show", "--", "--json"])).err.starts_with("error: "));
    let help = run(&mut linkgate(&["--json", "--help"]));
    assert!(help.code == 0 && help.out.contains("Usage: linkgate"), "{}", help.out);
}

#[test]
fn without_a_configuration_file_that_is_said_first() {
    let dir = tempfile::tempdir().unwrap();
    let checked = run(linkgate(&["check"]).current_dir(dir.path()));
    assert_eq!(checked.code, 3);
    assert!(checked.out.starts_with("no configuration file: name one with --config"), "{}", checked.out);
    assert!(checked.out.contains("at least one issuer is needed"), "{}", checked.out);
    let served = run(linkgate(&["serve"]).current_dir(dir.path()));
    assert!(served.err.starts_with("error: no configuration file: name one with --config"), "{}", served.err);
}

#[test]
fn changes_that_wait_are_told_beside_the_records() {
    let shell = Shell::new();
    let ran = shell.run(0, &["audit", "query"]);
    assert_eq!(ran.err, "3 changes wait to be chained: `linkgate audit outbox`\n");
    assert_eq!(ran.out, "none\n");
    assert_eq!(shell.json(&["link", "list", "--partner", PARTNER]), Value::Array(Vec::new()));
    assert_eq!(shell.run(0, &["link", "list"]).out, "none\n");
}
