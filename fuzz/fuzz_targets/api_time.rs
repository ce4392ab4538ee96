//! A time parameter of the API: what is read prints, and reads back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidewatch_server::{format_time, parse_time};

/// Years 0 to 9999, which RFC 3339 can write.
const WRITABLE_MS: std::ops::Range<i64> = -62_167_219_200_000..253_402_300_800_000;

fuzz_target!(|text: &str| {
    if let Ok(time) = parse_time(text)
        && WRITABLE_MS.contains(&time)
    {
        assert_eq!(parse_time(&format_time(time)), Ok(time));
    }
});
