//! The frame of the command line: help, exit codes, `check`, `config`, `completions`.

mod cli_support;

use cli_support::{Running, linkgate, run};
use serde_json::Value;

#[test]
fn the_help_is_a_page_to_read() {
    let shown = run(&mut linkgate(&["--help"]));
    assert_eq!((shown.code, shown.err.as_str()), (0, ""));
    insta::assert_snapshot!(shown.out);
}

#[test]
fn every_command_is_in_exactly_one_group_of_the_help_and_has_a_help_of_its_own() {
    let script = run(&mut linkgate(&["completions", "bash"])).out;
    // The list that bash completes at the top level.
    let line = script.lines().find(|line| line.trim_start().starts_with("opts=\"-y")).unwrap();
    let names: Vec<&str> = line
        .split(['"', ' '])
        .filter(|word| word.chars().all(|c| c.is_ascii_lowercase()) && !word.is_empty())
        .collect();
    assert!(names.len() >= 9, "{names:?}");
    let help = run(&mut linkgate(&["--help"])).out;
    for name in names {
        let rows = help
            .lines()
            .filter(|row| row.trim_start().split(' ').next() == Some(name) && row.starts_with("  "))
            .count();
        assert_eq!(rows, 1, "{name}");
        let own = run(&mut linkgate(&[name, "--help"]));
        assert_eq!(own.code, 0, "{name}");
        assert!(own.out.contains("Usage: linkgate ") && own.out.contains("--config"), "{name}: {}", own.out);
    }
}

#[test]
fn a_wrong_command_line_ends_with_2_and_nothing_at_all_shows_the_help() {
    let wrong = run(&mut linkgate(&["serv"]));
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("serve"), "{}", wrong.err);
    assert_eq!(run(&mut linkgate(&["check", "--nonsense"])).code, 2);
    let nothing = run(&mut linkgate(&[]));
    assert_eq!(nothing.code, 2);
    assert!(nothing.err.contains("Usage: linkgate"));
    // Whoever names no command is told so, with a configuration named in the environment too.
    let named = run(linkgate(&[]).env("LINKGATE_CONFIG", "linkgate.toml"));
    assert_eq!((named.code, named.out.as_str()), (2, ""));
    assert!(named.err.contains("Usage: linkgate") && named.err.contains("no command is given"), "{}", named.err);
    for words in [&["--json"][..], &["--yes"], &["--print-default", "check"]] {
        let ran = run(&mut linkgate(words));
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{words:?}: {}", ran.err);
    }
}

#[test]
fn the_default_configuration_can_be_printed_and_checked() {
    let printed = run(&mut linkgate(&["config", "print-default"]));
    assert_eq!(printed.code, 0);
    for mut command in [linkgate(&["--print-default"]), linkgate(&["--config", "x", "--print-default"])] {
        assert_eq!(run(command.env("LINKGATE_CONFIG", "nowhere.toml")).out, printed.out);
    }
    let dir = tempfile::tempdir().unwrap();
    // Found without being named.
    std::fs::write(dir.path().join("linkgate.toml"), printed.out).unwrap();
    // Where the tests run there may be no stable storage.
    let mut check = linkgate(&["check"]);
    check.current_dir(dir.path()).env("LINKGATE__AUDIT__WRITES", "os");
    let checked = run(&mut check);
    assert_eq!((checked.code, checked.err.as_str()), (0, ""), "{}", checked.out);
    assert!(checked.out.contains("linkgate.toml: valid (1 issuer, 1 upstream, 3 routes)"), "{}", checked.out);
    assert!(checked.out.contains("policies: valid (version "), "{}", checked.out);
}

#[test]
fn shipped_connectors_can_be_read_and_copied_from() {
    assert_eq!(run(&mut linkgate(&["config", "connectors"])).out, "gen1\ngen2\n");
    let dir = tempfile::tempdir().unwrap();
    for name in ["gen1", "gen2"] {
        let text = run(&mut linkgate(&["config", "connectors", name])).out;
        // As it stands, below another name, it is a connector like any other.
        let copied = text
            .lines()
            .map(|line| match (line.strip_prefix("[["), line.strip_prefix('[')) {
                (Some(rest), _) => format!("[[connectors.copy.{rest}"),
                (_, Some(rest)) => format!("[connectors.copy.{rest}"),
                _ => line.replace("tenant_header =", "[connectors.copy]\nupstream = \"isp\"\ntenant_header ="),
            })
            .collect::<Vec<_>>()
            .join("\n");
        let mut base = run(&mut linkgate(&["config", "print-default"])).out;
        base.truncate(base.find("[connectors.main]").unwrap());
        std::fs::write(dir.path().join("linkgate.toml"), format!("{base}{copied}\n")).unwrap();
        let checked = run(linkgate(&["check"]).current_dir(dir.path()).env("LINKGATE__AUDIT__WRITES", "os"));
        assert_eq!(checked.code, 0, "{}{}", checked.out, checked.err);
    }
    let unknown = run(&mut linkgate(&["config", "connectors", "gen3"]));
    assert!(unknown.code == 3 && unknown.err.contains("known: gen1, gen2"), "{}", unknown.err);
}

#[test]
fn the_json_schema_is_json_and_describes_every_key() {
    let printed = run(&mut linkgate(&["config", "json-schema"]));
    let schema: Value = serde_json::from_str(&printed.out).unwrap();
    assert_eq!(schema["properties"]["listen"]["$ref"], "#/$defs/RawListen");
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        for (key, property) in definition["properties"].as_object().into_iter().flatten() {
            assert!(property["description"].is_string(), "{name}.{key}");
        }
    }
}

#[test]
fn check_tells_every_error_of_configuration_and_policies_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let policies = dir.path().join("policies");
    std::fs::create_dir_all(policies.join("guardrails")).unwrap();
    let own = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    for name in ["schema.cedarschema", "roles.toml"] {
        std::fs::copy(own.join(name), policies.join(name)).unwrap();
    }
    std::fs::write(
        policies.join("guardrails/bad.cedar"),
        "forbid (principal, action, resource) when { contxt.mfa };\n",
    )
    .unwrap();
    let path = dir.path().join("c.toml");
    std::fs::write(&path, "[listen]\nadress = 1\n\n[policy]\ndir = \"policies\"\n\n[log]\nformat = \"yaml\"\n")
        .unwrap();
    let path = path.to_str().unwrap();

    let checked = run(&mut linkgate(&["check", "--config", path]));
    assert_eq!(checked.code, 3);
    for part in [
        "c.toml:2: listen.adress: unknown key; did you mean `address`?",
        "c.toml:8: log.format:",
        "issuers: at least one",
        "bad.cedar",
        "contxt",
    ] {
        assert!(checked.out.contains(part), "{part}\n{}", checked.out);
    }

    let checked = run(linkgate(&["check", "--json"]).env("LINKGATE_CONFIG", path));
    assert_eq!(checked.code, 3);
    let report: Value = serde_json::from_str(&checked.out).unwrap();
    assert_eq!(
        (&report["valid"], &report["errors"][1]["line"], &report["errors"][1]["field"]),
        (&Value::Bool(false), &Value::from(2), &Value::from("listen.adress"))
    );
    let error: Value = serde_json::from_str(&checked.err).unwrap();
    assert_eq!(error["error"]["exit"], 3);
}

#[test]
fn a_command_that_needs_a_configuration_says_how_to_get_one() {
    let dir = tempfile::tempdir().unwrap();
    let served = run(linkgate(&["serve"]).current_dir(dir.path()));
    assert_eq!(served.code, 3);
    assert!(served.err.contains("at least one issuer is needed"), "{}", served.err);
    assert!(served.err.contains("linkgate config print-default > linkgate.toml"), "{}", served.err);
}

#[test]
fn check_tells_of_an_upstream_whose_certificates_are_no_use() {
    let dir = tempfile::tempdir().unwrap();
    let text = run(&mut linkgate(&["config", "print-default"])).out;
    let secure = text.replace("http://127.0.0.1:8000", "https://isp.internal").replace("#ca = []", "ca = [\"ca.pem\"]");
    std::fs::write(dir.path().join("linkgate.toml"), secure).unwrap();
    std::fs::write(dir.path().join("ca.pem"), "no certificate").unwrap();
    let checked = run(linkgate(&["check"]).current_dir(dir.path()).env("LINKGATE__AUDIT__WRITES", "os"));
    assert_ne!(checked.code, 0, "{}{}", checked.out, checked.err);
    let said = format!("{}{}", checked.out, checked.err);
    assert!(said.contains("the upstream `isp`") && said.contains("ca.pem` holds no certificate"), "{said}");
}

/// A mounted secret is often open to all of its container: that is told, and stops nothing.
#[test]
fn check_warns_of_keys_and_secrets_that_everybody_may_read() {
    use std::{fs, os::unix::fs::PermissionsExt};
    let dir = tempfile::tempdir().unwrap();
    let text = run(&mut linkgate(&["config", "print-default"])).out;
    let named = text
        .replace("#checkpoint_key_file = \"checkpoint-key.pem\"", "checkpoint_key_file = \"checkpoint-key.pem\"")
        .replace("#secret_file = \"export-secret\"", "secret_file = \"export-secret\"");
    fs::write(dir.path().join("linkgate.toml"), named).unwrap();
    fs::write(dir.path().join("export-secret"), "0123456789abcdef0123456789abcdef\n").unwrap();
    let key = linkgate::identity::mint::DevKey::generate(linkgate::identity::mint::DevAlgorithm::EdDsa).unwrap();
    key.write_pem(&dir.path().join("checkpoint-key.pem")).unwrap();
    let said = |mode: u32| {
        for name in ["export-secret", "checkpoint-key.pem"] {
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let checked = run(linkgate(&["check"]).current_dir(dir.path()).env("LINKGATE__AUDIT__WRITES", "os"));
        assert_eq!(checked.code, 0, "{}{}", checked.out, checked.err);
        checked.out.lines().filter(|line| line.starts_with("warning: ")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(said(0o640), [""; 0]);
    let warnings = said(0o644);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for (warning, name) in warnings.iter().zip(["checkpoint-key.pem", "export-secret"]) {
        assert!(warning.contains(name) && warning.contains("mode 0644") && warning.contains("chmod 600"), "{warning}");
    }
}

/// It is allowed, and nobody reaches the rule.
#[test]
fn check_warns_of_a_method_that_nobody_sends() {
    let dir = tempfile::tempdir().unwrap();
    let text = run(&mut linkgate(&["config", "print-default"])).out;
    let slip = format!("{text}\n[[routes]]\nmethods = [\"GTE\"]\npath = \"/slip\"\naccess = \"deny\"\n");
    let line = slip.lines().count() - 3;
    std::fs::write(dir.path().join("linkgate.toml"), slip).unwrap();
    let checked = run(linkgate(&["check"]).current_dir(dir.path()).env("LINKGATE__AUDIT__WRITES", "os"));
    assert_eq!(checked.code, 0, "{}{}", checked.out, checked.err);
    let expected = format!(
        "warning: the route in line {line} of the configuration: `GTE` is no registered HTTP method; did you mean `GET`?"
    );
    assert!(checked.out.lines().any(|said| said == expected), "{expected}: {}", checked.out);
}

#[test]
fn logs_have_no_colours_where_no_terminal_shows_them() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("linkgate.toml"), run(&mut linkgate(&["config", "print-default"])).out).unwrap();
    let mut serve = std::process::Command::new("sh");
    serve.args(["-c", "exec \"$0\" serve 2>&1", env!("CARGO_BIN_EXE_linkgate")]).current_dir(dir.path());
    for (name, value) in
        [("LISTEN__ADDRESS", "127.0.0.1:0"), ("HEALTH__ADDRESS", "127.0.0.1:0"), ("AUDIT__WRITES", "os")]
    {
        serve.env(format!("LINKGATE__{name}"), value);
    }
    let running = Running::start(&mut serve);
    loop {
        let line = running.line();
        assert!(!line.contains('\u{1b}'), "{line:?}");
        if line.contains("linkgate serves") {
            break;
        }
    }
}

#[test]
fn serve_that_cannot_listen_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    std::fs::write(dir.path().join("linkgate.toml"), run(&mut linkgate(&["config", "print-default"])).out).unwrap();
    let mut serve = linkgate(&["serve"]);
    serve.current_dir(dir.path()).env("LINKGATE__LISTEN__ADDRESS", taken.local_addr().unwrap().to_string());
    let served = run(serve.env("LINKGATE__AUDIT__WRITES", "os"));
    assert_eq!(served.code, 1);
    assert!(served.err.contains("cannot listen on `127.0.0.1:"), "{}", served.err);
}

#[test]
fn completion_scripts_name_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let printed = run(&mut linkgate(&["completions", shell]));
        assert_eq!(printed.code, 0, "{shell}");
        assert!(printed.out.contains("print-default") && printed.out.contains("serve"), "{shell}");
    }
}
