//! `/federate`: the newest sample of each selected series, in Prometheus' text format or, for who asks
//! for it, in protobuf, which alone has a place for native histograms.

use std::fmt::Write;
use std::sync::Arc;

use hyper::header::{ACCEPT, HeaderMap};
use hyper::{Response, StatusCode};
use tidewatch_model::histogram::CounterResetHint;
use tidewatch_model::{FloatHistogram, Labels, METRIC_NAME, Matcher, is_stale, is_valid_legacy_name};
use tidewatch_storage::{Latest, Scratch, TimeRange};

use super::account::Account;
use super::blocking;
use super::families::{Family, FamilyType, MetricValue};
use crate::body::{More, ResponseBody};
use crate::error::{ApiError, ErrorKind};
use crate::json::push_general;
use crate::reply;
use crate::request::Params;
use crate::service::Service;

/// Samples that are written in one go.
const SAMPLES_A_STEP: usize = 200;

struct Row {
    labels: Labels,
    timestamp: i64,
    value: RowValue,
}

enum RowValue {
    Float(f64),
    Histogram(Box<FloatHistogram>),
}

const PROTOBUF: &str = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; \
                        encoding=delimited; escaping=allow-utf-8";

/// Whether the client asks for protobuf first: a scraper that can store native histograms does.
fn wants_protobuf(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    let first = accept.split(',').next().unwrap_or("");
    let mut parameters = first.split(';').map(str::trim);
    parameters.next() == Some("application/vnd.google.protobuf")
        && first.contains("proto=io.prometheus.client.MetricFamily")
        && first.contains("encoding=delimited")
}

pub(crate) async fn federate(
    service: &Arc<Service>,
    headers: &HeaderMap,
    params: &Params,
) -> Response<ResponseBody> {
    let mut selectors = Vec::new();
    for text in params.all("match[]") {
        match tidewatch_parser::parse_metric_selector(text) {
            Ok(matchers) => selectors.push(matchers),
            Err(error) => return reply::text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        }
    }
    let (mut account, guard) = match Account::open(service).await {
        Ok(opened) => opened,
        Err(error) => return reply::error(&error),
    };
    let protobuf = wants_protobuf(headers);
    let collected = blocking(service, move |service| {
        collect(service, &selectors, protobuf, &mut account).map(|rows| (rows, account.computed()))
    });
    let (rows, leases) = match collected.await {
        Ok(Ok(collected)) => collected,
        Ok(Err(error)) => return reply::error(&error),
        Err(error) => return reply::text(ErrorKind::Internal.status(), error.message),
    };
    drop(guard);
    let external = service.app.backend.external_labels();
    let mut next = 0;
    if protobuf {
        let producer = Box::new(move |out: &mut Vec<u8>| {
            let _held = &leases;
            next = write_families(&rows, next, &external, out);
            if next < rows.len() { More::Follows } else { More::Nothing }
        });
        let body = ResponseBody::produce(producer, service.app.limits.response_bytes);
        return reply::with_type(StatusCode::OK, PROTOBUF, body);
    }
    let producer = Box::new(move |out: &mut Vec<u8>| {
        let _held = &leases;
        let end = rows.len().min(next + SAMPLES_A_STEP);
        let mut text = String::new();
        for index in next..end {
            let name = rows[index].labels.metric_name().unwrap_or("");
            if index == 0 || rows[index - 1].labels.metric_name() != Some(name) {
                writeln!(text, "# TYPE {} untyped", family_name(name)).expect("memory takes all");
            }
            write_row(&mut text, &rows[index], name, &external);
        }
        out.extend_from_slice(text.as_bytes());
        next = end;
        if end < rows.len() { More::Follows } else { More::Nothing }
    });
    let body = ResponseBody::produce(producer, service.app.limits.response_bytes);
    reply::with_type(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8; escaping=allow-utf-8", body)
}

/// The newest samples within the lookback, by metric name; what has ended or has no name is left out.
fn collect(
    service: &Service,
    selectors: &[Vec<Matcher>],
    with_histograms: bool,
    account: &mut Account,
) -> Result<Vec<Row>, ApiError> {
    let end = service.app.env.clock.wall_ms();
    let start = end - service.app.engine.options().lookback_ms;
    let mut scratch = Scratch::default();
    let mut rows = Vec::new();
    for matchers in selectors {
        let range = TimeRange { start, end };
        let selection = service.app.select.select_within(matchers, range, &mut |bytes| account.take(bytes));
        let selection = selection.map_err(|error| account.explain(error))?;
        account.try_take((selection.len() * size_of::<Row>()) as u64)?;
        let mut buckets = 0;
        selection.latest(0..selection.len(), start - 1, end, &mut scratch, &mut |series, latest| {
            let labels = selection.labels(series);
            let (timestamp, value, is_stale) = match latest {
                Latest::Float { timestamp, value } => (timestamp, RowValue::Float(value), is_stale(value)),
                // Native histograms have no place in the text format, nor custom bounds in protobuf.
                Latest::Histogram { value, .. } if !with_histograms || value.uses_custom_buckets() => return,
                Latest::Histogram { timestamp, value } => {
                    let is_stale = value.is_stale();
                    buckets += value.positive_buckets.len() + value.negative_buckets.len();
                    (timestamp, RowValue::Histogram(value), is_stale)
                }
            };
            if !is_stale && labels.has(METRIC_NAME) {
                rows.push(Row { labels: labels.clone(), timestamp, value });
            }
        })?;
        account.try_take((buckets * size_of::<f64>()) as u64)?;
    }
    rows.sort_by(|a, b| {
        a.labels.metric_name().cmp(&b.labels.metric_name()).then_with(|| a.labels.cmp(&b.labels))
    });
    rows.dedup_by(|b, a| a.labels == b.labels);
    Ok(rows)
}

/// Writes the families that begin at row `at`, some of them; gives where the next one begins.
fn write_families(rows: &[Row], at: usize, external: &Labels, out: &mut Vec<u8>) -> usize {
    let mut next = at;
    while next < rows.len() && next < at + SAMPLES_A_STEP {
        let (name, kind) = (rows[next].labels.metric_name().unwrap_or(""), rows[next].family_type());
        let mut family = Family::new(name, kind);
        while let Some(row) = rows.get(next)
            && row.labels.metric_name().unwrap_or("") == name
            && row.family_type() == kind
        {
            let value = match &row.value {
                RowValue::Float(value) => MetricValue::Untyped(*value),
                RowValue::Histogram(histogram) => MetricValue::Histogram(histogram),
            };
            family.metric(&row.shown_labels(external), row.timestamp, &value);
            next += 1;
        }
        family.finish(out);
    }
    next
}

impl Row {
    fn family_type(&self) -> FamilyType {
        match &self.value {
            RowValue::Float(_) => FamilyType::Untyped,
            RowValue::Histogram(histogram) if histogram.hint == CounterResetHint::Gauge => {
                FamilyType::GaugeHistogram
            }
            RowValue::Histogram(_) => FamilyType::Histogram,
        }
    }

    /// Its labels without the name, and with those of this server that it does not have.
    fn shown_labels(&self, external: &Labels) -> Labels {
        let mut labels = self.labels.without_metric_name().to_builder();
        for (name, value) in external.iter().filter(|(name, _)| !self.labels.has(name)) {
            labels.set(name, value);
        }
        labels.build()
    }
}

fn family_name(name: &str) -> String {
    if is_metric_name(name) { name.to_owned() } else { quoted(name) }
}

/// Legacy metric names may have colons, which label names may not.
fn is_metric_name(name: &str) -> bool {
    !name.is_empty() && is_valid_legacy_name(&name.replace(':', "_"))
}

fn write_row(text: &mut String, row: &Row, name: &str, external: &Labels) {
    let RowValue::Float(sample) = &row.value else { return };
    let legacy = is_metric_name(name);
    let labels = row.shown_labels(external);
    if legacy {
        text.push_str(name);
    }
    text.push('{');
    let mut separator = "";
    if !legacy {
        text.push_str(&quoted(name));
        separator = ",";
    }
    for (name, value) in labels.iter() {
        text.push_str(separator);
        separator = ",";
        match is_valid_legacy_name(name) {
            true => text.push_str(name),
            false => text.push_str(&quoted(name)),
        }
        text.push('=');
        text.push_str(&quoted(value));
    }
    // The receiver must not put the address of this server there.
    if !labels.iter().any(|(name, _)| name == "instance") {
        write!(text, "{separator}instance=\"\"").expect("memory takes all");
    }
    text.push_str("} ");
    let mut value = Vec::new();
    push_general(&mut value, *sample);
    text.push_str(std::str::from_utf8(&value).expect("digits are ASCII"));
    writeln!(text, " {}", row.timestamp).expect("memory takes all");
}

/// In quotes, with the three escapes of the text format.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
