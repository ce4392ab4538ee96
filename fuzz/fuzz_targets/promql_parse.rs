//! Any bytes are a query, a selector or a series, or are refused; none makes the parser panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidewatch_parser::{ParserOptions, parse_expr_bytes, parse_metric_selector, parse_series_description};

fuzz_target!(|data: &[u8]| {
    let _ = parse_expr_bytes(data, &ParserOptions::experimental());
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = parse_metric_selector(text);
        let _ = parse_series_description(text);
    }
});
