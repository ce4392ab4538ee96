//! What a query prints, on one line or on many, reads as the same query.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidewatch_parser::{ParserOptions, parse_expr, pretty_within};

fuzz_target!(|text: &str| {
    let options = ParserOptions::experimental();
    let Ok(expr) = parse_expr(text, &options) else { return };
    let printed = expr.to_string();
    let again = |text: &str| parse_expr(text, &options).expect("what is printed can be read").to_string();
    // Durations are printed in whole milliseconds, a tree printed twice may reach a limit, and the
    // sign of an infinity is read as that of what it is part of.
    if printed.len() <= options.text_bytes && !printed.contains("[0s") && !printed.contains("Inf") {
        assert_eq!(again(&printed), printed);
        assert_eq!(again(&pretty_within(&expr, 10)), printed);
    }
});
