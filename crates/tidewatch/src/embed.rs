//! The whole engine in memory, with a clock that moves when told: for tests of alert rules.
//!
//! ```text
//! append, scrape_text ─► Db (in memory) ◄─ groups, in the order in which they are due ◄─ advance
//!                           └─► query          └─► alerts(), notifications()
//! ```
//!
//! It is the server's own store, engine and rule groups; only time and the outside are missing.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use tidewatch_env::Env;
use tidewatch_env::sim::SimClock;
use tidewatch_ingest::{Format, parse_text};
use tidewatch_model::{Batch, Labels, Limits, RawLabels, Sample, Value};
use tidewatch_parser::{ParserOptions, parse_expr};
use tidewatch_promql::{Engine, EngineOptions, MemoryPool, QueryContext};
use tidewatch_rules::{AlertState, Group, LoadOptions, Notification, RuleFile, RuleSample, Settings};
use tidewatch_storage::{Append, Select};
use tidewatch_tsdb::{Db, DbOptions};

use crate::evaluate::{self, LocalEvaluator, append_rule_samples};

/// `count` seconds as [`Tidewatch::advance`] takes them.
pub fn seconds(count: i64) -> i64 {
    count * 1_000
}

/// `count` minutes as [`Tidewatch::advance`] takes them.
pub fn minutes(count: i64) -> i64 {
    count * 60_000
}

/// Why something was refused, in words for the person who wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbedError {
    pub message: String,
}

impl fmt::Display for EmbedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for EmbedError {}

fn error(message: impl fmt::Display) -> EmbedError {
    EmbedError { message: message.to_string() }
}

/// What an instance is made of. See [`Tidewatch::builder`].
#[derive(Debug, Clone)]
pub struct Builder {
    rules: Vec<(String, String)>,
    features: Vec<String>,
    settings: Settings,
    start_ms: i64,
}

impl Builder {
    /// Adds a rule file's text.
    pub fn rules(mut self, text: &str) -> Builder {
        let name = format!("rules-{}.yml", self.rules.len() + 1);
        self.rules.push((name, text.to_owned()));
        self
    }

    /// Switches on a feature by the name that `--enable-feature` has for it.
    pub fn feature(mut self, name: &str) -> Builder {
        self.features.push(name.to_owned());
        self
    }

    /// Labels that templates see as `$externalLabels`.
    pub fn external_labels(mut self, labels: Labels) -> Builder {
        self.settings.external_labels = labels;
        self
    }

    /// Evaluation interval of groups that name none; a minute where this is not called.
    pub fn evaluation_interval(mut self, interval_ms: i64) -> Builder {
        self.settings.interval_ms = interval_ms;
        self
    }

    /// The time at which the clock starts, in milliseconds since the epoch.
    pub fn start_at(mut self, start_ms: i64) -> Builder {
        self.start_ms = start_ms;
        self
    }

    /// Checks the rules and makes an instance without files, ports or threads of its own.
    pub fn in_memory(self) -> Result<Tidewatch, EmbedError> {
        let mut engine_options = EngineOptions::default();
        let (parser, unknown) = evaluate::features(&self.features, &mut engine_options);
        if let Some(name) = unknown.first() {
            return Err(error(format!("unknown feature {name:?}")));
        }
        let clock = Arc::new(SimClock::at(self.start_ms));
        let env = Env::in_memory_at(clock.clone());
        let db = Arc::new(Db::in_memory(env.clone(), DbOptions::new("")));
        let settings = Arc::new(Settings { parser: parser.clone(), ..self.settings });
        let load = LoadOptions { parser: parser.clone(), ..LoadOptions::default() };
        let mut groups = Vec::new();
        for (name, text) in &self.rules {
            let file = RuleFile::parse(text, name, &load).map_err(|errors| {
                error(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
            })?;
            for group in file.groups {
                groups.push(Group::new(name, group, settings.clone(), self.start_ms));
            }
        }
        let engine = Arc::new(Engine::new(env.clone(), engine_options));
        Ok(Tidewatch {
            env,
            clock,
            db,
            engine,
            parser,
            groups,
            notifications: Vec::new(),
            failures: BTreeSet::new(),
        })
    }
}

/// An alert that is pending or firing.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    pub labels: Labels,
    pub annotations: std::collections::BTreeMap<String, String>,
    pub state: AlertState,
    pub active_at_ms: i64,
    pub value: f64,
}

/// The engine in memory.
pub struct Tidewatch {
    env: Env,
    clock: Arc<SimClock>,
    db: Arc<Db>,
    engine: Arc<Engine>,
    parser: ParserOptions,
    groups: Vec<Group>,
    notifications: Vec<Notification>,
    failures: BTreeSet<String>,
}

impl Tidewatch {
    /// An empty instance whose clock starts on 1 January 2026.
    pub fn builder() -> Builder {
        Builder {
            rules: Vec::new(),
            features: Vec::new(),
            settings: Settings::default(),
            start_ms: 1_767_225_600_000,
        }
    }

    /// Milliseconds since the epoch, by the instance's clock.
    pub fn now_ms(&self) -> i64 {
        self.env.clock.wall_ms()
    }

    /// Appends one sample at the present. Refused samples are an error.
    pub fn append(&self, labels: &Labels, value: f64) -> Result<(), EmbedError> {
        self.append_at(labels, self.now_ms(), value)
    }

    pub fn append_at(&self, labels: &Labels, timestamp: i64, value: f64) -> Result<(), EmbedError> {
        let mut batch = Batch::new();
        batch.push(RawLabels::Canonical(labels.as_bytes()), &[Sample { timestamp, value }]);
        append(&self.db, &batch)
    }

    /// Takes what a target would expose, in Prometheus' text format, at the present. Panics where
    /// it is not valid, as a test wants.
    #[track_caller]
    pub fn scrape_text(&self, text: &str) {
        if let Err(reason) = self.try_scrape_text(text) {
            panic!("{reason}");
        }
    }

    pub fn try_scrape_text(&self, text: &str) -> Result<(), EmbedError> {
        let parsed = parse_text(text, Format::Prometheus, self.now_ms()).map_err(error)?;
        append(&self.db, &parsed.batch())
    }

    /// Moves the clock and evaluates, on the way, every group each time it is due.
    pub fn advance(&mut self, duration_ms: i64) {
        let end_ms = self.now_ms() + duration_ms;
        while let Some(due_ms) =
            self.groups.iter().map(Group::next_due_ms).min().filter(|due_ms| *due_ms <= end_ms)
        {
            self.clock.jump_to_ms(due_ms);
            self.evaluate_due(due_ms);
        }
        self.clock.jump_to_ms(end_ms);
    }

    fn evaluate_due(&mut self, now_ms: i64) {
        let store: Arc<dyn Select> = self.db.clone();
        let evaluator = LocalEvaluator {
            env: self.env.clone(),
            engine: self.engine.clone(),
            store,
            timeout_ms: 120_000,
            memory: MemoryPool::new(Limits::default().rules_memory_bytes as u64),
        };
        let db = self.db.clone();
        let mut append_samples = |samples: &[RuleSample]| append_rule_samples(&*db, samples).map(drop);
        for group in &mut self.groups {
            let Some(effects) = group.step(now_ms, &evaluator, &mut append_samples) else { continue };
            self.notifications.extend(effects.notifications);
            self.failures
                .extend(effects.failures.into_iter().map(|f| format!("{}: {}", f.rule.name, f.message)));
        }
    }

    /// Evaluates an expression at the present.
    pub fn query(&self, expression: &str) -> Result<Value, EmbedError> {
        self.query_at(expression, self.now_ms())
    }

    pub fn query_at(&self, expression: &str, at_ms: i64) -> Result<Value, EmbedError> {
        let expr = parse_expr(expression, &self.parser).map_err(error)?;
        let answer = self.engine.instant(&*self.db, &expr, at_ms, &QueryContext::unbounded());
        answer.map(|answer| answer.value).map_err(error)
    }

    pub fn query_range(
        &self,
        expression: &str,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
    ) -> Result<Value, EmbedError> {
        let expr = parse_expr(expression, &self.parser).map_err(error)?;
        let answer =
            self.engine.range(&*self.db, &expr, start_ms, end_ms, step_ms, &QueryContext::unbounded());
        answer.map(|answer| answer.value).map_err(error)
    }

    /// Alerts that are pending or firing, in the order of their rules.
    pub fn alerts(&self) -> Vec<Alert> {
        let all = self.groups.iter().flat_map(Group::alerts);
        all.filter(|(_, alert)| alert.state != AlertState::Inactive)
            .map(|(_, alert)| Alert {
                labels: alert.labels.clone(),
                annotations: alert.annotations.clone(),
                state: alert.state,
                active_at_ms: alert.active_at_ms,
                value: alert.value,
            })
            .collect()
    }

    /// What receivers would have been told so far, in order.
    pub fn notifications(&self) -> &[Notification] {
        &self.notifications
    }

    /// Rules that failed, each with its reason, without repetitions.
    pub fn failures(&self) -> impl Iterator<Item = &str> {
        self.failures.iter().map(String::as_str)
    }
}

fn append(db: &Db, batch: &Batch<'_>) -> Result<(), EmbedError> {
    let outcome = db.append(batch).map_err(error)?;
    outcome.first_refusal.map_or(Ok(()), |reason| Err(error(reason)))
}

#[cfg(test)]
mod tests {
    use tidewatch_model::SampleValue;

    use super::*;

    const RULES: &str = r#"
groups:
- name: api
  interval: 10s
  rules:
  - record: job:up:sum
    expr: sum by (job) (up)
  - alert: ApiDown
    expr: up{job="api"} == 0
    for: 30s
    annotations: {summary: "{{ $labels.job }} is down"}
"#;

    #[test]
    fn an_alert_waits_fires_and_resolves_in_virtual_time() {
        let mut tidewatch = Tidewatch::builder().rules(RULES).in_memory().expect("valid rules");
        tidewatch.scrape_text("up{job=\"api\"} 0\n");
        tidewatch.advance(seconds(20));
        assert_eq!(tidewatch.alerts()[0].state, AlertState::Pending);
        tidewatch.advance(seconds(30));
        assert_eq!(tidewatch.alerts()[0].state, AlertState::Firing);
        assert_eq!(tidewatch.alerts()[0].annotations["summary"], "api is down");
        tidewatch.scrape_text("up{job=\"api\"} 1\n");
        tidewatch.advance(seconds(10));
        assert!(tidewatch.alerts().is_empty());
        let states: Vec<_> = tidewatch.notifications().iter().map(|n| n.state).collect();
        assert_eq!(states, [AlertState::Firing, AlertState::Inactive]);
        let Value::Vector(sum) = tidewatch.query("job:up:sum").expect("valid") else { panic!("a vector") };
        assert!(matches!(sum[0].value, SampleValue::Float(value) if value == 1.0));
        assert_eq!(tidewatch.failures().count(), 0);
    }

    #[test]
    fn mistakes_in_rules_and_queries_are_told() {
        let refused =
            Tidewatch::builder().rules("groups: [{name: a, rules: [{record: x, expr: 'sum('}]}]").in_memory();
        assert!(refused.is_err_and(|error| error.message.contains("rules-1.yml: 1:")));
        let tidewatch = Tidewatch::builder().in_memory().expect("no rules");
        assert!(tidewatch.query("sum(").is_err_and(|error| error.message.contains("parse error")));
        assert!(tidewatch.try_scrape_text("up{ 1\n").is_err());
    }
}
