//! Any text is a regular expression or is refused; shortcuts agree with the engine.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidewatch_model::regex::GoRegex;

fuzz_target!(|input: (&str, &str)| {
    let (pattern, text) = input;
    if let Ok(regex) = GoRegex::new(pattern) {
        assert_eq!(regex.is_match(text), regex.regex().is_match(text));
    }
});
