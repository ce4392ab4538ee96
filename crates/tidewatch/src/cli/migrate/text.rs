//! Exports as text: OpenMetrics with what is known of metrics and with exemplars, and JSON lines.
//!
//! OpenMetrics wants the samples of a family together, so the series are put in the order of their
//! families. An exemplar stands on the first sample of its series that is not older than it: that is
//! where whoever wrote it had put it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io::Write;

use anyhow::Result;
use tidewatch_migrate::{jsonl, openmetrics};
use tidewatch_model::{Exemplar, Labels, Matcher, MetricType};
use tidewatch_storage::TimeRange;
use tidewatch_tsdb::block::StoredValues;
use tidewatch_tsdb::{Db, FamilyMetadata};

use super::export::{Counts, Union, leave_histograms, visit_floats};
use super::progress::Progress;

/// Writes a JSON object for each run of samples.
pub fn write_jsonl(
    db: &Db,
    selectors: &[Vec<Matcher>],
    range: TimeRange,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Counts> {
    let mut text = String::new();
    let counts = visit_floats(db, selectors, range, err, &mut |labels, timestamps, values| {
        text.clear();
        jsonl::write(&mut text, labels, timestamps, values);
        Ok(out.write_all(text.as_bytes())?)
    })?;
    out.flush()?;
    Ok(counts)
}

/// How many descriptions of metrics there are that a format without a place for them leaves out.
pub fn count_metadata(db: &Db, selectors: &[Vec<Matcher>], range: TimeRange) -> Result<u64> {
    let metadata: HashMap<String, FamilyMetadata> = db.metadata().into_iter().collect();
    if metadata.is_empty() {
        return Ok(0);
    }
    let union = Union::select(db, selectors, range)?;
    let families = families(&union, &metadata, &mut Counts::default());
    let known: BTreeSet<&str> =
        families.values().filter_map(|family| family.known.as_ref()).map(|(name, _)| name.as_str()).collect();
    Ok(known.len() as u64)
}

/// The series of a family, by their numbers, and what is known of it.
#[derive(Default)]
struct Family {
    series: Vec<usize>,
    /// The name under which it is known, and its kind.
    known: Option<(String, MetricType)>,
}

/// Writes a line for each sample.
pub fn write_openmetrics(
    db: &Db,
    selectors: &[Vec<Matcher>],
    range: TimeRange,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Counts> {
    let union = Union::select(db, selectors, range)?;
    let mut counts = Counts::default();
    let metadata: HashMap<String, FamilyMetadata> = db.metadata().into_iter().collect();
    let families = families(&union, &metadata, &mut counts);
    let mut exemplars: HashMap<Labels, VecDeque<Exemplar>> =
        db.exemplars(selectors, range)?.into_iter().map(|(labels, of)| (labels, of.into())).collect();
    let mut progress = Progress::start("export", union.len() as u64);
    let (mut done, mut in_force) = (0, MetricType::Unknown);
    for (name, family) in &families {
        let mut text = String::new();
        if let Some((known, kind)) = &family.known {
            let FamilyMetadata { help, unit, .. } = &metadata[known];
            openmetrics::write_family(&mut text, name, *kind, help, unit);
        } else if in_force != MetricType::Unknown {
            // Readers go by the kind that was said last, and write `le` and `quantile` anew by it.
            openmetrics::write_family(&mut text, name, MetricType::Unknown, "", "");
        }
        in_force = family.known.as_ref().map_or(MetricType::Unknown, |(_, kind)| *kind);
        for series in &family.series {
            let labels = union.labels(*series);
            let prefix = openmetrics::series_text(labels).expect("nameless ones are in no family");
            let may_have = labels.metric_name().is_some_and(openmetrics::takes_exemplars);
            // Those that may not stand here stay where they are counted.
            let mut waiting = may_have.then(|| exemplars.remove(labels)).flatten().unwrap_or_default();
            union.visit_one(*series, range, &mut counts, &mut |_, run, counts| {
                let StoredValues::Floats(values) = run.values else {
                    leave_histograms(run, counts);
                    return Ok(());
                };
                let before = text.len();
                for (time, value) in run.timestamps.iter().zip(values) {
                    let exemplar = waiting.front().filter(|exemplar| exemplar.timestamp <= *time);
                    if !openmetrics::write_line(&mut text, &prefix, *time, *value, exemplar) {
                        counts.markers += 1;
                        counts.samples -= 1;
                    } else if exemplar.is_some() {
                        counts.exemplars += 1;
                        waiting.pop_front();
                    }
                }
                // What is said of a family comes with its first sample.
                if text.len() > before {
                    out.write_all(text.as_bytes())?;
                    text.clear();
                }
                Ok(())
            })?;
            counts.exemplars_left += waiting.len() as u64;
            done += 1;
            progress.set(done, err, || format!("{done} series"));
        }
    }
    counts.exemplars_left += exemplars.values().map(|of| of.len() as u64).sum::<u64>();
    out.write_all(openmetrics::EOF.as_bytes())?;
    out.flush()?;
    Ok(counts)
}

/// The families of the series that have a name, by their names.
fn families(
    union: &Union,
    metadata: &HashMap<String, FamilyMetadata>,
    counts: &mut Counts,
) -> BTreeMap<String, Family> {
    let kind_of = |name: &str| metadata.get(name).map(|known| known.kind);
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for series in 0..union.len() {
        let Some(metric) = union.labels(series).metric_name() else {
            counts.nameless += 1;
            continue;
        };
        let openmetrics::Place { family, known, kind } = openmetrics::place_of(metric, &kind_of);
        let known = known.map(|known| (known, kind));
        let place = families.get(&family);
        if place.is_some_and(|place| place.known.is_some() && place.known != known) {
            // Something else of that name is known: a gauge `x` beside a counter `x_total`.
            families.entry(metric.to_owned()).or_default().series.push(series);
            continue;
        }
        let place = families.entry(family).or_default();
        place.known = known.or_else(|| place.known.take());
        place.series.push(series);
    }
    for (name, family) in &mut families {
        if let Some((_, kind)) = &mut family.known {
            let mut labels = family.series.iter().map(|series| union.labels(*series));
            if !labels.all(|labels| openmetrics::keeps_labels(name, *kind, labels)) {
                *kind = MetricType::Unknown;
            }
        }
    }
    families
}

#[cfg(test)]
mod tests {
    use tidewatch_env::Env;
    use tidewatch_model::{Batch, Metadata, RawLabels, Sample};
    use tidewatch_storage::Append;
    use tidewatch_tsdb::DbOptions;

    use super::*;

    #[test]
    fn descriptions_are_counted_that_the_format_leaves_out() {
        let db = Db::in_memory(Env::in_memory(), DbOptions::new(""));
        let all: Vec<Labels> = ["up", "wait_seconds_bucket", "wait_seconds_count", "unknown"]
            .map(|name| Labels::from_pairs([("__name__", name)]))
            .to_vec();
        let mut batch = Batch::new();
        let sample = [Sample { timestamp: 1000, value: 1.0 }];
        all.iter().for_each(|labels| batch.push(RawLabels::Canonical(labels.as_bytes()), &sample));
        for (family, kind) in [
            ("up", MetricType::Gauge),
            ("wait_seconds", MetricType::Histogram),
            ("nobodys", MetricType::Gauge),
        ] {
            batch.metadata.push(Metadata { family, kind, help: "What it is.", unit: "" });
        }
        db.append(&batch).expect("takes writes");
        let range = TimeRange { start: i64::MIN, end: i64::MAX };
        let count = |name: &str| {
            let matchers = match name {
                "" => Vec::new(),
                name => vec![Matcher::equal("__name__", name)],
            };
            count_metadata(&db, &[matchers], range).expect("complete")
        };
        assert_eq!(["", "up", "wait_seconds_count", "unknown"].map(count), [2, 1, 1, 0]);
    }
}
