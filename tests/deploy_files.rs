//! What ships in `deploy/` fits the binary: configurations are accepted, metrics exist, every command has its page and
//! completion, the image gets what the build needs. What foreign programs have to say of these files, `tests/deploy.sh`
//! asks them.
#![cfg(feature = "demo")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may stop")]

mod cli_support;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use cli_support::{linkgate, run};
use linkgate::identity::mint::{DevAlgorithm, DevKey};

/// Metrics that rules may name though no code registers them yet.
const PENDING: &[&str] = &[];

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn below(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(below(&path, ending));
        } else if path.extension().is_some_and(|own| own == ending) {
            found.push(path);
        }
    }
    found
}

/// Every name of a metric in a text, without what a histogram appends.
fn metrics(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("linkgate_"))
        .map(|word| {
            let ending = ["_bucket", "_sum", "_count"].into_iter().find_map(|ending| word.strip_suffix(ending));
            ending.unwrap_or(word).to_owned()
        })
        .collect()
}

#[test]
fn every_configuration_is_accepted_without_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    DevKey::generate(DevAlgorithm::EdDsa).unwrap().write_pem(&dir.path().join("signing.pem")).unwrap();
    let here = format!("{}/", dir.path().display());
    let mut seen = 0;
    for path in below(&top().join("deploy"), "toml") {
        if path.ends_with("deploy/linkgate.toml") {
            // `config_deploy` looks at it closely.
            continue;
        }
        let mut configuration = fs::read_to_string(&path).unwrap();
        for folder in ["/etc/linkgate-keys/", "/etc/linkgate/", "/var/lib/linkgate/"] {
            configuration = configuration.replace(folder, &here);
        }
        let copy = dir.path().join("linkgate.toml");
        fs::write(&copy, configuration).unwrap();
        let mut check = linkgate(&["check", "--config", copy.to_str().unwrap()]);
        check
            .env("DATABASE_URL", "postgres://linkgate:secret@postgres/linkgate")
            .env("REDIS_URL", "redis://redis:6379/0")
            .env("JWT_SECRET_KEY", "0123456789abcdef0123456789abcdef")
            // Where the tests run there may be no stable storage.
            .env("LINKGATE__AUDIT__WRITES", "os");
        let checked = run(&mut check);
        assert_eq!(checked.code, 0, "{}: {}{}", path.display(), checked.out, checked.err);
        assert!(!checked.out.contains("warning"), "{}: {}", path.display(), checked.out);
        seen += 1;
    }
    assert_eq!(seen, 4, "compose, gateway, the same without a volume, sidecar");
}

#[test]
fn rules_and_dashboard_name_metrics_that_exist() {
    let sources: String =
        below(&top().join("src"), "rs").iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let registered = |name: &str| sources.contains(&format!("\"{name}\""));
    let mut named = BTreeSet::new();
    for file in ["prometheus/linkgate.rules.yml", "prometheus/linkgate.rules.test.yml", "grafana/linkgate.json"] {
        let own = metrics(&text(&format!("deploy/{file}")));
        assert!(own.len() > 10, "{file}: {own:?}");
        for name in &own {
            assert!(registered(name) || PENDING.contains(&name.as_str()), "{file}: there is no metric `{name}`");
        }
        named.extend(own);
    }
    for name in PENDING {
        assert!(named.contains(*name), "`{name}` waits for nothing");
    }
}

#[test]
fn every_alert_has_a_unit_test_and_says_what_to_do() {
    let rules = text("deploy/prometheus/linkgate.rules.yml");
    let tests = text("deploy/prometheus/linkgate.rules.test.yml");
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10);
    for alert in &alerts {
        assert!(tests.contains(&format!("alertname: {alert}\n")), "`{alert}` is tested by nothing");
    }
    for word in ["severity: ", "summary: ", "description: "] {
        let count = rules.lines().filter(|line| line.trim().starts_with(word)).count();
        assert_eq!(count, alerts.len(), "{word}");
    }
}

#[test]
fn every_command_has_a_manual_page_and_a_completion() {
    let script = run(&mut linkgate(&["completions", "bash"])).out;
    // What the completion tells commands apart by: linkgate__subcmd__link__subcmd__show.
    let completed: BTreeSet<String> = script
        .split("cmd=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .filter(|name| name.starts_with("linkgate"))
        .map(|name| name.replace("__subcmd__", "-"))
        .collect();
    assert!(completed.len() > 60, "{completed:?}");
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man/man1");
    assert_eq!(run(&mut linkgate(&["man", pages.to_str().unwrap()])).code, 0);
    let written: BTreeSet<String> =
        below(&pages, "1").iter().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(written, completed);
    for name in &written {
        let page = fs::read_to_string(pages.join(format!("{name}.1"))).unwrap();
        let about = page.lines().skip_while(|line| *line != ".SH NAME").nth(1).unwrap();
        assert!(about.contains(" \\- ") && page.contains(".SH SYNOPSIS"), "{name}: {about}");
    }
    let nowhere = dir.path().join("file");
    fs::write(&nowhere, "").unwrap();
    let refused = run(&mut linkgate(&["man", nowhere.to_str().unwrap()]));
    assert!(refused.code == 1 && refused.err.contains("cannot be written"), "{}", refused.err);
}

#[test]
fn the_image_gets_what_the_build_needs_and_runs_without_root() {
    let (dockerfile, ignored) = (text("deploy/Dockerfile"), text(".dockerignore"));
    assert!(ignored.lines().any(|line| line == "*"), "what is not named stays outside");
    let admitted: BTreeSet<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let copied: BTreeSet<&str> = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "))
        .filter(|rest| !rest.starts_with("--from"))
        .flat_map(|rest| rest.split(' ').rev().skip(1))
        .collect();
    assert_eq!(admitted, copied);
    for path in &copied {
        assert!(top().join(path).exists(), "{path}");
    }
    // What sources take in from outside of `src`, but for the demo's, which is not built.
    for path in below(&top().join("src"), "rs").iter().filter(|path| !path.to_str().unwrap().contains("/demo/")) {
        let source = fs::read_to_string(path).unwrap();
        let included =
            ["include_str!(\"", "include_bytes!(\""].map(|word| source.split(word).skip(1).collect::<Vec<_>>());
        for name in included.concat().iter().filter_map(|rest| rest.split('"').next()) {
            let from = path.parent().unwrap().join(name).canonicalize().unwrap();
            let folder = from.strip_prefix(top().canonicalize().unwrap()).unwrap().iter().next().unwrap();
            assert!(copied.contains(folder.to_str().unwrap()), "{} needs {}", path.display(), from.display());
        }
    }
    let user = dockerfile.lines().rev().find_map(|line| line.strip_prefix("USER ")).unwrap();
    assert!(user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "USER {user}");
}
