//! `/federate`: the newest sample of each selected series in Prometheus' text format.

use std::fmt::Write;
use std::sync::Arc;

use hyper::{Response, StatusCode};
use tidewatch_model::{Labels, METRIC_NAME, Matcher, is_stale, is_valid_legacy_name};
use tidewatch_storage::{Latest, Scratch, TimeRange};

use super::account::Account;
use super::blocking;
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
    value: f64,
}

pub(crate) async fn federate(service: &Arc<Service>, params: &Params) -> Response<ResponseBody> {
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
    let collected = blocking(service, move |service| {
        collect(service, &selectors, &mut account).map(|rows| (rows, account.computed()))
    });
    let (rows, leases) = match collected.await {
        Ok(Ok(collected)) => collected,
        Ok(Err(error)) => return reply::error(&error),
        Err(error) => return reply::text(ErrorKind::Internal.status(), error.message),
    };
    drop(guard);
    let external = service.app.backend.external_labels();
    let mut next = 0;
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
        selection.latest(0..selection.len(), start - 1, end, &mut scratch, &mut |series, latest| {
            let labels = selection.labels(series);
            // Native histograms have no place in the text format.
            if let Latest::Float { timestamp, value } = latest
                && !is_stale(value)
                && labels.has(METRIC_NAME)
            {
                rows.push(Row { labels: labels.clone(), timestamp, value });
            }
        })?;
    }
    rows.sort_by(|a, b| {
        a.labels.metric_name().cmp(&b.labels.metric_name()).then_with(|| a.labels.cmp(&b.labels))
    });
    rows.dedup_by(|b, a| a.labels == b.labels);
    Ok(rows)
}

fn family_name(name: &str) -> String {
    if is_metric_name(name) { name.to_owned() } else { quoted(name) }
}

/// Legacy metric names may have colons, which label names may not.
fn is_metric_name(name: &str) -> bool {
    !name.is_empty() && is_valid_legacy_name(&name.replace(':', "_"))
}

fn write_row(text: &mut String, row: &Row, name: &str, external: &Labels) {
    let legacy = is_metric_name(name);
    let mut labels = row.labels.without_metric_name().to_builder();
    for (name, value) in external.iter().filter(|(name, _)| !row.labels.has(name)) {
        labels.set(name, value);
    }
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
    push_general(&mut value, row.value);
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
