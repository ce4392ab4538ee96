//! What a query prints, on one line or on many, reads as the same query.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidewatch_parser::{Expr, ParserOptions, parse_expr, pretty_within};

fuzz_target!(|text: &str| {
    let options = ParserOptions::experimental();
    let Ok(expr) = parse_expr(text, &options) else { return };
    let printed = expr.to_string();
    // Durations are printed in whole milliseconds, a tree printed twice may reach a limit, and the
    // sign of an infinity is read as that of what it is part of.
    if printed.len() > options.text_bytes || printed.contains("[0s") || printed.contains("Inf") {
        return;
    }
    for text in [printed.clone(), pretty_within(&expr, 10)] {
        let again = parse_expr(&text, &options).expect("what is printed can be read");
        assert_eq!(again.to_string(), printed);
        assert_eq!(parts(&again), parts(&expr), "{text}");
    }
});

/// The parts of a tree without their places and without the sign of a duration that is zero, as in
/// `-0m`, in an order that does not depend on that of matchers, which are printed sorted.
fn parts(expr: &Expr) -> Vec<String> {
    let tree = format!("{expr:#?}").replace("value: -0.0,", "value: 0.0,");
    let lines = tree.lines().map(str::trim);
    let placed = |line: &&str| !["pos: ", "start: ", "end: "].iter().any(|field| line.starts_with(field));
    let mut parts: Vec<String> = lines.filter(placed).map(str::to_owned).collect();
    parts.sort_unstable();
    parts
}
