//! Query values as JSON, written piece by piece.

use tidewatch_model::{FloatHistogram, InstantSample, RangeSeries, SampleValue, Value, format_float};
use tidewatch_promql::{Held, PlanNode, QueryStatistics};

use crate::body::{More, Producer};
use crate::json::{Json, push_float, push_timestamp};

/// Points that are written in one go: about as much text as a piece of a body.
const POINTS_A_STEP: usize = 2_000;

/// The field `stats` of an answer.
pub(crate) struct Stats {
    pub(crate) queued_ns: u64,
    pub(crate) total_ns: u64,
    pub(crate) statistics: QueryStatistics,
}

/// A lower bound for the length of the value's text.
pub(crate) fn least_bytes(value: &Value) -> usize {
    // `[1435781451,"1"],` and the frame of a series.
    const POINT: usize = 17;
    const SERIES: usize = 12;
    match value {
        Value::Scalar { .. } => POINT,
        Value::String { value, .. } => value.len(),
        Value::Vector(samples) => samples.iter().map(|s| s.labels.as_bytes().len() + SERIES + POINT).sum(),
        Value::Matrix(series) => series
            .iter()
            .map(|s| s.labels.as_bytes().len() + SERIES + (s.floats.len() + s.histograms.len()) * POINT)
            .sum(),
    }
}

/// Writes `{"resultType": …, "result": …, "stats": …}`. Keeps the value's part of the memory until it is
/// written.
pub(crate) fn producer(value: Value, stats: Option<Stats>, held: Held) -> Producer {
    let mut tail = Vec::new();
    if let Some(stats) = stats {
        tail.push(b',');
        Json::new(&mut tail).key("stats").object(|json| write_stats(json, &stats));
    }
    tail.push(b'}');
    let mut writer = Writer { value, next: 0, point: 0, tail, _held: held };
    let mut begun = false;
    Box::new(move |out| {
        if !begun {
            begun = true;
            out.extend_from_slice(b"{\"resultType\":\"");
            out.extend_from_slice(result_type(&writer.value).as_bytes());
            out.extend_from_slice(b"\",\"result\":");
        }
        writer.write(out)
    })
}

fn result_type(value: &Value) -> &'static str {
    match value {
        Value::Scalar { .. } => "scalar",
        Value::String { .. } => "string",
        Value::Vector(_) => "vector",
        Value::Matrix(_) => "matrix",
    }
}

/// Where the writing of a value stands.
struct Writer {
    value: Value,
    /// The series that is next, or in the middle of which we are.
    next: usize,
    /// How many of its points are written.
    point: usize,
    tail: Vec<u8>,
    _held: Held,
}

impl Writer {
    fn write(&mut self, out: &mut Vec<u8>) -> More {
        let more = match &self.value {
            Value::Scalar { timestamp, value } => {
                Json::new(out).list(|json| {
                    json.timestamp(*timestamp);
                    // Without an exponent, other than a vector's values.
                    json.string(&format_float(*value));
                });
                More::Nothing
            }
            Value::String { timestamp, value } => {
                Json::new(out).list(|json| {
                    json.timestamp(*timestamp);
                    json.string(value);
                });
                More::Nothing
            }
            Value::Vector(samples) => {
                if self.next == 0 {
                    out.push(b'[');
                }
                let end = samples.len().min(self.next + 100);
                for (index, sample) in samples[self.next..end].iter().enumerate() {
                    if self.next + index > 0 {
                        out.push(b',');
                    }
                    write_sample(out, sample);
                }
                self.next = end;
                if end == samples.len() { More::Nothing } else { More::Follows }
            }
            Value::Matrix(series) => {
                if self.next == 0 && self.point == 0 {
                    out.push(b'[');
                }
                match series.get(self.next) {
                    None => More::Nothing,
                    Some(one) => {
                        if self.next > 0 && self.point == 0 {
                            out.push(b',');
                        }
                        self.point = write_series(out, one, self.point);
                        if self.point == one.floats.len() + one.histograms.len() {
                            self.next += 1;
                            self.point = 0;
                        }
                        if self.next == series.len() { More::Nothing } else { More::Follows }
                    }
                }
            }
        };
        if more == More::Nothing {
            if matches!(self.value, Value::Vector(_) | Value::Matrix(_)) {
                out.push(b']');
            }
            out.append(&mut self.tail);
        }
        more
    }
}

fn write_sample(out: &mut Vec<u8>, sample: &InstantSample) {
    out.extend_from_slice(b"{\"metric\":");
    Json::new(out).labels(&sample.labels);
    match &sample.value {
        SampleValue::Float(value) => {
            out.extend_from_slice(b",\"value\":");
            write_float_point(out, sample.timestamp, *value);
        }
        SampleValue::Histogram(histogram) => {
            out.extend_from_slice(b",\"histogram\":");
            write_histogram_point(out, sample.timestamp, histogram);
        }
    }
    out.push(b'}');
}

/// Writes a series from its `point`th point on, at most [`POINTS_A_STEP`] of them; gives how many
/// are written then. Floats come before histograms.
fn write_series(out: &mut Vec<u8>, series: &RangeSeries, point: usize) -> usize {
    let floats = series.floats.len();
    let all = floats + series.histograms.len();
    if point == 0 {
        out.extend_from_slice(b"{\"metric\":");
        Json::new(out).labels(&series.labels);
    }
    let end = all.min(point + POINTS_A_STEP);
    for index in point..end {
        if index == 0 && floats > 0 {
            out.extend_from_slice(b",\"values\":[");
        } else if index == floats {
            out.extend_from_slice(b",\"histograms\":[");
        } else {
            out.push(b',');
        }
        if index < floats {
            let (timestamp, value) = series.floats[index];
            write_float_point(out, timestamp, value);
        } else {
            let (timestamp, histogram) = &series.histograms[index - floats];
            write_histogram_point(out, *timestamp, histogram);
        }
        if index + 1 == floats || index + 1 == all {
            out.push(b']');
        }
    }
    if end == all {
        out.push(b'}');
    }
    end
}

fn write_float_point(out: &mut Vec<u8>, timestamp: i64, value: f64) {
    out.push(b'[');
    push_timestamp(out, timestamp);
    out.extend_from_slice(b",\"");
    push_float(out, value);
    out.extend_from_slice(b"\"]");
}

fn write_histogram_point(out: &mut Vec<u8>, timestamp: i64, histogram: &FloatHistogram) {
    out.push(b'[');
    let mut json = Json::new(out);
    json.timestamp(timestamp);
    json.object(|json| {
        json.key("count").float(histogram.count);
        json.key("sum").float(histogram.sum);
        let mut buckets = histogram.all_buckets().filter(|bucket| bucket.count != 0.0).peekable();
        if buckets.peek().is_some() {
            json.key("buckets").array(buckets, |json, bucket| {
                json.list(|json| {
                    json.integer(match (bucket.lower_inclusive, bucket.upper_inclusive) {
                        (false, true) => 0,
                        (true, false) => 1,
                        (false, false) => 2,
                        (true, true) => 3,
                    });
                    json.float(bucket.lower);
                    json.float(bucket.upper);
                    json.float(bucket.count);
                });
            });
        }
    });
    out.push(b']');
}

/// One node of a plan and those below it. Recursion is bounded by the parser's limit on depth.
pub(super) fn write_plan(json: &mut Json<'_>, node: &PlanNode) {
    json.object(|json| {
        json.key("operation").string(&node.operation);
        if let Some(subject) = &node.subject {
            json.key("subject").string(subject);
        }
        json.key("once").bool(node.once);
        json.key("repeated").bool(node.repeated);
        json.key("busySeconds").number(node.busy_ns as f64 / 1e9);
        for (name, count) in [
            ("series", node.series),
            ("samplesRead", node.samples_read),
            ("bytesRead", node.bytes_read),
            ("rows", node.rows),
            ("points", node.points),
            ("bytesHeld", node.bytes_held),
        ] {
            json.key(name).integer(count);
        }
        json.key("children").array(node.children.iter(), write_plan);
    });
}

pub(crate) fn write_stats(json: &mut Json<'_>, stats: &Stats) {
    let seconds = |ns: u64| ns as f64 / 1e9;
    let evaluated = seconds(stats.total_ns.saturating_sub(stats.queued_ns));
    json.key("timings").object(|json| {
        json.key("evalTotalTime").number(evaluated);
        json.key("resultSortTime").number(0.0);
        json.key("queryPreparationTime").number(0.0);
        json.key("innerEvalTime").number(evaluated);
        json.key("execQueueTime").number(seconds(stats.queued_ns));
        json.key("execTotalTime").number(seconds(stats.total_ns));
    });
    json.key("samples").object(|json| {
        let statistics = &stats.statistics;
        if !statistics.samples_per_step.is_empty() {
            json.key("totalQueryableSamplesPerStep").array(
                &statistics.samples_per_step,
                |json, (timestamp, count)| {
                    json.list(|json| {
                        json.timestamp(*timestamp);
                        json.integer(*count);
                    });
                },
            );
        }
        json.key("totalQueryableSamples").integer(statistics.samples_total);
        json.key("samplesRead").integer(statistics.samples_read);
        json.key("peakSamples").integer(statistics.samples_peak);
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidewatch_model::Labels;

    use super::*;

    fn written(value: Value) -> String {
        let mut producer = producer(value, None, Held::default());
        let mut out = Vec::new();
        while producer(&mut out) == More::Follows {}
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn values_are_written_as_prometheus_writes_them() {
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "a")]);
        assert_eq!(
            written(Value::Scalar { timestamp: 1500, value: 2.5 }),
            r#"{"resultType":"scalar","result":[1.500,"2.5"]}"#
        );
        assert_eq!(
            written(Value::String { timestamp: 0, value: "x\"".to_owned() }),
            r#"{"resultType":"string","result":[0,"x\""]}"#
        );
        assert_eq!(written(Value::Vector(Vec::new())), r#"{"resultType":"vector","result":[]}"#);
        assert_eq!(written(Value::Matrix(Vec::new())), r#"{"resultType":"matrix","result":[]}"#);
        let sample = |value| InstantSample {
            labels: labels.clone(),
            timestamp: 1000,
            value: SampleValue::Float(value),
        };
        assert_eq!(
            written(Value::Vector(vec![sample(1.0), sample(f64::NAN)])),
            r#"{"resultType":"vector","result":[{"metric":{"__name__":"up","job":"a"},"value":[1,"1"]},{"metric":{"__name__":"up","job":"a"},"value":[1,"NaN"]}]}"#
        );
    }

    #[test]
    fn a_long_matrix_is_one_text_however_often_it_is_interrupted() {
        let points = POINTS_A_STEP * 2 + 1;
        let floats: Vec<_> = (0..points as i64).map(|t| (t * 1000, t as f64)).collect();
        let series = |name: &str, floats| RangeSeries {
            labels: Labels::from_pairs([("n", name)]),
            floats,
            histograms: Vec::new(),
        };
        let text = written(Value::Matrix(vec![series("a", floats), series("b", vec![(1, 2.0)])]));
        let json: serde_json::Value = serde_json::from_str(&text).expect("valid JSON");
        let result = json["result"].as_array().expect("an array");
        assert_eq!(result[0]["values"].as_array().map(Vec::len), Some(points));
        assert_eq!(result[0]["values"][points - 1][1], (points - 1).to_string());
        assert_eq!(result[1]["values"][0][1], "2");
    }

    #[test]
    fn floats_and_histograms_of_one_series_stand_side_by_side() {
        let histogram = Arc::new(FloatHistogram {
            count: 3.0,
            sum: 7.5,
            zero_count: 3.0,
            zero_threshold: 0.5,
            ..Default::default()
        });
        let series = RangeSeries {
            labels: Labels::empty(),
            floats: vec![(1000, 1.0)],
            histograms: vec![(2000, histogram)],
        };
        assert_eq!(
            written(Value::Matrix(vec![series])),
            r#"{"resultType":"matrix","result":[{"metric":{},"values":[[1,"1"]],"histograms":[[2,{"count":"3","sum":"7.5","buckets":[[3,"-0.5","0.5","3"]]}]]}]}"#
        );
    }
}
