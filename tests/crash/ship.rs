//! `kill -9` under load while the journal is shipped.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    gateway::{House, PATIENCE, Setup, eventually},
    ledger::Ledger,
    load::{Load, Mix},
    log_collector::Collector,
};

/// The lines of these files by number. Every one is a line of the journal: a repeat is the same again. What a kill tore
/// is the beginning of a line, and glued to no other.
fn by_seq(files: &[PathBuf]) -> BTreeMap<u64, String> {
    let (mut found, mut torn) = (BTreeMap::new(), Vec::new());
    for file in files {
        for line in fs::read_to_string(file).unwrap().lines() {
            match serde_json::from_str::<Value>(line) {
                Ok(said) => {
                    let seq = said["seq"].as_u64().unwrap();
                    let before = found.insert(seq, line.to_owned());
                    assert!(before.is_none_or(|before| before == line), "two lines are {seq}");
                }
                Err(_) => torn.push(line.to_owned()),
            }
        }
    }
    for line in torn {
        assert!(found.values().any(|whole| whole.starts_with(&line)), "not the beginning of a line: {line}");
    }
    found
}

fn beginning_with(dir: &Path, name: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with(name));
    found.sort();
    found
}

#[test]
fn every_line_is_with_every_target_after_kill_9_under_load() {
    let house = House::new();
    let out = house.dir.path().join("shipped");
    fs::create_dir(&out).unwrap();
    let collector = Collector::start();
    let setup = Setup {
        audit: format!(
            "writes = \"os\"\nreads = \"os\"\nsegment_size = \"128KiB\"\n[audit.ship]\nlines = \"full\"\n\
             stdout = true\nfile = \"shipped/audit.jsonl\"\nfile_size = \"64KiB\"\notlp = {{ endpoint = \"{}\" }}\n",
            collector.url()
        ),
        stdout: Some(out.join("stdout")),
        ..Setup::default()
    };
    let mix = Mix::of(&house);
    for round in 0..6 {
        let gateway = house.start(&setup);
        let load = Load::start(&mix, gateway.public, 8);
        load.until(40 + round * 31 % 100);
        gateway.kill();
        load.stop();
        if round % 2 == 1 {
            house.start_and_kill(&setup, Duration::from_millis(round as u64 * 71 % 400));
        }
    }
    let gateway = house.start(&setup);
    eventually("all is shipped", || {
        let metrics = crate::client::Request::get("/metrics").send(gateway.health).text();
        let lag = |target: &str| metrics.contains(&format!("linkgate_audit_ship_lag_lines{{target=\"{target}\"}} 0\n"));
        lag("file") && lag("stdout") && lag("otlp")
    });
    gateway.terminate();
    assert_eq!(gateway.ended(PATIENCE), Some(0), "{}", house.log_text());
    let mut ledger = Ledger::new(house.journal());
    ledger.read();
    ledger.verify(&house);
    let written = by_seq(&beginning_with(&house.journal(), "segment-"));
    assert_eq!((written.len() as u64, ledger.recoveries > 2), (ledger.last_seq, true));
    let files = beginning_with(&out, "audit.jsonl");
    assert!(files.len() > 1, "{files:?}");
    assert_eq!(by_seq(&files), written);
    assert_eq!(by_seq(&[out.join("stdout")]), written);
    let told = house.dir.path().join("told");
    fs::write(&told, collector.lines().join("\n")).unwrap();
    assert_eq!(by_seq(&[told]), written);
}

#[test]
fn a_line_that_a_kill_tore_on_standard_output_is_glued_to_no_other() {
    let house = House::new();
    let (pipe, out) = (house.dir.path().join("pipe"), house.dir.path().join("shipped.jsonl"));
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut held = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let setup = Setup {
        audit: "writes = \"os\"\nreads = \"os\"\n[audit.ship]\nlines = \"full\"\nstdout = true\n".into(),
        stdout: Some(pipe),
        ..Setup::default()
    };
    let gateway = house.start(&setup);
    let load = Load::start(&Mix::of(&house), gateway.public, 8);
    // The pipe is full then, to the byte: within a line.
    eventually("it is stuck", || gateway.metric("linkgate_audit_ship_stuck{target=\"stdout\"}") == Some(1.0));
    gateway.kill();
    load.stop();
    let mut to = fs::File::create(&out).unwrap();
    // Ends with the test: the pipe has no end.
    thread::spawn(move || std::io::copy(&mut held, &mut to));
    let gateway = house.start(&setup);
    eventually("all is shipped", || gateway.metric("linkgate_audit_ship_lag_lines{target=\"stdout\"}") == Some(0.0));
    gateway.terminate();
    assert_eq!(gateway.ended(PATIENCE), Some(0), "{}", house.log_text());
    let written = by_seq(&beginning_with(&house.journal(), "segment-"));
    eventually("the reader has it", || {
        fs::read_to_string(&out).unwrap().ends_with(&format!("{}\n", written.values().last().unwrap()))
    });
    assert_eq!(by_seq(&[out]), written);
}

#[test]
fn a_target_that_nobody_reads_holds_up_nothing_but_itself() {
    let house = House::new();
    let pipe = house.dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Open at both ends, so that it neither blocks at the start nor has an end; nobody reads.
    let held = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let setup = Setup {
        audit: "writes = \"os\"\nreads = \"os\"\n[audit.ship]\nstdout = true\n".into(),
        stdout: Some(pipe),
        ..Setup::default()
    };
    let gateway = house.start(&setup);
    let load = Load::start(&Mix::of(&house), gateway.public, 8);
    load.until(300);
    eventually("it is told", || {
        thread::sleep(Duration::from_millis(100));
        house.log_text().contains("the audit journal is not shipped")
    });
    let (_, wrong) = gateway.ready();
    assert!(wrong.is_empty(), "requests go on: {wrong:?}");
    let metrics = crate::client::Request::get("/metrics").send(gateway.health).text();
    let lag = metrics.lines().find_map(|line| line.strip_prefix("linkgate_audit_ship_lag_lines{target=\"stdout\"} "));
    assert!(lag.unwrap().parse::<u64>().unwrap() > 100, "{lag:?}");
    load.stop();
    gateway.terminate();
    assert_eq!(gateway.ended(PATIENCE), Some(0), "a stop does not wait for it: {}", house.log_text());
    assert_eq!(house.log_text().matches("the audit journal is not shipped").count(), 1, "told once");
    drop(held);
}
