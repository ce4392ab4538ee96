//! Memory that a remote write takes from the allocator, from the body of the request to its answer: in the steady
//! state the same few pieces, however many samples and series it has.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use support::{FixedBackend, options};
use tidewatch_env::Env;
use tidewatch_ingest::{compress, encode_write_request};
use tidewatch_model::{Batch, Labels, Limits, RawLabels, Sample};
use tidewatch_parser::ParserOptions;
use tidewatch_promql::{Engine, EngineOptions};
use tidewatch_server::{App, Service};
use tidewatch_tsdb::{Db, DbOptions};

/// Counts what the thread that asks takes.
struct Counting;

thread_local! {
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that ends has no counter any more.
    let _ = TAKEN.try_with(|taken| taken.set(taken.get() + 1));
}

// SAFETY: all is the system's allocator, which is one; counting takes no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.realloc(memory, layout, len) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A server with a store on the disk.
fn service(env: Env, directory: &Path) -> Arc<Service> {
    let db = Arc::new(Db::open(env.clone(), DbOptions::new(directory)).expect("opens"));
    db.recover().expect("recovers");
    let app = App {
        engine: Arc::new(Engine::new(env.clone(), EngineOptions::default())),
        env,
        select: db.clone(),
        append: db,
        backend: Arc::new(FixedBackend::default()),
        parser: ParserOptions::stable(),
        limits: Limits::default(),
        replicas: None,
        options: options(),
    };
    Service::new(app).expect("a valid configuration")
}

/// A request with `samples` samples of each of `series` series, the first at `from`; small enough to be taken where it
/// arrives.
fn body(series: usize, samples: i64, from: i64) -> Bytes {
    let labels: Vec<Labels> = (0..series)
        .map(|i| {
            Labels::from_pairs([("__name__", "node_cpu"), ("instance", "host-1"), ("i", &i.to_string())])
        })
        .collect();
    let mut batch = Batch::new();
    for (at, labels) in labels.iter().enumerate() {
        let sample = |timestamp| Sample { timestamp, value: (timestamp / 1000 % 10_000 + at as i64) as f64 };
        let samples: Vec<Sample> = (0..samples).map(|i| sample(from + 1000 * i)).collect();
        batch.push(RawLabels::Canonical(labels.as_bytes()), &samples);
    }
    let (mut plain, mut compressed) = (Vec::new(), Vec::new());
    encode_write_request(&batch, &mut plain);
    compress(&plain, &mut compressed);
    assert!(compressed.len() < 64 << 10, "{} bytes", compressed.len());
    compressed.into()
}

#[test]
fn a_write_allocates_nothing_for_a_sample_or_a_known_series() {
    const SERIES: usize = 1000;
    const ROUNDS: i64 = 240;
    let directory = tempfile::tempdir().expect("a directory");
    let env = Env::real().expect("a machine");
    let start = env.clock.wall_ms() - 3_600_000;
    let service = service(env, directory.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let write = |series, samples, second: i64| {
        let body = Full::new(body(series, samples, start + second * 1000));
        let request = hyper::Request::builder()
            .method("POST")
            .uri("/api/v1/write")
            .body(body.map_err(|never| match never {}).boxed_unsync())
            .expect("a request");
        let before = TAKEN.get();
        let answer = runtime.block_on(service.handle(request));
        assert_eq!(answer.status(), 204);
        TAKEN.get() - before
    };
    // All series, and buffers of the largest size.
    for round in 0..4 {
        write(SERIES, 2, 2 * round);
    }
    let few = write(1, 1, 8);
    assert!(few < 40, "{few} allocations for a request");
    let mut all: Vec<u64> = (0..ROUNDS).map(|round| write(SERIES, 2, 10 + 2 * round)).collect();
    let total: u64 = all.iter().sum();
    all.sort_unstable();
    assert!(all[all.len() / 2] <= few, "{few} for a sample, {all:?} for {} each", 2 * SERIES);
    // Runs that are full are sealed, some hundred samples at once, into room that grows.
    let samples = ROUNDS as u64 * 2 * SERIES as u64;
    assert!(total < samples / 200, "{total} allocations for {samples} samples");
}
