//! Queries that people run, of dashboards and of alert rules: each is evaluated, at one time and
//! over a range, on no data and on recorded data, and must give an answer.

mod common;

use tidewatch_conformance::{folder, index, say};
use tidewatch_parser::{Expr, ParserOptions, parse_expr};
use tidewatch_promql::{Engine, EngineOptions, QueryContext, QueryError};
use tidewatch_rules::{LoadOptions, RuleFile};
use tidewatch_storage::Select;
use tidewatch_testkit::script::{Command, Script};
use tidewatch_testkit::{MemoryStore, TestStore};

fn evaluate(engine: &Engine, store: &dyn Select, expr: &Expr) -> Result<(), QueryError> {
    let context = QueryContext::unbounded();
    engine.instant(store, expr, 1_207_500, &context)?;
    if expr.value_type() == tidewatch_parser::ValueType::Matrix {
        return Ok(());
    }
    engine.range(store, expr, 607_500, 2_407_500, 450_000, &context).map(|_| ())
}

#[test]
fn every_dashboard_query_has_an_answer() {
    let Some(folder) = folder("dashboards") else { return };
    let store = recorded();
    let engine = common::engine(EngineOptions::default());
    let text = std::fs::read_to_string(folder.join("all-unique.txt")).expect("the queries are there");
    let queries: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let mut failures = Vec::new();
    for query in &queries {
        let result = parse_expr(query, &ParserOptions::stable())
            .map_err(|error| error.to_string())
            .and_then(|expr| evaluate(&engine, &store, &expr).map_err(|error| error.to_string()));
        failures.extend(result.err().map(|error| format!("{query}\n  {error}")));
    }
    say(&format!("dashboards: {} of {} queries answered", queries.len() - failures.len(), queries.len()));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_alert_rule_has_an_answer_without_data() {
    let Some(folder) = folder("alert-rules") else { return };
    let engine = common::engine(EngineOptions::default());
    let store = MemoryStore::new();
    let cases = index(&folder);
    let (mut rules, mut failures) = (0, Vec::new());
    for case in &cases {
        let file = case["file"].as_str().expect("a case has a file");
        let text = std::fs::read_to_string(folder.join(file)).expect("the file is there");
        // Which files must be refused is for the rules' own test.
        let Ok(loaded) = RuleFile::parse(&text, file, &LoadOptions::default()) else { continue };
        for rule in loaded.groups.iter().flat_map(|group| &group.rules) {
            rules += 1;
            let result = evaluate(&engine, &store, &rule.query.expr);
            failures.extend(result.err().map(|error| format!("{file}: {}\n  {error}", rule.query.text)));
        }
    }
    say(&format!("alert-rules: {} of {rules} rules answered", rules - failures.len()));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(rules > 1_500, "{rules} rules were evaluated");
}

/// The recorded data of a node and of a demo API.
fn recorded() -> MemoryStore {
    let mut store = MemoryStore::new();
    for name in ["recorded/node", "recorded/demo"] {
        let Some(folder) = folder(name) else { continue };
        let text = std::fs::read_to_string(folder.join("data.test")).expect("the data are there");
        for command in Script::parse(&text, &ParserOptions::stable()).commands {
            match command {
                Command::Load(load) => store.load(&load).expect("the samples ascend"),
                other => panic!("data.test only loads: {other:?}"),
            }
        }
    }
    store
}
