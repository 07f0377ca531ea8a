//! Policies are read anew when their files change; a bad set changes nothing and is audited (I6).

use std::time::{Duration, Instant};

use super::{
    client::Request,
    rig::{Rig, Setup},
};

const CLOSED: &str = "@id(\"test.closed\")\nforbid (principal, action, resource) when { context.method == \"GET\" };\n";

pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn loads(rig: &Rig) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let mut found = Vec::new();
    for line in rig.lines() {
        if line["pub"]["action"] == "policy.load" {
            found.push((text(&line["pub"]["decision"]), line["pub"]["reason"].to_string()));
        }
    }
    found
}

#[test]
fn i6_a_changed_file_is_in_force_and_a_bad_one_changes_nothing() {
    let harmless =
        "@id(\"test.harmless\")\nforbid (principal, action, resource) when { context.method == \"BREW\" };\n";
    let rig = Rig::with(Setup { guardrails: vec![("own.cedar", harmless.to_owned())], ..Setup::default() });
    let file = rig.dir.path().join("policies/guardrails/own.cedar");
    let ask = || rig.ask(Request::get("/api/invoices").tenant("t-full"));
    assert_eq!(ask().status, 200);

    std::fs::write(&file, CLOSED).unwrap();
    until("the guardrail is in force", || ask().status == 403);
    assert_eq!(ask().error(), "FORBIDDEN/guardrail");
    until("the load is recorded", || loads(&rig).len() == 1);

    std::fs::write(
        &file,
        "@id(\"test.bad\")\nforbid (principal, action, resource) when { context.metod == \"GET\" };\n",
    )
    .unwrap();
    until("the refusal is recorded", || loads(&rig).len() == 2);
    let (decision, reason) = loads(&rig).pop().unwrap();
    assert_eq!(decision, "deny");
    assert!(reason.contains("own.cedar:2:") && reason.contains("metod"), "{reason}");
    assert_eq!(ask().error(), "FORBIDDEN/guardrail", "the old set stays");

    std::fs::write(&file, harmless).unwrap();
    until("the good set is in force again", || ask().status == 200);
}
