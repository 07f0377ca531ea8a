//! The lists of the configurations that ship, held against the code's own.

use std::collections::BTreeSet;

use linkgate::{
    proxy::{answer_headers::not_for_clients, headers::protected},
    server::decision::COPIED,
};

/// What nginx, Caddy and Traefik must name, held against the code's own lists: a name that is added there and forgotten here would
/// pass from a client.
#[test]
fn the_shipped_lists_are_the_codes_own() {
    let copied: BTreeSet<String> = COPIED.iter().map(|name| (*name).to_owned()).collect();
    let removed: BTreeSet<String> = protected()
        .iter()
        .map(|name| (*name).to_owned())
        .filter(|name| !copied.contains(name))
        .chain(["proxy-authorization".to_owned()])
        .collect();

    let nginx = include_str!("../../../deploy/nginx.conf");
    let services = nginx.split("location / {").nth(1).unwrap().split("location @").next().unwrap();
    let fields: Vec<(String, &str)> = services
        .lines()
        .filter_map(|line| line.trim().strip_prefix("proxy_set_header ")?.strip_suffix(';')?.split_once(' '))
        .map(|(name, value)| (name.to_lowercase(), value))
        .collect();
    let own = ["host", "upgrade", "connection"];
    let of = |empty: bool| -> BTreeSet<String> {
        let same = fields.iter().filter(|(name, value)| (*value == "\"\"") == empty && !own.contains(&name.as_str()));
        same.map(|(name, _)| name.clone()).collect()
    };
    assert_eq!((of(false), of(true)), (copied.clone(), removed.clone()));
    for (name, value) in fields.iter().filter(|(name, _)| copied.contains(name)) {
        let source = format!("auth_request_set {value} $upstream_http_{};", name.replace('-', "_"));
        assert!(services.contains(&source), "{name}: {source}");
    }

    let caddy = include_str!("../../../deploy/Caddyfile");
    let deleted = |name: &str| {
        caddy.lines().any(|line| {
            line.trim().strip_prefix("request_header -").is_some_and(|known| known.eq_ignore_ascii_case(name))
        })
    };
    assert!(copied.iter().chain(&removed).all(|name| deleted(name)));
    let sets = caddy.lines().filter(|line| line.trim().starts_with("request_header @lg_")).count();
    assert_eq!(sets, copied.len());

    let traefik: Vec<&str> = include_str!("../../../deploy/traefik.yaml").lines().collect();
    let below = |key: &str| {
        let at = traefik.iter().position(|line| line.trim() == key).unwrap_or_else(|| panic!("no {key}"));
        let depth = traefik[at].len() - traefik[at].trim_start().len();
        traefik[at + 1..].iter().take_while(move |line| line.len() - line.trim_start().len() > depth)
    };
    let listed: BTreeSet<String> = below("authResponseHeaders:")
        .filter_map(|line| line.trim().strip_prefix("- "))
        .map(str::to_lowercase)
        .collect();
    assert_eq!(listed, copied);
    let cleaned: BTreeSet<String> =
        below("linkgate-clean:").filter_map(|line| line.trim().strip_suffix(": \"\"")).map(str::to_lowercase).collect();
    assert_eq!(cleaned, removed);
    let text = traefik.join("\n");
    for needed in [
        "/check/traefik",
        "trustForwardHeader: false",
        "[linkgate-caller, linkgate-check, linkgate-clean, linkgate-answer]",
    ] {
        assert!(text.contains(needed), "{needed}");
    }
    assert!(below("linkgate-caller:").any(|line| line.trim() == "Connection: \"\""));
}

/// What a service may not tell a client.
#[test]
fn the_shipped_files_take_from_answers_what_linkgate_would() {
    let files = [
        (include_str!("../../../deploy/nginx.conf"), "proxy_hide_header ", ";"),
        (include_str!("../../../deploy/Caddyfile"), "header_down -", ""),
        (include_str!("../../../deploy/traefik.yaml").split("linkgate-answer:").nth(1).unwrap(), "", ": \"\""),
        (include_str!("../../../deploy/envoy.yaml").split("response_headers_to_remove:").nth(1).unwrap(), "- ", ""),
    ];
    for (text, before, after) in files {
        let removed: BTreeSet<String> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix(before)?.strip_suffix(after).map(str::to_lowercase))
            .collect();
        let missing: Vec<&str> = not_for_clients().filter(|name| !removed.contains(*name)).collect();
        assert!(missing.is_empty(), "{before}: {missing:?}");
    }
    let nginx = include_str!("../../../deploy/nginx.conf");
    for word in ["Redirect", "Expires", "Buffering", "Charset", "Limit-Rate"] {
        let ignored = nginx.lines().find_map(|line| line.trim().strip_prefix("proxy_ignore_headers ")).unwrap();
        assert!(ignored.trim_end_matches(';').split(' ').any(|name| name == format!("X-Accel-{word}")), "{word}");
    }
}
