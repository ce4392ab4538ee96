//! Rule files and their unit tests: any text is read or refused with places.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidewatch_rules::testfile::TestFile;
use tidewatch_rules::{LoadOptions, RuleFile};

fuzz_target!(|text: &str| {
    let _ = RuleFile::parse(text, "fuzz", &LoadOptions::default());
    let _ = TestFile::parse(text, "fuzz");
});
