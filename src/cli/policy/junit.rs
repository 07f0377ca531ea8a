//! JUnit XML, as build servers read it: what `policy check`, `test` and `prove` found, one test case each.
//!
//! Written by hand: the format is four elements, and what goes wrong with it is escaping, which is tested here.

use std::{fmt::Write as _, path::Path};

use crate::cli::outcome::Failure;

/// One file's results.
#[derive(Debug, Default)]
pub struct Suite {
    pub name: String,
    pub cases: Vec<Case>,
}

/// One case; without a failure it passed.
#[derive(Debug, Default)]
pub struct Case {
    pub name: String,
    /// First line, and the whole.
    pub failure: Option<(String, String)>,
    /// The same, where it could not be found out.
    pub error: Option<(String, String)>,
    /// What a passed case has to say all the same (warnings).
    pub output: String,
}

/// Writes the file, replacing what was there.
pub fn write(path: &Path, name: &str, suites: &[Suite]) -> Result<(), Failure> {
    std::fs::write(path, render(name, suites))
        .map_err(|error| Failure::failed(format!("the JUnit file `{}` cannot be written: {error}", path.display())))
}

fn render(name: &str, suites: &[Suite]) -> String {
    let failed = |cases: &[Case]| cases.iter().filter(|case| case.failure.is_some()).count();
    let undecided = |cases: &[Case]| cases.iter().filter(|case| case.error.is_some()).count();
    let tests: usize = suites.iter().map(|suite| suite.cases.len()).sum();
    let failures: usize = suites.iter().map(|suite| failed(&suite.cases)).sum();
    let errors: usize = suites.iter().map(|suite| undecided(&suite.cases)).sum();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a string cannot fail.
    let counts = format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\"");
    let _ = writeln!(out, "<testsuites name=\"{}\" {counts}>", escaped(name));
    for suite in suites {
        let (name, tests, failures) = (escaped(&suite.name), suite.cases.len(), failed(&suite.cases));
        let errors = undecided(&suite.cases);
        let _ = writeln!(
            out,
            "  <testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\">"
        );
        for case in &suite.cases {
            let _ = write!(out, "    <testcase classname=\"{name}\" name=\"{}\"", escaped(&case.name));
            if case.failure.is_none() && case.error.is_none() && case.output.is_empty() {
                out.push_str("/>\n");
                continue;
            }
            out.push_str(">\n");
            let told = [("failure", &case.failure), ("error", &case.error)];
            for (kind, (message, text)) in told.into_iter().filter_map(|(kind, told)| Some((kind, told.as_ref()?))) {
                let _ = writeln!(out, "      <{kind} message=\"{}\">{}</{kind}>", escaped(message), escaped(text));
            }
            if !case.output.is_empty() {
                let _ = writeln!(out, "      <system-out>{}</system-out>", escaped(&case.output));
            }
            out.push_str("    </testcase>\n");
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

/// For text and attributes alike. XML 1.0 has no form at all for most control characters: they become `?`.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            '\u{fffe}' | '\u{ffff}' => out.push('?'),
            other if other.is_control() => out.push('?'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_failed_and_noted_cases_have_their_forms_and_nothing_breaks_out() {
        let case = |name: &str, failure: Option<(&str, &str)>, output: &str| Case {
            name: name.to_owned(),
            failure: failure.map(|(message, text)| (message.to_owned(), text.to_owned())),
            error: None,
            output: output.to_owned(),
        };
        let unknown = Case {
            name: "unknown".to_owned(),
            error: Some(("no solver".to_owned(), "no solver\nat all".to_owned())),
            ..Case::default()
        };
        let suites = [Suite {
            name: "a.toml".to_owned(),
            cases: vec![
                case("fine", None, ""),
                case("\"<&'>\"", Some(("no\u{1}", "]]></failure>\n\tmore")), ""),
                case("noted", None, "warning: x"),
                unknown,
            ],
        }];
        assert_eq!(
            render("n", &suites),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<testsuites name=\"n\" tests=\"4\" failures=\"1\" errors=\"1\">
  <testsuite name=\"a.toml\" tests=\"4\" failures=\"1\" errors=\"1\">
    <testcase classname=\"a.toml\" name=\"fine\"/>
    <testcase classname=\"a.toml\" name=\"&quot;&lt;&amp;&apos;&gt;&quot;\">
      <failure message=\"no?\">]]&gt;&lt;/failure&gt;&#10;&#9;more</failure>
    </testcase>
    <testcase classname=\"a.toml\" name=\"noted\">
      <system-out>warning: x</system-out>
    </testcase>
    <testcase classname=\"a.toml\" name=\"unknown\">
      <error message=\"no solver\">no solver&#10;at all</error>
    </testcase>
  </testsuite>
</testsuites>
"
        );
    }
}
