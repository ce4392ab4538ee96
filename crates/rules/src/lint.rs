//! What is valid in a rule file and yet likely a mistake.

use std::collections::BTreeMap;
use std::fmt;

use tidewatch_model::Labels;

use crate::definition::RuleFile;

/// Rules that give or name the same thing: recording rules of one name and equal labels overwrite
/// each other's samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuplicateRule {
    pub name: String,
    pub labels: Labels,
    /// Where the rules begin, ascending; at least two.
    pub lines: Vec<u64>,
}

/// As `promtool check rules` describes it.
impl fmt::Display for DuplicateRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Metric: {}\nLabel(s):", self.name)?;
        for (name, value) in self.labels.iter() {
            writeln!(f, "\t{name}: {value}")?;
        }
        let lines: Vec<String> = self.lines.iter().map(u64::to_string).collect();
        writeln!(f, "Line(s): {}", lines.join(", "))
    }
}

/// The lint `duplicate-rules`: rules of one file with equal names and labels, by name.
pub fn duplicate_rules(file: &RuleFile) -> Vec<DuplicateRule> {
    let mut seen: BTreeMap<(String, Labels), Vec<u64>> = BTreeMap::new();
    for rule in file.groups.iter().flat_map(|group| &group.rules) {
        seen.entry((rule.name().to_owned(), rule.label_set())).or_default().push(rule.line);
    }
    let repeated = seen.into_iter().filter(|(_, lines)| lines.len() > 1);
    repeated.map(|((name, labels), lines)| DuplicateRule { name, labels, lines }).collect()
}
