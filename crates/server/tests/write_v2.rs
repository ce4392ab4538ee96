//! Remote write 2.0: requests as text, what is answered, and what the store gets.

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::Mutex;
use support::{NOW_MS, Scene, options};
use tidewatch_env::Env;
use tidewatch_env::sim::SimClock;
use tidewatch_ingest::{HaOptions, HaTracker, compress};
use tidewatch_model::Limits;
use tidewatch_server::ServerOptions;

const CONTENT_TYPE: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn number(tag: u8, text: &str, out: &mut Vec<u8>) {
    out.push(tag);
    varint(text.parse::<i64>().expect("a number") as u64, out);
}

fn double(tag: u8, text: &str, out: &mut Vec<u8>) {
    out.push(tag);
    out.extend_from_slice(&text.parse::<f64>().expect("a number").to_le_bytes());
}

fn bytes(tag: u8, content: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

fn refs(words: &[&str], out: &mut Vec<u8>) {
    let mut packed = Vec::new();
    words.iter().for_each(|word| varint(word.parse().expect("a reference"), &mut packed));
    bytes(0x0a, &packed, out);
}

/// The protobuf of a request in words: `symbols TEXT…`, where `-` is the empty text and `\xff` no text,
/// `series REF…`, and below it `sample VALUE TIME [START]`, `histogram COUNT TIME [START]`,
/// `exemplar REF… VALUE TIME`, `metadata TYPE HELP UNIT`, `created TIME`.
fn encode(text: &str) -> Vec<u8> {
    let (mut request, mut series) = (Vec::new(), None::<Vec<u8>>);
    let end = |series: &mut Option<Vec<u8>>, request: &mut Vec<u8>| {
        series.take().iter().for_each(|series| bytes(0x2a, series, request));
    };
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [kind, rest @ ..] = words.as_slice() else { continue };
        let mut message = Vec::new();
        match (*kind, rest) {
            ("symbols", texts) => texts.iter().for_each(|text| match *text {
                "-" => bytes(0x22, b"", &mut request),
                r"\xff" => bytes(0x22, b"\xff", &mut request),
                text => bytes(0x22, text.as_bytes(), &mut request),
            }),
            ("series", words) => {
                end(&mut series, &mut request);
                refs(words, series.insert(Vec::new()));
            }
            ("sample", [value, time, start @ ..]) => {
                double(0x09, value, &mut message);
                number(0x10, time, &mut message);
                start.iter().for_each(|start| number(0x18, start, &mut message));
                bytes(0x12, &message, series.as_mut().expect("a series"));
            }
            ("histogram", [count, time, start @ ..]) => {
                number(0x08, count, &mut message);
                number(0x78, time, &mut message);
                if let [start] = start {
                    message.push(0x88);
                    number(0x01, start, &mut message);
                }
                bytes(0x1a, &message, series.as_mut().expect("a series"));
            }
            ("exemplar", [words @ .., value, time]) => {
                refs(words, &mut message);
                double(0x11, value, &mut message);
                number(0x18, time, &mut message);
                bytes(0x22, &message, series.as_mut().expect("a series"));
            }
            ("metadata", [kind, help, unit]) => {
                number(0x08, kind, &mut message);
                number(0x18, help, &mut message);
                number(0x20, unit, &mut message);
                bytes(0x2a, &message, series.as_mut().expect("a series"));
            }
            ("created", [time]) => number(0x30, time, series.as_mut().expect("a series")),
            _ => panic!("what is {line:?}?"),
        }
    }
    end(&mut series, &mut request);
    request
}

/// Status, what is said to be written as `samples/histograms/exemplars`, and the text.
fn post(scene: &Scene, request: &str) -> String {
    post_body(scene, &encode(request))
}

fn post_body(scene: &Scene, body: &[u8]) -> String {
    post_as(scene, CONTENT_TYPE, body)
}

fn post_as(scene: &Scene, content_type: &str, body: &[u8]) -> String {
    let mut compressed = Vec::new();
    compress(body, &mut compressed);
    let request = hyper::Request::builder()
        .method("POST")
        .uri("/api/v1/write")
        .header("content-type", content_type)
        .header("content-encoding", "snappy")
        .header("x-prometheus-remote-write-version", "2.0.0");
    let (parts, body) = scene.send(request.body(Bytes::from(compressed)).expect("a request"));
    let written: Vec<&str> = ["samples", "histograms", "exemplars"]
        .iter()
        .filter_map(|what| parts.headers.get(format!("x-prometheus-remote-write-{what}-written")))
        .map(|count| count.to_str().expect("a number"))
        .collect();
    let text = String::from_utf8(body).expect("UTF-8");
    format!("{} {} {text}", parts.status.as_u16(), written.join("/"))
}

/// Sends a request and compares the answer, how many samples and histograms are stored, and what came
/// beside them.
#[track_caller]
fn check(request: &str, answer: &str, samples: usize, beside: &[&str]) {
    check_in(&Scene::new(), request, answer, samples, beside);
}

#[track_caller]
fn check_in(scene: &Scene, request: &str, answer: &str, samples: usize, beside: &[&str]) {
    let before = scene.store.sample_count();
    assert_eq!(post(scene, request).trim_end(), answer.trim_end());
    assert_eq!(scene.store.sample_count() - before, samples);
    assert_eq!(*scene.door.beside.lock(), beside);
    scene.door.beside.lock().clear();
}

#[test]
fn samples_histograms_exemplars_and_metadata_are_taken_and_counted_to_the_sender() {
    check(
        "symbols - __name__ up job new requests_total Requests. trace_id 7f
         series 1 2 3 4
           sample 1 1000
           sample 0 2000
           metadata 2 0 0
         series 1 5 3 4
           sample 17 1000 500
           exemplar 7 8 0.5 900
           metadata 1 6 0
         series 1 5
           histogram 12 1000 400
           metadata 1 6 0",
        "204 3/1/1",
        4,
        &[
            r#"{__name__="requests_total", job="new"} at 1000 since 500"#,
            r#"{__name__="requests_total"} histogram of 12 at 1000 since 400"#,
            r#"{__name__="requests_total", job="new"} exemplar {trace_id="7f"} 0.5 at 900"#,
            r#"up is a gauge of "": "#,
            r#"requests_total is a counter of "": Requests."#,
        ],
    );
    check("", "204 0/0/0", 0, &[]);
}

// Prometheus' receiver sorts, too: label references of some senders come in any order.
#[test]
fn a_series_is_one_however_its_references_are_ordered() {
    let scene = Scene::new();
    for (at, series) in ["1 2 3 4", "3 4 1 2", "3 4 5 0 1 2"].iter().enumerate() {
        let request = format!("symbols - __name__ sent job api other\nseries {series}\nsample 1 {at}000");
        check_in(&scene, &request, "204 1/0/0", 1, &[]);
    }
    let stored = scene.ask("GET /api/v1/series?match[]=sent&start=0");
    assert!(stored.contains(r#""data":[{"__name__":"sent","job":"api"}]"#), "{stored}");
}

#[test]
fn a_bad_series_is_refused_alone_and_named() {
    let good = "series 1 2\n sample 1 1000\n";
    for (bad, refused, why) in [
        ("series 1 2 3\n sample 1 1", 1, "labels_refs are odd in number: a name has no value"),
        ("series 1 9\n sample 1 1", 1, "reference 9 is not among the 5 symbols of the request"),
        ("series\n sample 1 1\n sample 1 2", 2, "the label __name__ is missing or empty"),
        ("series 3 4\n sample 1 1", 1, "the label __name__ is missing or empty"),
        ("series 1 0 3 4\n sample 1 1", 1, "the label __name__ is missing or empty"),
        ("series 1 2 3 0 3 4\n sample 1 1", 1, "two labels have the same name, that of reference 3"),
        (
            "series 1 2\n sample 1 1\n metadata 1 9 0",
            1,
            "reference 9 is not among the 5 symbols of the request",
        ),
        (
            "series 1 2\n sample 1 1\n histogram 1 1",
            2,
            "it has both samples and histograms: send them as two series",
        ),
    ] {
        check(
            &format!("symbols - __name__ sent job api\n{bad}\nexemplar 3 4 1 1\n{good}"),
            &format!(
                "400 1/0/0 {refused} of {} samples refused ({refused} of malformed series); \
                 the first: series 0: {why}",
                refused + 1
            ),
            1,
            &[],
        );
    }
    check(
        &format!("symbols - __name__ sent job api\n{good}series 1 2\nexemplar 3 4 1 1\nmetadata 1 4 0"),
        "400 1/0/0 1 series without samples refused; the first: series 1: it has neither samples nor histograms",
        1,
        &[],
    );
    check(
        &format!("symbols - __name__ sent job api\n{good}exemplar 3 9 1 1\nexemplar 3 4 2 1"),
        "400 1/0/1 1 malformed exemplars refused; the first: exemplar of series 0: \
         reference 9 is not among the 5 symbols of the request",
        1,
        &[r#"{__name__="sent"} exemplar {job="api"} 2 at 1"#],
    );
}

// It holds nothing that could be counted as refused, and must not pass for good.
#[test]
fn a_bad_series_without_samples_is_refused_beside_good_ones_and_alone() {
    let long = "x".repeat(17_000);
    for (bad, why) in [
        ("series 1", "labels_refs are odd in number: a name has no value"),
        ("series 77 78", "reference 77 is not among the 6 symbols of the request"),
        ("series", "the label __name__ is missing or empty"),
        ("series 3 4\n exemplar 3 4 1 1", "the label __name__ is missing or empty"),
        ("series 1 2 3 5", "the label set is longer than is allowed"),
        ("series 1 2 3 0 3 4", "two labels have the same name, that of reference 3"),
        ("series 1 2\n metadata 1 0 0", "it has neither samples nor histograms"),
    ] {
        let alone = format!("symbols - __name__ sent job api {long}\n{bad}");
        let refused = format!("1 series without samples refused; the first: series 0: {why}");
        check(&alone, &format!("400 0/0/0 {refused}"), 0, &[]);
        check(&format!("{alone}\nseries 1 2\n sample 1 1000"), &format!("400 1/0/0 {refused}"), 1, &[]);
    }
    assert_eq!(
        post_body(&Scene::new(), &[0x2a, 0].repeat(1_000_000)),
        "400 0/0/0 1000000 series without samples refused; the first: series 0: \
         the label __name__ is missing or empty\n"
    );
}

// Read as a message of 1.0 the same bytes are a request without series, and the answer would be 204.
#[test]
fn the_message_is_told_by_a_parameter_in_any_spelling_or_not_at_all() {
    let name = "io.prometheus.write.v2.Request";
    let request = encode("symbols - __name__ sent\nseries 1 2\nsample 1 1");
    for parameters in [
        format!(";proto={name}"),
        format!(";PROTO={name}"),
        format!(" ; Proto=\"{name}\" ; "),
        format!(";;charset=\"a;proto=b\";proto={name};"),
        format!("; proto={name};version=2"),
    ] {
        let answer = post_as(&Scene::new(), &format!("Application/X-Protobuf{parameters}"), &request);
        assert_eq!(answer, "204 1/0/0 ", "{parameters}");
    }
    for (parameters, cause) in [
        (format!(";proto = {name}"), &*format!("parameter \"proto = {name}\" is not of the form name=value")),
        (format!(";proto= {name}"), &format!("parameter \"proto= {name}\" is not of the form name=value")),
        (format!(";proto={name};charset"), "parameter \"charset\" is not of the form name=value"),
        (";proto".to_owned(), "parameter \"proto\" is not of the form name=value"),
        (";proto=".to_owned(), "parameter \"proto=\" is not of the form name=value"),
        (";=a".to_owned(), "parameter \"=a\" is not of the form name=value"),
        (";proto=\"a;b=c".to_owned(), "parameter \"proto=\\\"a;b=c\" is not of the form name=value"),
        (format!(";proto={name};proto={name}"), "parameter proto is there twice"),
        (";proto=prometheus.WriteRequest;Proto=x".to_owned(), "parameter proto is there twice"),
    ] {
        let content_type = format!("application/x-protobuf{parameters}");
        let answer = post_as(&Scene::new(), &content_type, &request);
        assert_eq!(answer, format!("415  Content-Type {content_type:?}: {cause}\n"));
    }
    // Of messages the case does matter.
    let answer =
        post_as(&Scene::new(), "application/x-protobuf;proto=IO.prometheus.write.v2.Request", &request);
    let known = "prometheus.WriteRequest or io.prometheus.write.v2.Request";
    let refused = "message \"IO.prometheus.write.v2.Request\" is not taken here";
    assert_eq!(answer, format!("415  {refused}: send {known}\n"));
}

// The counts are what a sender of 2.0 knows a receiver of 2.0 by; one of 1.0 gets none.
#[test]
fn every_answer_to_2_0_says_what_was_written_and_none_to_1_0_does() {
    let scene = Scene::new();
    let request = encode("symbols - __name__ sent\nseries 1 2\nsample 1 1");
    let of_1_0 = b"\x0a\x17\x0a\x10\x0a\x08__name__\x12\x04sent\x12\x03\x10\x88\x27";
    let both = |expected: &str| {
        let (status, text) = expected.split_once(' ').expect("a status and a text");
        assert_eq!(post_body(&scene, &request), format!("{status} 0/0/0 {text}\n"));
        let answer = post_as(&scene, "application/x-protobuf", of_1_0);
        assert_eq!(answer, format!("{status}  {text}\n"));
    };
    scene.backend.stopping.store(true, Ordering::Relaxed);
    both("503 the server takes no writes now");
    scene.backend.stopping.store(false, Ordering::Relaxed);
    scene.door.overloaded.store(true, Ordering::Relaxed);
    both("503 the store is at its limit: no room");
    scene.door.overloaded.store(false, Ordering::Relaxed);
    scene.backend.broken.store(true, Ordering::Relaxed);
    both("503 the write is not durable: fsync failed");
    scene.backend.broken.store(false, Ordering::Relaxed);
    assert_eq!(post_as(&scene, "application/x-protobuf", of_1_0), "204  ");
}

// A sender learns from the count that exemplars are not kept; it is no reason to refuse the samples.
#[test]
fn exemplars_count_when_they_are_kept() {
    let request = r"symbols - __name__ sent job \xff trace_id 7f
         series 1 2
           sample 1 1
           exemplar 5 6 1 1
         series 1 2 3 4
           sample 1 1
           exemplar 5 6 2 1";
    let exemplar = [r#"{__name__="sent"} exemplar {trace_id="7f"} 1 at 1"#];
    let refused = "1 of 2 samples refused (1 with invalid labels)";
    let scene = Scene::new();
    let answer = post(&scene, request);
    assert!(answer.starts_with(&format!("400 1/0/1 {refused}")), "{answer}");
    assert_eq!(*scene.door.beside.lock(), exemplar);

    let scene = Scene::new();
    scene.door.leaves_exemplars_out.store(true, Ordering::Relaxed);
    let good = "symbols - __name__ sent job api\nseries 1 2\nsample 1 1\nexemplar 3 4 1 1";
    assert_eq!(post(&scene, good), "204 1/0/0 ");
}

#[test]
fn what_the_store_refuses_is_counted_with_what_the_decoder_does() {
    let long = "x".repeat(17_000);
    check(
        &format!(
            r"symbols - __name__ sent job {long} \xff
              series 1 2
                sample 1 5
                sample 1 -5
              series 1 2 3 4
                sample 1 1
              series 1 2 3
                sample 1 1
              series 1 2 3 5
                sample 1 1
              series 1 2 3 2 3 5
                sample 1 1
                sample 2 2"
        ),
        r#"400 1/0/0 6 of 7 samples refused (3 of malformed series, 1 over a label limit, 1 too old, 1 with invalid labels); the first: series 1: the label set is longer than is allowed"#,
        1,
        &[],
    );
}

#[test]
fn symbols_need_not_begin_with_the_empty_one_and_the_first_still_means_nothing() {
    check(
        "symbols __name__ sent help
         series 0 1
           sample 1 1
           metadata 1 0 0",
        "204 1/0/0",
        1,
        &[r#"sent is a counter of "": "#],
    );
}

// In drafts the start was of the series; senders of that time are still about.
#[test]
fn the_start_of_a_whole_series_is_that_of_samples_without_their_own() {
    let request = "symbols - __name__ sent
         series 1 2
           created 100
           sample 1 1000
           sample 2 2000 1500
         series 1 2
           sample 3 3000
         series 1 2
           histogram 3 4000
           created 200";
    let since = [
        r#"{__name__="sent"} at 1000 since 100"#,
        r#"{__name__="sent"} at 2000 since 1500"#,
        r#"{__name__="sent"} histogram of 3 at 4000 since 200"#,
    ];
    check(request, "204 3/1/0", 4, &since);
    let scene = Scene::with(ServerOptions { start_timestamps: false, ..options() }, Limits::default());
    let histogram = r#"{__name__="sent"} histogram of 3 at 4000 since 0"#;
    check_in(&scene, request, "204 3/1/0", 4, &[histogram]);
}

#[test]
fn metadata_is_of_the_family_and_said_once() {
    check(
        r"symbols - __name__ d_bucket d_sum d_count e_sum Takes. seconds \xff
          series 1 2
            sample 1 1
            metadata 3 6 7
          series 1 2
            sample 1 1
            metadata 3 6 7
          series 1 5
            sample 1 1
            metadata 5 6 7
          series 1 4
            sample 1 1
            metadata 1 6 7
          series 1 3
            sample 1 1
            metadata 3 8 7",
        "204 5/0/0",
        4,
        &[
            r#"d is a histogram of "seconds": Takes."#,
            r#"e is a summary of "seconds": Takes."#,
            r#"d_count is a counter of "seconds": Takes."#,
        ],
    );
}

#[test]
fn malformed_and_oversized_requests_leave_no_trace() {
    let scene = Scene::with(options(), Limits { write_samples: 2, ..Limits::default() });
    let good = "symbols - __name__ sent\nseries 1 2\nsample 1 1\nsample 1 2\n";
    let over = encode(&format!("{good}sample 1 3"));
    assert_eq!(post_body(&scene, &over), "413 0/0/0 request holds more than 2 samples\n");
    let mut cut = encode(good);
    cut.extend_from_slice(b"\x2a\x05\x0a");
    let error = "400 0/0/0 malformed write request at byte 50: length is over the message's end\n";
    assert_eq!(post_body(&scene, &cut), error);
    assert_eq!(scene.store.sample_count(), Scene::new().store.sample_count());
    // The fields of 1.0 are none of 2.0, and the counts say so to the sender.
    let of_1_0 = b"\x0a\x17\x0a\x10\x0a\x08__name__\x12\x04sent\x12\x03\x10\x88\x27";
    check_in(&scene, "", "204 0/0/0", 0, &[]);
    assert_eq!(post_body(&scene, of_1_0), "204 0/0/0 ");
    check_in(&scene, good, "204 2/0/0", 2, &[]);
}

// The body is small, its labels are not: they wait for room as a large body does.
#[test]
fn labels_written_out_take_room_among_the_requests_in_flight() {
    let symbols = format!("symbols - __name__ {}\n", "x".repeat(15_000));
    let many = symbols + &"series 1 2\nsample 1 1\n".repeat(500);
    let small = ServerOptions { write_bytes_in_flight: 1 << 20, ..options() };
    let scene = Scene::with(small, Limits::default());
    assert_eq!(post(&scene, &many), "503 0/0/0 write requests in flight fill their memory budget\n");
    check_in(&scene, "symbols - __name__ sent\nseries 1 2\nsample 1 1", "204 1/0/0", 1, &[]);
    assert_eq!(post(&Scene::new(), &many), "204 500/0/0 ");

    let limits = Limits { write_body_bytes: 1 << 20, ..Limits::default() };
    let expected = "413 0/0/0 labels and metadata of the request, written out, are over the limit of 1048576 bytes: send fewer series\n";
    assert_eq!(post(&Scene::with(options(), limits), &many), expected);
}

// The elected replica's samples are there, so the other need not send its own again.
#[test]
fn what_is_left_out_for_another_replica_counts_as_written() {
    let tracker = Arc::new(Mutex::new(HaTracker::new(HaOptions::default())));
    let env = Env::in_memory_at(Arc::new(SimClock::at(NOW_MS)));
    let scene = Scene::with_replicas(env, options(), Limits::default(), Some(tracker));
    let of_replica = |replica: &str| {
        format!(
            "symbols - __name__ sent cluster eu __replica__ {replica} trace_id 7f
             series 1 2 5 6 3 4
               sample 1 1
               exemplar 7 8 1 1
             series 1 2 3 4 5 6
               histogram 1 2"
        )
    };
    check_in(
        &scene,
        &of_replica("a"),
        "204 1/1/1",
        2,
        &[
            r#"{__name__="sent", cluster="eu"} histogram of 1 at 2 since 0"#,
            r#"{__name__="sent", cluster="eu"} exemplar {trace_id="7f"} 1 at 1"#,
        ],
    );
    let answer = "202 1/1/1 replicas did not match, rejecting sample: replica=b, elected=a";
    check_in(&scene, &of_replica("b"), answer, 0, &[]);
    // Beside a series of nobody's, exemplars go the way of their series.
    let mixed = of_replica("b") + "\nseries 1 2\nsample 1 1\nexemplar 7 8 2 1";
    check_in(&scene, &mixed, "204 2/1/2", 1, &[r#"{__name__="sent"} exemplar {trace_id="7f"} 2 at 1"#]);
}

// Neither is stored, by nobody.
#[test]
fn exemplars_of_a_cluster_too_many_do_not_count() {
    let tracker = HaTracker::new(HaOptions { clusters_max: 1, ..HaOptions::default() });
    let env = Env::in_memory_at(Arc::new(SimClock::at(NOW_MS)));
    let scene = Scene::with_replicas(env, options(), Limits::default(), Some(Arc::new(Mutex::new(tracker))));
    check_in(
        &scene,
        "symbols - __name__ sent cluster eu us __replica__ a trace_id 7f
         series 1 2 3 4 6 7
           sample 1 1
           exemplar 8 9 1 1
         series 1 2 3 5 6 7
           sample 1 1
           exemplar 8 9 1 1",
        "400 1/0/1 1 of 2 samples refused (1 of more HA clusters than --ha-tracker.max-clusters)",
        1,
        &[r#"{__name__="sent", cluster="eu"} exemplar {trace_id="7f"} 1 at 1"#],
    );
}
