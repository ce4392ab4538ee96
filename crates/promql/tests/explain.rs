//! Plans as they are explained: nodes and counts, which do not depend on the machine.

mod common;

use std::fmt::Write;

use tidewatch_promql::{Engine, EngineOptions, PlanNode, QueryContext};

use common::{counters, env, parse};

/// One line a node: what it does, and what has gone through it.
fn write(node: &PlanNode, depth: usize, out: &mut String) {
    let subject = node.subject.as_ref().map_or_else(String::new, |subject| format!(" {subject}"));
    let once = match (node.once, node.repeated) {
        (_, true) => " repeated",
        (true, _) => " once",
        _ => "",
    };
    let _ = write!(out, "{:1$}{operation}{subject}{once}:", "", depth * 2, operation = node.operation);
    if node.series > 0 {
        let _ = write!(out, " {} series,", node.series);
    }
    let _ = writeln!(out, " {} rows, {} points", node.rows, node.points);
    node.children.iter().for_each(|child| write(child, depth + 1, out));
}

fn check(query: &str, expected: &str) {
    // 100 series in groups of ten, 40 samples each.
    let store = counters(100, 40, 10);
    for width in [1, 3] {
        let engine = Engine::new(env(width), EngineOptions::default());
        let context = QueryContext { explain: true, ..QueryContext::unbounded() };
        let answer = engine.range(&store, &parse(query), 60_000, 180_000, 60_000, &context).expect(query);
        let mut text = String::new();
        write(&answer.plan.expect("asked for"), 0, &mut text);
        assert_eq!(text.trim_end(), expected.trim(), "{query} with {width} workers");
    }
}

#[test]
fn a_plan_shows_what_each_node_has_cost() {
    check(
        "sum by (g) (rate(m[1m]) * 2)",
        "\
sum by (g): 4 rows, 12 points
  *: 100 rows, 300 points
    rate[1m] m: 100 series, 100 rows, 300 points
    2: 0 rows, 3 points",
    );
    check(
        r#"topk(2, m{i=~"00.*"} > 5) / on (i, g) (m @ 60)"#,
        r#"
/ on (i, g): 3 rows, 6 points
  topk: 3 rows, 6 points
    2: 0 rows, 3 points
    >: 100 rows, 293 points
      select m{i=~"00.*"}: 100 series, 100 rows, 300 points
      5: 0 rows, 3 points
  select m once: 100 series, 100 rows, 100 points"#,
    );
    check(
        r#"max_over_time(rate(m[1m])[2m:1m])"#,
        r#"
max_over_time[2m:1m]: 100 rows, 300 points
  rate[1m] m: 100 series, 100 rows, 300 points"#,
    );
    check(
        r#"clamp_max(-m, scalar(quantile(0.5, m)))"#,
        r#"
clamp_max: 100 rows, 300 points
  -: 100 rows, 300 points
    select m: 100 series, 100 rows, 300 points
  scalar: 0 rows, 3 points
    quantile: 1 rows, 3 points
      0.5: 0 rows, 3 points
      select m: 100 series, 100 rows, 300 points"#,
    );
    check(
        r#"absent_over_time(m{x="y"}[1m]) or label_replace(m{i="0001"}, "a", "b", "", "")"#,
        r#"
or: 2 rows, 6 points
  absent_over_time[1m] m{x="y"}: 1 rows, 3 points
  label_replace: 1 rows, 3 points
    select m{i="0001"}: 1 series, 1 rows, 3 points
    "a": 0 rows, 0 points
    "b": 0 rows, 0 points
    "": 0 rows, 0 points
    "": 0 rows, 0 points"#,
    );
}

// Nodes below a part that was evaluated before have done nothing. What they looked at counts for
// each use all the same, as in Prometheus.
#[test]
fn an_equal_part_is_evaluated_once() {
    check(
        "sum by (g) (m) / on (g) (count(rate(m[1m])) by (g) + on (g) sum(m) by (g))",
        "\
/ on (g): 4 rows, 12 points
  sum by (g): 4 rows, 12 points
    select m: 100 series, 100 rows, 300 points
  + on (g): 4 rows, 12 points
    count by (g): 4 rows, 12 points
      rate[1m] m: 100 series, 100 rows, 300 points
    sum by (g) repeated: 4 rows, 12 points
      select m: 0 rows, 0 points",
    );
    let store = counters(10, 40, 10);
    let engine = Engine::new(env(1), EngineOptions::default());
    let context = QueryContext { per_step_statistics: true, ..QueryContext::unbounded() };
    let looked_at = |query: &str| {
        let answer = engine.range(&store, &parse(query), 60_000, 180_000, 60_000, &context).expect(query);
        answer.statistics.samples_per_step
    };
    let (twice, once) = (looked_at("sum(m) - sum(m)"), looked_at("sum(m)"));
    assert_eq!(twice, once.into_iter().map(|(time, count)| (time, 2 * count)).collect::<Vec<_>>());
}

// The second would be silent if it were not evaluated: its own place is part of what it says.
#[test]
fn an_equal_part_that_has_something_to_say_says_it_at_each_place() {
    let store = counters(2, 40, 10);
    let engine = Engine::new(env(1), EngineOptions::default());
    let query = "sum(rate(m[1m])) + sum(rate(m[1m]))";
    let context = QueryContext { query: Some(query.into()), ..QueryContext::unbounded() };
    let answer = engine.instant(&store, &parse(query), 120_000, &context).expect(query);
    let infos = &answer.annotations.infos;
    assert!(infos.iter().any(|info| info.contains("(1:29)")), "{infos:?}");
}

#[test]
fn plans_are_made_only_where_they_are_asked_for() {
    let store = counters(1, 10, 10);
    let engine = Engine::new(env(1), EngineOptions::default());
    let answer = engine.instant(&store, &parse("m"), 60_000, &QueryContext::unbounded()).expect("m");
    assert_eq!(answer.plan, None);
}
