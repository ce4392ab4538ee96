//! Prometheus' own tables for its parser: what is accepted and to which tree, what is refused
//! with which words at which bytes, and how trees print. Every test prints what it counted.

use serde_json::{Map, Value, json};
use tidewatch_conformance::{cases, folder, say};
use tidewatch_model::FloatHistogram;
use tidewatch_model::histogram::{CounterResetHint, Span};
use tidewatch_parser::{
    At, Duration, DurationExpr, Expr, NumberLiteral, ParseErrors, ParserOptions, PosRange, RangeModifier,
    SequenceValue, UnaryOp, VectorMatching, VectorSelector, histogram_notation, parse_expr, parse_expr_bytes,
    parse_series_description, pretty_within,
};

/// Runs `check` on every case, prints the count, and fails with all differences.
#[track_caller]
fn check_all(name: &str, check: impl Fn(&Value) -> Result<(), String>) {
    let cases = cases(&format!("promql-parser/{name}"));
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|case| check(case).err().map(|why| format!("{}: {why}", case["id"])))
        .collect();
    say(&format!("promql-parser, {name}: {} of {} as expected", cases.len() - failures.len(), cases.len()));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn differs<T: PartialEq + std::fmt::Debug>(found: &T, wanted: &T) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("\n   found {found:?}\n  wanted {wanted:?}")) }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[test]
fn valid_expressions_parse_to_their_trees() {
    check_all("valid.json", |case| {
        let input = text(&case["input"]);
        let expr = parse_expr(input, &ParserOptions::experimental())
            .map_err(|error| format!("{input:?} is refused: {error}"))?;
        let (found, wanted) = (normal(tree(&expr)), normal(case["ast"].clone()));
        if found == wanted {
            return Ok(());
        }
        Err(format!("{input:?}\n   found {found}\n  wanted {wanted}"))
    });
}

#[test]
fn invalid_expressions_are_refused_in_prometheus_words_at_its_bytes() {
    // One case nests 10,000 deep, which is far over our limit: lifted here, on a stack for it.
    let run = || {
        check_all("invalid.json", |case| {
            let input = input_bytes(case);
            let shown = String::from_utf8_lossy(&input[..input.len().min(80)]).into_owned();
            let options = ParserOptions { depth: 60_000, nodes: 100_000, ..ParserOptions::experimental() };
            let first = &case["errors"][0];
            let wanted = (
                text(&first["message"]).to_owned(),
                PosRange::new(
                    first["start"].as_u64().unwrap() as usize,
                    first["end"].as_u64().unwrap() as usize,
                ),
            );
            match parse_expr_bytes(&input, &options) {
                Ok(expr) => Err(format!("{shown:?} is accepted as {expr}")),
                Err(ParseErrors { errors, .. }) => {
                    differs(&(errors[0].message.clone(), errors[0].pos), &wanted)
                        .map_err(|why| format!("{shown:?}{why}"))
                }
            }
        });
    };
    std::thread::Builder::new().stack_size(256 << 20).spawn(run).unwrap().join().unwrap();
}

fn input_bytes(case: &Value) -> Vec<u8> {
    if let Some(parts) = case.get("input_parts") {
        let parts = parts.as_array().unwrap();
        return parts
            .iter()
            .flat_map(|part| text(&part[0]).repeat(part[1].as_u64().unwrap() as usize).into_bytes())
            .collect();
    }
    match &case["input"] {
        Value::String(text) => text.clone().into_bytes(),
        other => base64(text(&other["base64"])),
    }
}

fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut out, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for byte in text.bytes().take_while(|byte| *byte != b'=') {
        bits = bits << 6 | ALPHABET.iter().position(|b| *b == byte).unwrap() as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    out
}

#[test]
fn trees_print_as_prometheus_prints_them() {
    check_all("print.json", |case| {
        let expr =
            parse_expr(text(&case["input"]), &ParserOptions::experimental()).map_err(|e| e.to_string())?;
        differs(&expr.to_string().as_str(), &text(&case["printed"]))
    });
}

#[test]
fn trees_print_over_lines_as_prometheus_prints_them() {
    check_all("pretty.json", |case| {
        let expr =
            parse_expr(text(&case["input"]), &ParserOptions::experimental()).map_err(|e| e.to_string())?;
        let width = case["max_characters_per_line"].as_u64().unwrap() as usize;
        differs(&pretty_within(&expr, width).as_str(), &text(&case["pretty"]))
    });
}

#[test]
fn series_descriptions_give_their_samples() {
    check_all("series-notation.json", |case| {
        let input = text(&case["input"]);
        let (labels, values) = match parse_series_description(input) {
            Err(error) if case["valid"] == json!(true) => {
                return Err(format!("{input:?} is refused: {error}"));
            }
            Err(error) => {
                let error = error.to_string();
                if !error.contains(text(&case["error_contains"])) {
                    return Err(format!("{error:?} lacks {}", case["error_contains"]));
                }
                return case["error"].as_str().map_or(Ok(()), |wanted| differs(&error.as_str(), &wanted));
            }
            Ok(_) if case["valid"] == json!(false) => return Err(format!("{input:?} is accepted")),
            Ok(read) => read,
        };
        if let Some(wanted) = case["labels"].as_object() {
            let found: Map<String, Value> = labels.iter().map(|(n, v)| (n.to_owned(), json!(v))).collect();
            differs(&found, wanted)?;
        }
        let wanted = case.get("values").or_else(|| case.get("histograms")).cloned().unwrap();
        let found = Value::Array(values.iter().map(sequence_value).collect());
        let equal = normal(found.clone()) == normal(wanted.clone());
        if equal { Ok(()) } else { Err(format!("{input:?}\n   found {found}\n  wanted {wanted}")) }
    });
}

fn sequence_value(value: &SequenceValue) -> Value {
    match value {
        SequenceValue::Omitted => Value::Null,
        SequenceValue::Float(value) => json!(value),
        SequenceValue::Histogram { histogram: h, .. } => {
            let spans = |spans: &[Span]| -> Vec<Value> {
                spans.iter().map(|s| json!({"Offset": s.offset, "Length": s.length})).collect()
            };
            json!({
                "Schema": h.schema, "Sum": h.sum, "Count": h.count, "ZeroCount": h.zero_count,
                "ZeroThreshold": h.zero_threshold,
                "PositiveBuckets": h.positive_buckets, "PositiveSpans": spans(&h.positive_spans),
                "NegativeBuckets": h.negative_buckets, "NegativeSpans": spans(&h.negative_spans),
                "CounterResetHint": match h.hint {
                    CounterResetHint::Unknown => "UnknownCounterReset",
                    CounterResetHint::Reset => "CounterReset",
                    CounterResetHint::NotReset => "NotCounterReset",
                    CounterResetHint::Gauge => "GaugeType",
                },
            })
        }
    }
}

#[test]
fn histograms_print_in_the_notation_of_series() {
    check_all("histogram-notation.json", |case| {
        let fields = &case["histogram"];
        let number = |name: &str| fields[name].as_f64().unwrap_or_default();
        let buckets = |name: &str| -> Vec<f64> {
            fields[name].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
        };
        let spans = |name: &str| -> Vec<Span> {
            let spans = fields[name].as_array().into_iter().flatten();
            spans
                .map(|span| Span {
                    offset: span["Offset"].as_i64().unwrap_or_default() as i32,
                    length: span["Length"].as_u64().unwrap_or_default() as u32,
                })
                .collect()
        };
        let histogram = FloatHistogram {
            schema: number("Schema") as i32,
            sum: number("Sum"),
            count: number("Count"),
            zero_count: number("ZeroCount"),
            zero_threshold: number("ZeroThreshold"),
            positive_spans: spans("PositiveSpans"),
            positive_buckets: buckets("PositiveBuckets"),
            negative_spans: spans("NegativeSpans"),
            negative_buckets: buckets("NegativeBuckets"),
            ..FloatHistogram::default()
        };
        differs(&histogram_notation(&histogram).as_str(), &text(&case["text"]))
    });
}

#[test]
fn queries_of_dashboards_and_alert_rules_parse() {
    let Some(folder) = folder("dashboards") else { return };
    let queries = std::fs::read_to_string(folder.join("all-unique.txt")).expect("the queries are there");
    let mut counts = [0, 0];
    let mut failures = Vec::new();
    for query in queries.lines().filter(|line| !line.is_empty()) {
        let options = ParserOptions::stable();
        counts[0] += 1;
        match parse_expr(query, &options) {
            Ok(expr) => {
                // Printed and read again it is the same query.
                let printed = expr.to_string();
                let again = parse_expr(&printed, &options).map(|again| again.to_string());
                if again.as_deref() != Ok(&printed) {
                    failures.push(format!("{query}\n  prints as {printed}\n  then {again:?}"));
                }
                counts[1] += 1;
            }
            Err(error) => failures.push(format!("{query}\n  {error}")),
        }
    }
    say(&format!("dashboards: {} of {} queries parse", counts[1], counts[0]));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

// The tree as Prometheus' table writes it. Fields that have Go's zero value may be absent there,
// so `normal` drops them on both sides.

fn pos(pos: PosRange) -> Value {
    json!({"type": "posrange.PositionRange", "Start": pos.start, "End": pos.end})
}

fn tree(expr: &Expr) -> Value {
    match expr {
        Expr::Number(number) => number_tree(number),
        Expr::String(string) => {
            json!({"type": "StringLiteral", "Val": string.value, "PosRange": pos(string.pos)})
        }
        Expr::Vector(selector) => selector_tree(selector, true),
        Expr::Matrix(matrix) => json!({
            "type": "MatrixSelector", "VectorSelector": selector_tree(&matrix.selector, true),
            "Range": fixed(&matrix.range), "RangeExpr": computed(&matrix.range), "EndPos": matrix.pos.end,
        }),
        Expr::Subquery(node) => json!({
            "type": "SubqueryExpr", "Expr": tree(&node.expr), "Range": fixed(&node.range),
            "RangeExpr": computed(&node.range), "Step": node.step.as_ref().map(fixed),
            "StepExpr": node.step.as_ref().map(computed), "OriginalOffset": fixed(&node.offset),
            "OriginalOffsetExpr": computed(&node.offset), "Timestamp": timestamp(node.at),
            "StartOrEnd": start_or_end(node.at), "EndPos": node.pos.end,
        }),
        Expr::Unary(node) => json!({
            "type": "UnaryExpr", "Op": if node.op == UnaryOp::Minus { "SUB" } else { "ADD" },
            "Expr": tree(&node.expr), "StartPos": node.pos.start,
        }),
        Expr::Binary(node) => json!({
            "type": "BinaryExpr", "Op": op_name(node.op.as_str()), "LHS": tree(&node.lhs), "RHS": tree(&node.rhs),
            "VectorMatching": node.matching.as_ref().map(matching_tree), "ReturnBool": node.return_bool,
        }),
        Expr::Aggregate(node) => json!({
            "type": "AggregateExpr", "Op": node.op.as_str().to_uppercase(), "Expr": tree(&node.expr),
            "Param": node.param.as_ref().map(|param| tree(param)), "Grouping": node.grouping,
            "Without": node.without, "PosRange": pos(node.pos),
        }),
        Expr::Call(node) => json!({
            "type": "Call", "Func": {"type": "Function", "Name": node.function.name},
            "Args": node.args.iter().map(tree).collect::<Vec<_>>(), "PosRange": pos(node.pos),
        }),
        Expr::Paren(node) => {
            json!({"type": "ParenExpr", "Expr": tree(&node.expr), "PosRange": pos(node.pos)})
        }
    }
}

fn number_tree(number: &NumberLiteral) -> Value {
    let value = if number.value.is_finite() {
        json!(number.value)
    } else {
        json!(tidewatch_model::format_float(number.value))
    };
    json!({"type": "NumberLiteral", "Val": value, "Duration": number.duration, "PosRange": pos(number.pos)})
}

fn selector_tree(selector: &VectorSelector, with_pos: bool) -> Value {
    let matchers: Vec<Value> = selector
        .matchers
        .iter()
        .map(|m| {
            let op = match m.op().as_str() {
                "=" => "MatchEqual",
                "!=" => "MatchNotEqual",
                "=~" => "MatchRegexp",
                _ => "MatchNotRegexp",
            };
            let name = if m.name() == "__name__" { "MetricNameLabel" } else { m.name() };
            json!({"type": "Matcher", "Op": op, "Name": name, "Value": m.value()})
        })
        .collect();
    json!({
        "type": "VectorSelector", "Name": selector.name, "LabelMatchers": matchers,
        "OriginalOffset": fixed(&selector.offset), "OriginalOffsetExpr": computed(&selector.offset),
        "Timestamp": timestamp(selector.at), "StartOrEnd": start_or_end(selector.at),
        "BypassEmptyMatcherCheck": selector.info_argument,
        "Anchored": selector.modifier == Some(RangeModifier::Anchored),
        "Smoothed": selector.modifier == Some(RangeModifier::Smoothed),
        "PosRange": with_pos.then(|| pos(selector.pos)),
    })
}

fn matching_tree(matching: &VectorMatching) -> Value {
    let card = match matching.cardinality.as_str() {
        "one-to-one" => "CardOneToOne",
        "many-to-one" => "CardManyToOne",
        "one-to-many" => "CardOneToMany",
        _ => "CardManyToMany",
    };
    json!({
        "type": "VectorMatching", "Card": card, "MatchingLabels": matching.labels, "On": matching.on,
        "Include": matching.include,
    })
}

fn op_name(op: &str) -> String {
    let names = [
        ("+", "ADD"),
        ("-", "SUB"),
        ("*", "MUL"),
        ("/", "DIV"),
        ("%", "MOD"),
        ("^", "POW"),
        ("==", "EQLC"),
        ("!=", "NEQ"),
        (">", "GTR"),
        ("<", "LSS"),
        (">=", "GTE"),
        ("<=", "LTE"),
        ("and", "LAND"),
        ("or", "LOR"),
        ("unless", "LUNLESS"),
        ("</", "TRIM_UPPER"),
        (">/", "TRIM_LOWER"),
        ("atan2", "ATAN2"),
    ];
    names.iter().find(|(symbol, _)| *symbol == op).expect("listed").1.to_owned()
}

fn fixed(duration: &Duration) -> i64 {
    if let Duration::Fixed(ms) = duration { ms * 1_000_000 } else { 0 }
}

fn computed(duration: &Duration) -> Value {
    if let Duration::Computed(expr) = duration { duration_tree(expr) } else { Value::Null }
}

fn duration_tree(expr: &DurationExpr) -> Value {
    let at = expr.pos();
    match expr {
        DurationExpr::Number(number) => number_tree(number),
        DurationExpr::Negate { operand, pos } => {
            let mut tree = json!({
                "type": "DurationExpr", "Op": "SUB", "RHS": duration_tree(operand), "StartPos": pos.start,
            });
            // In `offset -(5)` the parentheses have the position of what is in them.
            if let DurationExpr::Paren { inner, .. } = &**operand
                && let DurationExpr::Number(number) = &**inner
            {
                tree["RHS"]["StartPos"] = json!(number.pos.start);
                tree["RHS"]["EndPos"] = json!(number.pos.end);
            }
            tree
        }
        DurationExpr::Binary { op, lhs, rhs, .. } => json!({
            "type": "DurationExpr", "Op": op_name(op.as_str()), "LHS": duration_tree(lhs), "RHS": duration_tree(rhs),
        }),
        DurationExpr::Step { .. } | DurationExpr::Range { .. } => {
            let op = if matches!(expr, DurationExpr::Step { .. }) { "STEP" } else { "RANGE" };
            json!({"type": "DurationExpr", "Op": op, "StartPos": at.start, "EndPos": at.end})
        }
        DurationExpr::MinOf { lhs, rhs, .. } | DurationExpr::MaxOf { lhs, rhs, .. } => {
            let op = if matches!(expr, DurationExpr::MinOf { .. }) { "MIN_OF" } else { "MAX_OF" };
            json!({
                "type": "DurationExpr", "Op": op, "LHS": duration_tree(lhs), "RHS": duration_tree(rhs),
                "StartPos": at.start, "EndPos": at.end,
            })
        }
        // Prometheus marks an expression as wrapped; only a number needs a node, a plus, to carry the mark.
        DurationExpr::Paren { inner, .. } => {
            let mut inner_tree = duration_tree(inner);
            if matches!(**inner, DurationExpr::Number(_)) {
                inner_tree = json!({
                    "type": "DurationExpr", "Op": "ADD", "RHS": inner_tree, "StartPos": at.start, "EndPos": at.end,
                });
            }
            inner_tree["Wrapped"] = json!(true);
            inner_tree
        }
    }
}

fn timestamp(at: Option<At>) -> Value {
    if let Some(At::Timestamp(ms)) = at { json!(ms) } else { Value::Null }
}

fn start_or_end(at: Option<At>) -> Value {
    match at {
        Some(At::Start) => json!("START"),
        Some(At::End) => json!("END"),
        _ => Value::Null,
    }
}

/// Drops fields that have Go's zero value, and writes numbers and bytes in one way.
fn normal(value: Value) -> Value {
    match value {
        Value::Object(fields) if fields.len() == 1 && fields.contains_key("base64") => {
            json!(String::from_utf8_lossy(&base64(text(&fields["base64"]))))
        }
        Value::Object(fields) => {
            let kept =
                fields.into_iter().map(|(name, value)| (name, normal(value))).filter(|(name, value)| {
                    // The zero of these enums is written as a name.
                    let zero = matches!(value, Value::Null)
                        || *value == json!(0.0)
                        || *value == json!(false)
                        || *value == json!("")
                        || *value == json!([])
                        || *value == json!("CardOneToOne")
                        || *value == json!("UnknownCounterReset");
                    name == "type" || !zero
                });
            Value::Object(kept.collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(normal).collect()),
        Value::Number(number) => json!(number.as_f64()),
        other => other,
    }
}
