//! Templates against Prometheus' own table and against what Go prints.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value as Json;

use super::{Surroundings, Template, TemplateSample, Value};

const NOW_MS: i64 = 1_353_755_652_000;
const EXTERNAL_URL: &str = "http://testhost:9090/path/prefix";

/// How a case is to be expanded.
#[derive(Default)]
struct Options {
    missing_key_is_error: bool,
    html: bool,
}

/// Expands with a query that answers `samples` and a dot of `data`.
fn run(text: &str, data: &Value, samples: &Json, options: &Options) -> Result<String, String> {
    let mut query = |_: &str| Ok(samples.as_array().into_iter().flatten().map(sample).collect());
    let mut surroundings = Surroundings { now_ms: NOW_MS, external_url: EXTERNAL_URL, query: &mut query };
    let template = Template::parse("test", text, options.html)
        .map_err(|message| format!("error parsing template test: {message}"))?;
    template.expand(data, &mut surroundings, options.missing_key_is_error)
}

fn sample(json: &Json) -> TemplateSample {
    let labels: BTreeMap<String, String> = json["Metric"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap_or("").to_owned()))
        .collect();
    TemplateSample { labels: Rc::new(labels), value: Value::Float(json["F"].as_f64().unwrap_or(0.0)) }
}

fn data(json: &Json) -> Value {
    match json {
        Json::Number(number) => {
            let int = number.as_i64().map(Value::Int).or(number.as_u64().map(Value::Uint));
            int.or(number.as_f64().map(Value::Float)).unwrap_or(Value::Nil)
        }
        Json::String(text) => Value::str(text),
        Json::Array(items) => Value::List(items.iter().map(data).collect()),
        _ => Value::Nil,
    }
}

#[test]
fn prometheus_own_table_of_templates_holds() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/conformance/model/template.json");
    let Ok(text) = std::fs::read_to_string(path) else {
        println!("skipped: {path} is not here");
        return;
    };
    let cases: Vec<Json> = serde_json::from_str(&text).expect("the table is JSON");
    assert!(cases.len() >= 60);
    let mut failures = Vec::new();
    for case in &cases {
        let options = case["options"].as_array().into_iter().flatten();
        let options = Options {
            missing_key_is_error: options.clone().any(|option| option == "missingkey=error"),
            html: case["html"] == true,
        };
        let text = case["text"].as_str().expect("a case has a text");
        let got = run(text, &data(&case["input"]), &case["queryResult"], &options);
        let want = if case["shouldFail"] == true {
            Err(case["errorMsg"].as_str().expect("a failing case has its message").to_owned())
        } else {
            Ok(case["output"].as_str().expect("a case has an output").to_owned())
        };
        if got != want {
            failures.push(format!("{} {text:?}\n  want {want:?}\n   got {got:?}", case["id"]));
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}
