//! The load: hosts that all run what the recording recorded, each with a phase and a scale of
//! its own, sent as remote-write requests.
//!
//! Values are kept as the decimals that were exposed and scaled as integers, so that a host's
//! counter has the digits that a real one has: adding floats would fill the mantissa with noise
//! and flatter or punish codecs.

use anyhow::{Context, Result};

use crate::recording::Recording;

/// Seconds between two scrapes of a host.
pub const STEP_S: usize = 15;

/// How many samples a request carries at most, as Prometheus sends by default.
const SAMPLES_PER_REQUEST: usize = 2_000;

/// One series' values over the recording.
enum Column {
    /// `mantissa / 10^exponent`; a counter goes on rising when the recording starts over.
    Decimal { exponent: i32, mantissas: Vec<i64>, counter: bool },
    /// Values that are no short decimals, replayed as they are.
    Float(Vec<f64>),
}

/// A fleet of hosts.
pub struct Load {
    ticks: usize,
    columns: Vec<Column>,
    /// For each host, for each series, the `labels` fields of its `TimeSeries`.
    labels: Vec<Vec<Vec<u8>>>,
}

impl Load {
    /// `hosts` hosts with the first `series` series of the recording each.
    pub fn new(recording: &Recording, hosts: usize, series: usize) -> Result<Load> {
        let series = series.min(recording.series.len());
        let parsed: Vec<Vec<(String, String)>> =
            recording.series[..series].iter().map(|text| parse_series(text)).collect::<Result<_>>()?;
        let labels =
            (0..hosts).map(|host| parsed.iter().map(|pairs| encode_labels(pairs, host)).collect()).collect();
        let columns = recording.values[..series].iter().map(|values| column(values)).collect();
        Ok(Load { ticks: recording.ticks(), columns, labels })
    }

    pub fn series_count(&self) -> usize {
        self.labels.iter().map(Vec::len).sum()
    }

    /// The `labels` fields of a series of a host.
    pub fn labels(&self, host: usize, series: usize) -> &[u8] {
        &self.labels[host][series]
    }

    /// The value of a series at a scrape.
    pub fn value(&self, host: usize, series: usize, step: usize) -> f64 {
        let at = step * STEP_S + host * 7;
        let cycle = at / self.ticks;
        // Each time round starts a second later, so that no value is replayed in the same place.
        let tick = (at + cycle) % self.ticks;
        match &self.columns[series] {
            Column::Float(values) => values[tick],
            Column::Decimal { exponent, mantissas, counter } => {
                let scale = (1 + host % 5) as i64;
                let mut mantissa = mantissas[tick];
                if *counter {
                    let rise = mantissas[mantissas.len() - 1] - mantissas[0];
                    mantissa += rise * ((at + cycle) / self.ticks) as i64;
                    mantissa = mantissa.saturating_mul(scale);
                }
                mantissa as f64 / 10f64.powi(*exponent)
            }
        }
    }

    /// The requests that carry one scrape of all hosts, compressed, with their sample counts.
    /// `worker` of `workers` gives its share of the hosts.
    pub fn requests(
        &self,
        step: usize,
        start_ms: i64,
        worker: usize,
        workers: usize,
    ) -> Vec<(Vec<u8>, usize)> {
        let mut requests = Vec::new();
        let (mut body, mut count) = (Vec::new(), 0);
        for host in (worker..self.labels.len()).step_by(workers) {
            // Scrapes of a host keep their place within the interval.
            let timestamp = start_ms + (step * STEP_S * 1000 + (host * 137) % 15_000) as i64;
            for (series, labels) in self.labels[host].iter().enumerate() {
                encode_series(&mut body, labels, timestamp, self.value(host, series, step));
                count += 1;
                if count == SAMPLES_PER_REQUEST {
                    requests.push((compress(&body), count));
                    body.clear();
                    count = 0;
                }
            }
        }
        if count > 0 {
            requests.push((compress(&body), count));
        }
        requests
    }
}

fn column(values: &[f64]) -> Column {
    for exponent in 0..=6 {
        let power = 10f64.powi(exponent);
        let mantissas: Vec<i64> = values.iter().map(|v| (v * power).round() as i64).collect();
        let exact = mantissas.iter().zip(values).all(|(m, v)| m.abs() < 1 << 50 && *m as f64 / power == *v);
        if exact {
            let counter = mantissas.windows(2).all(|w| w[0] <= w[1]) && mantissas.first() != mantissas.last();
            return Column::Decimal { exponent, mantissas, counter };
        }
    }
    Column::Float(values.to_vec())
}

/// Name and labels of an exposed series.
fn parse_series(text: &str) -> Result<Vec<(String, String)>> {
    let (name, rest) = text.split_once('{').unwrap_or((text, "}"));
    let mut pairs = vec![("__name__".to_owned(), name.to_owned())];
    let mut rest = rest;
    while let Some((label, tail)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut chars = tail.char_indices();
        let end = loop {
            match chars.next().context("an unfinished label value")? {
                (at, '"') => break at,
                (_, '\\') => match chars.next().context("an unfinished escape")?.1 {
                    'n' => value.push('\n'),
                    c => value.push(c),
                },
                (_, c) => value.push(c),
            }
        };
        pairs.push((label.trim_start_matches(',').to_owned(), value));
        rest = &tail[end + 1..];
    }
    Ok(pairs)
}

fn encode_labels(pairs: &[(String, String)], host: usize) -> Vec<u8> {
    let mut pairs: Vec<(&str, String)> = pairs.iter().map(|(n, v)| (n.as_str(), v.clone())).collect();
    pairs.push(("instance", format!("host-{host:04}.example.com:9100")));
    pairs.push(("job", "node".to_owned()));
    pairs.sort();
    let mut out = Vec::new();
    for (name, value) in pairs {
        let mut label = Vec::new();
        put_bytes(&mut label, 0x0a, name.as_bytes());
        put_bytes(&mut label, 0x12, value.as_bytes());
        put_bytes(&mut out, 0x0a, &label);
    }
    out
}

fn encode_series(body: &mut Vec<u8>, labels: &[u8], timestamp: i64, value: f64) {
    let mut sample = [0u8; 24];
    sample[0] = 0x09;
    sample[1..9].copy_from_slice(&value.to_le_bytes());
    sample[9] = 0x10;
    let mut len = 10;
    let mut rest = timestamp as u64;
    loop {
        let more = rest >= 0x80;
        sample[len] = rest as u8 & 0x7f | u8::from(more) << 7;
        len += 1;
        rest >>= 7;
        if !more {
            break;
        }
    }
    body.push(0x0a);
    put_varint(body, (labels.len() + 2 + len) as u64);
    body.extend_from_slice(labels);
    put_bytes(body, 0x12, &sample[..len]);
}

fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn compress(body: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(body).expect("a request is far below snappy's 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_keep_rising_when_the_recording_starts_over() {
        let recording = Recording {
            series: vec!["c_total{x=\"a,\\\"b\"}".to_owned(), "g".to_owned()],
            values: vec![vec![0.25, 0.5, 1.75], vec![3.0, 1.0, 2.0]],
        };
        let load = Load::new(&recording, 2, 10).expect("valid series");
        let counter: Vec<f64> = (0..50).map(|step| load.value(1, 0, step)).collect();
        assert!(counter.windows(2).all(|w| w[0] <= w[1]), "{counter:?}");
        assert!(counter[49] > 100.0);
        assert_eq!(parse_series(&recording.series[0]).expect("valid")[1].1, "a,\"b");
        assert_eq!(load.requests(0, 0, 0, 1)[0].1, 4);
    }
}
