//! `linkgate link update` asks before it closes a link, as `link revoke` does.

use super::{PARTNER, Shell};

#[test]
fn a_change_that_closes_a_link_asks() {
    let shell = Shell::new();
    let made = shell.json(&["link", "create", "--partner", PARTNER, "--tenant", "t1", "--role", "auditor"]);
    let id = made["id"].as_str().unwrap();
    let closing: [(&[&str], &str); 5] = [
        (&["--active", "false"], "it is revoked"),
        (&["--approval", "rejected"], "it is rejected"),
        (&["--approval", "pending"], "it waits for approval"),
        (&["--start", "2020-01-01", "--end", "2020-02-01"], "its end is 2020-02-01"),
        (&["--start", "2090-01-01"], "its start is 2090-01-01"),
    ];
    for (change, why) in closing {
        let update = [&["link", "update", id], change].concat();
        let ran = shell.run(8, &update);
        assert!(ran.err.contains(why) && ran.err.contains("nothing was changed"), "{}", ran.err);
        assert_eq!(shell.json(&["link", "show", id])["version"], 1, "{change:?}");
    }
    // What closes nothing does not ask, and a fault is told before any question.
    shell.run(0, &["link", "update", id, "--end", "2090-01-01", "--notes", "kept"]);
    shell.run(3, &["link", "update", id, "--active", "false", "--end", "soon"]);
    shell.run(5, &["link", "update", id, "--active", "false", "--yes", "--expect-version", "1"]);
    let changed = shell.json(&["link", "update", id, "--active", "false", "--yes"]);
    assert_eq!((&changed["is_active"], &changed["version"]), (&false.into(), &3.into()));
    shell.run(0, &["link", "update", id, "--active", "true"]);
}

#[test]
fn a_widening_that_waits_for_approval_asks() {
    let shell = Shell::new();
    let text = std::fs::read_to_string(&shell.config).unwrap();
    std::fs::write(&shell.config, text + "[links]\nrequire_approval = true\n").unwrap();
    let made = shell.json(&["link", "create", "--partner", PARTNER, "--tenant", "t1", "--role", "auditor"]);
    let id = made["id"].as_str().unwrap();
    shell.run(0, &["link", "approve", id, "--yes"]);
    let ran = shell.run(8, &["link", "update", id, "--role", "msp_full"]);
    assert!(ran.err.contains("it is widened and waits for approval"), "{}", ran.err);
    shell.run(0, &["link", "update", id, "--role", "msp_full", "--yes"]);
}
