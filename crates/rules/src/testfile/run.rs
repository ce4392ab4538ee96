//! Runs the test groups of a file, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidewatch_model::{Labels, SampleValue};
use tidewatch_parser::{SequenceValue, parse_expr, parse_series_description};

use super::compare::{Alert, Sample, alerts_text, diff, histogram_text, indent, samples_agree, samples_text};
use super::{
    Bench, ExpectedSample, ExprTest, GroupReport, InputSeries, Lab, Report, RunOptions, TestFile, TestGroup,
};
use crate::alert::AlertState;
use crate::alerting::vector_of;
use crate::definition::RuleFile;
use crate::effects::RuleSample;
use crate::group::{Group, Settings};
use crate::reload::reload;

impl TestFile {
    /// Runs the file's test groups. `rules` are the rule files' names and texts, in order. An error
    /// says that nothing could be run.
    pub fn run(
        &self,
        rules: &[(String, String)],
        lab: &dyn Lab,
        options: &RunOptions,
    ) -> Result<Report, String> {
        let mut filters = Vec::new();
        for pattern in &options.run {
            filters.push(tidewatch_model::regex::search(pattern)?);
        }
        let wanted = |test: &&TestGroup| {
            filters.is_empty() || filters.iter().any(|filter| filter.is_match(&test.name))
        };
        let mut files = Vec::new();
        let mut errors = Vec::new();
        for (name, text) in rules {
            match RuleFile::parse(text, name, &options.rules) {
                Ok(file) => files.push(file),
                Err(found) => errors.extend(found.iter().map(ToString::to_string)),
            }
        }
        let run = |test: &TestGroup| {
            let failures = match errors.is_empty() {
                true => Run::new(self, test, files.clone(), lab, options).failures(),
                false => errors.clone(),
            };
            GroupReport { name: test.shown_name(), failures }
        };
        Ok(Report { groups: self.tests.iter().filter(wanted).map(run).collect() })
    }
}

/// One test group while it runs.
struct Run<'t> {
    file: &'t TestFile,
    test: &'t TestGroup,
    options: &'t RunOptions,
    bench: Box<dyn Bench>,
    groups: Vec<Group>,
    /// What is not in the store yet, by time.
    input: BTreeMap<i64, Vec<RuleSample>>,
    failures: Vec<String>,
}

impl<'t> Run<'t> {
    fn new(
        file: &'t TestFile,
        test: &'t TestGroup,
        rules: Vec<RuleFile>,
        lab: &dyn Lab,
        options: &'t RunOptions,
    ) -> Run<'t> {
        let settings = Arc::new(Settings {
            interval_ms: test.interval_ms,
            external_labels: test.external_labels.clone(),
            external_url: test.external_url.clone(),
            parser: options.rules.parser.clone(),
            ..Settings::default()
        });
        let mut groups = reload(Vec::new(), rules, &settings, test.start_ms).groups;
        // Those that are not named come first, as with promtool.
        let order = |group: &Group| file.group_eval_order.iter().position(|name| name == group.name());
        groups.sort_by_key(|group| order(group).unwrap_or(0));
        let bench = lab.bench(file.evaluation_interval_ms);
        Run { file, test, options, bench, groups, input: BTreeMap::new(), failures: Vec::new() }
    }

    fn failures(mut self) -> Vec<String> {
        if let Err(message) = self.prepare_input() {
            return vec![message];
        }
        if self.evaluate_rules() {
            for test in &self.test.expr_tests {
                if let Err(failure) = self.check_expr(test) {
                    self.failures.push(failure);
                }
            }
        }
        self.failures
    }

    /// Puts the input in the order of its times. Of a series that is described twice the last
    /// description counts, as with promtool.
    fn prepare_input(&mut self) -> Result<(), String> {
        let mut described = BTreeMap::new();
        for InputSeries { series, values } in &self.test.input_series {
            let text = format!("{series} {values}");
            let (labels, values) = parse_series_description(&text).map_err(|error| error.to_string())?;
            described.insert(labels, values);
        }
        for (labels, values) in described {
            let times = (0..).map(|index| self.test.start_ms + index * self.test.interval_ms);
            for (timestamp, value) in times.zip(values) {
                let value = match value {
                    SequenceValue::Omitted => continue,
                    SequenceValue::Float(value) => SampleValue::Float(value),
                    SequenceValue::Histogram { histogram, .. } => SampleValue::Histogram(histogram),
                };
                let sample = RuleSample { labels: labels.clone(), timestamp, value };
                self.input.entry(timestamp).or_default().push(sample);
            }
        }
        Ok(())
    }

    /// Evaluates all groups from the start to the last time that a test asks for, and checks the
    /// alerts on the way. False when a rule failed, which ends the test.
    fn evaluate_rules(&mut self) -> bool {
        let alert_times: BTreeSet<i64> = self.test.alert_tests.iter().map(|test| test.eval_time_ms).collect();
        let expr_times = self.test.expr_tests.iter().map(|test| test.eval_time_ms);
        let last_ms = expr_times.chain(alert_times.iter().copied()).max().unwrap_or(0);
        let interval_ms = self.file.evaluation_interval_ms;
        let mut since_start_ms = 0;
        while since_start_ms <= last_ms {
            let at_ms = self.test.start_ms + since_start_ms;
            if let Err(message) = self.feed(at_ms) {
                self.failures.push(message);
                return false;
            }
            if !self.evaluate_groups(at_ms) {
                return false;
            }
            for time_ms in alert_times.range(since_start_ms..since_start_ms + interval_ms) {
                self.check_alerts(*time_ms);
            }
            since_start_ms += interval_ms;
        }
        true
    }

    /// Puts into the store what came up to `at_ms`.
    fn feed(&mut self, at_ms: i64) -> Result<(), String> {
        let later = self.input.split_off(&(at_ms + 1));
        for samples in std::mem::replace(&mut self.input, later).into_values() {
            self.bench.append(&samples)?;
        }
        Ok(())
    }

    fn evaluate_groups(&mut self, at_ms: i64) -> bool {
        let mut good = true;
        let bench = self.bench.as_ref();
        for group in &mut self.groups {
            let effects = group.evaluate(at_ms, bench, &mut |samples| bench.append(samples));
            for failure in effects.failures {
                good = false;
                let (name, time) = (&failure.rule.name, duration(at_ms));
                self.failures.push(format!("    rule: {name}, time: {time}, err: {}", failure.message));
            }
        }
        good
    }

    fn check_alerts(&mut self, time_ms: i64) {
        let test = self.test;
        for case in test.alert_tests.iter().filter(|case| case.eval_time_ms == time_ms) {
            let mut got = self.firing(&case.alert);
            let mut expected = case.expected.clone();
            got.sort();
            expected.sort();
            if got == expected {
                continue;
            }
            let (expected, got) = (alerts_text(&expected), alerts_text(&got));
            let (alert, time) = (&case.alert, prometheus_duration(time_ms));
            let head = format!("{}    alertname: {alert}, time: {time}, \n", self.head());
            self.failures.push(if self.options.diff {
                format!("{head}        diff:\n{}", diff(&expected, &got).trim_end())
            } else {
                let by = " ".repeat(12);
                format!("{head}        exp:{}, \n        got:{}", indent(&expected, &by), indent(&got, &by))
            });
        }
    }

    /// The name of the test group, where it has one.
    fn head(&self) -> String {
        match self.test.name.as_str() {
            "" => String::new(),
            name => format!("    name: {name},\n"),
        }
    }

    fn firing(&self, alert: &str) -> Vec<Alert> {
        let alerts = self.groups.iter().flat_map(Group::alerts);
        let firing = alerts.filter(|(id, found)| id.name == alert && found.state == AlertState::Firing);
        let seen = |(_, found): (_, &crate::AlertInstance)| Alert {
            labels: found.labels.clone(),
            annotations: found.annotations.clone(),
        };
        firing.map(seen).collect()
    }

    fn check_expr(&self, case: &ExprTest) -> Result<(), String> {
        let time = prometheus_duration(case.eval_time_ms);
        let place = format!("    expr: {}, time: {time}", tidewatch_model::quote(&case.expr));
        let fail = |message: String| format!("{place}, err: {message}");
        let mut got = self.query(case).map_err(fail)?;
        let expected: Result<Vec<Sample>, String> = case.expected.iter().map(expected_sample).collect();
        let mut expected = expected.map_err(fail)?;
        got.sort_by(|a, b| a.labels.cmp(&b.labels));
        expected.sort_by(|a, b| a.labels.cmp(&b.labels));
        if samples_agree(&expected, &got, self.file.fuzzy_compare) {
            return Ok(());
        }
        let (expected, got) = (samples_text(&expected), samples_text(&got));
        Err(format!("{place},\n        exp: {expected}\n        got: {got}"))
    }

    fn query(&self, case: &ExprTest) -> Result<Vec<Sample>, String> {
        let expr = parse_expr(&case.expr, &self.options.rules.parser).map_err(|error| error.to_string())?;
        let at_ms = self.test.start_ms + case.eval_time_ms;
        let (value, _) = self.bench.instant(&expr, at_ms).map_err(|error| error.message)?;
        Ok(vector_of(value)?.into_iter().map(Sample::of).collect())
    }
}

fn expected_sample(expected: &ExpectedSample) -> Result<Sample, String> {
    let fail = |message: String| format!("labels {}: {message}", tidewatch_model::quote(&expected.labels));
    let labels = match expected.labels.as_str() {
        "" => Labels::empty(),
        text => parse_series_description(text).map_err(|error| fail(error.to_string()))?.0,
    };
    let histogram = match expected.histogram.as_str() {
        "" => None,
        text => {
            let (_, values) =
                parse_series_description(&format!("{{}} {text}")).map_err(|error| fail(error.to_string()))?;
            match values.as_slice() {
                [SequenceValue::Histogram { histogram, .. }] => Some(histogram_text(histogram)),
                [_] => return Err(fail("expected histogram, got a float".to_owned())),
                _ => return Err(fail(format!("expected 1 value, got {}", values.len()))),
            }
        }
    };
    Ok(Sample { labels, value: expected.value, histogram })
}

/// As Go's `time.Duration` prints it.
fn duration(ms: i64) -> String {
    crate::template::duration_text(ms.saturating_mul(1_000_000))
}

/// As Prometheus' `model.Duration` prints it.
fn prometheus_duration(ms: i64) -> String {
    tidewatch_model::format_duration(ms)
}
