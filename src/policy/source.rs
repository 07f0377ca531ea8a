//! Where a policy set comes from: a folder, or the set built into the binary.
//!
//! A missing part is an error, never "nothing": a guardrails folder that failed to mount must not open doors. Only
//! `guardrails/*.cedar` is read, not deeper; what else lies there is reported as a warning. Hidden files are skipped,
//! as editors and volume mounts leave them.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use super::{problem::Problem, source_file::SourceFile};

/// Largest file that is read; a policy set of people's making is some kilobytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Most files of one folder. Cedar's cost grows with the number of policies.
const MAX_FILES: usize = 256;

/// All inputs of one policy set.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    pub(super) schema: SourceFile,
    pub(super) roles: SourceFile,
    /// Sorted by file name, so that the digest does not depend on the folder's order.
    pub(super) guardrails: Vec<SourceFile>,
    pub(super) warnings: Vec<Problem>,
}

const SCHEMA: &str = include_str!("../../policies/schema.cedarschema");
const ROLES: &str = include_str!("../../policies/roles.toml");
/// What must hold of the shipped set, and of every other that has no invariants of its own.
pub(super) const INVARIANTS: &str = include_str!("../../policies/invariants.toml");
const GUARDRAILS: [(&str, &str); 1] =
    [("guardrails/examples.cedar", include_str!("../../policies/guardrails/examples.cedar"))];
const TESTS: [(&str, &str); 4] = [
    ("tests/roles.toml", include_str!("../../policies/tests/roles.toml")),
    ("tests/gates.toml", include_str!("../../policies/tests/gates.toml")),
    ("tests/overrides.toml", include_str!("../../policies/tests/overrides.toml")),
    ("tests/guardrails.toml", include_str!("../../policies/tests/guardrails.toml")),
];

/// Every file of the shipped folder, tests and invariants included: its path in the folder, and its text.
pub fn shipped() -> impl Iterator<Item = (&'static str, &'static str)> {
    let own = [("schema.cedarschema", SCHEMA), ("roles.toml", ROLES), ("invariants.toml", INVARIANTS)];
    own.into_iter().chain(GUARDRAILS).chain(TESTS)
}

fn built_in((name, text): (&str, &str)) -> SourceFile {
    SourceFile { name: format!("built-in/{name}"), text: text.into() }
}

/// The tests of the shipped set.
pub(super) fn built_in_tests() -> Vec<SourceFile> {
    TESTS.map(built_in).into()
}

impl Sources {
    /// The shipped set.
    pub(super) fn built_in() -> Self {
        Self {
            schema: built_in(("schema.cedarschema", SCHEMA)),
            roles: built_in(("roles.toml", ROLES)),
            guardrails: GUARDRAILS.map(built_in).into(),
            warnings: Vec::new(),
        }
    }

    /// Takes the comment marks from a rule that stands commented out under this `@id`, whole lines up to its `;`. Lines stay
    /// where they are. Nothing happens where there is none: the caller looks whether the rule is on.
    pub(super) fn switch_on(&mut self, id: &str) {
        for file in &mut self.guardrails {
            if let Some(text) = switched_on(&file.text, id) {
                file.text = text.into();
            }
        }
    }

    /// Ids of the rules that stand commented out.
    pub(super) fn switched_off(&self) -> impl Iterator<Item = &str> {
        let lines = self.guardrails.iter().flat_map(|file| file.text.lines());
        lines.filter_map(|line| line.trim_end().strip_prefix("// @id(\"")?.strip_suffix("\")"))
    }

    /// Reads a folder; every file that cannot be read is a problem of its own.
    pub(super) fn read(dir: &Path) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut warnings = Vec::new();
        let schema = read_file(&dir.join("schema.cedarschema"), &mut problems);
        let roles = read_file(&dir.join("roles.toml"), &mut problems);
        let help = "the folder must exist, even if it is empty: a lost mount must not open doors";
        let guardrails: Vec<_> = list(&dir.join("guardrails"), "cedar", help, &mut problems, &mut warnings)
            .iter()
            .filter_map(|path| read_file(path, &mut problems))
            .collect();
        match (schema, roles) {
            (Some(schema), Some(roles)) if problems.is_empty() => Ok(Self { schema, roles, guardrails, warnings }),
            _ => Err(problems),
        }
    }
}

fn switched_on(text: &str, id: &str) -> Option<String> {
    let start = format!("// @id(\"{id}\")");
    let mut out = String::with_capacity(text.len());
    let (mut on, mut done) = (false, false);
    for line in text.lines() {
        on = !done && (on || line.trim_end() == start);
        match line.strip_prefix("//") {
            Some(code) if on => {
                let code = code.strip_prefix(' ').unwrap_or(code);
                out.push_str(code);
                done = code.trim_end().ends_with(';');
            }
            // A rule that breaks off is none; half of it must not be read.
            None if on => return None,
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    done.then_some(out)
}

/// The files of a folder with this extension, sorted; what else lies there is a warning.
pub(super) fn list(
    folder: &Path,
    extension: &str,
    help: &str,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) -> Vec<PathBuf> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            let problem = Problem::of_file(folder.display().to_string(), format!("cannot be listed: {error}"));
            problems.push(problem.help(help));
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = match entry {
            Ok(entry) => entry.path(),
            Err(error) => {
                problems.push(Problem::of_file(folder.display().to_string(), format!("cannot be listed: {error}")));
                continue;
            }
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        if path.extension().is_some_and(|one| one == extension) && !path.is_dir() {
            found.push(path);
        } else {
            let message = format!("not read (only `*.{extension}` files of this folder itself are)");
            warnings.push(Problem::of_file(path.display().to_string(), message));
        }
    }
    if found.len() > MAX_FILES {
        let message = format!("holds {} `*.{extension}` files; at most {MAX_FILES} are read", found.len());
        problems.push(Problem::of_file(folder.display().to_string(), message).help("put more into one file"));
        return Vec::new();
    }
    found.sort();
    warnings.sort_by(|a, b| a.file.cmp(&b.file));
    found
}

pub(super) fn read_file(path: &Path, problems: &mut Vec<Problem>) -> Option<SourceFile> {
    let name = path.display().to_string();
    let mut text = String::new();
    let read = fs::File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text));
    match read {
        Ok(length) if length as u64 > MAX_FILE_BYTES => {
            problems.push(Problem::of_file(name, format!("is larger than {MAX_FILE_BYTES} bytes")));
            None
        }
        Ok(_) => Some(SourceFile { name, text: text.into() }),
        Err(error) => {
            problems.push(Problem::of_file(name, format!("cannot be read: {error}")));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_set_is_the_shipped_folder() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/policies"));
        let mut files = Vec::new();
        for sub in ["", "guardrails", "tests"] {
            let entries = fs::read_dir(folder.join(sub)).unwrap().map(|entry| entry.unwrap().path());
            files.extend(entries.filter(|path| path.is_file()));
        }
        files.sort();
        let read = |path: &PathBuf| {
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        };
        let in_folder: Vec<_> = files.iter().map(read).collect();
        let mut in_binary: Vec<_> = shipped().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
        in_binary.sort();
        assert_eq!(in_folder, in_binary, "list new files of the folder in `source`");

        let (set, built_in) = (Sources::read(folder).unwrap(), Sources::built_in());
        let texts = |set: &Sources| {
            let files = [&set.schema, &set.roles].into_iter().chain(&set.guardrails);
            files.map(|file| file.text.clone()).collect::<Vec<_>>()
        };
        assert_eq!(texts(&set), texts(&built_in));
        assert!(set.warnings.is_empty());
    }

    #[test]
    fn a_rule_is_switched_on_whole_or_not_at_all() {
        let text = "// About it.\n//\n// @id(\"a\")\n// forbid (principal, action, resource)\n//   when { context.mfa };\n// more\n";
        let on =
            "// About it.\n//\n@id(\"a\")\nforbid (principal, action, resource)\n  when { context.mfa };\n// more\n";
        assert_eq!(switched_on(text, "a").as_deref(), Some(on));
        assert_eq!(switched_on(text, "b"), None);
        assert_eq!(switched_on(on, "a"), None, "it is on");
        assert_eq!(switched_on("// @id(\"a\")\n// forbid (principal,\nx\n", "a"), None, "it breaks off");
        assert_eq!(switched_on("// @id(\"a\")\n// forbid (principal,", "a"), None, "it never ends");
        let mut set = Sources::built_in();
        let all: Vec<String> = set.switched_off().map(str::to_owned).collect();
        assert_eq!(all.len(), 5);
        all.iter().for_each(|id| set.switch_on(id));
        assert_eq!(set.switched_off().count(), 0);
    }

    #[test]
    fn a_missing_guardrails_folder_is_an_error_and_strange_files_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let set = Sources::built_in();
        fs::write(dir.path().join("schema.cedarschema"), &*set.schema.text).unwrap();
        fs::write(dir.path().join("roles.toml"), &*set.roles.text).unwrap();
        let problems = Sources::read(dir.path()).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].file.ends_with("guardrails"), "{problems:?}");

        let folder = dir.path().join("guardrails");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("b.cedar"), "").unwrap();
        fs::write(folder.join("a.cedar"), "").unwrap();
        fs::write(folder.join(".a.cedar.swp"), "").unwrap();
        fs::write(folder.join("c.cedar.off"), "").unwrap();
        fs::create_dir(folder.join("deep")).unwrap();
        let set = Sources::read(dir.path()).unwrap();
        let names: Vec<_> = set.guardrails.iter().map(|file| file.name.rsplit('/').next().unwrap()).collect();
        assert_eq!(names, ["a.cedar", "b.cedar"]);
        assert_eq!(set.warnings.len(), 2, "{:?}", set.warnings);
    }
}
