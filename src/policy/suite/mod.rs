//! Decision tables: who, through which link, in which moment, may do what; held against the very `decide` of the gateway.
//!
//! `source` files stand in `tests/*.toml` of a policy folder. `read` turns them into single questions (`case`; the facts are
//! those of `linkgate decide`, by the same reader), `table` reads the matrix form, `run` asks and compares, `coverage` tells
//! what no test has looked at. Nothing here is part of the set: a broken test keeps no policy from being loaded.

mod case;
mod coverage;
mod given;
mod read;
mod reader;
mod run;
mod table;

use std::{collections::BTreeMap, path::Path};

use super::{
    bundle::Bundle,
    problem::{PolicyErrors, Problem},
    source,
    source_file::SourceFile,
};

pub use coverage::{Coverage, CoverageKind};
pub use run::{CaseReport, FileReport, Mismatch, SuiteReport};

/// Folder of a policy set in which its tests are looked for.
pub const FOLDER: &str = "tests";

/// Runs the tests of a folder (`None`: the built-in set and its own tests); `tests` names another folder or a single file.
///
/// `only` keeps the cases whose name or file contains the text. The error lists everything that is wrong with the set or
/// with the test files; a decision that is not as expected is no error but part of the report.
pub fn run(dir: Option<&Path>, tests: Option<&Path>, only: Option<&str>) -> Result<SuiteReport, PolicyErrors> {
    let files = sources(dir, tests).map_err(PolicyErrors::new)?;
    let plain = Bundle::load(dir)?;
    let mut variants: BTreeMap<Vec<String>, Bundle> = BTreeMap::new();
    let mut problems = Vec::new();
    let mut suites = Vec::new();
    for file in &files {
        let Some(header) = read::header(file, &plain, &mut problems) else { continue };
        let ids: Vec<&str> = header.switch_on.iter().map(String::as_str).collect();
        let bundle = if ids.is_empty() {
            &plain
        } else {
            if !variants.contains_key(&header.switch_on) {
                variants.insert(header.switch_on.clone(), Bundle::load_with(dir, &ids)?);
            }
            variants.get(&header.switch_on).unwrap_or(&plain)
        };
        suites.push(read::suite(file, &header, bundle, &mut problems));
    }
    if !problems.is_empty() {
        return Err(PolicyErrors::new(problems));
    }
    Ok(run::all(&plain, &variants, &suites, only))
}

fn sources(dir: Option<&Path>, tests: Option<&Path>) -> Result<Vec<SourceFile>, Vec<Problem>> {
    let folder = match (tests, dir) {
        (Some(tests), _) => tests.to_owned(),
        (None, Some(dir)) => dir.join(FOLDER),
        (None, None) => return Ok(source::built_in_tests()),
    };
    let mut problems = Vec::new();
    let paths = if folder.is_file() {
        vec![folder.clone()]
    } else {
        let help = "tests stand in `tests/*.toml` of the policy folder: write one (its form: `linkgate policy test --help`) or \
             begin with the shipped ones (`policies/tests` of what `linkgate demo --dir DIR` writes); `--tests` names \
             another place";
        source::list(&folder, "toml", help, &mut problems, &mut Vec::new())
    };
    let files: Vec<_> = paths.iter().filter_map(|path| source::read_file(path, &mut problems)).collect();
    if problems.is_empty() && files.is_empty() {
        let problem = Problem::of_file(folder.display().to_string(), "holds no `*.toml` file: nothing was tested");
        problems.push(problem.help("a run without a test is no success"));
    }
    if problems.is_empty() { Ok(files) } else { Err(problems) }
}
