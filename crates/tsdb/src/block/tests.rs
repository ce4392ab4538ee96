//! Blocks against a plain map: what is written is read, whatever the disk does; and damage to any
//! byte is found or harmless.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use tidewatch_env::sim::{Failure, Simulation};
use tidewatch_env::{Env, create_dir_durably};
use tidewatch_model::{Labels, Matcher, STALE_NAN, Sample};
use tidewatch_storage::{Latest, RunValues, Scratch, TimeRange};

mod damage;

use super::*;
use crate::index::tests as index_tests;

/// The naive store.
pub(crate) type Model = BTreeMap<Labels, BTreeMap<i64, f64>>;

pub(crate) const HOUR: i64 = 3_600_000;
/// A multiple of the chunk span.
pub(crate) const START: i64 = 1_767_225_600_000;
const ALL: TimeRange = TimeRange { start: i64::MIN, end: i64::MAX };

pub(crate) fn labels(name: &str, instance: usize) -> Labels {
    Labels::from_pairs([("__name__", name), ("instance", &format!("host-{instance}:9100")), ("job", "node")])
}

/// Some targets, each scraped by its own clock; series with gaps, markers and odd values.
pub(crate) fn sample_model(targets: usize, scrapes: i64) -> Model {
    let mut model = Model::new();
    for target in 0..targets {
        for i in 0..scrapes {
            let at = START + i * 15_000 + target as i64 * 997 + (i * i + target as i64) % 7;
            let mut put = |name, value| model.entry(labels(name, target)).or_default().insert(at, value);
            put("up", 1.0);
            put("cpu_seconds_total", (i * 1475 + i * i % 50) as f64 / 100.0);
            put("load1", (i * 37 % 101) as f64 / 100.0);
            if i % 50 != 7 {
                put("gaps", i as f64);
            }
            if i == scrapes - 1 {
                put("ended", STALE_NAN);
            } else if i > scrapes / 2 {
                put("ended", 0.1 + 0.2 * i as f64);
            }
        }
    }
    model
}

pub(crate) fn options(id: u64) -> WriterOptions {
    WriterOptions {
        id: BlockId(id),
        start_ms: START,
        end_ms: START + 6 * HOUR,
        level: 0,
        dense: false,
        parents: Vec::new(),
    }
}

/// Writes a model, each series in runs of at most `run` samples.
pub(crate) fn write(
    env: &Env,
    dir: &Path,
    options: WriterOptions,
    model: &Model,
    run: usize,
) -> Result<Option<BlockMeta>, BlockError> {
    let mut writer = Writer::create(env, dir, options)?;
    for (labels, samples) in model {
        writer.series(labels)?;
        let (times, values): (Vec<i64>, Vec<f64>) = samples.iter().unzip();
        for (times, values) in times.chunks(run).zip(values.chunks(run)) {
            writer.floats(times, values)?;
        }
    }
    writer.finish()
}

/// Everything that a block holds; what is damaged is left out and counted.
pub(crate) fn read(block: &Block) -> Result<(Model, usize), BlockError> {
    let (mut model, mut damaged) = (Model::new(), 0);
    let (mut cursor, mut scratch) = (Cursor::default(), Scratch::default());
    for series in 0..block.series_count() {
        let labels = block.labels(&mut cursor, series)?;
        let samples = model.entry(labels).or_insert_with(BTreeMap::new);
        match scan(block, &mut cursor, series, ALL, &mut scratch) {
            Ok(found) => samples.extend(found.iter().map(|sample| (sample.timestamp, sample.value))),
            Err(BlockError::Damaged(_)) => damaged += 1,
            Err(error) => return Err(error),
        }
    }
    Ok((model, damaged))
}

fn scan(
    block: &Block,
    cursor: &mut Cursor,
    series: u32,
    range: TimeRange,
    scratch: &mut Scratch,
) -> Result<Vec<Sample>, BlockError> {
    let mut samples = Vec::new();
    let flow = block.scan(cursor, series, range, scratch, &mut |run| {
        let RunValues::Floats(values) = run.values else { panic!("only floats were written") };
        assert_eq!(run.timestamps.len(), values.len());
        let pairs = run.timestamps.iter().zip(values);
        samples.extend(pairs.map(|(timestamp, value)| Sample { timestamp: *timestamp, value: *value }));
        ControlFlow::Continue(())
    })?;
    assert!(flow.is_continue());
    Ok(samples)
}

#[track_caller]
pub(crate) fn assert_same(left: &Model, right: &Model) {
    let bits = |model: &Model| -> Vec<(Labels, Vec<(i64, u64)>)> {
        let samples = |s: &BTreeMap<i64, f64>| s.iter().map(|(t, v)| (*t, v.to_bits())).collect();
        model.iter().map(|(labels, of)| (labels.clone(), samples(of))).collect()
    };
    assert_eq!(bits(left), bits(right));
}

fn memory() -> (Env, &'static Path) {
    let env = Env::in_memory();
    env.disk.create_dir_all(Path::new("data")).expect("memory");
    (env, Path::new("data"))
}

fn open(env: &Env, dir: &Path, id: u64) -> Block {
    Block::open(env, &block_path(dir, BlockId(id))).expect("just written")
}

/// The bytes of a block of this model.
fn file_of(model: &Model, run: usize) -> Vec<u8> {
    let (env, dir) = memory();
    write(&env, dir, options(1), model, run).expect("memory takes all").expect("there are samples");
    env.disk.map(&block_path(dir, BlockId(1))).expect("just written").to_vec()
}

#[test]
fn what_is_written_is_read_and_counted() {
    let (env, dir) = memory();
    let model = sample_model(7, 1_100);
    let meta = write(&env, dir, options(5), &model, 120).expect("memory takes all").expect("samples");
    let block = open(&env, dir, 5);
    assert_eq!(*block.meta(), meta);
    assert_eq!(meta.samples, model.values().map(|samples| samples.len() as u64).sum::<u64>());
    assert_eq!(
        (meta.series, meta.size),
        (model.len() as u64, env.disk.map(block.path()).expect("there").len() as u64)
    );
    let (found, damaged) = read(&block).expect("sound");
    assert_eq!(damaged, 0);
    assert_same(&found, &model);
    assert!(block.verify(0..block.series_count()).expect("sound").is_empty());
}

#[test]
fn ranges_and_newest_samples_are_those_of_the_model() {
    let (env, dir) = memory();
    let model = sample_model(3, 1_100);
    write(&env, dir, options(1), &model, 120).expect("memory takes all");
    let block = open(&env, dir, 1);
    let (mut cursor, mut scratch) = (Cursor::default(), Scratch::default());
    for (series, samples) in model.values().enumerate().rev() {
        for start in (0..5).map(|i| START - 1 + i * HOUR) {
            for len in [1, 2, 15_000, 300_000, 3 * HOUR] {
                let range = TimeRange { start, end: start + len };
                let found = scan(&block, &mut cursor, series as u32, range, &mut scratch).expect("sound");
                let expected: Vec<Sample> = samples
                    .range(start..=start + len)
                    .map(|(timestamp, value)| Sample { timestamp: *timestamp, value: *value })
                    .collect();
                assert_eq!(found, expected);
                let newest = block.latest(&mut cursor, series as u32, start, start + len, &mut scratch);
                let expected = samples.range(start + 1..=start + len).next_back();
                let newest = newest.expect("sound").map(|latest| match latest {
                    Latest::Float { timestamp, value } => Sample { timestamp, value },
                    Latest::Histogram { .. } => panic!("only floats went in"),
                });
                assert_eq!(
                    newest,
                    expected.map(|(timestamp, value)| Sample { timestamp: *timestamp, value: *value })
                );
            }
        }
    }
}

#[test]
fn a_blocks_index_answers_as_plain_evaluation_does() {
    let (env, dir) = memory();
    let series = index_tests::sample_series();
    let model = series.iter().map(|labels| (labels.clone(), BTreeMap::from([(START, 1.0)]))).collect();
    write(&env, dir, options(1), &model, 120).expect("memory takes all");
    index_tests::check(open(&env, dir, 1).index(), &series);
}

#[test]
fn equal_input_gives_equal_bytes_however_it_is_cut_into_runs() {
    let model = sample_model(3, 1_100);
    assert!(file_of(&model, 120) == file_of(&model, 7));
}

#[test]
fn series_of_one_target_share_their_clock() {
    let (env, dir) = memory();
    let block = |model: &Model, id| {
        write(&env, dir, options(id), model, 120).expect("memory takes all").expect("samples").size
    };
    let mut model = sample_model(1, 480);
    let before = block(&model, 1);
    for copy in 0..20 {
        let samples = model[&labels("load1", 0)].clone();
        model.insert(labels(&format!("load1_{copy:02}"), 0), samples);
    }
    // Seven bits a value and no timestamps; series record, postings and name besides.
    let each = (block(&model, 2) - before) / 20;
    assert!(each < 480 * 7 / 8 + 60, "{each} bytes for a series that shares its clock");
}

#[test]
fn a_block_without_samples_is_not_there() {
    let (env, dir) = memory();
    let mut writer = Writer::create(&env, dir, options(1)).expect("memory");
    writer.series(&labels("up", 1)).expect("memory");
    assert_eq!(writer.finish().expect("memory"), None);
    assert!(env.disk.list(dir).expect("memory").is_empty());
}

#[test]
fn a_file_under_another_blocks_name_is_refused() {
    let (env, dir) = memory();
    write(&env, dir, options(1), &sample_model(1, 2), 120).expect("memory takes all");
    env.disk.link(&block_path(dir, BlockId(1)), &block_path(dir, BlockId(2))).expect("memory");
    let error = Block::open(&env, &block_path(dir, BlockId(2))).expect_err("not block 2");
    assert!(error.to_string().ends_with("the file has the name of another block"), "{error}");
}

/// Writes a block while the n-th change of the disk fails, for every n: after that and after a
/// crash there is no block, or the whole one; and the next attempt goes through.
#[test]
fn a_disk_that_fails_leaves_no_block_or_a_whole_one() {
    let (model, dir) = (sample_model(2, 40), Path::new("data"));
    let path = block_path(dir, BlockId(1));
    for failure in [Failure::Crash, Failure::Io, Failure::IoForGood, Failure::Full] {
        for n in 1.. {
            let Simulation { env, disk, .. } = Env::simulated(n);
            create_dir_durably(&*env.disk, dir).expect("nothing fails yet");
            disk.fail_at(disk.changes() + n, failure);
            let written = write(&env, dir, options(1), &model, 120);
            let fired = disk.fired();
            disk.crash(n);
            disk.repair();
            disk.free_space();
            let there = env.disk.exists(&path).expect("the disk is well again");
            assert!(there || written.is_err(), "{failure:?} at {n}: a block that was reported is gone");
            if there {
                assert_same(&read(&open(&env, dir, 1)).expect("sound").0, &model);
            }
            write(&env, dir, options(1), &model, 120).expect("the disk is well again");
            assert_same(&read(&open(&env, dir, 1)).expect("sound").0, &model);
            if !fired {
                assert!(written.is_ok() && n > 5, "a block takes some operations");
                break;
            }
        }
    }
}

/// Three days: what repeats itself every two hours, noise, and a series with a clock of its own.
#[test]
fn a_dense_block_holds_the_same_in_longer_chunks_and_fewer_bytes() {
    let mut model = Model::new();
    for i in 0..3 * 24 * 120i64 {
        let at = START + HOUR / 2 + i * 30_000;
        let noise = (i * i % 7919 * 31 % 1009) as f64;
        let mut put = |name, at, value| model.entry(labels(name, 1)).or_default().insert(at, value);
        put("up", at, 1.0);
        put("repeated", at, ((i % 240) * (i % 240) * 7919 % 1013) as f64 / 100.0);
        put("noise", at, noise);
        put("fast", START + HOUR + i * 1000, noise * 0.001);
    }
    let written = |dense: bool| {
        let (env, dir) = (Env::in_memory(), Path::new("data"));
        env.disk.create_dir_all(dir).expect("memory");
        let options = WriterOptions { dense, end_ms: START + 80 * HOUR, ..options(1) };
        let meta = write(&env, dir, options, &model, 480).expect("memory").expect("samples");
        let block = open(&env, dir, 1);
        assert_eq!(block.is_dense(), dense);
        let (found, damaged) = read(&block).expect("sound");
        assert_eq!(damaged, 0);
        assert_same(&found, &model);
        assert_eq!(block.verify(0..4).expect("sound"), []);
        (meta, env.disk.map(&block_path(dir, BlockId(1))).expect("there"))
    };
    let ((plain, plain_file), (dense, dense_file)) = (written(false), written(true));
    // 37 windows of two hours, and nine chunks of a thousand; nine stretches of nine hours, and three of 4096.
    assert_eq!((plain.chunks, dense.chunks), (3 * 37 + 9, 3 * 9 + 3));
    assert!(dense.size * 4 < plain.size * 3, "{} of {} bytes", dense.size, plain.size);
    assert_eq!((plain_file[6], dense_file[6]), (0, 1));
    assert_eq!(written(true).1, dense_file, "equal input gives equal bytes");
}

/// Reads all that a block offers, whatever it answers.
fn exercise(file: Vec<u8>) {
    let Ok(block) = Block::from_bytes(Bytes::from(file), Path::new("x")) else { return };
    for matcher in index_tests::sample_matchers().iter().step_by(5) {
        let _ = block.select(std::slice::from_ref(matcher));
        let _ = block.visit_label_values(matcher.name(), None, &mut |_| true);
    }
    let _ = block.visit_label_names(None, &mut |_| true);
    let _ = read(&block);
    let _ = block.verify(0..block.series_count());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Behind valid checksums anything may stand; it is refused, or read as something else.
    #[test]
    fn hostile_bytes_behind_valid_checksums_are_survived(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        static FILE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let mut file = FILE.get_or_init(|| file_of(&sample_model(2, 40), 120)).clone();
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        reseal(&mut file);
        exercise(file);
    }
}

/// The format, byte for byte. Files written by a release have it; a change here needs a new version. The copy of the
/// index, from "TWBKCOPY" on, is under zstd: another release of that may spell it otherwise.
#[test]
fn the_bytes_of_a_block_are_frozen() {
    let model = Model::from([
        (labels("a", 1), BTreeMap::from([(START, 1.0), (START + 15_000, 2.5)])),
        (labels("b", 1), BTreeMap::from([(START, 1.0), (START + 15_000, STALE_NAN)])),
        (labels("b", 22), BTreeMap::from([(START + 7, f64::NAN)])),
    ]);
    let hex: String = file_of(&model, 1).iter().map(|byte| format!("{byte:02x}")).collect();
    let lines: Vec<&str> = (0..hex.len()).step_by(96).map(|at| &hex[at..hex.len().min(at + 96)]).collect();
    assert_eq!(lines, FROZEN, "{lines:#?}");
}

const FROZEN: &[&str] = &[
    "5457424b03000000000000001f222a5d01100380a0d5edee660b00983a02010d141e0280010100080201088ea0d5edee",
    "66017ff85457424b434f5059c100000059010000a787680e28b52ffd605900bd05000408240001000050a8da769b0100",
    "00003f247898e20303000500023a00000d06869afb190000000700000008f96b661a010001100380a0d5edee660b0098",
    "3a0003085f5f6e616d655f5f016108696e7374616e63650b686f73742d313a39313030036a6f62046e6f64650100057d",
    "ba27d862077e7f48b701020c3232020332ac42e516005d6884c6b8a02dc0d957c5f7564300d10fcbe40d4440d03f337d",
    "4580180e075822c02caa2c760e9c9961a57520830a461280050100000000000000000000000000000000a8da769b0100",
    "00003f24789b01000000a8da769b01000098e2da769b0100000300000000000000030000000000000005000000000000",
    "000000000000000000030000000500000003000000085f5f6e616d655f5f0208696e7374616e636502036a6f62010000",
    "0000060000001c000000000161000162000b686f73742d313a39313030050732323a3931303000046e6f646505000000",
    "030000000200000005000000080000000a0000000e0000000100020101020001010203000101000000000000000000a8",
    "da769b010000983a00000d0000000200000006869afb190000000000000007a8da769b01000000000000080000000100",
    "0000f96b661a0300000000000000000000000000000000030001010100057dba27d800030100010100077e7f48b70102",
    "010001020332ac42e501000000000000001000000000000000f9000000000000000200000056c145bf09010000000000",
    "005000000000000000030000007be394865901000000000000530000000000000004000000216ef7a4ac010000000000",
    "002a0000000000000005000000ca83ecd3d6010000000000004000000000000000060000002d4b033316020000000000",
    "0033000000000000000600000000000000ba44e6ae4b425754",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_series_come_back(
        series in prop::collection::btree_map(
            "[a-z]{1,3}",
            prop::collection::btree_map(0..6 * HOUR, any::<u64>().prop_map(f64::from_bits), 1..40),
            1..40,
        ),
        run in 1..50usize,
    ) {
        let model: Model = series
            .into_iter()
            .map(|(name, samples)| {
                (labels(&name, name.len()), samples.into_iter().map(|(at, value)| (START + at, value)).collect())
            })
            .collect();
        let file = file_of(&model, run);
        let block = Block::from_bytes(Bytes::from(file), Path::new("x")).expect("sound");
        let (found, damaged) = read(&block).expect("sound");
        prop_assert_eq!(damaged, 0);
        assert_same(&found, &model);
    }
}
