//! What one answer of a target adds to the store: samples, staleness markers, and the series in
//! which a scrape reports about itself.

use std::sync::Arc;

use parking_lot::Mutex;
use tidewatch_ingest::{Entry, Format, Parser, Series, negotiate};
use tidewatch_model::{
    Batch, BatchExemplar, Exemplar, Labels, LabelsBuilder, METRIC_NAME, Metadata, NameValidation, RawLabels,
    STALE_NAN, Sample, quote, relabel,
};

use crate::cache::{Known, SeriesCache, SeriesId};
use crate::metadata::{Family, MetadataStore};
use crate::starts::Starts;
use crate::target::{Target, merge_labels, report_labels};
use crate::{ScrapeConfig, ScrapeProtocol, Sink};

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
    pub body: bytes::Bytes,
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
    report_labels: Vec<Labels>,
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
    stale: Vec<Labels>,
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
        let report_labels = REPORTS.iter().map(|name| report_labels(name, &target)).collect();
        TargetLoop {
            target,
            config,
            samples_max: options.samples_max,
            keeps_exemplars: options.exemplars,
            starts: options.start_timestamps.then(|| Starts::new(seed)),
            cache: SeriesCache::new(seed),
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
        self.samples.clear();
        self.started.clear();
        self.exemplars.clear();
        self.stale.clear();
    }

    /// Hands samples, markers and reports to the sink. Gives the sink's error.
    fn write(&mut self, at_ms: i64, reports: &[f64], sink: &dyn Sink) -> Option<String> {
        let mut batch = std::mem::take(&mut self.batch).recycle();
        for (id, sample) in &self.samples {
            batch.push(RawLabels::Canonical(self.cache.labels(*id).as_bytes()), &[*sample]);
        }
        if !self.started.is_empty() {
            batch.starts.resize(self.samples.len(), 0);
            self.started.iter().for_each(|(place, start)| batch.starts[*place] = *start);
        }
        batch.exemplars.extend(self.exemplars.iter().map(|(id, exemplar)| BatchExemplar {
            series: RawLabels::Canonical(self.cache.labels(*id).as_bytes()),
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
            batch.push(RawLabels::Canonical(labels.as_bytes()), &[marker]);
        }
        for (labels, value) in self.report_labels.iter().zip(reports) {
            let sample = Sample { timestamp: at_ms, value: *value };
            batch.push(RawLabels::Canonical(labels.as_bytes()), &[sample]);
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
        self.batch = batch.recycle();
        self.news.clear();
        outcome.error
    }

    /// Reads the whole answer into [`TargetLoop::samples`].
    fn read(
        &mut self,
        fetched: &Fetched,
        at_ms: i64,
        metadata: &Mutex<MetadataStore>,
        report: &mut Report,
    ) -> Result<(), String> {
        if fetched.body.is_empty() {
            return Ok(());
        }
        let format = self.format(fetched)?;
        let mut parser = Parser::new(&fetched.body, format);
        let scrape = self.cache.scrape();
        let mut is_over_limit = false;
        loop {
            match parser.next_entry().map_err(|error| error.message)? {
                Entry::Series(series) => {
                    report.scraped += 1;
                    is_over_limit |= self.read_series(&parser, &series, at_ms, report)?;
                }
                Entry::Type { family, kind } => {
                    metadata.lock().set_kind(family, kind, scrape);
                    if let Some(starts) = &mut self.starts {
                        starts.family(family, kind, |place, start| self.started.push((place, start)));
                    }
                }
                Entry::Help { family, text } => metadata.lock().set_help(family, &text, scrape),
                Entry::Unit { family, unit } => metadata.lock().set_unit(family, unit, scrape),
                Entry::Comment(_) => {}
                Entry::Eof => break,
            }
        }
        if let Some(starts) = &mut self.starts {
            starts.finish(|place, start| self.started.push((place, start)));
        }
        if is_over_limit { Err("sample limit exceeded".to_owned()) } else { Ok(()) }
    }

    fn format(&self, fetched: &Fetched) -> Result<Format, String> {
        let fallback = self.config.fallback_scrape_protocol.map(ScrapeProtocol::format);
        let negotiated =
            negotiate(fetched.content_type.as_deref(), fallback).map_err(|error| error.message)?;
        if let Some(warning) = negotiated.warning {
            tracing::debug!(target_url = %self.target.url, warning);
        }
        Ok(negotiated.format)
    }

    /// Takes one sample; `true` where the sample limit is exceeded, after which samples are only
    /// counted.
    fn read_series(
        &mut self,
        parser: &Parser<'_>,
        series: &Series<'_>,
        at_ms: i64,
        report: &mut Report,
    ) -> Result<bool, String> {
        if self.starts.as_mut().is_some_and(|starts| starts.take(parser, series)) {
            return Ok(false);
        }
        let (known, labels) = match self.cache.find(series.text) {
            Some(Known::Dropped) => return Ok(false),
            Some(Known::Series(id)) => (Some(id), None),
            None => match self.new_labels(parser)? {
                None => {
                    self.cache.add_dropped(series.text);
                    return Ok(false);
                }
                labels => (None, labels),
            },
        };
        report.kept += 1;
        if self.samples.len() >= self.sample_limit() {
            return Ok(true);
        }
        let id = match (known, labels) {
            (Some(id), _) => id,
            (None, labels) => {
                let labels = labels.expect("a text that is not known gave labels");
                let (id, is_new) = self.cache.add(series.text, labels);
                report.series_added += usize::from(is_new);
                id
            }
        };
        let timestamp = series.timestamp.filter(|_| self.config.honor_timestamps);
        let is_tracked = timestamp.is_none() || self.config.track_timestamps_staleness;
        // A second sample at the scrape's own time is a duplicate: the first stays.
        let is_first = self.cache.note_sample(id, is_tracked);
        if is_first || timestamp.is_some() {
            let timestamp = timestamp.unwrap_or(at_ms);
            if let Some(starts) = &mut self.starts {
                starts.note(parser, series, self.samples.len());
            }
            self.samples.push((id, Sample { timestamp, value: series.value }));
            self.read_exemplar(parser, series, id, timestamp)?;
        }
        Ok(false)
    }

    fn read_exemplar(
        &mut self,
        parser: &Parser<'_>,
        series: &Series<'_>,
        id: SeriesId,
        timestamp: i64,
    ) -> Result<(), String> {
        if let Some(exemplar) = series.exemplar.filter(|_| self.keeps_exemplars) {
            parser.exemplar_labels(&mut self.builder).map_err(|error| error.message)?;
            let (labels, value) = (self.builder.build(), exemplar.value);
            let timestamp = exemplar.timestamp.unwrap_or(timestamp);
            self.exemplars.push((id, Exemplar { labels, value, timestamp }));
        }
        Ok(())
    }

    fn sample_limit(&self) -> usize {
        match self.config.sample_limit {
            0 => self.samples_max,
            limit => usize::try_from(limit).unwrap_or(usize::MAX).min(self.samples_max),
        }
    }

    /// The labels of a series that was not seen before, with those of the target, relabelled and
    /// checked. `None` where relabelling drops it.
    fn new_labels(&mut self, parser: &Parser<'_>) -> Result<Option<Labels>, String> {
        parser.labels(&mut self.builder).map_err(|error| error.message)?;
        merge_labels(&mut self.builder, &self.target.labels, self.config.honor_labels);
        if !relabel(&mut self.builder, &self.config.metric_relabel_configs) || self.builder.is_empty() {
            return Ok(None);
        }
        let labels = self.builder.build();
        let Some(name) = labels.metric_name() else {
            return Err("missing metric name (__name__ label)".to_owned());
        };
        if !has_valid_names(&labels, name, self.config.names) {
            return Err(format!("invalid metric name or label names: {labels}"));
        }
        check_label_limits(&self.config, &labels, name)?;
        Ok(Some(labels))
    }
}

fn has_valid_names(labels: &Labels, name: &str, names: NameValidation) -> bool {
    // Colons are for metric names alone.
    names.is_label_name(&name.replace(':', "_"))
        && labels.iter().all(|(label, _)| label == METRIC_NAME || names.is_label_name(label))
}

fn check_label_limits(config: &ScrapeConfig, labels: &Labels, metric: &str) -> Result<(), String> {
    let exceeds = |size: usize, limit: u64| limit > 0 && size as u64 > limit;
    let metric = shortened(metric);
    let (count, limit) = (labels.len(), config.label_limit);
    if exceeds(count, limit) {
        return Err(format!(
            "label_limit exceeded (metric: {metric}, number of labels: {count}, limit: {limit})"
        ));
    }
    for (name, value) in labels.iter() {
        let (length, limit) = (name.len(), config.label_name_length_limit);
        if exceeds(length, limit) {
            return Err(format!(
                "label_name_length_limit exceeded (metric: {metric}, label name: {}, length: {length}, limit: {limit})",
                shortened(name)
            ));
        }
        let (length, limit) = (value.len(), config.label_value_length_limit);
        if exceeds(length, limit) {
            return Err(format!(
                "label_value_length_limit exceeded (metric: {metric}, label name: {}, value: {}, length: {length}, limit: {limit})",
                shortened(name),
                quote(shortened(value)),
            ));
        }
    }
    Ok(())
}

/// The first fifty characters: a message must not become as long as what it refuses.
fn shortened(text: &str) -> &str {
    text.char_indices().nth(50).map_or(text, |(at, _)| &text[..at])
}
