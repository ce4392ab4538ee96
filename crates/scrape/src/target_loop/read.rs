//! Reading one answer: its samples, and what it says about families.
//!
//! ```text
//! line ─ a known one of metadata, where it came last time? ─► skipped
//!      ─ a known series, where it came last time? ─► its value
//!      ─ else ─► the grammar ─► labels, relabelled and checked, where the series is new
//! ```

use parking_lot::Mutex;
use tidewatch_ingest::{Entry, Format, Parser, Series, negotiate};
use tidewatch_model::{Exemplar, Labels, METRIC_NAME, MetricType, NameValidation, Sample, quote, relabel};

use super::{Fetched, Report, TargetLoop};
use crate::cache::{Known, SeriesId};
use crate::metadata::MetadataStore;
use crate::target::merge_labels;
use crate::{ScrapeConfig, ScrapeProtocol};

impl TargetLoop {
    /// Reads the whole answer into [`TargetLoop::samples`].
    pub(super) fn read(
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
        if std::mem::replace(&mut self.format, format) != format {
            self.cache.expect_nothing();
            self.lines.expect_nothing();
        }
        loop {
            // Start timestamps ask for the labels of series that are known, and for all types.
            let likely = if self.starts.is_none() { self.cache.likely() } else { &[] };
            if self.starts.is_none()
                && let Some(kind) = parser.comment_ahead().and_then(|line| self.lines.skip(line))
            {
                parser.skip_line(kind);
                continue;
            }
            match parser.next_entry_like(likely).map_err(|error| error.message)? {
                Entry::Series(series) => {
                    is_over_limit |= self.read_series(&parser, &series, at_ms, report)?;
                }
                Entry::Type { family, kind } => {
                    self.read_line(&parser, fetched, Some(kind), metadata);
                    metadata.lock().set_kind(family, kind, scrape);
                    if let Some(starts) = &mut self.starts {
                        starts.family(family, kind, |place, start| self.started.push((place, start)));
                    }
                }
                Entry::Help { family, text } => {
                    self.read_line(&parser, fetched, None, metadata);
                    metadata.lock().set_help(family, &text, scrape);
                }
                Entry::Unit { family, unit } => {
                    self.read_line(&parser, fetched, None, metadata);
                    metadata.lock().set_unit(family, unit, scrape);
                }
                Entry::Comment(_) => {}
                Entry::Eof => break,
            }
        }
        if self.lines.are_fewer() {
            self.read_skipped(&fetched.body, metadata);
        }
        if let Some(starts) = &mut self.starts {
            starts.finish(|place, start| self.started.push((place, start)));
        }
        if is_over_limit { Err("sample limit exceeded".to_owned()) } else { Ok(()) }
    }

    /// Notes a line of metadata that is not as in the last scrape, and has those read that were.
    fn read_line(
        &mut self,
        parser: &Parser<'_>,
        fetched: &Fetched,
        kind: Option<MetricType>,
        metadata: &Mutex<MetadataStore>,
    ) {
        let line = parser.line();
        if self.lines.read(line, kind) {
            self.read_skipped(&fetched.body[..parser.position() - line.len()], metadata);
        }
        metadata.lock().begin(self.cache.scrape());
    }

    /// Reads the metadata of a part of an answer that was skipped as known.
    fn read_skipped(&self, part: &[u8], metadata: &Mutex<MetadataStore>) {
        let (mut metadata, scrape) = (metadata.lock(), self.cache.scrape());
        metadata.begin(scrape);
        let mut parser = Parser::new(part, self.format);
        loop {
            match parser.next_entry() {
                Ok(Entry::Type { family, kind }) => metadata.set_kind(family, kind, scrape),
                Ok(Entry::Help { family, text }) => metadata.set_help(family, &text, scrape),
                Ok(Entry::Unit { family, unit }) => metadata.set_unit(family, unit, scrape),
                Ok(Entry::Series(_) | Entry::Comment(_)) => {}
                // In the middle of an answer there is no end either.
                Ok(Entry::Eof) | Err(_) => break,
            }
        }
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
        report.scraped += 1;
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
        if timestamp.is_some() && self.config.track_timestamps_staleness {
            self.cache.track(id);
        }
        // A second sample at the scrape's own time is a duplicate: the first stays. Of samples at equal times
        // of their own the store keeps the first.
        if timestamp.is_some() || self.cache.note_sample(id) {
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
        let is_honored = |name: &str| self.config.honor_labels && parser.has_label(name);
        merge_labels(&mut self.builder, &self.target.labels, is_honored);
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
