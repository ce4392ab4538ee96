//! Printing and reading are inverse: a tree prints to a text that reads as the same tree, but for
//! positions, and so does what is printed over several lines. (One exception is Prometheus' too:
//! `Inf ^ x` prints as `+Inf ^ x`, whose sign is that of the power.)

use proptest::prelude::*;
use proptest::sample::select;
use tidewatch_parser::{
    ParserOptions, parse_expr, parse_expr_bytes, parse_series_description, pretty_within,
};

fn name() -> BoxedStrategy<String> {
    select(
        &["up", "http_requests_total", "job:rate5m", "sum", "start", "offset", "fill", "x", "nan_count"][..],
    )
    .prop_map(str::to_owned)
    .boxed()
}

fn label() -> BoxedStrategy<String> {
    select(&["job", "le", "by", "\"a.b\"", "\"ü\"", "bool"][..]).prop_map(str::to_owned).boxed()
}

fn matcher() -> BoxedStrategy<String> {
    let names = select(&["job", "le", "\"a.b\"", "__name__"][..]);
    let ops = select(&["=", "!=", "=~", "!~"][..]);
    let values = select(&["\"\"", "\"a\\\"b\\n\"", "'x|y.+'", "`back\\\\slash`", "\"\\u00fc\""][..]);
    (names, ops, values).prop_map(|(name, op, value)| format!("{name}{op}{value}")).boxed()
}

fn duration() -> BoxedStrategy<String> {
    let leaf = select(&["5m", "1h30m", "90", "1.5", "10ms", "step()", "range()", "(2m)", "+7s", "-(1s)"][..])
        .prop_map(str::to_owned);
    leaf.prop_recursive(3, 8, 2, |inner| {
        let ops = select(&["+", "-", "*", "/", "%", "^"][..]);
        prop_oneof![
            (inner.clone(), ops, inner.clone()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("min_of({a}, {b})")),
            inner.clone().prop_map(|a| format!("({a})")),
            inner.prop_map(|a| format!("-{a}")),
        ]
    })
    .boxed()
}

fn modifiers() -> BoxedStrategy<String> {
    let at = select(&["", " @ 12.345", " @ start()", " @ end()", " @ -1"][..]);
    let offset = prop_oneof![Just(String::new()), duration().prop_map(|d| format!(" offset ({d})"))];
    let short = select(&["", " offset 5m", " offset -1h"][..]).prop_map(str::to_owned);
    (at, prop_oneof![offset, short]).prop_map(|(at, offset)| format!("{at}{offset}")).boxed()
}

fn selector() -> BoxedStrategy<String> {
    (prop::option::of(name()), prop::collection::vec(matcher(), 0..3))
        .prop_map(|(name, matchers)| match name {
            Some(name) if matchers.is_empty() => name,
            name => format!("{}{{{}}}", name.unwrap_or_default(), matchers.join(",")),
        })
        .boxed()
}

/// Texts of queries. Not all are valid; enough are.
fn query() -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        (selector(), modifiers()).prop_map(|(s, m)| format!("{s}{m}")),
        (selector(), duration(), select(&["", " anchored", " smoothed"][..]), modifiers())
            .prop_map(|(s, d, e, m)| format!("rate({s}[{d}]{e}{m})")),
        select(&["1", "-2.5", "1e3", "0x1f", "(Inf)", "NaN", "5m", "time()", "pi()"][..])
            .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let ops = select(
            &["+", "-", "*", "/", "%", "^", "atan2", "==", "> bool", "</", ">/", "and", "or", "unless"][..],
        );
        let matching = prop_oneof![
            4 => Just(String::new()),
            1 => label().prop_map(|l| format!("on ({l})")),
            1 => label().prop_map(|l| format!("ignoring ({l}) group_left (job)")),
            1 => Just("fill (0)".to_owned()),
            1 => Just("on () fill_left (-1) fill_right (NaN)".to_owned()),
        ];
        let aggregates = select(&["sum", "avg", "count", "max"][..]);
        let grouping = prop_oneof![
            Just(String::new()),
            label().prop_map(|l| format!(" by ({l})")),
            label().prop_map(|l| format!(" without ({l}, job)")),
        ];
        prop_oneof![
            (inner.clone(), ops, matching, inner.clone())
                .prop_map(|(a, op, m, b)| format!("{a} {op} {m} {b}")),
            (aggregates, inner.clone(), grouping).prop_map(|(op, a, g)| format!("{op}({a}){g}")),
            (inner.clone(), duration(), modifiers())
                .prop_map(|(a, d, m)| format!("max_over_time(({a})[{d}:1m]{m})")),
            inner.clone().prop_map(|a| format!("label_replace({a}, \"a\", \"$1\", \"b\", \"(.*)\")")),
            inner.clone().prop_map(|a| format!("topk(3, {a})")),
            inner.clone().prop_map(|a| format!("-{a}")),
            inner.prop_map(|a| format!("({a})")),
        ]
    })
    .boxed()
}

fn cases(count: u32) -> ProptestConfig {
    ProptestConfig { cases: count, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn what_is_printed_reads_as_the_same_query(text in query()) {
        let options = ParserOptions::experimental();
        if let Ok(expr) = parse_expr(&text, &options) {
            let printed = expr.to_string();
            let again = parse_expr(&printed, &options);
            prop_assert!(again.is_ok(), "{text} prints as {printed}, which is refused: {again:?}");
            prop_assert_eq!(again.unwrap().to_string(), printed.clone(), "{}", text);
            for width in [1, 10, 100] {
                let lines = pretty_within(&expr, width);
                let again = parse_expr(&lines, &options).map(|again| again.to_string());
                prop_assert_eq!(again.ok(), Some(printed.clone()), "{} prints over lines as\n{}", text, lines);
            }
        }
    }

    #[test]
    fn no_input_makes_the_parser_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..60),
        words in prop::collection::vec(select(&[
            "up", "sum", "by", "(", ")", "{", "}", "[", "]", "5m", "offset", "@", "1", "\"a\"", "=~", "=", ",", "-",
            ":", "step", "{{", "}}", "x3", "_", "stale", "schema:1", "buckets:[1 2]", " ", "fill", "and", "on",
        ][..]), 0..25),
    ) {
        let options = ParserOptions::experimental();
        let _ = parse_expr_bytes(&bytes, &options);
        let text = words.join(" ");
        let _ = parse_expr(&text, &options);
        let _ = parse_expr(&words.concat(), &options);
        let _ = parse_series_description(&text);
        let _ = parse_series_description(&String::from_utf8_lossy(&bytes));
    }
}

proptest! {
    #![proptest_config(cases(4))]

    // Else the properties above would say nothing.
    #[test]
    fn many_generated_queries_are_valid(texts in prop::collection::vec(query(), 200)) {
        let valid = texts.iter().filter(|text| parse_expr(text, &ParserOptions::experimental()).is_ok()).count();
        prop_assert!(valid > 20, "{valid} of 200");
    }
}
