//! What an OpenMetrics answer brings beside samples: exemplars, start timestamps, metadata.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use tidewatch_env::sim::SimClock;
use tidewatch_env::{Clock, Env};
use tidewatch_model::{Batch, RawLabels};
use tidewatch_scrape::{Fetched, InProcess, ScrapeConfig, ScrapeOptions, Scraper, Sink, SinkOutcome};

/// The one report that is remembered: how many samples an answer had.
const SCRAPED: &str = "__name__=scrape_samples_scraped";

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
                let is_report = labels.contains("=scrape_") || labels.contains("=up");
                if !is_report || labels == SCRAPED {
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

/// Scrapes the documents, one after the other; gives what the store got of each.
fn scrape(documents: &[String], exemplars: bool, start_timestamps: bool) -> Vec<Vec<String>> {
    let clock = Arc::new(SimClock::at(1_000_000));
    let options = ScrapeOptions { exemplars, start_timestamps, ..ScrapeOptions::default() };
    let scraper = Scraper::new(Env::in_memory_at(clock.clone()), options);
    let mut job = ScrapeConfig::new("job");
    (job.scrape_interval_ms, job.scrape_timeout_ms) = (10_000, 5_000);
    let source = Arc::new(Vec::new);
    job.in_process = vec![InProcess { address: "a".to_owned(), labels: Vec::new(), source }];
    scraper.apply(vec![job]).expect("a good job");
    let store = Store::default();
    let scrape = |document: &String| {
        scraper.refresh();
        let next_ns = scraper.next_ns().expect("something is due");
        clock.advance_ms(next_ns.saturating_sub(clock.monotonic_ns()).div_ceil(1_000_000));
        for task in scraper.due() {
            let content_type = Some("application/openmetrics-text; version=1.0.0".to_owned());
            scraper.finish(task, Ok(Fetched { body: document.clone().into(), content_type }), &store);
        }
        store.0.lock().expect("nobody panics").clone()
    };
    documents.iter().map(scrape).collect()
}

/// Scrapes the same document twice.
fn scrape_twice(exemplars: bool, start_timestamps: bool) -> [Vec<String>; 2] {
    let documents = [DOCUMENT.to_owned(), DOCUMENT.to_owned()];
    scrape(&documents, exemplars, start_timestamps).try_into().expect("two answers")
}

/// Lines about three families, and their series; `@` becomes the number of the scrape.
const LINES: &[&str] = &[
    "# HELP a One.",
    "# HELP a Another.",
    "# TYPE a gauge",
    "# TYPE a info",
    "a @",
    "# HELP b Two.",
    "# TYPE b gauge",
    "b @",
    "b{x=\"y\"} @.5",
    "# TYPE c unknown",
    "c @",
];

/// What the store should get of a scrape, by a plain walk over the lines.
fn expected(
    lines: &[&str],
    scrape: usize,
    families: &mut BTreeMap<String, (String, String, usize)>,
) -> Vec<String> {
    let (mut samples, mut news) = (Vec::new(), BTreeMap::new());
    for line in lines {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        if words[0] != "#" {
            let name = words[0].replace('{', ",").replace("=\"", "=").replace("\"}", "");
            samples.push(format!("__name__={name} {} since 0", words[1].replace('@', &scrape.to_string())));
            continue;
        }
        let family = words[2].to_owned();
        let unknown = || ("unknown".to_owned(), String::new(), 0);
        let is_new = !families.contains_key(&family);
        let known = families.entry(family.clone()).or_insert_with(unknown);
        let before = (known.0.clone(), known.1.clone());
        let part = if words[1] == "HELP" { &mut known.1 } else { &mut known.0 };
        *part = words[3].to_owned();
        known.2 = scrape;
        if is_new || before != (known.0.clone(), known.1.clone()) {
            news.insert(family, ());
        }
    }
    let news: Vec<String> =
        news.keys().map(|f| format!("{f} {} {:?}", families[f].0, families[f].1)).collect();
    families.retain(|_, known| scrape - known.2 <= 10);
    samples.into_iter().chain(news).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// Whatever lines come, go and change between scrapes, the store gets what their words say.
    #[test]
    fn what_was_known_and_what_is_new_reach_the_store_alike(
        documents in prop::collection::vec((prop::sample::subsequence((0..LINES.len()).collect::<Vec<_>>(), 0..LINES.len()), any::<bool>(), 1usize..14), 1..6),
    ) {
        let mut all = Vec::new();
        for (mut lines, is_turned, times) in documents {
            // A family has one help and one type, and what comes after it may change places.
            lines.retain(|line| !matches!(line, 1 | 3) || is_turned);
            lines.retain(|line| !matches!(line, 0 | 2) || !is_turned);
            if is_turned {
                lines.reverse();
            }
            all.extend(std::iter::repeat_n(lines, times));
        }
        let lines = |lines: &Vec<usize>| lines.iter().map(|line| LINES[*line]).collect::<Vec<_>>();
        let documents: Vec<String> = (0..all.len())
            .map(|at| lines(&all[at]).iter().map(|line| line.replace('@', &at.to_string()) + "\n").collect::<String>() + "# EOF\n")
            .collect();
        let mut families = BTreeMap::new();
        for (at, got) in scrape(&documents, false, false).into_iter().enumerate() {
            // Markers of what has vanished stand behind the samples.
            let is_shown = |line: &String| !line.contains(" NaN ") && !line.starts_with(SCRAPED);
            let got: Vec<String> = got.into_iter().filter(is_shown).collect();
            prop_assert_eq!(got, expected(&lines(&all[at]), at, &mut families), "scrape {}", at);
        }
    }
}

#[test]
fn starts_exemplars_and_news_of_families_go_to_the_store() {
    let [first, second] = scrape_twice(true, true);
    let samples = [
        "__name__=requests_total,code=200 17 since 100250",
        "__name__=requests_total,code=500 1 since 0",
        "__name__=latency_bucket,le=1.0 3 since 50000",
        "__name__=latency_bucket,le=+Inf 4 since 50000",
        "__name__=latency_count 4 since 50000",
        "__name__=latency_sum 9 since 50000",
        "__name__=heat_created 7 since 0",
        "__name__=scrape_samples_scraped 7 since 0",
    ];
    assert_eq!(first[..8], samples);
    assert_eq!(first[8], "__name__=requests_total,code=200 exemplar trace_id=a 0.5 at 12500");
    assert!(
        first[9].starts_with("__name__=latency_bucket,le=1.0 exemplar trace_id=b 0.25 at 100"),
        "{first:?}"
    );
    let news = ["heat gauge \"\"", "latency histogram \"\"", "requests counter \"Requests.\""];
    assert_eq!(first[10..], news);
    assert_eq!(second[..8], samples);
    assert_eq!(second.len(), 10, "families that did not change are not named again: {second:?}");
}

// What a scrape that failed has left must not reach the samples of the next.
#[test]
fn starts_of_a_failed_scrape_are_forgotten() {
    let cut = DOCUMENT.split("# TYPE heat").next().expect("the part before it").to_owned();
    let next = "requests_created 1\n# TYPE a gauge\na 1\n# EOF\n".to_owned();
    let [failed, next] = scrape(&[cut, next], true, true).try_into().expect("two answers");
    let is_sample = |line: &String| line.contains(" since ") && !line.starts_with(SCRAPED);
    let samples = |lines: Vec<String>| lines.into_iter().filter(is_sample).collect();
    let (failed, next): (Vec<String>, Vec<String>) = (samples(failed), samples(next));
    assert_eq!(failed, [""; 0]);
    assert_eq!(next, ["__name__=requests_created 1 since 0", "__name__=a 1 since 0"]);
}

#[test]
fn without_the_features_there_are_plain_series_only() {
    let [_, second] = scrape_twice(false, false);
    assert_eq!((second.len(), &*second[9]), (10, "__name__=scrape_samples_scraped 9 since 0"));
    assert!(second.contains(&"__name__=requests_created,code=200 100.25 since 0".to_owned()));
}
