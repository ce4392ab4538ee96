//! Which groups read what others record, and how long after a sleep that is there again.
//!
//! ```text
//! awake ── wait ──► a: records r ── lag ──► b: r to s, alerts ── lag ──► c: alerts on s
//! ```
//!
//! A group that reads what is recorded judges after those that record it did so at least once, also
//! where these wait for others themselves. `ALERTS` is recorded by whoever has alerts.
//!
//! Not here: that rules of one group read each other, which run in order.

use std::collections::{BTreeSet, HashMap};

use tidewatch_model::{METRIC_NAME, MatchOp, Matcher};
use tidewatch_parser::VectorSelector;

use crate::alerting::{ALERTS, ALERTS_FOR_STATE};
use crate::definition::Rule;
use crate::group::Group;
use crate::patience::Patience;

/// At the end of its own wait a group is evaluated at once, whatever its interval; one that is
/// evaluated more often is given as long as to be evaluated once more.
const LAG_MAX_MS: i64 = 60_000;

/// Longer chains of groups count as this long, which bounds recursion and waits.
const CHAIN_MAX: usize = 8;

/// Tells each group what it is to know of those whose series it reads.
pub(crate) fn settle(groups: &mut [Group]) {
    let intervals: Vec<i64> = groups.iter().map(Group::interval_ms).collect();
    let reads = reads(groups);
    let mut lags = vec![None; groups.len()];
    for (index, group) in groups.iter_mut().enumerate() {
        let rarest_ms = reads[index].iter().map(|other| intervals[*other]).max().unwrap_or(0);
        let lag_ms = lag_ms(index, &reads, &intervals, &mut lags, &mut Vec::new());
        group.patience.reads_recorded(rarest_ms, lag_ms);
    }
    for _ in 0..CHAIN_MAX {
        let known: Vec<Patience> = groups.iter().map(|group| group.patience).collect();
        for (group, reads) in groups.iter_mut().zip(&reads) {
            reads.iter().for_each(|other| group.patience.waits_with(&known[*other]));
        }
    }
}

/// For each group the others whose series it reads.
fn reads(groups: &[Group]) -> Vec<BTreeSet<usize>> {
    let mut makers: HashMap<&str, BTreeSet<usize>> = HashMap::new();
    for (index, group) in groups.iter().enumerate() {
        for name in group.rules().iter().flat_map(made) {
            makers.entry(name).or_default().insert(index);
        }
    }
    let of = |(index, group): (usize, &Group)| {
        let mut read = BTreeSet::new();
        for rule in group.rules() {
            rule.query.expr.for_each_selector(&mut |selector| match name_of(selector) {
                Some(name) => read.extend(makers.get(name).into_iter().flatten()),
                None => {
                    let matching = makers.iter().filter(|(name, _)| may_have_name(selector, name));
                    read.extend(matching.flat_map(|(_, makers)| makers));
                }
            });
        }
        read.remove(&index);
        read
    };
    groups.iter().enumerate().map(of).collect()
}

/// The names of the series that a rule gives.
fn made(rule: &Rule) -> Vec<&str> {
    if rule.is_alerting() { vec![ALERTS, ALERTS_FOR_STATE] } else { vec![rule.name()] }
}

fn name_matchers(selector: &VectorSelector) -> impl Iterator<Item = &Matcher> {
    selector.matchers.iter().filter(|matcher| matcher.name() == METRIC_NAME)
}

fn name_of(selector: &VectorSelector) -> Option<&str> {
    name_matchers(selector).find(|matcher| matcher.op() == MatchOp::Equal).map(Matcher::value)
}

fn may_have_name(selector: &VectorSelector, name: &str) -> bool {
    name_matchers(selector).all(|matcher| matcher.matches(name))
}

/// How long after the samples are back a group waits for others. Groups that read each other in a
/// circle can not all wait for each other: who is on the way already is not waited for.
fn lag_ms(
    index: usize,
    reads: &[BTreeSet<usize>],
    intervals: &[i64],
    lags: &mut [Option<i64>],
    way: &mut Vec<usize>,
) -> i64 {
    if let Some(lag_ms) = lags[index] {
        return lag_ms;
    }
    way.push(index);
    let mut longest_ms = 0;
    for other in &reads[index] {
        if way.len() <= CHAIN_MAX && !way.contains(other) {
            let before_ms = lag_ms(*other, reads, intervals, lags, way);
            longest_ms = longest_ms.max(before_ms + intervals[*other].min(LAG_MAX_MS));
        }
    }
    way.pop();
    // Memoized within a circle this may be less than another beginning would give.
    lags[index] = Some(longest_ms);
    longest_ms
}
