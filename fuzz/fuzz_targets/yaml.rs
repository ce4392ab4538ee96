//! The YAML tree under configuration and rule files: any text is read, within its bounds, or
//! refused.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = tidewatch_yaml::parse_unique(text);
    let _ = tidewatch_yaml::parse(text);
});
