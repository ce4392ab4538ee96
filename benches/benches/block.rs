//! A block of 50 hosts and 2 h at 15 s: bytes a sample with the index, and how fast it is written,
//! opened, searched, scanned and merged.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, Throughput};
use tidewatch_benches::load::Load;
use tidewatch_benches::recording::Recording;
use tidewatch_env::Env;
use tidewatch_model::{Labels, MatchOp, Matcher, RawLabels};
use tidewatch_storage::{RunValues, Scratch, TimeRange};
use tidewatch_tsdb::block::{Block, BlockId, Cursor, Writer, WriterOptions, block_path};
use tidewatch_tsdb::compact::{Merge, Plan, Progress};

const HOSTS: usize = 50;
const SERIES: usize = 850;
const SAMPLES: usize = 480;
const BLOCK_MS: i64 = SAMPLES as i64 * 15_000;
const START_MS: i64 = 1_767_225_600_000;

/// Series in label order, with their host and place in the recording.
type Series = Vec<(Labels, usize, usize)>;

fn main() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/recording.gz");
    let recording = Recording::read(&path).expect("the recording is checked in");
    let load = Load::new(&recording, HOSTS, SERIES).expect("a sound recording");
    let series = series_of(&load);
    let env = Env::in_memory();
    let dir = Path::new("data");
    env.disk.create_dir_all(dir).expect("memory");
    let mut criterion = Criterion::default().configure_from_args();
    for number in 0..3 {
        let columns = columns_of(&load, &series, number);
        let meta = write(&env, dir, number as u64, &series, &columns);
        let (size, samples) = (meta.size, meta.samples);
        eprintln!(
            "block {number}: {} series, {:.3} bytes a sample",
            meta.series,
            size as f64 / samples as f64
        );
        if number == 0 {
            let mut group = criterion.benchmark_group("block");
            group.sample_size(10).throughput(Throughput::Elements(samples));
            group.bench_function("write", |b| b.iter(|| write(&env, dir, 99, &series, &columns)));
        }
    }
    let block = Block::open(&env, &block_path(dir, BlockId(0))).expect("just written");
    read(&mut criterion, &env, &block);
    merge(&env, dir);
    criterion.final_summary();
}

fn series_of(load: &Load) -> Series {
    let each = load.series_count() / HOSTS;
    let text = |bytes| str::from_utf8(bytes).expect("labels are text");
    let mut series: Series = (0..HOSTS * each)
        .map(|at| {
            let (host, number) = (at / each, at % each);
            let pairs = RawLabels::Proto(load.labels(host, number)).pairs().map(|pair| pair.expect("sound"));
            (Labels::from_pairs(pairs.map(|(name, value)| (text(name), text(value)))), host, number)
        })
        .collect();
    series.sort_unstable();
    series
}

fn columns_of(load: &Load, series: &Series, block: usize) -> Vec<Vec<f64>> {
    let steps = block * SAMPLES..(block + 1) * SAMPLES;
    series
        .iter()
        .map(|(_, host, number)| steps.clone().map(|step| load.value(*host, *number, step)).collect())
        .collect()
}

fn write(
    env: &Env,
    dir: &Path,
    number: u64,
    series: &Series,
    columns: &[Vec<f64>],
) -> tidewatch_tsdb::block::BlockMeta {
    let start_ms = START_MS + number as i64 * BLOCK_MS;
    let options = WriterOptions {
        id: BlockId(number),
        start_ms,
        end_ms: start_ms + BLOCK_MS,
        level: 0,
        dense: false,
        parents: Vec::new(),
    };
    let mut writer = Writer::create(env, dir, options).expect("memory");
    let mut times = Vec::new();
    for ((labels, host, _), values) in series.iter().zip(columns) {
        times.clear();
        times.extend((0..SAMPLES as i64).map(|i| start_ms + i * 15_000 + (*host as i64 * 137) % 15_000));
        writer.series(labels).expect("memory");
        writer.floats(&times, values).expect("memory");
    }
    writer.finish().expect("memory").expect("there are samples")
}

fn read(criterion: &mut Criterion, env: &Env, block: &Block) {
    let (mut cursor, mut scratch) = (Cursor::default(), Scratch::default());
    let mut sum_of = |range: TimeRange| {
        let mut sum = 0.0;
        for series in 0..block.series_count() {
            let flow = block.scan(&mut cursor, series, range, &mut scratch, &mut |run| {
                let RunValues::Floats(values) = run.values else { panic!("only floats were written") };
                sum += values[values.len() - 1];
                ControlFlow::Continue(())
            });
            assert!(flow.expect("sound").is_continue());
        }
        sum
    };
    let mut group = criterion.benchmark_group("block");
    group.sample_size(10).throughput(Throughput::Elements(block.meta().samples));
    let all = TimeRange { start: i64::MIN, end: i64::MAX };
    group.bench_function("scan", |b| b.iter(|| black_box(sum_of(all))));
    group.finish();

    let mut group = criterion.benchmark_group("block/index");
    group.bench_function("open", |b| b.iter(|| Block::open(env, block.path()).expect("sound")));
    let instance = |pattern| Matcher::new(MatchOp::Regex, "instance", pattern).expect("a pattern");
    let mut names = Vec::new();
    let mut add = |name: &str| {
        names.push(name.to_owned());
        true
    };
    block.visit_label_values("__name__", None, &mut add).expect("sound");
    let name = names.swap_remove(40);
    for (what, matchers) in [
        ("one metric", vec![Matcher::equal("__name__", &name)]),
        ("one host", vec![Matcher::equal("instance", "host-0007.example.com:9100")]),
        ("hosts by regex", vec![Matcher::equal("job", "node"), instance("host-00[1-3].*")]),
    ] {
        group.bench_function(what, |b| b.iter(|| block.select(black_box(&matchers)).expect("sound")));
    }
    group.bench_function("labels of all series", |b| {
        b.iter(|| {
            let mut cursor = Cursor::default();
            for series in 0..block.series_count() {
                black_box(block.labels(&mut cursor, series).expect("sound"));
            }
        });
    });
}

fn merge(env: &Env, dir: &Path) {
    let blocks: Vec<Arc<Block>> =
        (0..3).map(|id| Arc::new(Block::open(env, &block_path(dir, BlockId(id))).expect("sound"))).collect();
    let plan = Plan {
        sources: (0..3).map(BlockId).collect(),
        start_ms: START_MS,
        end_ms: START_MS + 3 * BLOCK_MS,
        level: 1,
        dense: false,
    };
    let started = env.clock.monotonic_ns();
    let merge = Merge::start(env, dir, &plan, BlockId(100), blocks).expect("sound");
    let (Progress::Done(Some(meta)), _) = merge.step(usize::MAX).expect("sound") else {
        panic!("there are samples")
    };
    let seconds = (env.clock.monotonic_ns() - started) as f64 / 1e9;
    eprintln!(
        "merged: {:.3} bytes a sample, {:.0} M samples a second",
        meta.size as f64 / meta.samples as f64,
        meta.samples as f64 / seconds / 1e6
    );
}
