//! `load_with_nhcb`: classic histograms are loaded as native histograms with custom buckets too.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidewatch_model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};
use tidewatch_model::{FloatHistogram, Labels, METRIC_NAME};

use super::load::{LoadedSample, LoadedSeries};
use crate::store::SampleData;

/// A classic histogram at one time, as its series give it.
#[derive(Debug, Default)]
struct Classic {
    /// Upper bound and cumulative count, ascending by bound.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

/// Makes a series of native histograms of each classic histogram among `series`.
pub(super) fn convert(series: &[LoadedSeries]) -> Result<Vec<LoadedSeries>, String> {
    let mut classics: BTreeMap<Labels, BTreeMap<i64, Classic>> = BTreeMap::new();
    for one in series {
        collect(one, &mut classics);
    }
    let convert_one = |(labels, by_time): (Labels, BTreeMap<i64, Classic>)| {
        let samples: Result<Vec<LoadedSample>, String> = by_time
            .into_iter()
            .map(|(timestamp, classic)| {
                let histogram = classic.into_native()?;
                Ok(LoadedSample { timestamp, start: 0, data: SampleData::Histogram(Arc::new(histogram)) })
            })
            .collect();
        Ok(LoadedSeries { labels, samples: samples? })
    };
    classics.into_iter().map(convert_one).collect()
}

/// Adds a series to the histogram that it is part of, if it is part of one.
fn collect(series: &LoadedSeries, classics: &mut BTreeMap<Labels, BTreeMap<i64, Classic>>) {
    let Some(metric) = series.labels.metric_name() else { return };
    let parts = ["_bucket", "_count", "_sum"];
    let Some((base, part)) = parts.iter().find_map(|part| Some((metric.strip_suffix(part)?, *part))) else {
        return;
    };
    let bound = series.labels.get("le").and_then(|le| le.parse::<f64>().ok()).filter(|le| !le.is_nan());
    if part == "_bucket" && bound.is_none() {
        return;
    }
    let mut labels = series.labels.to_builder();
    labels.set(METRIC_NAME, base);
    labels.remove("le");
    let by_time = classics.entry(labels.build()).or_default();
    for sample in &series.samples {
        let SampleData::Float(value) = sample.data else { continue };
        let classic = by_time.entry(sample.timestamp).or_default();
        match (part, bound) {
            ("_bucket", Some(bound)) => classic.set_bucket(bound, value),
            ("_count", _) => classic.count = Some(value),
            _ => classic.sum = value,
        }
    }
}

impl Classic {
    /// Of two buckets with one bound the first counts.
    fn set_bucket(&mut self, bound: f64, count: f64) {
        let at = self.buckets.partition_point(|(other, _)| *other < bound);
        if self.buckets.get(at).is_none_or(|(other, _)| *other != bound) {
            self.buckets.insert(at, (bound, count));
        }
    }

    fn into_native(mut self) -> Result<FloatHistogram, String> {
        let highest = self.buckets.last().map(|(_, count)| *count);
        let Some(count) = self.count.or(highest) else {
            return Err("count must be provided when no buckets are present".to_owned());
        };
        if self.buckets.last().is_none_or(|(bound, _)| *bound != f64::INFINITY) {
            self.buckets.push((f64::INFINITY, count));
        }
        if let Some(pair) = self.buckets.windows(2).find(|pair| pair[1].1 < pair[0].1) {
            return Err(format!("count is not cumulative: {} < {}", pair[1].1, pair[0].1));
        }
        let total = self.buckets[self.buckets.len() - 1].1;
        if total != count {
            return Err(format!("count mismatch: count={count} != le=+Inf count={total}"));
        }
        let mut before = 0.0;
        let counts = self.buckets.iter().map(|(_, count)| count - std::mem::replace(&mut before, *count));
        let counts: Vec<f64> = counts.collect();
        let bounds: Vec<f64> =
            self.buckets[..self.buckets.len() - 1].iter().map(|(bound, _)| *bound).collect();
        let mut histogram = FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count,
            sum: self.sum,
            positive_spans: vec![Span { offset: 0, length: counts.len() as u32 }],
            positive_buckets: counts,
            custom_values: Some(Arc::from(bounds)),
            ..FloatHistogram::default()
        };
        histogram.compact();
        Ok(histogram)
    }
}
