//! What one answer of a target adds to the store: samples, staleness markers, and the series in
//! which a scrape reports about itself.

mod read;

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tidewatch_ingest::Format;
use tidewatch_model::{
    Batch, BatchExemplar, Exemplar, LabelsBuilder, Metadata, RawLabels, STALE_NAN, Sample,
};

use crate::cache::{SeriesCache, SeriesId};
use crate::lines::Lines;
use crate::metadata::{Family, MetadataStore};
use crate::starts::Starts;
use crate::target::{Target, report_labels};
use crate::{ScrapeConfig, Sink, room};

/// Names of the series that each scrape writes about itself, in the order of [`Report::values`].
const REPORTS: [&str; 8] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
    "scrape_timeout_seconds",
    "scrape_sample_limit",
    "scrape_body_size_bytes",
];
/// Those of them that are written without `extra_scrape_metrics`.
const PLAIN_REPORTS: usize = 5;

/// An answer with status 200.
#[derive(Debug, Clone)]
pub struct Fetched {
    pub body: Bytes,
    pub content_type: Option<String>,
}

impl Fetched {
    /// An answer in the Prometheus text format.
    pub fn text(body: Vec<u8>) -> Fetched {
        Fetched { body: body.into(), content_type: Some("text/plain; version=0.0.4".to_owned()) }
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchError {
    /// For the target's `lastError`.
    pub message: String,
    pub is_body_too_large: bool,
}

/// What one scrape found.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Report {
    pub(crate) duration_seconds: f64,
    /// Samples in the answer.
    scraped: usize,
    /// Those that relabelling left.
    kept: usize,
    series_added: usize,
    body_bytes: i64,
    /// Why the scrape failed.
    pub(crate) error: Option<String>,
    /// Why the store took nothing of it, which is no fault of the target.
    pub(crate) sink_error: Option<String>,
}

impl Report {
    fn values(&self, config: &ScrapeConfig, target: &Target) -> [f64; REPORTS.len()] {
        [
            if self.error.is_none() { 1.0 } else { 0.0 },
            self.duration_seconds,
            self.scraped as f64,
            self.kept as f64,
            self.series_added as f64,
            target.timeout_ms as f64 / 1000.0,
            config.sample_limit as f64,
            self.body_bytes as f64,
        ]
    }
}

/// What holds for the loops of all targets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoopOptions {
    pub(crate) samples_max: usize,
    pub(crate) exemplars: bool,
    pub(crate) start_timestamps: bool,
}

/// The memory of one target between its scrapes.
pub(crate) struct TargetLoop {
    target: Arc<Target>,
    config: Arc<ScrapeConfig>,
    /// Samples that one scrape may bring.
    samples_max: usize,
    /// Whether exemplars are kept.
    keeps_exemplars: bool,
    /// Start timestamps of the answer, where they are kept.
    starts: Option<Starts>,
    cache: SeriesCache,
    lines: Lines,
    /// The grammar of the last answer.
    format: Format,
    /// In remote write's spelling.
    report_labels: Vec<Vec<u8>>,
    /// A scrape was written: there is something to end.
    has_written: bool,
    /// A successor has taken over, or the series are ended: nothing more is written.
    is_retired: bool,
    /// Reused from scrape to scrape: samples of the answer, vanished series, a label set.
    samples: Vec<(SeriesId, Sample)>,
    /// When the counters of some of the samples started, by their place.
    started: Vec<(usize, i64)>,
    exemplars: Vec<(SeriesId, Exemplar)>,
    /// What is new about families.
    news: Vec<(String, Family)>,
    stale: Vec<Bytes>,
    builder: LabelsBuilder,
    batch: Batch<'static>,
}

impl TargetLoop {
    pub(crate) fn new(
        target: Arc<Target>,
        config: Arc<ScrapeConfig>,
        options: &LoopOptions,
        seed: u64,
    ) -> TargetLoop {
        let report_labels = REPORTS.iter().map(|name| report_labels(name, &target).spelled()).collect();
        TargetLoop {
            target,
            config,
            samples_max: options.samples_max,
            keeps_exemplars: options.exemplars,
            starts: options.start_timestamps.then(|| Starts::new(seed)),
            cache: SeriesCache::new(seed),
            lines: Lines::new(seed),
            format: Format::Prometheus,
            report_labels,
            has_written: false,
            is_retired: false,
            samples: Vec::new(),
            started: Vec::new(),
            exemplars: Vec::new(),
            news: Vec::new(),
            stale: Vec::new(),
            builder: LabelsBuilder::new(),
            batch: Batch::new(),
        }
    }

    /// Takes over from the loop of the same target under an older configuration, which then
    /// writes no more.
    pub(crate) fn inherit(&mut self, predecessor: &mut TargetLoop) {
        self.cache.inherit(&predecessor.cache);
        self.has_written = predecessor.has_written;
        predecessor.is_retired = true;
    }

    /// Reads an answer, or takes note that there is none, and writes what follows to the sink as
    /// one batch. `None` where a successor has taken over.
    pub(crate) fn complete(
        &mut self,
        at_ms: i64,
        duration_seconds: f64,
        fetched: Result<Fetched, FetchError>,
        metadata: &Mutex<MetadataStore>,
        sink: &dyn Sink,
    ) -> Option<Report> {
        if self.is_retired {
            return None;
        }
        let mut report = Report { duration_seconds, ..Report::default() };
        self.cache.begin();
        self.lines.begin();
        self.clear();
        let result = match fetched {
            Ok(fetched) => {
                report.body_bytes = fetched.body.len() as i64;
                self.read(&fetched, at_ms, metadata, &mut report)
            }
            Err(error) => {
                report.body_bytes = if error.is_body_too_large { -1 } else { 0 };
                Err(error.message)
            }
        };
        self.lines.finish(result.is_ok());
        match result {
            Ok(()) => self.cache.finish(&mut self.stale),
            Err(error) => {
                // A failed scrape is all or nothing: no sample of it is kept.
                self.clear();
                self.cache.fail(&mut self.stale);
                report.error = Some(error);
            }
        }
        {
            let mut metadata = metadata.lock();
            metadata.finish(self.cache.scrape());
            self.news = metadata.take_news();
        }
        let written = if self.config.extra_scrape_metrics { REPORTS.len() } else { PLAIN_REPORTS };
        let values = report.values(&self.config, &self.target);
        report.sink_error = self.write(at_ms, &values[..written], sink);
        self.has_written = true;
        Some(report)
    }

    /// Ends every series of a target that is gone.
    pub(crate) fn end(&mut self, at_ms: i64, sink: &dyn Sink) {
        if self.is_retired || !self.has_written {
            return;
        }
        self.is_retired = true;
        self.clear();
        self.cache.fail(&mut self.stale);
        let written = if self.config.extra_scrape_metrics { REPORTS.len() } else { PLAIN_REPORTS };
        self.write(at_ms, &[STALE_NAN; REPORTS.len()][..written], sink);
    }

    fn clear(&mut self) {
        room::empty(&mut self.samples);
        room::empty(&mut self.started);
        room::empty(&mut self.exemplars);
        room::empty(&mut self.stale);
        if let Some(starts) = &mut self.starts {
            starts.clear();
        }
    }

    /// Hands samples, markers and reports to the sink. Gives the sink's error.
    fn write(&mut self, at_ms: i64, reports: &[f64], sink: &dyn Sink) -> Option<String> {
        let mut batch = std::mem::take(&mut self.batch).recycle();
        for (id, sample) in &self.samples {
            batch.push(RawLabels::Proto(self.cache.labels(*id)), &[*sample]);
        }
        if !self.started.is_empty() {
            batch.starts.resize(self.samples.len(), 0);
            self.started.iter().for_each(|(place, start)| batch.starts[*place] = *start);
        }
        batch.exemplars.extend(self.exemplars.iter().map(|(id, exemplar)| BatchExemplar {
            series: RawLabels::Proto(self.cache.labels(*id)),
            labels: RawLabels::Canonical(exemplar.labels.as_bytes()),
            value: exemplar.value,
            timestamp: exemplar.timestamp,
        }));
        batch.metadata.extend(self.news.iter().map(|(family, known)| Metadata {
            family,
            kind: known.kind,
            help: &known.help,
            unit: &known.unit,
        }));
        let marker = Sample { timestamp: at_ms, value: STALE_NAN };
        for labels in &self.stale {
            batch.push(RawLabels::Proto(labels), &[marker]);
        }
        for (labels, value) in self.report_labels.iter().zip(reports) {
            let sample = Sample { timestamp: at_ms, value: *value };
            batch.push(RawLabels::Proto(labels), &[sample]);
        }
        let outcome = sink.append(&batch);
        if outcome.refused > 0 {
            tracing::warn!(
                target_url = %self.target.url,
                refused = outcome.refused,
                "the store refused samples of a scrape"
            );
        }
        if let Some(error) = &outcome.error {
            tracing::warn!(target_url = %self.target.url, %error, "the store did not take all of a scrape");
        }
        room::empty(&mut batch.series);
        room::empty(&mut batch.samples);
        room::empty(&mut batch.starts);
        room::empty(&mut batch.exemplars);
        room::empty(&mut batch.metadata);
        self.batch = batch.recycle();
        self.news = Vec::new();
        outcome.error
    }
}
