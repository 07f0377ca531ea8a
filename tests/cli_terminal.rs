//! What the commands show to people, with text in it that would write on their screen: the built binary, an SQLite file.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may stop")]

mod cli_support;

use std::fs;

use cli_support::{
    Ran,
    shell::{PARTNER, Shell},
};
use sqlx::{Connection, Executor, SqliteConnection};

/// Whatever it says, nothing of it moves a cursor or turns words round.
fn seen(shell: &Shell, code: i32, words: &[&str]) -> Ran {
    let ran = shell.run(code, words);
    for said in [&ran.out, &ran.err] {
        let evil =
            |c: char| c != '\n' && (c.is_control() || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}'));
        assert!(!said.contains(evil), "{words:?}: {said:?}");
    }
    ran
}

/// As an older version, which asked nothing of such text, could have written it.
fn plant(shell: &Shell, sql: &'static str) {
    let path = shell.dir.path().join("linkgate.db");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut database = SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
        database.execute(sql).await.unwrap();
        database.close().await.unwrap();
    });
}

#[test]
fn names_that_were_stored_write_on_nobodys_screen() {
    let shell = Shell::new();
    let create =
        ["link", "create", "--partner", PARTNER, "--tenant", "t1", "--role", "auditor", "--approval", "pending"];
    let made = seen(&shell, 0, &[&["--json"], &create[..]].concat());
    let made: serde_json::Value = serde_json::from_str(&made.out).unwrap();
    let id = made["id"].as_str().or(made["link_id"].as_str()).unwrap();
    seen(&shell, 0, &["--yes", "suspend", "user", "mallory", "--reason", "incident"]);
    plant(
        &shell,
        "UPDATE partner_tenant_links SET version = version + 1, updated_by = 'a' || char(27) || '[8mallory', notes = 'one' || char(10) || 'id  two',
             widened_by = json_array(char(27) || '[2J' || char(8238) || 'mallory' || char(10) || 'of the platform');
         UPDATE suspensions SET reason = 'r' || char(155) || '8m', by_actor = 'b' || char(27) || ']0;x' || char(7);
         UPDATE tenants SET name = 'n' || char(13) || char(27) || '[A' WHERE id = 't1'",
    );
    let asked = seen(&shell, 8, &["link", "approve", id]).err;
    assert!(asked.contains("asked for by \u{fffd}[2J\u{fffd}mallory\u{fffd}of the platform;"), "{asked}");
    assert_eq!(asked.lines().count(), 1, "the question is one line: {asked}");
    let shown = seen(&shell, 0, &["link", "show", id]).out;
    assert!(shown.contains("a\u{fffd}[8mallory") && shown.contains("one\n   "), "{shown}");
    let listed = seen(&shell, 0, &["suspensions"]).out;
    assert!(listed.contains("r\u{fffd}8m") && listed.contains("b\u{fffd}]0;x\u{fffd}"), "{listed}");
    assert!(seen(&shell, 0, &["tenant", "list"]).out.contains("n\u{fffd}\u{fffd}[A"));
    let asked = seen(&shell, 8, &["suspend", "user", "\u{1b}[8meve", "--reason", "incident"]).err;
    assert!(asked.contains("suspends user \u{fffd}[8meve"), "{asked}");
}

#[test]
fn files_of_others_write_on_nobodys_screen() {
    let shell = Shell::new();
    let columns = shell.file("columns.csv", "tenant_id,na\u{1b}[2Jme\u{202e}\nx,y\n");
    assert!(seen(&shell, 3, &["import", "--what", "tenants", &columns]).err.contains("`na\u{fffd}[2Jme\u{fffd}`"));
    let rows = format!("partner_id,managed_tenant_id,access_role\n{PARTNER},t1,king\u{1b}[8m\n");
    let (rows, report) = (shell.file("rows.csv", &rows), shell.dir.path().join("refused.csv"));
    let shown = seen(&shell, 3, &["import", &rows, "--refused", report.to_str().unwrap()]).out;
    assert!(shown.contains("king\u{fffd}[8m"), "{shown}");
    let report = fs::read_to_string(report).unwrap();
    assert!(report.contains("king\u{fffd}[8m") && !report.contains('\u{1b}'), "{report:?}");
    // What never got so far leaves no file behind; programs get what is there, as JSON writes it.
    let refused = shell.dir.path().join("never.csv");
    seen(&shell, 3, &["import", "--what", "tenants", &columns, "--refused", refused.to_str().unwrap()]);
    assert!(!refused.exists());
    let columns = shell.file("more.csv", "tenant_id,na\u{1b}[2Jme\nx,y\n");
    let error = seen(&shell, 3, &["--json", "import", "--what", "tenants", &columns]).err;
    let error: serde_json::Value = serde_json::from_str(&error).unwrap();
    assert!(error["error"]["message"].as_str().unwrap().contains("na\u{1b}[2Jme"), "{error}");
}
