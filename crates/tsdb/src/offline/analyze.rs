//! What a block is made of: where its series and their churn come from.

use hashbrown::HashMap;
use tidewatch_model::{METRIC_NAME, Matcher};

use crate::block::{Block, BlockError, Cursor};
use crate::status::TopEntry;

/// The largest of each kind, largest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Analysis {
    pub series: u64,
    pub label_names: u64,
    pub matched: u64,
    /// Distinct pairs of the series that matched, and all their pairs.
    pub pairs: u64,
    pub entries: u64,
    /// Share of the block's time that series with this pair, or name, do not cover, in whole series.
    pub churn_by_pair: Vec<TopEntry>,
    pub churn_by_name: Vec<TopEntry>,
    pub series_by_pair: Vec<TopEntry>,
    /// Bytes of all values.
    pub bytes_by_name: Vec<TopEntry>,
    pub values_by_name: Vec<TopEntry>,
    pub series_by_metric: Vec<TopEntry>,
}

#[derive(Default)]
struct Counts {
    series: u64,
    uncovered_ms: u64,
}

/// Analyzes the series of a block that satisfy `matchers`; each list has at most `limit` entries.
pub fn analyze(block: &Block, matchers: &[Matcher], limit: usize) -> Result<Analysis, BlockError> {
    let meta = block.meta();
    let span_ms = meta.end_ms.wrapping_sub(meta.start_ms) as u64;
    let mut cursor = Cursor::default();
    let (mut of_pairs, mut of_names): (HashMap<(String, String), Counts>, HashMap<String, Counts>) =
        Default::default();
    let mut analysis = Analysis { series: meta.series, ..Analysis::default() };
    for series in &block.select(matchers)? {
        analysis.matched += 1;
        let covered =
            block.span(&mut cursor, series)?.map_or(0, |span| span.end.wrapping_sub(span.start) as u64);
        let uncovered_ms = span_ms.saturating_sub(covered);
        for (name, value) in block.labels(&mut cursor, series)?.iter() {
            analysis.entries += 1;
            let pair = of_pairs.entry((name.to_owned(), value.to_owned())).or_default();
            pair.series += 1;
            pair.uncovered_ms += uncovered_ms;
            of_names.entry(name.to_owned()).or_default().uncovered_ms += uncovered_ms;
        }
    }
    analysis.pairs = of_pairs.len() as u64;
    analysis.label_names = of_names.len() as u64;
    let (mut bytes, mut values): (HashMap<&str, u64>, HashMap<&str, u64>) = Default::default();
    for (name, value) in of_pairs.keys() {
        *bytes.entry(name).or_default() += value.len() as u64;
        *values.entry(name).or_default() += 1;
    }
    let churn = |counts: &Counts| (counts.uncovered_ms as f64 / span_ms.max(1) as f64) as u64;
    let pairs = || of_pairs.iter().map(|((name, value), counts)| (format!("{name}={value}"), counts));
    analysis.churn_by_pair = top(pairs().map(|(pair, counts)| (pair, churn(counts))), limit);
    analysis.churn_by_name = top(of_names.iter().map(|(name, counts)| (name.clone(), churn(counts))), limit);
    analysis.series_by_pair = top(pairs().map(|(pair, counts)| (pair, counts.series)), limit);
    analysis.bytes_by_name = top(bytes.into_iter().map(|(name, n)| (name.to_owned(), n)), limit);
    analysis.values_by_name = top(values.into_iter().map(|(name, n)| (name.to_owned(), n)), limit);
    let metrics = of_pairs.iter().filter(|((name, _), _)| name == METRIC_NAME);
    analysis.series_by_metric =
        top(metrics.map(|((_, metric), counts)| (metric.clone(), counts.series)), limit);
    Ok(analysis)
}

fn top(entries: impl Iterator<Item = (String, u64)>, limit: usize) -> Vec<TopEntry> {
    let mut entries: Vec<TopEntry> = entries.map(|(name, count)| TopEntry { name, count }).collect();
    entries.sort_unstable_by(|a, b| b.count.cmp(&a.count).then_with(|| a.name.cmp(&b.name)));
    entries.truncate(limit);
    entries
}
