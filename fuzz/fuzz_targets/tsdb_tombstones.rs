//! A file of tombstones with any bytes behind a header that fits its block: read or refused, never a panic; what is
//! read hides only what the block has.
#![no_main]

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tidewatch_env::Env;
use tidewatch_model::Labels;
use tidewatch_storage::{Scratch, TimeRange};
use tidewatch_tsdb::block::{Block, BlockId, Cursor, Tombstones, Writer, WriterOptions, block_path};

static BLOCK: LazyLock<Block> = LazyLock::new(|| {
    let (env, dir) = (Env::in_memory(), Path::new("data"));
    env.disk.create_dir_all(dir).expect("memory");
    let options = WriterOptions {
        id: BlockId(1),
        start_ms: 0,
        end_ms: 10_000,
        level: 0,
        dense: false,
        parents: Vec::new(),
    };
    let mut writer = Writer::create(&env, dir, options).expect("memory");
    for i in 0..5 {
        writer.series(&Labels::from_pairs([("i", i.to_string())])).expect("memory");
        writer.floats(&[100, 200, 300 + i, 5_000], &[1.0; 4]).expect("memory");
    }
    writer.finish().expect("memory");
    Block::open(&env, &block_path(dir, BlockId(1))).expect("just written")
});

fuzz_target!(|bytes: &[u8]| {
    let _ = Tombstones::decode(bytes, &BLOCK);
    let Ok((tombstones, _)) = Tombstones::decode(&Tombstones::file_of(&BLOCK, bytes), &BLOCK) else { return };
    let block = BLOCK.with_tombstones(tombstones);
    let (mut cursor, mut scratch) = (Cursor::default(), Scratch::default());
    let all = TimeRange { start: i64::MIN, end: i64::MAX };
    for series in 0..block.series_count() {
        let _ = block.scan(&mut cursor, series, all, &mut scratch, &mut |_| ControlFlow::Continue(()));
        let _ = block.latest(&mut cursor, series, i64::MIN, i64::MAX, &mut scratch);
    }
});
