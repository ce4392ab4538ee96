//! What the engine alone costs, without HTTP: samples per CPU-second, memory per series, and the
//! time to be complete after a restart without goodbye.
//!
//! `cargo run --release -p tidewatch-tsdb --example append -- HOSTS SCRAPES [DIR]`
//!
//! Each host has 850 series of eight labels, spelled as remote write spells them, of which half
//! are constant, and the rest counters and gauges. With DIR the log is synced after each scrape.

use std::path::PathBuf;
use std::time::Instant;

use tidewatch_env::Env;
use tidewatch_model::{Batch, RawLabels, Sample};
use tidewatch_storage::{Append, Select, TimeRange};
use tidewatch_tsdb::{Db, DbOptions};

const SERIES: usize = 850;

/// Seconds of processor time of this process so far.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|f| f.parse::<u64>().expect("a number")).sum();
    ticks as f64 / 100.0
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("RssAnon")).expect("a line");
    line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number") * 1024
}

fn push_label(name: &str, value: &str, out: &mut Vec<u8>) {
    out.extend([0x0a, (name.len() + value.len() + 4) as u8, 0x0a, name.len() as u8]);
    out.extend_from_slice(name.as_bytes());
    out.extend([0x12, value.len() as u8]);
    out.extend_from_slice(value.as_bytes());
}

/// The label bytes of one host's series, with the range of each.
fn host_labels(host: usize) -> (Vec<u8>, Vec<std::ops::Range<usize>>) {
    let (mut bytes, mut ranges) = (Vec::new(), Vec::new());
    for i in 0..SERIES {
        let start = bytes.len();
        push_label("__name__", &format!("node_metric_{}_total", i / 4), &mut bytes);
        push_label("cpu", &format!("{}", i % 4), &mut bytes);
        push_label("datacenter", ["eu-west-1", "us-east-1"][host % 2], &mut bytes);
        push_label("environment", "production", &mut bytes);
        push_label("instance", &format!("host-{host:05}.example.org:9100"), &mut bytes);
        push_label("job", "node", &mut bytes);
        push_label("mode", ["idle", "user", "system"][i % 3], &mut bytes);
        push_label("rack", &format!("r{}", host % 40), &mut bytes);
        ranges.push(start..bytes.len());
    }
    (bytes, ranges)
}

fn value(i: usize, host: usize, scrape: usize) -> f64 {
    match i % 8 {
        0..4 => (i * 3 + host) as f64,
        4 | 5 => (scrape * (i % 97 + 1) + host) as f64,
        6 => ((scrape * 37 + i * 11 + host) % 1000) as f64 / 10.0,
        _ => scrape as f64 * 1.73 + i as f64 * 0.01,
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |at: usize, default| args.get(at).map_or(default, |arg| arg.parse().expect("a number"));
    let (hosts, scrapes) = (number(1, 50), number(2, 100));
    let dir = args.get(3).map(PathBuf::from);
    let open = || match &dir {
        Some(dir) => {
            let db = Db::open(Env::real().expect("entropy"), DbOptions::new(dir)).expect("opens");
            db.recover().expect("recovers");
            db
        }
        None => Db::in_memory(Env::real().expect("entropy"), DbOptions::new("")),
    };
    let labels: Vec<_> = (0..hosts).map(host_labels).collect();
    let before = resident_bytes();
    let db = open();
    let start_ms = 1_700_000_000_000i64;
    let report = |what: &str, samples: usize, cpu: f64, wall: Instant| {
        println!(
            "{what}: {samples} samples, {:.2} M per CPU-second, {:.0} ns each, {:.2} s wall",
            samples as f64 / cpu / 1e6,
            cpu * 1e9 / samples as f64,
            wall.elapsed().as_secs_f64()
        );
    };
    let mut values = vec![0.0; SERIES];
    let mut known = 0.0;
    let known_wall = Instant::now();
    for scrape in 0..scrapes {
        let (cpu, wall) = (cpu_seconds(), Instant::now());
        for (host, (bytes, ranges)) in labels.iter().enumerate() {
            values.iter_mut().enumerate().for_each(|(i, v)| *v = value(i, host, scrape));
            let timestamp = start_ms + scrape as i64 * 15_000 + (host * 97 % 15_000) as i64;
            let mut batch = Batch::new();
            for (range, value) in ranges.iter().zip(&values) {
                batch.push(RawLabels::Proto(&bytes[range.clone()]), &[Sample { timestamp, value: *value }]);
            }
            let outcome = db.append(&batch).expect("takes writes");
            assert_eq!(outcome.refused, []);
        }
        db.commit().expect("commits");
        while let Some(job) = db.next_job(start_ms + scrape as i64 * 15_000) {
            db.run(job).expect("a good disk");
        }
        let used = cpu_seconds() - cpu;
        match scrape {
            0 => report("new series", hosts * SERIES, used, wall),
            _ => known += used,
        }
    }
    report("known series", hosts * SERIES * (scrapes - 1).max(1), known, known_wall);
    let status = db.status();
    let memory = status.head.memory;
    let per = |bytes: u64| bytes as f64 / status.head.series as f64;
    println!(
        "memory per series: {:.0} B resident, {:.0} B accounted: symbols {:.0}, labels {:.0}, table {:.0}, index {:.0}, \
         series {:.0}, open runs {:.0}, clocks {:.1}, sealed {:.0}, late {:.0}",
        per(resident_bytes() - before),
        per(memory.total()),
        per(memory.symbols),
        per(memory.labels),
        per(memory.table),
        per(memory.index),
        per(memory.series),
        per(memory.open_runs),
        per(memory.clocks),
        per(memory.sealed),
        per(memory.late),
    );
    for block in &status.blocks {
        println!("{}: {:.3} bytes per sample", block.name, block.bytes as f64 / block.samples as f64);
    }
    let all = TimeRange { start: i64::MIN, end: i64::MAX };
    let (cpu, wall) = (cpu_seconds(), Instant::now());
    let series = db.select(&[], all).expect("complete").len();
    println!(
        "select of {series} series: {:.3} CPU-s, {:.3} s",
        cpu_seconds() - cpu,
        wall.elapsed().as_secs_f64()
    );
    drop(db);
    if dir.is_some() {
        let (cpu, wall) = (cpu_seconds(), Instant::now());
        let db = open();
        let seconds = wall.elapsed().as_secs_f64();
        let status = db.status();
        println!(
            "complete after {seconds:.3} s, {:.2} CPU-s: {} series, {} samples replayed",
            cpu_seconds() - cpu,
            status.head.series,
            status.counters.samples_replayed
        );
    }
}
