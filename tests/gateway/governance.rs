//! Approval with four eyes, and address lists, through the command line and the gateway.

use std::time::Instant;

use linkgate::store::admin::{LinkFilter, Page};
use serde_json::{Value, json};

use super::{
    client::Request,
    emergency::{House, ends_in_time, stream},
    rig::{HOME1, P1, Setup},
};

/// Four eyes through the command line: another name at the same account is the same person.
#[test]
fn nobody_approves_their_own_link_at_the_command_line() {
    let setup = Setup { extra: "[links]\nrequire_approval = true\nfour_eyes = true\n".into(), ..Setup::default() };
    let house = House::with(setup, None);
    let request = Request::get("/api/invoices").bearer(&house.rig.token()).tenant("t-unlinked");
    let made = house.done(&[
        "link",
        "create",
        "--partner",
        P1,
        "--tenant",
        "t-unlinked",
        "--role",
        "auditor",
        "--actor",
        "ann",
    ]);
    let id = made["id"].as_str().unwrap();
    assert_eq!((&made["approval"], &made["approved_by"]), (&json!("pending"), &Value::Null));
    house.becomes(&request, "TENANT_ACCESS_DENIED/link_pending");
    let pending = house.done(&["link", "list", "--approval", "pending"]);
    assert!(pending.as_array().unwrap().iter().any(|link| link["id"] == id));
    for own in [vec!["--actor", "ann"], vec!["--actor", "bob"], vec![]] {
        let ran = house.command(&[&["--yes", "link", "approve", id], &own[..]].concat());
        assert_eq!(ran.code, 3, "{own:?}: {}", ran.err);
        assert!(ran.err.contains("four eyes"), "{}", ran.err);
    }
    let by_update = house.command(&["link", "update", id, "--approval", "approved", "--actor", "bob"]);
    assert!(by_update.code == 3 && by_update.err.contains("four eyes"), "{}", by_update.err);
    assert_eq!(house.command(&["link", "approve", id]).code, 8, "it asks");
    // Rejecting closes: everybody may.
    assert_eq!(house.done(&["link", "reject", id])["approval"], "rejected");
    assert_eq!(request.send(house.rig.public).error(), "TENANT_ACCESS_DENIED/link_pending");

    // A link that somebody else made.
    let theirs = house.rig.links["t-pending"];
    let asked = house.command(&["link", "approve", &theirs.to_string()]);
    assert!(asked.err.contains("version 1") && asked.err.contains("asked for by test"), "{}", asked.err);
    let stale = house.command(&["--yes", "link", "approve", &theirs.to_string(), "--expect-version", "7"]);
    assert_eq!(stale.code, 5, "{}", stale.err);
    let done = house.done(&["link", "approve", &theirs.to_string()]);
    assert!(done["approved_by"].as_str().unwrap().starts_with("cli:") && done["approved_at"].is_string(), "{done}");
    house.becomes(&Request::get("/api/invoices").bearer(&house.rig.token()).tenant("t-pending"), "");
    let all = house.rig.block_on(house.rig.admin().links(&LinkFilter::default(), Page::default())).unwrap();
    assert!(all.iter().any(|link| link.id == theirs && link.sign_off.approved_at.is_some()));
}

/// Address lists: both families, mapped addresses, changes by the command line, refused ranges with a hint.
#[test]
fn an_address_list_admits_what_it_names_and_nothing_else() {
    let house =
        House::with(Setup { listen: "trusted_proxies = [\"127.0.0.1/32\"]\n".into(), ..Setup::default() }, None);
    let (id, token) = (house.rig.links["t-full"].to_string(), house.rig.token());
    let from = |ip: &str| Request::get("/api/invoices").bearer(&token).tenant("t-full").header("X-Forwarded-For", ip);
    let update = |more: &[&str]| house.done(&[&["link", "update", id.as_str()], more].concat());
    update(&["--cidr", "2001:db8::/32", "--cidr", "192.0.2.0/24", "--cidr", "198.51.100.7"]);
    let outside = "FORBIDDEN/ip_not_allowed";
    house.becomes(&from("203.0.113.1"), outside);
    for (ip, expected) in [
        ("192.0.2.200", ""),
        ("::ffff:192.0.2.200", ""),
        ("::ffff:c000:2c8", ""),
        ("198.51.100.7", ""),
        ("198.51.100.8", outside),
        ("::ffff:203.0.113.1", outside),
        ("2001:db8:ffff::1", ""),
        ("2001:db9::1", outside),
        // What a client writes itself stands left of what the proxy adds.
        ("192.0.2.1, 203.0.113.1", outside),
        // No mapped form, and no way in: the list has no such IPv6 range.
        ("::c000:2c8", outside),
    ] {
        let answer = from(ip).send(house.rig.public);
        let told = if answer.status == 200 { String::new() } else { answer.error() };
        assert_eq!(told, expected, "{ip}");
    }
    for (cidr, hint) in [
        ("10.0.0.1/8", "host bits set: write `10.0.0.0/8`"),
        ("2001:db8::1/32", "host bits set: write `2001:db8::/32`"),
        ("::ffff:10.0.0.0/104", "write the IPv4 range"),
        ("10.0.0.0/33", "is no address range"),
        ("example.com", "is no address range"),
    ] {
        let ran = house.command(&["link", "update", &id, "--cidr", cidr]);
        assert!(ran.code == 3 && ran.err.contains(hint), "{cidr}: {}", ran.err);
    }
    // An open stream from an address that is taken off the list is cut.
    let mut open = stream(
        &house.rig,
        Request::get("/t/sse").bearer(&token).tenant("t-full").header("X-Forwarded-For", "192.0.2.200"),
        "listed",
    );
    update(&["--cidr", "2001:db8::/32"]);
    ends_in_time(&mut open, Instant::now());
    house.becomes(&from("192.0.2.200"), outside);
    update(&["--clear", "cidrs", "--require-mfa"]);
    house.becomes(&from("203.0.113.1"), "FORBIDDEN/mfa_required");
    let shown = house.rig.token_with("user-1", HOME1, json!({"roles": ["partner_msp_full"], "amr": ["pwd", "mfa"]}));
    assert_eq!(Request::get("/api/invoices").bearer(&shown).tenant("t-full").send(house.rig.public).status, 200);
}
