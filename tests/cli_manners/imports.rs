//! `linkgate import`: files that are none, that end within a quote or in the middle, and signals.

use std::{
    io::{Read, Write},
    process::Stdio,
    time::{Duration, Instant},
};

use super::{Shell, cli_support::PATIENCE};

#[test]
fn what_cannot_be_read_to_its_end_is_not_imported_as_if_it_had_been() {
    let shell = Shell::new();
    for format in ["csv", "jsonl"] {
        let ran = shell.run(3, &["import", ".", "--format", format, "--what", "tenants"]);
        assert!(ran.err.contains("`.` is a directory: name a file"), "{}", ran.err);
    }
    // Opens, and fails at every read.
    let ran = shell.run(1, &["import", "/proc/self/mem", "--format", "jsonl", "--what", "tenants"]);
    assert!(ran.err.contains("line 1 cannot be read: Input/output error"), "{}", ran.err);
    assert!(ran.err.contains("0 rows were imported before"), "{}", ran.err);

    let open = shell.file("open.csv", "tenant_id,name\na1,A\na2,\"B\na3,C\na4,D\na5,E\n");
    let ran = shell.run(3, &["import", &open, "--what", "tenants"]);
    assert!(
        ran.err.contains("the quote that opens in line 3 is never closed: nothing behind it was read"),
        "{}",
        ran.err
    );
    assert_eq!(ran.out, "1 row imported, 0 refused\n");
    shell.run(0, &["tenant", "show", "a1"]);
    shell.run(4, &["tenant", "show", "a2"]);

    let empty = shell.file("empty.csv", "");
    assert!(shell.run(3, &["import", &empty]).err.contains("there is nothing in it"));
    let ran = shell.run(3, &["import", &shell.file("semi.csv", "tenant_id;name\na;A\n"), "--what", "tenants"]);
    assert!(ran.err.contains("separated by commas, not by `;`"), "{}", ran.err);
    let ran = shell.run(3, &["import", &shell.file("twice.csv", "tenant_id\na1\nb1\n"), "--what", "tenants"]);
    assert!(
        ran.out.contains("1 row imported, 1 refused") && ran.err.contains("1 of 2 rows was refused"),
        "{}",
        ran.err
    );
}

#[test]
fn a_signal_ends_an_import_with_what_it_took() {
    use rustix::process::{Pid, Signal, kill_process};
    for signal in [Signal::INT, Signal::TERM] {
        let shell = Shell::new();
        let mut import = shell.command(&["import", "-", "--format", "csv", "--what", "tenants"]);
        let mut child = import.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // More may follow, so that the reading waits.
        let mut rows = child.stdin.take().unwrap();
        let text: String = (0..450).map(|n| format!("n{n}\n")).collect();
        rows.write_all(format!("tenant_id\n{text}").as_bytes()).unwrap();
        rows.flush().unwrap();
        let until = Instant::now() + PATIENCE;
        while shell.json(&["tenant", "list", "--limit", "1000"]).as_array().unwrap().len() < 402 {
            assert!(Instant::now() < until, "two batches were not written");
            std::thread::sleep(Duration::from_millis(50));
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{out}{err}");
        drop(rows);
        let there = shell.json(&["tenant", "list", "--limit", "1000"]).as_array().unwrap().len() - 2;
        assert_eq!(out, format!("{there} rows imported, 0 refused\n"));
        assert!(err.contains(&format!("interrupted by a signal; {there} rows were imported before")), "{err}");
        // The record of it says so too.
        let waiting = shell.json(&["audit", "outbox"]);
        assert_eq!(waiting[0]["changes"], 3 + there + 1, "{waiting}");
    }
}
