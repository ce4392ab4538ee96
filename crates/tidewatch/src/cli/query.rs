//! `query instant` and `query range`: asks a server and prints as promtool does.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use serde_json::Value;
use tidewatch_net::{Client, HttpClientConfig, Request};

use super::check::OK;
use super::{Output, Query, explain};
use crate::{config, time};

const TIMEOUT: Duration = Duration::from_secs(120);
const ANSWER_BYTES_MAX: usize = 256 << 20;

pub fn run(query: &Query, out: &mut dyn Write) -> Result<u8> {
    match query {
        Query::Explain(arguments) => explain::run(arguments, out),
        Query::Instant { output, time, header, server, expr } => {
            let form = [("query", expr.clone()), at_form(time)?];
            print(&ask(&client(output)?, server, "/api/v1/query", &form, header)?, &output.format, out)
        }
        Query::Range { output, start, end, step, header, server, expr } => {
            let [start, end, step] = span_form(start, end, step)?;
            let form = [("query", expr.clone()), start, end, step];
            print(&ask(&client(output)?, server, "/api/v1/query_range", &form, header)?, &output.format, out)
        }
    }
}

/// A field of a form.
pub type Field = (&'static str, String);

fn instant(text: &Option<String>, otherwise_ms: i64) -> Result<i64> {
    let Some(text) = text else { return Ok(otherwise_ms) };
    time::parse(text).with_context(|| format!("{text:?} is no time: write RFC 3339 or Unix seconds"))
}

fn seconds(ms: i64) -> String {
    (ms as f64 / 1000.0).to_string()
}

/// The time of an instant query; now where absent.
pub fn at_form(time: &Option<String>) -> Result<Field> {
    Ok(("time", seconds(instant(time, time::now_ms())?)))
}

/// The times of a range query: the last five minutes where absent, in 250 steps as promtool has it.
pub fn span_form(start: &Option<String>, end: &Option<String>, step: &Option<String>) -> Result<[Field; 3]> {
    let end_ms = instant(end, time::now_ms())?;
    let start_ms = instant(start, end_ms - 300_000)?;
    let step_ms = match step {
        Some(text) => {
            tidewatch_model::parse_duration_ms(text).map_err(|error| anyhow::anyhow!("--step: {error}"))?
        }
        None => ((end_ms - start_ms) / 250 / 1000 * 1000).max(1000),
    };
    Ok([("start", seconds(start_ms)), ("end", seconds(end_ms)), ("step", seconds(step_ms))])
}

pub fn client(output: &Output) -> Result<Client> {
    let config = match &output.http_config_file {
        Some(file) => config::load_http_client(file)?,
        None => HttpClientConfig::default(),
    };
    Ok(Client::new(config, Arc::new(|path: &std::path::Path| std::fs::read(path)))?)
}

/// Posts a form and gives `data`.
pub fn ask(
    client: &Client,
    server: &str,
    path: &str,
    form: &[(&str, String)],
    headers: &[String],
) -> Result<Value> {
    let body: Vec<String> =
        form.iter().map(|(name, value)| format!("{name}={}", percent_encode(value))).collect();
    let server = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
    let mut request = Request {
        method: hyper::Method::POST,
        url: format!("{}{path}", server.trim_end_matches('/')),
        headers: vec![("Content-Type".to_owned(), "application/x-www-form-urlencoded".to_owned())],
        body: Bytes::from(body.join("&")),
        timeout: TIMEOUT,
        body_bytes_max: ANSWER_BYTES_MAX,
    };
    for header in headers {
        let (name, value) =
            header.split_once('=').with_context(|| format!("--header={header}: write NAME=VALUE"))?;
        request.headers.push((name.to_owned(), value.to_owned()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let response =
        runtime.block_on(client.send(&request)).with_context(|| format!("query error: {}", request.url))?;
    let answer: Value = serde_json::from_slice(&response.body)
        .with_context(|| format!("{} answered {} and no JSON", request.url, response.status))?;
    if answer["status"] != "success" {
        bail!(
            "query error: {}: {}",
            answer["errorType"].as_str().unwrap_or(""),
            answer["error"].as_str().unwrap_or("")
        );
    }
    for kind in ["warnings", "infos"] {
        for note in answer[kind].as_array().into_iter().flatten().filter_map(Value::as_str) {
            eprintln!("{}: {note}", &kind[..kind.len() - 1]);
        }
    }
    Ok(answer["data"].clone())
}

fn percent_encode(text: &str) -> String {
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if unreserved(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

fn print(data: &Value, format: &str, out: &mut dyn Write) -> Result<u8> {
    if format == "json" {
        writeln!(out, "{}", data["result"])?;
        return Ok(OK);
    }
    let point = |pair: &Value| -> String {
        let value = pair[1].as_str().map_or_else(|| pair[1].to_string(), str::to_owned);
        format!("{value} @[{}]", pair[0])
    };
    match data["resultType"].as_str() {
        Some("scalar") => writeln!(out, "scalar: {}", point(&data["result"]))?,
        Some("string") => writeln!(out, "{}", data["result"][1].as_str().unwrap_or_default())?,
        _ => {
            for series in data["result"].as_array().into_iter().flatten() {
                let name = series_name(&series["metric"]);
                if let Some(values) = series["values"].as_array() {
                    writeln!(out, "{name} =>")?;
                    for pair in values {
                        writeln!(out, "{}", point(pair))?;
                    }
                } else {
                    let pair =
                        if series["value"].is_array() { &series["value"] } else { &series["histogram"] };
                    writeln!(out, "{name} => {}", point(pair))?;
                }
            }
        }
    }
    Ok(OK)
}

/// `name{label="value"}` of a result's `metric`.
fn series_name(metric: &Value) -> String {
    let labels: Vec<(&str, &str)> = metric
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
        .collect();
    let name = labels.iter().find(|(name, _)| *name == "__name__").map_or("", |(_, value)| value);
    let rest: Vec<String> =
        labels.iter().filter(|(n, _)| *n != "__name__").map(|(n, v)| format!("{n}={v:?}")).collect();
    if rest.is_empty() && !name.is_empty() {
        name.to_owned()
    } else {
        format!("{name}{{{}}}", rest.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_print_as_promtool_prints_them() {
        let data = serde_json::json!({"resultType": "vector", "result": [
            {"metric": {"__name__": "up", "job": "api"}, "value": [1.5, "1"]},
            {"metric": {}, "value": [2, "NaN"]},
        ]});
        let mut out = Vec::new();
        print(&data, "promql", &mut out).expect("written");
        assert_eq!(String::from_utf8(out).expect("UTF-8"), "up{job=\"api\"} => 1 @[1.5]\n{} => NaN @[2]\n");
        assert_eq!(percent_encode("a b+{}"), "a%20b%2B%7B%7D");
    }
}
