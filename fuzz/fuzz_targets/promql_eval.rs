//! Any query that parses is answered or refused on a small store, within its budget; none makes
//! the engine panic.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tidewatch_env::Env;
use tidewatch_model::Labels;
use tidewatch_parser::{ParserOptions, parse_expr};
use tidewatch_promql::{Engine, EngineOptions, QueryContext};
use tidewatch_testkit::{MemoryStore, SampleData};

static STORE: LazyLock<MemoryStore> = LazyLock::new(|| {
    let store = MemoryStore::new();
    for series in 0..6 {
        let name = if series % 2 == 0 { "a" } else { "b" };
        let labels = Labels::from_pairs([("__name__", name.to_owned()), ("i", (series / 2).to_string())]);
        for step in 0..40i64 {
            let value = SampleData::Float(((step * (series + 3)) % 17) as f64);
            store.push(&labels, step * 15_000, 0, value).expect("times ascend");
        }
    }
    store
});

fuzz_target!(|text: &str| {
    let Ok(expr) = parse_expr(text, &ParserOptions::experimental()) else { return };
    let engine = Engine::new(Env::in_memory(), EngineOptions::default());
    let context = QueryContext { memory_bytes: 16 << 20, ..QueryContext::unbounded() };
    let _ = engine.instant(&*STORE, &expr, 500_000, &context);
    let _ = engine.range(&*STORE, &expr, 100_000, 600_000, 50_000, &context);
});
