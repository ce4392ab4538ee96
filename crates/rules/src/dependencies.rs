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

use crate::alerting::{ALERT_NAME, ALERTS, ALERTS_FOR_STATE};
use crate::definition::Rule;
use crate::group::Group;
use crate::patience::Patience;

/// At the end of its own wait a group is evaluated at once, whatever its interval; one that is
/// evaluated more often is given as long as to be evaluated once more.
const LAG_MAX_MS: i64 = 60_000;

/// No chain of groups is waited for longer than this.
const CHAIN_MAX_MS: i64 = 8 * LAG_MAX_MS;

/// Tells each group what it is to know of those whose series it reads.
pub(crate) fn settle(groups: &mut [Group]) {
    let intervals: Vec<i64> = groups.iter().map(Group::interval_ms).collect();
    let reads = reads(groups);
    let lags = lags(&reads, &intervals);
    for (index, group) in groups.iter_mut().enumerate() {
        let rarest_ms = reads[index].iter().map(|other| intervals[*other]).max().unwrap_or(0);
        group.patience.reads_recorded(rarest_ms, lags[index]);
    }
    // Ends, as each round but the last makes a group wait for what another waits for.
    loop {
        let known: Vec<Patience> = groups.iter().map(|group| group.patience).collect();
        for (group, reads) in groups.iter_mut().zip(&reads) {
            reads.iter().for_each(|other| group.patience.waits_with(&known[*other]));
        }
        if groups.iter().zip(known).all(|(group, known)| group.patience == known) {
            break;
        }
    }
}

/// For each group the others whose series it reads.
fn reads(groups: &[Group]) -> Vec<BTreeSet<usize>> {
    let mut makers: HashMap<&str, Vec<(usize, &Rule)>> = HashMap::new();
    for (index, group) in groups.iter().enumerate() {
        for rule in group.rules() {
            made(rule).into_iter().for_each(|name| makers.entry(name).or_default().push((index, rule)));
        }
    }
    let of = |(index, group): (usize, &Group)| {
        let mut read = BTreeSet::new();
        for rule in group.rules() {
            rule.query.expr.for_each_selector(&mut |selector| {
                let mut reads = |makers: &Vec<(usize, &Rule)>| {
                    let matching = makers.iter().filter(|(_, rule)| may_give(rule, selector));
                    read.extend(matching.map(|(index, _)| *index));
                };
                match name_of(selector) {
                    Some(name) => makers.get(name).into_iter().for_each(reads),
                    None => makers
                        .iter()
                        .filter(|(name, _)| may_have_name(selector, name))
                        .for_each(|(_, makers)| reads(makers)),
                }
            });
        }
        read.remove(&index);
        read
    };
    groups.iter().enumerate().map(of).collect()
}

/// Whether the series of a rule, which have the name, may be selected: alerts are told apart by `alertname`.
fn may_give(rule: &Rule, selector: &VectorSelector) -> bool {
    let mut matchers = selector.matchers.iter().filter(|matcher| matcher.name() == ALERT_NAME);
    !rule.is_alerting() || matchers.all(|matcher| matcher.matches(rule.name()))
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

/// How long after the samples are back each group waits for others. Groups that read each other in a
/// circle can not all wait for each other: who is on the way already is not waited for.
fn lags(reads: &[BTreeSet<usize>], intervals: &[i64]) -> Vec<i64> {
    let mut lags: Vec<Option<i64>> = vec![None; reads.len()];
    let mut is_on_way = vec![false; reads.len()];
    for start in 0..reads.len() {
        let mut way = if lags[start].is_none() { vec![start] } else { Vec::new() };
        while let Some(index) = way.last().copied() {
            is_on_way[index] = true;
            let is_first = |other: &&usize| lags[**other].is_none() && !is_on_way[**other];
            if let Some(other) = reads[index].iter().find(is_first) {
                way.push(*other);
                continue;
            }
            let after = |other: &usize| Some(lags[*other]? + intervals[*other].min(LAG_MAX_MS));
            let longest_ms = reads[index].iter().filter_map(after).max().unwrap_or(0);
            lags[index] = Some(longest_ms.min(CHAIN_MAX_MS));
            is_on_way[index] = false;
            way.pop();
        }
    }
    // Within a circle one may be less than another beginning would give.
    lags.into_iter().map(|lag_ms| lag_ms.expect("each was a start")).collect()
}
