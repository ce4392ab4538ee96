//! What tests of the engine share: series in runs that are cut and clocked as they want them, and workers that come
//! backwards.

#![allow(dead_code, reason = "each test uses its part")]

use std::sync::Arc;

use tidewatch_env::{Env, Job, Parallel};
use tidewatch_model::Labels;
use tidewatch_parser::{Expr, ParserOptions, parse_expr};
use tidewatch_storage::{ClockId, Run, RunValues};
use tidewatch_testkit::MemoryStore;

/// Adds a run of floats to a series.
pub fn push_floats(store: &MemoryStore, labels: &Labels, clock: Option<u64>, times: &[i64], values: &[f64]) {
    let clock = clock.map(ClockId);
    store
        .push_run(labels, &Run { clock, timestamps: times, values: RunValues::Floats(values), starts: None });
}

/// `count` series `m{i="…"}` of floats every 15 s, with resets and gaps, in runs of `run`.
pub fn counters(count: usize, samples: usize, run: usize) -> MemoryStore {
    let store = MemoryStore::new();
    for i in 0..count {
        let times: Vec<i64> = (0..samples).map(|t| t as i64 * 15_000 + (i % 3) as i64 * 1000).collect();
        let value = |t: usize| ((t * (i + 3)) % (97 + i)) as f64 + t as f64 / 7.0;
        let values: Vec<f64> = (0..samples).map(value).collect();
        let labels = Labels::from_pairs([
            ("__name__", "m".to_owned()),
            ("i", format!("{i:04}")),
            ("g", format!("{}", i % 4)),
        ]);
        for (n, (times, values)) in times.chunks(run).zip(values.chunks(run)).enumerate() {
            push_floats(&store, &labels, Some((i % 3 * 1000 + n) as u64), times, values);
        }
    }
    store
}

/// Runs jobs one after the other, the last first, and claims to be `width` wide.
struct Backwards {
    width: usize,
}

impl Parallel for Backwards {
    fn width(&self) -> usize {
        self.width
    }

    fn run<'a>(&self, jobs: Vec<Job<'a>>) {
        jobs.into_iter().rev().for_each(|job| job());
    }
}

/// An environment in memory with so many workers.
pub fn env(width: usize) -> Env {
    Env { parallel: Arc::new(Backwards { width }), ..Env::in_memory() }
}

pub fn parse(query: &str) -> Expr {
    parse_expr(query, &ParserOptions::experimental()).unwrap_or_else(|error| panic!("{query}: {error}"))
}
