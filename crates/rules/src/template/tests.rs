//! Templates against Prometheus' own table and against what Go prints.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value as Json;
use tidewatch_conformance::{cases, say};

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

// A name that two groups share was refused, `${01}` was the first group, and `é` ended a name.
#[test]
fn groups_fill_replacements_as_in_go() {
    for (call, expected) in [
        (r#"reReplaceAll "(?P<a>x)|(?P<a>y)" "<$a>" "xyz""#, "<x><y>z"),
        (r#"reReplaceAll "(a)" "$1${01}$é-" "abA""#, "a-bA"),
        (r#"reReplaceAll "a*" "$$0" "baac""#, "$0b$0c$0"),
    ] {
        let text = format!("{{{{ {call} }}}}");
        let expanded = run(&text, &Value::Nil, &Json::Null, &Options::default());
        assert_eq!(expanded.as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn prometheus_own_table_of_templates_holds() {
    let cases = cases("model/template.json");
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
    say(&format!("model: {} of {} templates as expected", cases.len() - failures.len(), cases.len()));
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

/// What Go's `text/template` 1.26 made of these texts: its output, or its message. The dot holds
/// what [`go_data`] builds; written by a small Go program that runs each text.
const GO_CASES: &str = include_str!("go_cases.json");

fn go_data() -> Value {
    let list = |texts: &[&str]| Value::List(texts.iter().map(|text| Value::str(text)).collect());
    let labels = [("a", "va"), ("b", "vb")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let fields = [
        ("Labels", Value::Labels(Rc::new(labels.into()))),
        ("Items", list(&["a", "b", "c", "d"])),
        ("Empty", list(&[])),
        ("Value", Value::Float(1_234_567.0)),
        ("Big", Value::Float(1e22)),
        ("Small", Value::Float(1e-5)),
        ("Inf", Value::Float(f64::INFINITY)),
    ];
    Value::Args(Rc::new(fields.map(|(name, value)| (name.to_owned(), value)).into()))
}

#[test]
fn texts_come_out_as_from_go() {
    let cases: Vec<Json> = serde_json::from_str(GO_CASES).expect("the cases are JSON");
    let mut failures = Vec::new();
    for case in &cases {
        let text = case["text"].as_str().expect("a case has a text");
        let got = run(text, &go_data(), &Json::Null, &Options::default()).map_err(|message| {
            let message = message.strip_prefix("error parsing template test: ").unwrap_or(&message);
            message.strip_prefix("error executing template test: ").unwrap_or(message).to_owned()
        });
        let want = match case["output"].as_str() {
            Some(output) => Ok(output.to_owned()),
            None => Err(case["error"].as_str().expect("a case has an outcome").to_owned()),
        };
        if got != want {
            failures.push(format!("{text:?}\n  want {want:?}\n   got {got:?}"));
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

mod bounds {
    use proptest::prelude::*;

    use super::*;

    /// Pieces of which most texts are nearly templates.
    const PIECES: [&str; 56] = [
        "{{",
        "}}",
        "{{- ",
        " -}}",
        "{{ if ",
        "{{ else }}",
        "{{ else if ",
        "{{ end }}",
        "{{ range ",
        "{{ with ",
        "{{ define \"t\" }}",
        "{{ template \"t\" . }}",
        "{{ block \"b\" . }}",
        "{{ break }}",
        "{{ continue }}",
        "/*",
        "*/",
        " ",
        "\n",
        "text",
        ".",
        ".Labels",
        ".Value",
        ".x",
        "$",
        "$x",
        " := ",
        " = ",
        ", ",
        "|",
        "(",
        ")",
        "1",
        "-0x1F",
        "1e300",
        "'a'",
        "\"s\"",
        "\"%[2]*.[1]*f %v\"",
        "`r`",
        "true",
        "nil",
        "printf ",
        "print ",
        "index ",
        "slice ",
        "len ",
        "eq ",
        "and ",
        "humanize ",
        "query ",
        "first ",
        "toTime ",
        ".Format ",
        "args ",
        "reReplaceAll ",
        "é\u{a0}",
    ];

    fn expanded(text: &str) -> Result<String, String> {
        run(text, &go_data(), &Json::Null, &Options::default())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn no_text_makes_a_template_panic(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..24)) {
            let _ = expanded(&pieces.concat());
        }

        #[test]
        fn floats_print_so_that_they_read_back(value in any::<f64>()) {
            let text = super::super::format_float(value, 'g', None);
            let back: f64 = text.parse().expect("it is a number");
            prop_assert!(back == value || value.is_nan() && back.is_nan(), "{value} printed as {text}");
        }
    }

    #[track_caller]
    fn refused(text: &str, part: &str) {
        let message = expanded(text).expect_err("it is to be refused");
        assert!(message.contains(part), "{message}");
    }

    #[test]
    fn nesting_loops_calls_and_text_are_bounded() {
        refused(&"{{ if 1 }}".repeat(100_000), "max expression depth exceeded");
        refused(&format!("{{{{ {} }}}}", "(".repeat(100_000)), "max expression depth exceeded");
        refused("{{ range 1000000000 }}{{ end }}", "too many steps");
        refused("{{ range 9223372036854775807 }}x{{ end }}", "too many steps");
        refused(
            "{{ define \"t\" }}{{ template \"t\" }}{{ end }}{{ template \"t\" }}",
            "maximum template depth",
        );
        let doubling = "{{ $x := \"0123456789\" }}{{ range 64 }}{{ $x = printf \"%s%s\" $x $x }}{{ end }}";
        refused(doubling, "too much text");
        refused("{{ range 100000 }}{{ printf \"%099999d\" 1 }}{{ end }}", "too much text");
        let chain = format!("{{{{ if 0 }}}}{}{{{{ end }}}}", "{{ else if 0 }}".repeat(10_000));
        assert_eq!(expanded(&chain), Ok(String::new()));
    }
}
