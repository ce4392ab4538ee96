//! `load`: samples at equal distances, from time 0.

use std::sync::{Arc, LazyLock};

use regex::Regex;
use tidewatch_model::{Labels, parse_duration_ms, quote};
use tidewatch_parser::{ParseErrors, SequenceValue, parse_series_description};

use super::{Lines, histograms, misplaced, starts};
use crate::store::SampleData;

static LOAD: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^load(?:_(with_nhcb))?\s+(.+?)$").expect("a valid expression"));

/// Samples to append, series by series.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Load {
    /// The command's line, counted from 1.
    pub line: usize,
    pub series: Vec<LoadedSeries>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LoadedSeries {
    pub labels: Labels,
    /// Ascending in time.
    pub samples: Vec<LoadedSample>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LoadedSample {
    pub timestamp: i64,
    /// When the counter started; 0 where that is not known.
    pub start: i64,
    pub data: SampleData,
}

impl Load {
    /// Makes a load of series descriptions, one sample each `interval_ms` from `from_ms` on.
    pub fn from_descriptions<'a>(
        descriptions: impl IntoIterator<Item = &'a str>,
        from_ms: i64,
        interval_ms: i64,
    ) -> Result<Load, ParseErrors> {
        let mut load = Load::default();
        for description in descriptions {
            let (labels, values) = parse_series_description(description)?;
            load.set(labels, samples(&values, from_ms, interval_ms, |_, _| 0));
        }
        Ok(load)
    }

    /// A later description of the same series replaces the earlier.
    fn set(&mut self, labels: Labels, samples: Vec<LoadedSample>) {
        match self.series.iter_mut().find(|series| series.labels == labels) {
            Some(series) => series.samples = samples,
            None => self.series.push(LoadedSeries { labels, samples }),
        }
    }
}

/// Places a sequence in time. `start_of` gives the start for an index and a timestamp.
fn samples(
    values: &[SequenceValue],
    from_ms: i64,
    interval_ms: i64,
    start_of: impl Fn(usize, i64) -> i64,
) -> Vec<LoadedSample> {
    let placed = values.iter().enumerate().map(|(i, value)| (i, from_ms + i as i64 * interval_ms, value));
    placed
        .filter_map(|(i, timestamp, value)| {
            let data = match value {
                SequenceValue::Omitted => return None,
                SequenceValue::Float(value) => SampleData::Float(*value),
                SequenceValue::Histogram { histogram, .. } => SampleData::Histogram(Arc::clone(histogram)),
            };
            Some(LoadedSample { timestamp, start: start_of(i, timestamp), data })
        })
        .collect()
}

/// Start times that wait for the samples they belong to.
struct Pending {
    labels: Labels,
    offsets: Vec<Option<i64>>,
}

pub(super) fn read(lines: &mut Lines<'_>) -> Result<Load, String> {
    let line = lines.at + 1;
    let header = lines.next_of_command().expect("the caller peeked");
    let Some(parts) = LOAD.captures(header) else {
        return Err(misplaced("invalid load command. (load[_with_nhcb] <step:duration>)".to_owned()));
    };
    let interval_ms = parse_duration_ms(&parts[2])
        .map_err(|error| misplaced(format!("invalid step definition {}: {error}", quote(&parts[2]))))?;
    let mut load = Load { line, series: Vec::new() };
    let mut default_offsets: Vec<Option<i64>> = Vec::new();
    let mut pending: Option<Pending> = None;
    while let Some(description) = lines.next_of_command() {
        let number = lines.at - 1;
        if let Some((metric, sequence)) = starts::split_line(description) {
            if pending.is_some() {
                return Err(misplaced("@st line has no following sample line".to_owned()));
            }
            let offsets = start_offsets_of(sequence)?;
            if metric.is_empty() {
                default_offsets = offsets;
                continue;
            }
            let (labels, _) = read_series(&format!("{metric} _"), number)
                .map_err(|error| misplaced(format!("invalid @st line metric {}: {error}", quote(metric))))?;
            pending = Some(Pending { labels, offsets });
            continue;
        }
        let (labels, values) = read_series(description, number)?;
        let offsets = match pending.take() {
            Some(pending) => matching_offsets(pending, &labels, values.len())?,
            None => Vec::new(),
        };
        let start_of = |i: usize, timestamp: i64| {
            let offset = match (offsets.get(i), default_offsets.as_slice()) {
                (Some(offset), _) => *offset,
                (None, []) => None,
                (None, default) => default[i % default.len()],
            };
            offset.map_or(0, |offset| timestamp + offset)
        };
        load.set(labels, samples(&values, 0, interval_ms, start_of));
    }
    if pending.is_some() {
        return Err(misplaced("@st line has no following sample line".to_owned()));
    }
    if parts.get(1).is_some() {
        let converted = histograms::convert(&load.series)?;
        load.series.extend(converted);
    }
    Ok(load)
}

fn start_offsets_of(sequence: &str) -> Result<Vec<Option<i64>>, String> {
    starts::start_offsets(sequence).map_err(|error| misplaced(format!("invalid @st sequence: {error}")))
}

fn matching_offsets(pending: Pending, labels: &Labels, count: usize) -> Result<Vec<Option<i64>>, String> {
    if pending.labels != *labels {
        return Err(misplaced("@st metric does not match the following sample line metric".to_owned()));
    }
    if pending.offsets.len() != count {
        return Err(misplaced(format!(
            "@st line has {} values but sample line has {count}",
            pending.offsets.len()
        )));
    }
    Ok(pending.offsets)
}

/// Reads a series description; a mistake names its place in the script.
pub(super) fn read_series(
    description: &str,
    lines_before: usize,
) -> Result<(Labels, Vec<SequenceValue>), String> {
    parse_series_description(description).map_err(|errors| {
        let first = errors.first();
        let place = first.pos.start_in_lines(description, lines_before);
        format!("{place}: parse error: {}", first.message)
    })
}
