//! What an OpenMetrics answer brings beside samples: exemplars, start timestamps, metadata.

use std::sync::{Arc, Mutex};

use tidewatch_env::sim::SimClock;
use tidewatch_env::{Clock, Env};
use tidewatch_model::{Batch, RawLabels};
use tidewatch_scrape::{Fetched, InProcess, ScrapeConfig, ScrapeOptions, Scraper, Sink, SinkOutcome};

/// Remembers in words what the target's series bring.
#[derive(Default)]
struct Store(Mutex<Vec<String>>);

fn text(labels: RawLabels<'_>) -> String {
    let pairs = labels.pairs().map(|pair| pair.expect("labels are well formed"));
    let pairs = pairs.filter(|(name, _)| !matches!(*name, b"instance" | b"job"));
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    pairs.map(|(name, value)| format!("{}={}", text(name), text(value))).collect::<Vec<_>>().join(",")
}

impl Sink for Store {
    fn append(&self, batch: &Batch<'_>) -> SinkOutcome {
        let mut lines = self.0.lock().expect("nobody panics");
        lines.clear();
        for series in &batch.series {
            for at in series.samples.start as usize..series.samples.end as usize {
                let labels = text(series.labels);
                if !labels.contains("=scrape_") && !labels.contains("=up") {
                    lines.push(format!("{labels} {} since {}", batch.samples[at].value, batch.start_of(at)));
                }
            }
        }
        lines.extend(batch.exemplars.iter().map(|exemplar| {
            let (series, labels) = (text(exemplar.series), text(exemplar.labels));
            format!("{series} exemplar {labels} {} at {}", exemplar.value, exemplar.timestamp)
        }));
        lines.extend(batch.metadata.iter().map(|m| format!("{} {} {:?}", m.family, m.kind.as_str(), m.help)));
        SinkOutcome { accepted: batch.samples.len() as u64, ..SinkOutcome::default() }
    }
}

const DOCUMENT: &str = "\
# HELP requests Requests.
# TYPE requests counter
requests_total{code=\"200\"} 17 # {trace_id=\"a\"} 0.5 12.5
requests_created{code=\"200\"} 100.25
requests_total{code=\"500\"} 1
# TYPE latency histogram
latency_created 50
latency_bucket{le=\"1.0\"} 3 # {trace_id=\"b\"} 0.25
latency_bucket{le=\"+Inf\"} 4
latency_count 4
latency_sum 9
# TYPE heat gauge
heat_created 7
# EOF
";

/// Scrapes the document twice; gives what the store got of each.
fn scrape(exemplars: bool, start_timestamps: bool) -> [Vec<String>; 2] {
    let clock = Arc::new(SimClock::at(1_000_000));
    let options = ScrapeOptions { exemplars, start_timestamps, ..ScrapeOptions::default() };
    let scraper = Scraper::new(Env::in_memory_at(clock.clone()), options);
    let mut job = ScrapeConfig::new("job");
    (job.scrape_interval_ms, job.scrape_timeout_ms) = (10_000, 5_000);
    let source = Arc::new(Vec::new);
    job.in_process = vec![InProcess { address: "a".to_owned(), labels: Vec::new(), source }];
    scraper.apply(vec![job]).expect("a good job");
    let store = Store::default();
    [(); 2].map(|()| {
        scraper.refresh();
        let next_ns = scraper.next_ns().expect("something is due");
        clock.advance_ms(next_ns.saturating_sub(clock.monotonic_ns()).div_ceil(1_000_000));
        for task in scraper.due() {
            let content_type = Some("application/openmetrics-text; version=1.0.0".to_owned());
            scraper.finish(task, Ok(Fetched { body: DOCUMENT.into(), content_type }), &store);
        }
        store.0.lock().expect("nobody panics").clone()
    })
}

#[test]
fn starts_exemplars_and_news_of_families_go_to_the_store() {
    let [first, second] = scrape(true, true);
    let samples = [
        "__name__=requests_total,code=200 17 since 100250",
        "__name__=requests_total,code=500 1 since 0",
        "__name__=latency_bucket,le=1.0 3 since 50000",
        "__name__=latency_bucket,le=+Inf 4 since 50000",
        "__name__=latency_count 4 since 50000",
        "__name__=latency_sum 9 since 50000",
        "__name__=heat_created 7 since 0",
    ];
    assert_eq!(first[..7], samples);
    assert_eq!(first[7], "__name__=requests_total,code=200 exemplar trace_id=a 0.5 at 12500");
    assert!(
        first[8].starts_with("__name__=latency_bucket,le=1.0 exemplar trace_id=b 0.25 at 100"),
        "{first:?}"
    );
    let news = ["heat gauge \"\"", "latency histogram \"\"", "requests counter \"Requests.\""];
    assert_eq!(first[9..], news);
    assert_eq!(second[..7], samples);
    assert_eq!(second.len(), 9, "families that did not change are not named again: {second:?}");
}

#[test]
fn without_the_features_there_are_plain_series_only() {
    let [_, second] = scrape(false, false);
    assert_eq!(second.len(), 9, "{second:?}");
    assert!(second.contains(&"__name__=requests_created,code=200 100.25 since 0".to_owned()));
}
