//! JUnit XML for CI: one suite of cases, each passed, failed (what was tested is wrong) or in error (it was not tested).

use std::{fs, path::Path};

use crate::cli::outcome::Failure;

/// One thing that was tested.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    Failed(String),
    Error(String),
}

/// Writes the file; what stood there is replaced.
pub(super) fn write(path: &Path, suite: &str, seconds: f64, cases: &[Case]) -> Result<(), Failure> {
    let said = |error| Failure::failed(format!("`{}` cannot be written: {error}", path.display()));
    fs::write(path, render(suite, seconds, cases)).map_err(said)
}

fn render(suite: &str, seconds: f64, cases: &[Case]) -> String {
    let count = |kind: fn(&Outcome) -> bool| cases.iter().filter(|case| kind(&case.outcome)).count();
    let failures = count(|outcome| matches!(outcome, Outcome::Failed(_)));
    let errors = count(|outcome| matches!(outcome, Outcome::Error(_)));
    let suite = escaped(suite);
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"{suite}\" tests=\"{}\" \
         failures=\"{failures}\" errors=\"{errors}\" time=\"{seconds:.3}\">\n",
        cases.len()
    );
    for case in cases {
        let open = format!("    <testcase classname=\"{suite}\" name=\"{}\"", escaped(&case.name));
        let (kind, text) = match &case.outcome {
            Outcome::Passed => {
                out.push_str(&format!("{open}/>\n"));
                continue;
            }
            Outcome::Failed(text) => ("failure", text),
            Outcome::Error(text) => ("error", text),
        };
        let first = escaped(text.lines().next().unwrap_or_default());
        out.push_str(&format!(
            "{open}>\n      <{kind} message=\"{first}\">{}</{kind}>\n    </testcase>\n",
            escaped(text)
        ));
    }
    out.push_str("  </testsuite>\n</testsuites>\n");
    out
}

/// Characters that XML cannot carry are left out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(letter),
            letter if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => {}
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_ci_reads() {
        let cases = [
            Case { name: "a".to_owned(), outcome: Outcome::Passed },
            Case { name: "b<\"".to_owned(), outcome: Outcome::Failed("x & y\nsecond\u{1b}".to_owned()) },
            Case { name: "c".to_owned(), outcome: Outcome::Error("no solver".to_owned()) },
        ];
        let text = render("suite", 1.25, &cases);
        assert!(text.contains(r#"<testsuite name="suite" tests="3" failures="1" errors="1" time="1.250">"#), "{text}");
        assert!(text.contains(r#"<testcase classname="suite" name="a"/>"#));
        assert!(text.contains(r#"name="b&lt;&quot;""#));
        assert!(text.contains("<failure message=\"x &amp; y\">x &amp; y\nsecond</failure>"));
        assert!(text.contains(r#"<error message="no solver">no solver</error>"#));
    }
}
