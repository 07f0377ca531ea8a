//! A policy folder for one test.

use std::path::PathBuf;

/// The built-in set with guardrails added.
pub fn policies(dir: &std::path::Path, guardrails: &[(&str, String)]) {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("policies");
    std::fs::create_dir_all(dir.join("guardrails")).unwrap();
    for name in ["schema.cedarschema", "roles.toml"] {
        std::fs::copy(own.join(name), dir.join(name)).unwrap();
    }
    for (name, text) in guardrails {
        std::fs::write(dir.join("guardrails").join(name), text).unwrap();
    }
}
