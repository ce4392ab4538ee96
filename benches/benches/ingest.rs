//! A write request on its way into the head, one stage after the other: snappy, protobuf, known
//! series. The load of `compare known`, without HTTP, log and disk. Figures are samples a second.

use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use tidewatch_benches::load::Load;
use tidewatch_benches::recording::Recording;
use tidewatch_env::Env;
use tidewatch_ingest::{decode_write_request, decompress};
use tidewatch_model::{Batch, Limits};
use tidewatch_storage::Append;
use tidewatch_tsdb::{Db, DbOptions};

const HOSTS: usize = 50;
const START_MS: i64 = 1_700_000_000_000;

/// Compressed requests of one scrape of all hosts.
fn scrape(load: &Load, step: usize) -> Vec<Vec<u8>> {
    load.requests(step, START_MS, 0, 1).into_iter().map(|(request, _)| request).collect()
}

fn wire(criterion: &mut Criterion, load: &Load) {
    let limits = Limits::default();
    let requests = scrape(load, 0);
    let mut group = criterion.benchmark_group("ingest");
    group.throughput(Throughput::Elements(load.series_count() as u64));
    group.bench_function("decompress", |bencher| {
        let mut body = Vec::new();
        bencher.iter(|| requests.iter().for_each(|request| decompress(request, &limits, &mut body).unwrap()));
    });
    let bodies: Vec<Vec<u8>> =
        requests.iter().map(|request| snap::raw::Decoder::new().decompress_vec(request).unwrap()).collect();
    group.bench_function("decode", |bencher| {
        let mut batch = Batch::default();
        bencher.iter(|| {
            for body in &bodies {
                let (mut borrowing, mut reordered) = (std::mem::take(&mut batch).recycle(), Vec::new());
                decode_write_request(body, &limits, &mut reordered, &mut borrowing).unwrap();
                batch = borrowing.recycle();
            }
        });
    });
    group.finish();
}

/// Scrape after scrape, so that runs fill and are sealed as they are in a server.
fn append(criterion: &mut Criterion, load: &Load) {
    let limits = Limits::default();
    let db = Db::in_memory(Env::in_memory(), DbOptions { retention_ms: None, ..DbOptions::new("") });
    let mut step = 0;
    let mut take_scrape = || {
        let bodies: Vec<Vec<u8>> = scrape(load, step)
            .iter()
            .map(|request| snap::raw::Decoder::new().decompress_vec(request).unwrap())
            .collect();
        step += 1;
        let mut time = Duration::ZERO;
        for body in &bodies {
            let (mut batch, mut reordered) = (Batch::default(), Vec::new());
            decode_write_request(body, &limits, &mut reordered, &mut batch).unwrap();
            let start = Instant::now();
            db.append(&batch).unwrap();
            time += start.elapsed();
        }
        time
    };
    take_scrape();
    let mut group = criterion.benchmark_group("ingest");
    group.throughput(Throughput::Elements(load.series_count() as u64));
    group.bench_function("append", |bencher| {
        bencher.iter_custom(|iterations| (0..iterations).map(|_| take_scrape()).sum());
    });
    group.finish();
}

fn main() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/recording.gz");
    let recording = Recording::read(&path).expect("the recording is checked in");
    let load = Load::new(&recording, HOSTS, 1_000).expect("a sound recording");
    let mut criterion = Criterion::default().configure_from_args();
    wire(&mut criterion, &load);
    append(&mut criterion, &load);
    criterion.final_summary();
}
