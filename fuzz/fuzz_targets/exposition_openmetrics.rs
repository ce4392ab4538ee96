#![no_main]
//! A scraped document in the OpenMetrics text format, read once more by who expects the series that it has.
use libfuzzer_sys::fuzz_target;
use tidewatch_ingest::{Entry, Format, Parser};
use tidewatch_model::LabelsBuilder;

fuzz_target!(|document: &[u8]| {
    let mut parser = Parser::new(document, Format::OpenMetrics);
    let mut labels = LabelsBuilder::new();
    let (mut read, mut texts) = (Vec::new(), Vec::new());
    loop {
        let entry = parser.next_entry();
        read.push(format!("{entry:?}"));
        match entry {
            Ok(Entry::Series(series)) => {
                texts.push(series.text);
                let _ = parser.labels(&mut labels);
                let _ = parser.exemplar_labels(&mut labels);
            }
            Ok(Entry::Eof) | Err(_) => break,
            Ok(_) => {}
        }
    }
    // In order first; then each in the other's place, which is as good as none.
    texts.push(b"");
    for turn in 0..2 {
        let mut parser = Parser::new(document, Format::OpenMetrics);
        let mut next = turn;
        for expected in &read {
            let entry = parser.next_entry_like(texts[next % texts.len()]);
            assert_eq!(*expected, format!("{entry:?}"));
            next += usize::from(matches!(entry, Ok(Entry::Series(_))));
        }
    }
});
