//! What Prometheus' scraper makes of a document, we make of it: entries, errors, samples.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;
use tidewatch_conformance::{folder, say, table};
use tidewatch_ingest::{Entry, Format, Parser, Series};
use tidewatch_model::LabelsBuilder;

fn format_of(case: &Value) -> Format {
    if case["format"] == "openmetrics" { Format::OpenMetrics } else { Format::Prometheus }
}

/// A document: text, or bytes that JSON can not hold.
fn input(case: &Value) -> Vec<u8> {
    match &case["input"] {
        Value::String(text) => text.clone().into_bytes(),
        other => decode_base64(other["base64"].as_str().expect("an input is text or base64")),
    }
}

fn decode_base64(text: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits = 0u32;
    let mut out = Vec::new();
    for (i, c) in text.bytes().filter(|c| *c != b'=').enumerate() {
        bits = bits << 6 | alphabet.iter().position(|a| *a == c).expect("base64") as u32;
        if i % 4 != 0 {
            out.push((bits >> (6 - 2 * (i % 4))) as u8);
        }
    }
    out
}

/// Reads all of a document; the entries as JSON in the words of entries.json.
fn read(document: &[u8], format: Format) -> Result<Vec<Value>, String> {
    let mut parser = Parser::new(document, format);
    let mut entries = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    loop {
        let entry = match parser.next_entry().map_err(|error| error.message)? {
            Entry::Eof => return Ok(entries),
            Entry::Comment(comment) => serde_json::json!({"kind": "comment", "text": text(comment)}),
            Entry::Help { family, text: help } => {
                serde_json::json!({"kind": "help", "name": text(family), "text": help})
            }
            Entry::Type { family, kind } => {
                serde_json::json!({"kind": "type", "name": text(family), "type": kind.as_str()})
            }
            Entry::Unit { family, unit } => {
                serde_json::json!({"kind": "unit", "name": text(family), "unit": text(unit)})
            }
            Entry::Series(series) => describe(&parser, &series)?,
        };
        entries.push(entry);
    }
}

fn describe(parser: &Parser<'_>, series: &Series<'_>) -> Result<Value, String> {
    let mut builder = LabelsBuilder::new();
    let labels = |builder: &LabelsBuilder| -> BTreeMap<String, String> {
        builder.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
    };
    parser.labels(&mut builder).map_err(|error| error.message)?;
    let mut entry = serde_json::json!({
        "kind": "series",
        "series": String::from_utf8_lossy(series.text),
        "labels": labels(&builder),
        "value": number(series.value),
    });
    if let Some(timestamp) = series.timestamp {
        entry["timestamp_ms"] = timestamp.into();
    }
    if let Some(exemplar) = series.exemplar {
        parser.exemplar_labels(&mut builder).map_err(|error| error.message)?;
        let mut shown = serde_json::json!({"labels": labels(&builder), "value": number(exemplar.value)});
        if let Some(timestamp) = exemplar.timestamp {
            shown["hasts"] = true.into();
            shown["ts"] = timestamp.into();
        }
        entry["exemplars"] = Value::Array(vec![shown]);
    }
    Ok(entry)
}

fn number(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::Number)
}

/// Makes `1` and `1.0` equal, and drops what is not compared: start times are read by Prometheus
/// only with a feature switched on.
fn comparable(mut entry: Value) -> Value {
    fn floats(value: &mut Value) {
        match value {
            Value::Number(n) => *value = number(n.as_f64().expect("a number of JSON is a float")),
            Value::Array(items) => items.iter_mut().for_each(floats),
            Value::Object(fields) => fields.values_mut().for_each(floats),
            _ => {}
        }
    }
    if let Some(fields) = entry.as_object_mut() {
        fields.remove("start_timestamp_ms");
        // The table could not express its NaN.
        if fields.get("value").is_some_and(|value| value.get("unknown").is_some()) {
            fields.insert("value".to_owned(), "NaN".into());
        }
    }
    floats(&mut entry);
    entry
}

#[test]
fn documents_give_the_entries_that_prometheus_reads() {
    let Some(cases) = table("exposition/entries.json") else { return };
    for case in cases.as_array().expect("a list of documents") {
        let ours = read(&input(case), format_of(case)).unwrap();
        // The OpenMetrics tables were taken with `_created` lines used up as start times.
        let is_start = |entry: &Value| {
            let name = entry["labels"]["__name__"].as_str().unwrap_or_default();
            format_of(case) == Format::OpenMetrics && name.ends_with("_created")
        };
        let theirs = case["entries"].as_array().expect("a list of entries");
        let kept: Vec<&Value> = theirs.iter().filter(|entry| !is_start(entry)).collect();
        let ours: Vec<Value> = ours.into_iter().filter(|entry| !is_start(entry)).collect();
        for (ours, theirs) in ours.iter().zip(&kept) {
            assert_eq!(comparable(ours.clone()), comparable((*theirs).clone()), "{}", case["name"]);
        }
        assert_eq!(ours.len(), kept.len(), "{}", case["name"]);
    }
}

#[test]
fn errors_are_those_of_prometheus_to_the_letter() {
    let Some(cases) = table("exposition/errors.json") else { return };
    let cases = cases.as_array().expect("a list of cases");
    for case in cases {
        let error = read(&input(case), format_of(case)).err().unwrap_or_default();
        assert_eq!(error, case["error"].as_str().unwrap(), "{}: {}", case["id"], case["input"]);
    }
    say(&format!("exposition: {} errors as expected", cases.len()));
}

/// Why Prometheus 2.42, with which the table was recorded, and today's differ on a document.
fn changed_since(observed: &Value, document: &[u8]) -> Option<&'static str> {
    let error = observed["error"].as_str()?;
    if error.ends_with("does not support exemplars") {
        return Some("exemplars are allowed on every sample now");
    }
    let document = String::from_utf8_lossy(document);
    let quoted_name = ["{\"", ",\"", "HELP \"", "TYPE \""].iter().any(|start| document.contains(start));
    if error.contains("INVALID") && quoted_name {
        return Some("names may be quoted now");
    }
    None
}

#[test]
fn documents_are_accepted_as_prometheus_was_seen_to_accept_them() {
    let Some(folder) = folder("exposition") else { return };
    let observed = table("exposition/observed.json").expect("the folder is there");
    let mut changed = Vec::new();
    for (file, expected) in observed["cases"].as_object().expect("cases by file") {
        let document = std::fs::read(folder.join(file)).expect("the table names files beside it");
        let format = if file.starts_with("openmetrics/") { Format::OpenMetrics } else { Format::Prometheus };
        let ours = read(&document, format);
        if let Some(reason) = changed_since(expected, &document) {
            changed.push(format!("{file}: {reason}"));
            continue;
        }
        assert_eq!(ours.is_ok(), expected["accepted"] == true, "{file}: {ours:?}, they: {expected}");
        if let Ok(entries) = ours {
            match expected.get("samples") {
                Some(samples) => assert_eq!(self::samples(&entries), seen(samples), "{file}"),
                None => assert_eq!(entries_of(&entries), expected["samples_scraped"], "{file}"),
            }
        } else if let Err(error) = ours {
            // Messages grew; what they start with is the same.
            let old = expected["error"].as_str().unwrap();
            let start = old.split(", got").next().unwrap();
            let reworded = ["is not a valid start token", "or left brace", "expected comma", "unit not a"];
            let same = error.starts_with(start) || reworded.iter().any(|part| old.contains(part));
            assert!(same, "{file}: {error:?}, they: {old:?}");
        }
    }
    say(&format!(
        "exposition: documents as expected, {} differ since 2.42: {}",
        changed.len(),
        changed.join("; ")
    ));
}

/// The samples of a scrape as a store keeps them: one a series, the last that came at its time.
fn samples(entries: &[Value]) -> BTreeMap<String, f64> {
    let series = entries.iter().filter(|entry| entry["kind"] == "series");
    let mut samples = BTreeMap::new();
    for entry in series {
        // With honor_timestamps off a second sample of a series is a duplicate: the first stays.
        samples.entry(key(&entry["labels"])).or_insert_with(|| value_of(&entry["value"]));
    }
    samples
}

fn entries_of(entries: &[Value]) -> usize {
    entries.iter().filter(|entry| entry["kind"] == "series").count()
}

fn seen(samples: &Value) -> BTreeMap<String, f64> {
    let samples = samples.as_array().expect("samples of an accepted document");
    samples.iter().map(|sample| (key(&sample[0]), value_of(&sample[1]))).collect()
}

/// Labels as text; bounds and quantiles as numbers, since 2.42 kept their spelling.
fn key(labels: &Value) -> String {
    let labels = labels.as_object().expect("labels by name");
    let pairs = labels.iter().map(|(name, value)| {
        let text = value.as_str().expect("a label's value is text");
        match text.parse::<f64>() {
            Ok(number) if name == "le" || name == "quantile" => (name.clone(), number.to_string()),
            _ => (name.clone(), text.to_owned()),
        }
    });
    format!("{:?}", pairs.collect::<BTreeMap<_, _>>())
}

/// NaN is made a number that equals itself.
fn value_of(value: &Value) -> f64 {
    let number = match value {
        Value::Number(number) => number.as_f64().expect("a float"),
        other => other.as_str().expect("a number or its text").parse().expect("a number's text"),
    };
    if number.is_nan() { f64::from_bits(0x7fe0_0000_0000_1234) } else { number }
}

/// Lines that look alike, most of them good.
const LINES: &[&str] = &[
    "up 1",
    "up 1e6",
    "up{a=\"b\"} 2.5",
    "up{a=\"b\"} NaN",
    "up{a=\"b\",c=\"}\"} +Inf",
    "up{a=\"b\"} 3 1234",
    "up {a=\"b\"} 4",
    " up 5",
    "a:b -0",
    "{\"a b\",c=\"d\"} 7",
    "up{a=\"b\"} 8 # {t=\"x\"} 9",
    "up  1",
    "up 0x1",
    "# TYPE up gauge",
    "# HELP up Whether it is up.",
    "# a comment",
    "",
];

/// A series line with labels that need escapes, and what it stands for.
fn line() -> impl Strategy<Value = (Vec<(String, String)>, f64, Option<i64>)> {
    (
        prop::collection::vec(("[a-z][a-z0-9_]{0,8}", "\\PC{0,20}[\"\\\\\n]?"), 0..6),
        any::<f64>(),
        prop::option::of(0..i64::MAX / 1000),
    )
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_written_line_reads_back((labels, value, timestamp) in line(), format in any::<bool>()) {
        let format = if format { Format::OpenMetrics } else { Format::Prometheus };
        let written: BTreeMap<String, String> = labels.into_iter().collect();
        // An empty value is no label, and yet one that is shown.
        let labels: BTreeMap<String, String> = written.clone().into_iter().filter(|(_, v)| !v.is_empty()).collect();
        let text: Vec<String> = written.iter().map(|(n, v)| format!("{n}=\"{}\"", escape(v))).collect();
        let mut document = format!("metric{{{}}} {value}", text.join(","));
        // OpenMetrics counts in seconds.
        match (timestamp, format) {
            (Some(t), Format::Prometheus) => document += &format!(" {t}"),
            (Some(t), Format::OpenMetrics) => document += &format!(" {}", t / 1000),
            (None, _) => {}
        }
        document += "\n# EOF\n";
        let mut parser = Parser::new(document.as_bytes(), format);
        let Ok(Entry::Series(series)) = parser.next_entry() else { panic!("{document}") };
        let mut builder = LabelsBuilder::new();
        parser.labels(&mut builder).unwrap();
        let read: BTreeMap<String, String> =
            builder.iter().filter(|(n, _)| *n != "__name__").map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        prop_assert_eq!(read, labels);
        prop_assert!(written.keys().all(|name| parser.has_label(name)) && !parser.has_label("Other"));
        prop_assert!(series.value.to_bits() == value.to_bits() || value.is_nan() && series.value.is_nan());
        let expected = match format {
            Format::Prometheus => timestamp,
            Format::OpenMetrics => timestamp.map(|t| (t / 1000) as f64 as i64 * 1000),
        };
        if timestamp.is_none_or(|t| t < 1 << 50) {
            prop_assert_eq!(series.timestamp, expected);
        }
    }

    /// A text that is expected, rightly or not, changes no entry and no error.
    #[test]
    fn what_is_expected_changes_nothing(
        lines in prop::collection::vec(prop::sample::select(LINES), 0..12),
        edits in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(&b" \t\n\0{}\",#+-.0e1a"[..])), 0..4),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..20),
    ) {
        for format in [Format::Prometheus, Format::OpenMetrics] {
            let mut document = lines.join("\n").into_bytes();
            document.extend_from_slice(b"\n# EOF\n");
            let texts: Vec<Vec<u8>> = LINES
                .iter()
                .filter_map(|line| match Parser::new(format!("{line}\n").as_bytes(), format).next_entry() {
                    Ok(Entry::Series(series)) => Some(series.text.to_vec()),
                    _ => None,
                })
                .collect();
            for (place, byte) in &edits {
                let at = place.index(document.len());
                document[at] = *byte;
            }
            let (mut plain, mut expecting) = (Parser::new(&document, format), Parser::new(&document, format));
            for pick in picks.iter().cycle() {
                let entry = format!("{:?}", plain.next_entry());
                prop_assert_eq!(&entry, &format!("{:?}", expecting.next_entry_like(&texts[pick.index(texts.len())])));
                if entry == "Ok(Eof)" || entry.starts_with("Err") {
                    break;
                }
            }
        }
    }

    #[test]
    fn arbitrary_text_never_panics(document in "([a-z#{}=\", \\\\\n0-9]|# (HELP|TYPE|UNIT|EOF) |\\PC|\0){0,40}") {
        for format in [Format::Prometheus, Format::OpenMetrics] {
            let _ = read(document.as_bytes(), format);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(document in prop::collection::vec(any::<u8>(), 0..60)) {
        for format in [Format::Prometheus, Format::OpenMetrics] {
            let _ = read(&document, format);
        }
    }
}
