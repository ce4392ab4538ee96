//! Any text is a test script, perhaps of commands that cannot be read.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidewatch_parser::ParserOptions;
use tidewatch_testkit::script::Script;

fuzz_target!(|text: &str| {
    let _ = Script::parse(text, &ParserOptions::experimental());
});
