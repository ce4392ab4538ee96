//! Columns of values by kind of series: how small, how fast in, how fast out.
//!
//! The series are the recording's, at 15 s; the kinds are told from the values. Sizes are printed
//! first, then criterion measures encoding and decoding, in samples. At 15 s the load goes through the
//! recording every ten minutes, which flatters the dense codec; so its sizes are also printed for the recording
//! as it is, second by second and once.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput};
use tidewatch_benches::load::Load;
use tidewatch_benches::recording::Recording;
use tidewatch_chunk::{DenseEncoder, Encoder, decode_times, decode_values, encode_times};

/// Samples of a chunk of a block: 2 h at 15 s.
const SAMPLES: usize = 480;

/// Samples of a chunk of a dense block: 9 h.
const DENSE_SAMPLES: usize = 2160;

fn main() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/recording.gz");
    let recording = Recording::read(&path).expect("the recording is checked in");
    let load = Load::new(&recording, 4, usize::MAX).expect("a sound recording");
    let looped = |samples: usize| {
        let hosts = (0..load.series_count() / 4).flat_map(|series| (0..4).map(move |host| (host, series)));
        by_kind(hosts.map(|(host, series)| (0..samples).map(|step| load.value(host, series, step)).collect()))
    };
    let mut kinds = looped(SAMPLES);
    kinds.insert("random bits", random_bits());
    let dense = looped(DENSE_SAMPLES);
    let mut criterion = Criterion::default().configure_from_args();
    print_sizes(&kinds);
    print_dense_sizes("the load", &dense);
    print_dense_sizes("the recording, once", &by_kind(recording.values.iter().cloned()));
    values(&mut criterion, &kinds);
    dense_values(&mut criterion, &dense);
    times(&mut criterion);
    criterion.final_summary();
}

type Kinds = BTreeMap<&'static str, Vec<Vec<f64>>>;

fn by_kind(columns: impl Iterator<Item = Vec<f64>>) -> Kinds {
    let mut kinds = Kinds::new();
    for values in columns {
        kinds.entry("all").or_default().push(values.clone());
        kinds.entry(kind(&values)).or_default().push(values);
    }
    kinds
}

fn kind(values: &[f64]) -> &'static str {
    let counter = values.is_sorted();
    let digits = |digits: i32| {
        let power = 10f64.powi(digits);
        values.iter().all(|v| (v * power).round() / power == *v && (v * power).abs() < 1e15)
    };
    match (counter, digits) {
        _ if values.iter().all(|v| v.to_bits() == values[0].to_bits()) => "constant",
        (true, digits) if digits(0) => "integer counter",
        (true, digits) if digits(3) => "counter of 1-3 decimals",
        (true, _) => "counter of more decimals",
        (false, digits) if digits(0) => "integer gauge",
        (false, digits) if digits(4) => "gauge of 1-4 decimals",
        (false, _) => "gauge of more decimals",
    }
}

fn random_bits() -> Vec<Vec<f64>> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from_bits(state ^ state >> 29)
    };
    (0..16).map(|_| (0..SAMPLES).map(|_| next()).collect()).collect()
}

fn encode_all(columns: &[Vec<f64>], cut: usize) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new();
    let chunks = columns.iter().flat_map(|values| values.chunks(cut));
    let encode = |values| {
        let mut out = Vec::new();
        encoder.encode(values, &mut out);
        out
    };
    chunks.map(encode).collect()
}

fn print_sizes(kinds: &Kinds) {
    eprintln!("{:26} {:>7} {:>10} {:>10}   bytes a sample", "kind", "series", "cut at 120", "at 480");
    for (kind, columns) in kinds {
        let size = |cut| {
            let bytes: usize = encode_all(columns, cut).iter().map(Vec::len).sum();
            bytes as f64 / (columns.len() * SAMPLES) as f64
        };
        eprintln!("{kind:26} {:7} {:10.3} {:10.3}", columns.len(), size(120), size(480));
    }
}

fn values(criterion: &mut Criterion, kinds: &Kinds) {
    for (kind, columns) in kinds {
        let encoded = encode_all(columns, SAMPLES);
        let samples = Throughput::Elements((columns.len() * SAMPLES) as u64);
        let (mut encoder, mut bytes, mut out) = (Encoder::new(), Vec::new(), Vec::new());
        criterion.benchmark_group("chunk/encode").throughput(samples.clone()).bench_function(
            *kind,
            |bencher| {
                bencher.iter(|| {
                    for values in columns {
                        bytes.clear();
                        encoder.encode(black_box(values), &mut bytes);
                    }
                });
            },
        );
        criterion.benchmark_group("chunk/decode").throughput(samples).bench_function(*kind, |bencher| {
            bencher.iter(|| {
                for bytes in &encoded {
                    out.clear();
                    decode_values(black_box(bytes), SAMPLES, &mut out).expect("just encoded");
                }
                out.len()
            });
        });
    }
}

fn encode_dense(columns: &[Vec<f64>]) -> Vec<Vec<u8>> {
    let mut encoder = DenseEncoder::new();
    let encode = |values: &Vec<f64>| {
        let mut out = Vec::new();
        encoder.encode(values, &mut out);
        out
    };
    columns.iter().map(encode).collect()
}

fn print_dense_sizes(what: &str, kinds: &Kinds) {
    let samples = kinds["all"][0].len();
    eprintln!("{what:26} {:>7} {:>10} {:>10}   bytes a sample at {samples}", "series", "plain", "dense");
    for (kind, columns) in kinds {
        let size = |encoded: Vec<Vec<u8>>| {
            encoded.iter().map(Vec::len).sum::<usize>() as f64 / (columns.len() * samples) as f64
        };
        let (plain, dense) = (size(encode_all(columns, samples)), size(encode_dense(columns)));
        eprintln!("{kind:26} {:7} {plain:10.3} {dense:10.3}", columns.len());
    }
}

fn dense_values(criterion: &mut Criterion, kinds: &Kinds) {
    for (kind, columns) in kinds {
        let samples = Throughput::Elements((columns.len() * DENSE_SAMPLES) as u64);
        let (mut encoder, mut bytes) = (DenseEncoder::new(), Vec::new());
        criterion.benchmark_group("chunk/encode dense").throughput(samples.clone()).bench_function(
            *kind,
            |bencher| {
                bencher.iter(|| {
                    for values in columns {
                        bytes.clear();
                        encoder.encode(black_box(values), &mut bytes);
                    }
                });
            },
        );
        // The same chunks without zstd beside them: what reading them costs more.
        let encoded =
            [("decode long", encode_all(columns, DENSE_SAMPLES)), ("decode dense", encode_dense(columns))];
        for (name, encoded) in encoded {
            let mut group = criterion.benchmark_group(format!("chunk/{name}"));
            group.throughput(samples.clone()).bench_function(*kind, |bencher| {
                let mut out = Vec::new();
                bencher.iter(|| {
                    for bytes in &encoded {
                        out.clear();
                        decode_values(black_box(bytes), DENSE_SAMPLES, &mut out).expect("just encoded");
                    }
                    out.len()
                });
            });
        }
    }
}

fn times(criterion: &mut Criterion) {
    let regular: Vec<i64> = (0..SAMPLES as i64).map(|i| 1_767_225_600_000 + i * 15_000).collect();
    let jittered: Vec<i64> = regular.iter().zip(0..).map(|(time, i)| time + (i * i * 7919) % 12).collect();
    for (name, clock) in [("regular clock", regular), ("clock with 12 ms of jitter", jittered)] {
        let (mut bytes, mut out) = (Vec::new(), Vec::new());
        encode_times(&clock, &mut bytes);
        eprintln!("{name}: {:.3} bytes a timestamp", bytes.len() as f64 / SAMPLES as f64);
        let mut group = criterion.benchmark_group("chunk/decode times");
        group.throughput(Throughput::Elements(SAMPLES as u64)).bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                decode_times(black_box(&bytes), SAMPLES, &mut out).expect("just encoded");
            });
        });
    }
}
