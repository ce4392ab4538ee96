//! Results of rule tests as JUnit's XML, which CI systems show.
//!
//! ```text
//! <testsuites> one <testsuite> a file, one <testcase> a test group, one <failure> a failure
//! ```

use std::fmt::Write;

use tidewatch_rules::testfile::GroupReport;

/// A test file with what came of it; a file that can not be run is one failed case.
pub struct Suite {
    pub file: String,
    pub groups: Vec<GroupReport>,
}

pub fn render(suites: &[Suite]) -> String {
    let mut xml = "<testsuites>\n".to_owned();
    for suite in suites {
        let failed = suite.groups.iter().filter(|group| !group.failures.is_empty()).count();
        let (file, tests) = (escape(&suite.file), suite.groups.len());
        let _ = writeln!(
            xml,
            "  <testsuite name=\"{file}\" tests=\"{tests}\" failures=\"{failed}\" errors=\"0\">"
        );
        for group in &suite.groups {
            let name = escape(&group.name);
            if group.failures.is_empty() {
                let _ = writeln!(xml, "    <testcase name=\"{name}\"></testcase>");
                continue;
            }
            let _ = writeln!(xml, "    <testcase name=\"{name}\">");
            for failure in &group.failures {
                let _ = writeln!(xml, "      <failure>{}</failure>", escape(failure));
            }
            let _ = writeln!(xml, "    </testcase>");
        }
        let _ = writeln!(xml, "  </testsuite>");
    }
    xml.push_str("</testsuites>\n");
    xml
}

/// Text that stands between tags or in quotes. XML 1.0 has no place for most control characters.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&#34;"),
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() => escaped.push(char::REPLACEMENT_CHARACTER),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_have_their_cases_and_failures_are_escaped() {
        let group = |name: &str, failures: &[&str]| GroupReport {
            name: name.to_owned(),
            failures: failures.iter().map(|&text| text.to_owned()).collect(),
        };
        let groups = vec![group("calm", &[]), group("storm", &["got: {a=\"<b>\"}\n\u{1b}"])];
        let expected = "\
<testsuites>
  <testsuite name=\"a&amp;b.yml\" tests=\"2\" failures=\"1\" errors=\"0\">
    <testcase name=\"calm\"></testcase>
    <testcase name=\"storm\">
      <failure>got: {a=&#34;&lt;b&gt;&#34;}
\u{fffd}</failure>
    </testcase>
  </testsuite>
</testsuites>
";
        assert_eq!(render(&[Suite { file: "a&b.yml".to_owned(), groups }]), expected);
    }
}
