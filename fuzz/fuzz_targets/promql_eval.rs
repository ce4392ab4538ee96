//! Any query that parses is answered or refused on a small store, within its budget; none makes
//! the engine panic.

#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use tidewatch_env::Env;
use tidewatch_model::histogram::Span;
use tidewatch_model::{FloatHistogram, Labels};
use tidewatch_parser::{ParserOptions, parse_expr};
use tidewatch_promql::{Engine, EngineOptions, QueryContext};
use tidewatch_testkit::{MemoryStore, SampleData};

/// Gauges `a` and `b`, buckets `c`, native histograms `h`.
static STORE: LazyLock<MemoryStore> = LazyLock::new(|| {
    let store = MemoryStore::new();
    for series in 0..12 {
        let name = ["a", "b", "c", "h"][series % 4];
        let mut pairs = vec![("__name__", name.to_owned()), ("i", (series / 4).to_string())];
        if name == "c" {
            pairs = vec![("__name__", name.to_owned()), ("le", ["1", "2", "+Inf"][series / 4].to_owned())];
        }
        let labels = Labels::from_pairs(pairs);
        for step in 0..40i64 {
            let value = ((step * (series as i64 + 3)) % 17) as f64;
            let data = match name {
                "h" => SampleData::Histogram(Arc::new(histogram(value, series as i32 % 3))),
                _ => SampleData::Float(value),
            };
            store.push(&labels, step * 15_000, 0, data).expect("times ascend");
        }
    }
    store
});

fn histogram(value: f64, schema: i32) -> FloatHistogram {
    FloatHistogram {
        schema,
        zero_threshold: 0.001,
        zero_count: 1.0,
        count: 2.0 * value + 2.0,
        sum: value,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_buckets: vec![value, 1.0],
        negative_spans: vec![Span { offset: 1, length: 1 }],
        negative_buckets: vec![value],
        ..FloatHistogram::default()
    }
}

fuzz_target!(|text: &str| {
    let Ok(expr) = parse_expr(text, &ParserOptions::experimental()) else { return };
    let env = Env::in_memory();
    // What takes long is refused, so that one input does not cost the time of thousands.
    let deadline_ns = Some(env.clock.monotonic_ns() + 500_000_000);
    let engine = Engine::new(env, EngineOptions::default());
    let context = QueryContext { memory_bytes: 16 << 20, deadline_ns, ..QueryContext::unbounded() };
    let _ = engine.instant(&*STORE, &expr, 500_000, &context);
    let _ = engine.range(&*STORE, &expr, 100_000, 600_000, 50_000, &context);
});
