//! What a sender and a reader do: remote write to a server, and everything that it answers back,
//! bit for bit.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tidewatch_ingest::{compress, encode_write_request};
use tidewatch_model::{Batch, FloatHistogram, Labels};

use crate::http::{self, Answer};

/// Series and time, and the bits of a float or the [`fingerprint`] of a histogram.
pub type Contents = BTreeMap<(String, i64), u64>;

/// The body of a request of remote write.
pub fn body_of(batch: &Batch<'_>) -> Vec<u8> {
    let (mut plain, mut body) = (Vec::new(), Vec::new());
    encode_write_request(batch, &mut plain);
    compress(&plain, &mut body);
    body
}

pub fn send(port: u16, body: &[u8]) -> Result<Answer> {
    let headers = [("Content-Encoding", "snappy"), ("Content-Type", "application/x-protobuf")];
    http::request(port, "POST", "/api/v1/write", &headers, body)
}

pub fn write(port: u16, batch: &Batch<'_>) -> Result<Answer> {
    send(port, &body_of(batch))
}

/// A number that stands for what the API tells of a histogram: count, sum, and the counts of the
/// buckets that are not empty, from the lowest up. For histograms without negative buckets.
pub fn fingerprint(histogram: &FloatHistogram) -> u64 {
    let buckets = [histogram.zero_count].into_iter().chain(histogram.positive_buckets.iter().copied());
    digest(histogram.count, histogram.sum, buckets.filter(|count| *count != 0.0))
}

fn digest(count: f64, sum: f64, buckets: impl Iterator<Item = f64>) -> u64 {
    let all = [count, sum].into_iter().chain(buckets).map(f64::to_bits);
    all.fold(0xcbf2_9ce4_8422_2325, |hash, word| (hash ^ word).wrapping_mul(0x100_0000_01b3).rotate_left(29))
}

/// Everything that a server has of a selector's series.
pub fn contents(port: u16, selector: &str) -> Result<Contents> {
    let result = http::query(port, &format!("{selector}[30d]"))?;
    let mut contents = Contents::new();
    for series in result.as_array().context("a list of series")? {
        let pairs = series["metric"].as_object().context("labels")?;
        let labels = Labels::from_pairs(
            pairs.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default())),
        );
        let name = labels.to_string();
        let mut add = |pair: &Value, bits: u64| -> Result<()> {
            let timestamp = (pair[0].as_f64().context("a time")? * 1000.0).round() as i64;
            let twice = contents.insert((name.clone(), timestamp), bits);
            ensure!(twice.is_none(), "{name} has two samples at {timestamp}");
            Ok(())
        };
        for pair in series["values"].as_array().into_iter().flatten() {
            add(pair, number(&pair[1])?.to_bits())?;
        }
        for pair in series["histograms"].as_array().into_iter().flatten() {
            let buckets = pair[1]["buckets"].as_array().into_iter().flatten();
            let counts = buckets.map(|bucket| number(&bucket[3])).collect::<Result<Vec<_>>>()?;
            add(pair, digest(number(&pair[1]["count"])?, number(&pair[1]["sum"])?, counts.into_iter()))?;
        }
    }
    Ok(contents)
}

/// A float as the API writes it, which is exact but for the kinds of NaN.
fn number(value: &Value) -> Result<f64> {
    let text = value.as_str().with_context(|| format!("{value} is no text"))?;
    text.parse().with_context(|| format!("{text:?} is no number"))
}
