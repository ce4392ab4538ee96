//! Unit tests of rules: the files of `promtool test rules`.
//!
//! ```text
//! text ─ TestFile::parse ─► TestFile ─ run(rules, lab) ─► Report
//!                                          │ each test group: an empty store from the [Lab],
//!                                          │ samples as their time comes, groups evaluated,
//!                                          └ alerts and expressions compared
//! ```
//!
//! Invariants: a test group sees nothing of another; samples are in the store only when their time
//! has come, so that rules can not look ahead; failures read as promtool prints them.
//!
//! Not here: reading files and globs (the caller), the store and the engine (behind [`Lab`]).

mod compare;
mod run;
mod schema;

use std::fmt;

use tidewatch_model::Labels;

use crate::effects::{Evaluator, RuleSample};

/// Gives each test group a store of its own.
pub trait Lab {
    /// An empty store with an engine on it. `interval_ms` is the step of subqueries that name none.
    fn bench(&self, interval_ms: i64) -> Box<dyn Bench>;
}

/// A store and an engine that answers from it.
pub trait Bench: Evaluator {
    /// Takes samples; those of a series ascend in time.
    fn append(&self, samples: &[RuleSample]) -> Result<(), String>;
}

/// How test files are run.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Only test groups whose names match one of these expressions; all where there is none.
    pub run: Vec<String>,
    /// Differences are shown line by line (`--diff`).
    pub diff: bool,
    /// How rule files are read.
    pub rules: crate::LoadOptions,
}

/// A test file that was read.
#[derive(Debug)]
pub struct TestFile {
    pub name: String,
    /// Paths and patterns, relative to the test file.
    pub rule_files: Vec<String>,
    evaluation_interval_ms: i64,
    group_eval_order: Vec<String>,
    fuzzy_compare: bool,
    tests: Vec<TestGroup>,
}

#[derive(Debug)]
struct TestGroup {
    /// Empty where the file gives none.
    name: String,
    /// Its place in the file.
    index: usize,
    interval_ms: i64,
    start_ms: i64,
    input_series: Vec<InputSeries>,
    alert_tests: Vec<AlertTest>,
    expr_tests: Vec<ExprTest>,
    external_labels: Labels,
    external_url: String,
}

#[derive(Debug)]
struct InputSeries {
    series: String,
    values: String,
}

#[derive(Debug)]
struct AlertTest {
    eval_time_ms: i64,
    alert: String,
    expected: Vec<compare::Alert>,
}

#[derive(Debug)]
struct ExprTest {
    eval_time_ms: i64,
    expr: String,
    expected: Vec<ExpectedSample>,
}

#[derive(Debug)]
struct ExpectedSample {
    labels: String,
    value: f64,
    histogram: String,
}

/// What came of a test file.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Test groups that were run.
    pub groups: Vec<GroupReport>,
}

#[derive(Debug, Clone)]
pub struct GroupReport {
    /// `unnamed#3` where the file gives none.
    pub name: String,
    /// Empty when the group passed. Texts may have several lines.
    pub failures: Vec<String>,
}

impl TestGroup {
    fn shown_name(&self) -> String {
        if self.name.is_empty() { format!("unnamed#{}", self.index) } else { self.name.clone() }
    }
}

impl Report {
    pub fn passed(&self) -> bool {
        self.groups.iter().all(|group| group.failures.is_empty())
    }

    pub fn failures(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().flat_map(|group| group.failures.iter().map(String::as_str))
    }
}

/// As promtool prints it below the file's name.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.passed() {
            return writeln!(f, "  SUCCESS");
        }
        writeln!(f, "  FAILED:")?;
        for failure in self.failures() {
            writeln!(f, "{failure}\n")?;
        }
        Ok(())
    }
}
