//! Series of every shape that hosts and API servers send.

use std::sync::Arc;

use tidewatch_model::histogram::{CounterResetHint, Span};
use tidewatch_model::{FloatHistogram, Labels, STALE_NAN};

use super::Dice;
use crate::script::{Load, LoadedSample, LoadedSeries};
use crate::store::SampleData;

/// Samples from time 0 to `until_ms`: gauges `m`, counters `c_total` with resets, `odd` values, classic
/// buckets `b_bucket`; with `histograms` native ones `h` and `n` (custom buckets) and `mixed` with
/// floats, too. Series have an instance `i` and a group `g`, and some a path `p`.
pub fn samples(seed: u64, until_ms: i64, histograms: bool) -> Load {
    let mut dice = Dice::new(seed);
    let mut load = Load::default();
    for (name, count) in [("m", 4), ("c_total", 4), ("odd", 3), ("one", 1)] {
        for i in 0..count {
            let times = times(&mut dice, until_ms);
            let values = values(&mut dice, name, times.len());
            let data = values.into_iter().map(SampleData::Float).collect();
            load.series.push(series(labels(&mut dice, name, i), times, data));
        }
    }
    for i in 0..2 {
        buckets(&mut dice, i, until_ms, &mut load);
    }
    if histograms {
        for (name, count) in [("h", 3), ("n", 2), ("mixed", 2)] {
            for i in 0..count {
                let times = times(&mut dice, until_ms);
                let data = native(&mut dice, name, times.len());
                load.series.push(series(labels(&mut dice, name, i), times, data));
            }
        }
    }
    load
}

fn labels(dice: &mut Dice, name: &str, i: usize) -> Labels {
    let path = if dice.one_in(2) { "" } else { dice.pick(&["/", "/api", "/a b"]) };
    Labels::from_pairs([("__name__", name), ("i", &i.to_string()), ("g", ["x", "y"][i % 2]), ("p", path)])
}

fn series(labels: Labels, times: Vec<i64>, data: Vec<SampleData>) -> LoadedSeries {
    let samples = times.into_iter().zip(data);
    let samples = samples.map(|(timestamp, data)| LoadedSample { timestamp, start: 0, data });
    LoadedSeries { labels, samples: samples.collect() }
}

/// Steady, with the odd gap; or with a clock of its own that jitters.
fn times(dice: &mut Dice, until_ms: i64) -> Vec<i64> {
    let interval = *dice.pick(&[&15_000, &15_000, &20_000, &60_000]);
    let jitters = dice.one_in(3);
    let mut time = if dice.one_in(2) { 0 } else { dice.below(40_000) as i64 };
    let until = if dice.one_in(4) { until_ms / 2 } else { until_ms };
    let mut times = Vec::new();
    while time <= until {
        times.push(time);
        time += interval;
        if jitters {
            time += dice.below(3000) as i64;
        }
        if dice.one_in(25) {
            time += dice.below(400_000) as i64;
        }
    }
    times
}

fn values(dice: &mut Dice, name: &str, count: usize) -> Vec<f64> {
    let mut counter = dice.below(50) as f64;
    let fractions = dice.one_in(3);
    (0..count)
        .map(|_| {
            if dice.one_in(40) {
                return STALE_NAN;
            }
            match name {
                "c_total" => {
                    counter =
                        if dice.one_in(20) { dice.below(5) as f64 } else { counter + dice.below(30) as f64 };
                    counter
                }
                "odd" if dice.one_in(4) => {
                    *dice.pick(&[&f64::NAN, &f64::INFINITY, &f64::NEG_INFINITY, &f64::MAX, &-0.0, &5e-324])
                }
                _ if fractions => (dice.below(4000) as f64 - 2000.0) / 128.0,
                _ => dice.below(40) as f64 - 10.0,
            }
        })
        .collect()
}

/// A classic histogram, scraped as one: its buckets share their times.
fn buckets(dice: &mut Dice, i: usize, until_ms: i64, load: &mut Load) {
    let times = times(dice, until_ms);
    let bounds = ["0.1", "1", "5", "+Inf"];
    let mut counts = [0.0; 4];
    let mut columns: [Vec<SampleData>; 4] = Default::default();
    for _ in &times {
        if dice.one_in(20) {
            counts = [0.0; 4];
        }
        let mut grown = 0.0;
        for (count, column) in counts.iter_mut().zip(&mut columns) {
            grown += dice.below(4) as f64;
            *count += grown;
            // Once in a while a bucket was read before its neighbour.
            let late = f64::from(u8::from(dice.one_in(30)));
            column.push(SampleData::Float((*count - late).max(0.0)));
        }
    }
    for (bound, column) in bounds.iter().zip(columns) {
        let pairs =
            [("__name__", "b_bucket"), ("i", &i.to_string()), ("g", ["x", "y"][i % 2]), ("le", bound)];
        load.series.push(series(Labels::from_pairs(pairs), times.clone(), column));
    }
}

fn native(dice: &mut Dice, name: &str, count: usize) -> Vec<SampleData> {
    let schema = *dice.pick(&[&0, &1, &2, &-1]);
    let gauge = dice.one_in(4);
    let mut counts = [0.0; 4];
    (0..count)
        .map(|_| {
            if name == "mixed" && dice.one_in(3) {
                return SampleData::Float(dice.below(20) as f64);
            }
            if dice.one_in(20) {
                counts = [0.0; 4];
            }
            counts.iter_mut().for_each(|count| *count += dice.below(5) as f64);
            let hint = if gauge { CounterResetHint::Gauge } else { CounterResetHint::Unknown };
            let histogram =
                if name == "n" { custom(counts, hint) } else { exponential(counts, schema, hint) };
            SampleData::Histogram(Arc::new(histogram))
        })
        .collect()
}

fn exponential(counts: [f64; 4], schema: i32, hint: CounterResetHint) -> FloatHistogram {
    let [zero, low, high, negative] = counts;
    FloatHistogram {
        hint,
        schema,
        zero_threshold: 0.0625,
        zero_count: zero,
        count: counts.iter().sum(),
        sum: low + 3.0 * high - negative,
        positive_spans: vec![Span { offset: 0, length: 1 }, Span { offset: 1, length: 1 }],
        positive_buckets: vec![low, high],
        negative_spans: vec![Span { offset: 1, length: 1 }],
        negative_buckets: vec![negative],
        custom_values: None,
    }
}

fn custom(counts: [f64; 4], hint: CounterResetHint) -> FloatHistogram {
    FloatHistogram {
        hint,
        schema: tidewatch_model::histogram::CUSTOM_BUCKETS_SCHEMA,
        count: counts.iter().sum(),
        sum: counts[0] + 2.0 * counts[1] + 4.0 * counts[2] + 16.0 * counts[3],
        positive_spans: vec![Span { offset: 0, length: 4 }],
        positive_buckets: counts.to_vec(),
        custom_values: Some([1.0, 2.0, 8.0].into()),
        ..FloatHistogram::default()
    }
}
