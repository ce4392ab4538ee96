//! A write request on its way into the head, one stage after the other: snappy, protobuf, known
//! series. The load of `compare known`, without HTTP, log and disk. Figures are samples a second.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use tidewatch_benches::load::Load;
use tidewatch_benches::recording::Recording;
use tidewatch_env::Env;
use tidewatch_ingest::{Spelling, decode_write_request, decode_write_request_v2, decompress};
use tidewatch_model::{Batch, Limits};
use tidewatch_storage::Append;
use tidewatch_tsdb::{Db, DbOptions};

const HOSTS: usize = 50;
const START_MS: i64 = 1_700_000_000_000;

/// Compressed requests of one scrape of all hosts.
fn scrape(load: &Load, step: usize) -> Vec<Vec<u8>> {
    load.requests(step, START_MS, 0, 1).into_iter().map(|(request, _)| request).collect()
}

fn push_number(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn push_bytes(tag: u8, content: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    push_number(content.len() as u64, out);
    out.extend_from_slice(content);
}

/// A request of remote write 1.0 as one of 2.0, with a help text for each metric as senders give it.
fn as_v2(body: &[u8]) -> Vec<u8> {
    let (mut batch, mut reordered) = (Batch::default(), Vec::new());
    decode_write_request(body, &Limits::default(), &mut reordered, &mut batch).unwrap();
    let mut symbols: HashMap<Vec<u8>, u64> = HashMap::new();
    let (mut table, mut request) = (Vec::new(), Vec::new());
    let mut symbol = |text: &[u8]| {
        let next = symbols.len() as u64;
        *symbols.entry(text.to_vec()).or_insert_with(|| {
            push_bytes(0x22, text, &mut table);
            next
        })
    };
    symbol(b"");
    for series in &batch.series {
        let (mut refs, mut message, mut help) = (Vec::new(), Vec::new(), b"What is counted by ".to_vec());
        for (name, value) in series.labels.pairs().flatten() {
            if name == b"__name__" {
                help.extend_from_slice(value);
            }
            [name, value].into_iter().for_each(|text| push_number(symbol(text), &mut refs));
        }
        push_bytes(0x0a, &refs, &mut message);
        for sample in &batch.samples[series.samples.start as usize..series.samples.end as usize] {
            let mut content = vec![0x09];
            content.extend_from_slice(&sample.value.to_le_bytes());
            content.push(0x10);
            push_number(sample.timestamp as u64, &mut content);
            push_bytes(0x12, &content, &mut message);
        }
        let mut metadata = vec![0x08, 1, 0x18];
        push_number(symbol(&help), &mut metadata);
        push_bytes(0x2a, &metadata, &mut message);
        push_bytes(0x2a, &message, &mut request);
    }
    table.append(&mut request);
    table
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
    let bodies: Vec<Vec<u8>> = bodies.iter().map(|body| as_v2(body)).collect();
    group.bench_function("decode 2.0", |bencher| {
        let (mut batch, mut spelling) = (Batch::default(), Spelling::default());
        bencher.iter(|| {
            for body in &bodies {
                let mut borrowing = std::mem::take(&mut batch).recycle();
                decode_write_request_v2(body, &limits, &mut |_| true, &mut spelling, &mut borrowing).unwrap();
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
