#![no_main]
//! A block file of any bytes, its checksums made to hold, and the same bytes as a copy of the index that a file
//! without one is read by: refused or read, never a panic.

use std::ops::ControlFlow;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tidewatch_model::{MatchOp, Matcher};
use tidewatch_storage::{Scratch, TimeRange};
use tidewatch_tsdb::block::{Block, Cursor, copy_of, reseal};

fuzz_target!(|bytes: &[u8]| {
    let mut file = bytes.to_vec();
    reseal(&mut file);
    read(file);
    read(copy_of(bytes));
});

fn read(file: Vec<u8>) {
    let Ok(block) = Block::from_bytes(file.into(), Path::new("x")) else { return };
    let matcher = Matcher::new(MatchOp::Regex, "instance", "host-1.*").expect("a valid pattern");
    let _ = block.select(&[matcher, Matcher::equal("job", "node")]);
    let _ = block.visit_label_names(None, &mut |_| true);
    let (mut cursor, mut scratch) = (Cursor::default(), Scratch::default());
    let all = TimeRange { start: i64::MIN, end: i64::MAX };
    for series in 0..block.series_count() {
        let _ = block.labels(&mut cursor, series);
        let _ = block.scan(&mut cursor, series, all, &mut scratch, &mut |_| ControlFlow::Continue(()));
    }
}
