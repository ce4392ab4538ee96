#![no_main]
//! A discovery file, as JSON and as YAML.
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|content: &[u8]| {
    let _ = tidewatch_scrape::parse_discovery_file(Path::new("f.json"), content);
    let _ = tidewatch_scrape::parse_discovery_file(Path::new("f.yml"), content);
});
