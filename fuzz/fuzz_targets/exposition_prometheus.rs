#![no_main]
//! A scraped document in the Prometheus text format.
use libfuzzer_sys::fuzz_target;
use tidewatch_ingest::{Entry, Format, Parser};
use tidewatch_model::LabelsBuilder;

fuzz_target!(|document: &[u8]| {
    let mut parser = Parser::new(document, Format::Prometheus);
    let mut labels = LabelsBuilder::new();
    loop {
        match parser.next_entry() {
            Ok(Entry::Series(_)) => {
                let _ = parser.labels(&mut labels);
                let _ = parser.exemplar_labels(&mut labels);
            }
            Ok(Entry::Eof) | Err(_) => break,
            Ok(_) => {}
        }
    }
});
