//! Remote write: what is taken, what is refused, and in which words.

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::Mutex;
use support::{NOW_MS, Scene, options};
use tidewatch_env::Env;
use tidewatch_env::sim::SimClock;
use tidewatch_ingest::{HaOptions, HaTracker, compress, encode_write_request};
use tidewatch_model::{Batch, Labels, Limits, RawLabels, Sample};
use tidewatch_server::ServerOptions;

/// A request with one series, a sample at each of `timestamps`.
fn body(timestamps: &[i64]) -> Vec<u8> {
    let labels = Labels::from_pairs([("__name__", "sent"), ("job", "test")]);
    let samples: Vec<Sample> = timestamps.iter().map(|t| Sample { timestamp: *t, value: 1.0 }).collect();
    let mut batch = Batch::new();
    batch.push(RawLabels::Canonical(labels.as_bytes()), &samples);
    let (mut plain, mut compressed) = (Vec::new(), Vec::new());
    encode_write_request(&batch, &mut plain);
    compress(&plain, &mut compressed);
    compressed
}

fn post(scene: &Scene, headers: &[(&str, &str)], body: Vec<u8>) -> String {
    let mut request = hyper::Request::builder().method("POST").uri("/api/v1/write");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (parts, body) = scene.send(request.body(Bytes::from(body)).expect("a request"));
    let retry = parts.headers.get("retry-after").map_or(String::new(), |_| " (retry)".to_owned());
    format!("{}{retry} {}", parts.status.as_u16(), String::from_utf8(body).expect("UTF-8"))
}

#[test]
fn samples_are_kept_and_acknowledged() {
    let scene = Scene::new();
    let before = scene.store.sample_count();
    let headers = [("content-type", "application/x-protobuf"), ("content-encoding", "snappy")];
    assert_eq!(post(&scene, &headers, body(&[1, 2, 3])), "204 ");
    assert_eq!(post(&scene, &[], body(&[4])), "204 ", "old senders name neither type nor encoding");
    let empty = [("content-type", ""), ("content-encoding", "")];
    assert_eq!(post(&scene, &empty, body(&[5])), "204 ", "as if they were not there");
    assert_eq!(scene.store.sample_count() - before, 5);
    // Larger than what is worked on inline.
    let mut many: Vec<i64> = (0..100_000).map(|t| 10 + t * 7919 % 1_000_003).collect();
    many.sort_unstable();
    assert_eq!(post(&scene, &headers, body(&many)), "204 ");
    assert_eq!(scene.store.sample_count() - before, 100_005);
    let metrics = scene.service.metrics();
    assert!(metrics.contains("tidewatch_remote_write_samples_total 100005\n"), "{metrics}");
}

#[test]
fn good_samples_are_kept_beside_bad_ones_and_the_bad_ones_counted() {
    let scene = Scene::new();
    let before = scene.store.sample_count();
    assert_eq!(
        post(&scene, &[], body(&[1, -2, 3, -4])),
        "400 2 of 4 samples refused (2 too old); the first: {__name__=\"sent\", job=\"test\"} at -2: TooOld\n"
    );
    assert_eq!(scene.store.sample_count() - before, 2);
}

#[test]
fn foreign_types_and_encodings_are_refused() {
    let scene = Scene::new();
    assert_eq!(
        post(&scene, &[("content-type", "text/plain")], body(&[1])),
        "415 Content-Type \"text/plain\" is not application/x-protobuf\n"
    );
    assert_eq!(
        post(&scene, &[("content-type", "protobuf für dich")], body(&[1])),
        "415 Content-Type \"protobuf für dich\" is not application/x-protobuf\n"
    );
    assert_eq!(
        post(&scene, &[("content-encoding", "gzip")], body(&[1])),
        "415 Content-Encoding \"gzip\" is not snappy\n"
    );
    assert_eq!(
        post(&scene, &[("content-type", "application/x-protobuf;proto=prometheus.Other")], body(&[1])),
        "415 message \"prometheus.Other\" is not taken here: send prometheus.WriteRequest or io.prometheus.write.v2.Request\n"
    );
    assert_eq!(
        post(
            &scene,
            &[("content-type", "application/x-protobuf; proto=prometheus.WriteRequest")],
            body(&[1])
        ),
        "204 "
    );
}

// Some switch a message off: its senders are to see that at once.
#[test]
fn messages_that_are_not_accepted_are_refused() {
    let write_messages = vec!["io.prometheus.write.v2.Request".to_owned()];
    let scene = Scene::with(ServerOptions { write_messages, ..options() }, Limits::default());
    assert_eq!(
        post(&scene, &[], body(&[1])),
        "415 message \"prometheus.WriteRequest\" is not taken here: send io.prometheus.write.v2.Request\n"
    );
    let v2 = [("content-type", "application/x-protobuf; proto=\"io.prometheus.write.v2.Request\"")];
    assert_eq!(post(&scene, &v2, vec![0]), "204 ");
}

#[test]
fn malformed_and_oversized_requests_are_refused_and_leave_no_trace() {
    let limits = Limits { write_compressed_bytes: 1000, write_samples: 10, ..Limits::default() };
    let scene = Scene::with(options(), limits);
    let before = scene.store.sample_count();
    for (body, expected) in [
        (b"garbage".to_vec(), "400 body is no snappy block"),
        (vec![0; 1001], "413 request body is larger than 1000 bytes"),
        (vec![0xff, 0xff, 0xff, 0xff, 0x0f], "413 decompressed request of"),
        (vec![0x80, 0x80, 0x40, 0, 0], "400 snappy block of 5 bytes declares 1048576 bytes"),
        (body(&(0..11).collect::<Vec<_>>()), "413 request holds more than 10 samples"),
        (vec![2, 4, 0x0a, 0x7f], "400 malformed write request at byte 0"),
    ] {
        let answer = post(&scene, &[], body);
        assert!(answer.starts_with(expected), "{answer}");
    }
    assert_eq!(scene.store.sample_count(), before);
    assert_eq!(post(&scene, &[], body(&[1])), "204 ", "and the next request is served");
}

#[test]
fn senders_are_told_to_come_back_when_nothing_can_be_taken() {
    let scene = Scene::new();
    scene.door.overloaded.store(true, Ordering::Relaxed);
    assert_eq!(post(&scene, &[], body(&[1])), "503 (retry) the store is at its limit: no room\n");
    scene.door.overloaded.store(false, Ordering::Relaxed);
    scene.backend.broken.store(true, Ordering::Relaxed);
    assert_eq!(post(&scene, &[], body(&[1])), "503 (retry) the write is not durable: fsync failed\n");
    scene.backend.broken.store(false, Ordering::Relaxed);
    scene.backend.stopping.store(true, Ordering::Relaxed);
    assert_eq!(post(&scene, &[], body(&[1])), "503 (retry) the server takes no writes now\n");

    let small = ServerOptions { write_bytes_in_flight: 1 << 10, ..options() };
    let scene = Scene::with(small, Limits::default());
    let many: Vec<i64> = (0..2_000).collect();
    assert_eq!(
        post(&scene, &[], body(&many)),
        "503 (retry) write requests in flight fill their memory budget\n"
    );
    assert_eq!(
        post(&scene, &[], body(&[1])),
        "503 (retry) write requests in flight fill their memory budget\n"
    );
}

/// A request with one series of a replica.
fn of_replica(replica: &str, timestamp: i64) -> Vec<u8> {
    of_replicas(&[("eu", replica)], timestamp)
}

/// A request with a series of each replica, by cluster.
fn of_replicas(replicas: &[(&str, &str)], timestamp: i64) -> Vec<u8> {
    let labels = |(cluster, replica): &(&str, &str)| {
        Labels::from_pairs([("__name__", "sent"), ("__replica__", replica), ("cluster", cluster)])
    };
    let labels: Vec<Labels> = replicas.iter().map(labels).collect();
    let mut batch = Batch::new();
    for labels in &labels {
        batch.push(RawLabels::Canonical(labels.as_bytes()), &[Sample { timestamp, value: 1.0 }]);
    }
    let (mut plain, mut compressed) = (Vec::new(), Vec::new());
    encode_write_request(&batch, &mut plain);
    compress(&plain, &mut compressed);
    compressed
}

#[test]
fn of_two_replicas_one_is_stored_and_the_other_told_so() {
    let clock = Arc::new(SimClock::at(NOW_MS));
    let tracker = Arc::new(Mutex::new(HaTracker::new(HaOptions::default())));
    let env = Env::in_memory_at(clock.clone());
    let scene = Scene::with_replicas(env, options(), Limits::default(), Some(tracker));
    let before = scene.store.sample_count();
    assert_eq!(post(&scene, &[], of_replica("a", 1)), "204 ");
    assert_eq!(
        post(&scene, &[], of_replica("b", 2)),
        "202 replicas did not match, rejecting sample: replica=b, elected=a\n"
    );
    assert_eq!(post(&scene, &[], body(&[3])), "204 ", "series without the labels are nobody's");
    clock.advance_ms(30_000);
    assert_eq!(post(&scene, &[], of_replica("b", 4)), "204 ");
    assert_eq!(scene.store.sample_count() - before, 3);
    assert_eq!(scene.backend.elections.load(Ordering::Relaxed), 2);
    let stored = scene.ask("GET /api/v1/series?match[]=sent%7Bcluster=%22eu%22%7D&start=0");
    assert!(stored.contains(r#"[{"__name__":"sent","cluster":"eu"}]"#), "{stored}");
    let status = scene.ask("GET /api/tidewatch/ha_tracker");
    for part in [r#""enabled":true"#, r#""replica":"b""#, r#""failovers":1"#, r#""deduplicatedSamples":1"#] {
        assert!(status.contains(part), "{part} in {status}");
    }
}

// A sender does not repeat what it got a 400 for.
#[test]
fn a_cluster_too_many_costs_its_own_samples_alone() {
    let tracker = HaTracker::new(HaOptions { clusters_max: 1, ..HaOptions::default() });
    let env = Env::in_memory_at(Arc::new(SimClock::at(NOW_MS)));
    let scene = Scene::with_replicas(env, options(), Limits::default(), Some(Arc::new(Mutex::new(tracker))));
    let before = scene.store.sample_count();
    let answer = post(&scene, &[], of_replicas(&[("eu", "a"), ("us", "a"), ("", "")], 1));
    let refused = "of more HA clusters than --ha-tracker.max-clusters";
    assert_eq!(answer, format!("400 1 of 3 samples refused (1 {refused})\n"));
    assert_eq!(scene.store.sample_count() - before, 2);
    let answer = post(&scene, &[], of_replicas(&[("us", "a")], 2));
    assert_eq!(answer, format!("400 1 of 1 samples refused (1 {refused})\n"));
    assert_eq!(scene.store.sample_count() - before, 2);
}
