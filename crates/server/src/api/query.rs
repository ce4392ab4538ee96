//! `/api/v1/query` and `/api/v1/query_range`.
//!
//! A query waits for one of few places, computes on a thread of its own, and is cancelled as
//! soon as nobody waits for its answer any more: when the client goes, hyper drops the future
//! that holds the [`CancelOnDrop`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidewatch_model::Value;
use tidewatch_parser::{Expr, parse_expr};
use tidewatch_promql::{Answer, MemoryPool, QueryContext, QueryError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::blocking;
use super::value::{self, Stats};
use crate::counters::Going;
use crate::error::{ApiError, ErrorKind};
use crate::query_log::{Asker, LoggedQuery};
use crate::reply::Reply;
use crate::request::{NS_PER_MS, Origin, Params};
use crate::service::Service;

/// What an answer says when `limit` cut it.
pub(crate) const TRUNCATED: &str = "results truncated due to limit";

/// What queries share: places for those that compute, and memory for those whose answer is still
/// being sent too.
pub(crate) struct QueryGate {
    places: Arc<Semaphore>,
    pub(crate) memory: Arc<MemoryPool>,
}

impl QueryGate {
    pub(crate) fn new(concurrency: usize, memory_bytes: usize) -> QueryGate {
        QueryGate {
            places: Arc::new(Semaphore::new(concurrency.max(1))),
            memory: MemoryPool::new(memory_bytes as u64),
        }
    }
}

/// Tells a query that computes on another thread that its answer is not wanted any more.
pub(super) struct CancelOnDrop(pub(super) Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A time or the steps of a range, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) enum When {
    At(i64),
    Range { start: i64, end: i64, step: i64 },
}

pub(crate) async fn instant(service: &Arc<Service>, params: &Params) -> Result<Reply, ApiError> {
    let limit = params.limit()?;
    let at = params.time_or("time", service.app.env.clock.wall_ms())?;
    run(service, params, When::At(at), Wanted::Value { limit }).await
}

pub(crate) async fn range(service: &Arc<Service>, params: &Params) -> Result<Reply, ApiError> {
    let limit = params.limit()?;
    let when = steps(service, params)?;
    run(service, params, when, Wanted::Value { limit }).await
}

/// Evaluates a query, at one time or with `start`, `end` and `step`, for what it costs.
pub(crate) async fn explain(service: &Arc<Service>, params: &Params) -> Result<Reply, ApiError> {
    let when = match params.get("step") {
        "" => When::At(params.time_or("time", service.app.env.clock.wall_ms())?),
        _ => steps(service, params)?,
    };
    run(service, params, when, Wanted::Plan).await
}

/// What a caller wants of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Value { limit: Option<usize> },
    Plan,
}

fn steps(service: &Service, params: &Params) -> Result<When, ApiError> {
    let start = params.time("start")?;
    let end = params.time("end")?;
    if end < start {
        return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
    }
    let step_ns = crate::request::parse_duration_ns(params.get("step"))
        .map_err(|error| ApiError::parameter("step", error))?;
    let refused = || {
        let cause = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        ApiError::parameter("step", cause)
    };
    if step_ns <= 0 {
        return Err(refused());
    }
    let points_max = service.app.limits.query_points as i64;
    let range_ns = (i128::from(end) - i128::from(start)) * i128::from(NS_PER_MS);
    if range_ns / i128::from(step_ns) > i128::from(points_max) {
        service.counters.refuse("query_points");
        return Err(ApiError::bad_data(format!(
            "exceeded maximum resolution of {} points per timeseries. Try decreasing the query resolution (?step=XX)",
            with_thousands(points_max)
        )));
    }
    match step_ns / NS_PER_MS {
        0 => Err(refused()),
        step => Ok(When::Range { start, end, step }),
    }
}

async fn run(service: &Arc<Service>, params: &Params, when: When, wanted: Wanted) -> Result<Reply, ApiError> {
    let began_ns = service.app.env.clock.monotonic_ns();
    let timeout_ms = timeout_ms(service, params)?;
    check_length(service, params)?;
    let deadline_ns = began_ns + timeout_ms * 1_000_000;
    let lookback_ns = match params.get("lookback_delta") {
        "" => None,
        text => Some(crate::request::parse_duration_ns(text).map_err(|error| {
            ApiError::bad_data(format!("error parsing lookback delta duration: {error}"))
        })?),
    };
    // Nothing, and what is negative, mean the default.
    let lookback_ms = lookback_ns.filter(|ns| *ns > 0).map(|ns| ns / NS_PER_MS);
    let place = place(service, timeout_ms).await?;
    let queued_ns = service.app.env.clock.monotonic_ns() - began_ns;

    let query: Arc<str> = params.get("query").into();
    let cancel = Arc::new(AtomicBool::new(false));
    let context = QueryContext {
        deadline_ns: Some(deadline_ns),
        cancel: cancel.clone(),
        memory_bytes: service.app.limits.query_memory_bytes as u64,
        pool: Some(service.queries.memory.clone()),
        lookback_ms,
        per_step_statistics: params.get("stats") == "all" && service.app.options.per_step_statistics,
        explain: wanted == Wanted::Plan,
        query: Some(query.clone()),
    };
    let guard = CancelOnDrop(cancel);
    let origin = params.origin.clone();
    let with_stats = !params.get("stats").is_empty();
    let deprecated = deprecated_stats(params.get("stats"));
    let reply = blocking(service, move |service| {
        // Held until the work is done, even where nobody waits for it any more.
        let _place = place;
        let _going = Going::on(&service.counters.queries);
        // Here and not before: compiling large expressions takes its time, and memory.
        let expr =
            parse_expr(&query, &service.app.parser).map_err(|error| ApiError::parameter("query", error))?;
        let result = evaluate(service, &expr, when, &context);
        let total_ns = service.app.env.clock.monotonic_ns() - began_ns;
        let timings = Timings { queued_ns, total_ns };
        let invalid = matches!(result, Err(QueryError::Invalid(_)));
        if service.app.backend.logs_queries() && !invalid {
            log(service, &origin, &query, when, timings, &result);
        }
        let answer = result.map_err(|error| refused(service, error))?;
        service.counters.query_read(&answer.statistics);
        match wanted {
            Wanted::Value { limit } => reply(service, answer, limit, with_stats.then_some(timings))
                .map(|reply| reply.warn(deprecated.as_deref())),
            Wanted::Plan => Ok(plan(answer, timings)),
        }
    })
    .await?;
    drop(guard);
    reply
}

fn log(
    service: &Service,
    origin: &Origin,
    query: &str,
    when: When,
    Timings { queued_ns, total_ns }: Timings,
    result: &Result<Answer, QueryError>,
) {
    let (start_ms, end_ms, step_ms) = match when {
        When::At(at) => (at, at, 0),
        When::Range { start, end, step } => (start, end, step),
    };
    let asker = Asker::Http { client: origin.client, method: &origin.method, path: &origin.path };
    let result = result.as_ref().map(|answer| answer.statistics.clone());
    let logged = LoggedQuery { query, asker, start_ms, end_ms, step_ms, queued_ns, total_ns, result };
    service.app.backend.log_query(&logged.line(service.app.env.clock.wall_ms()));
}

/// What is said of other values of `stats` than those that will stay.
fn deprecated_stats(value: &str) -> Option<String> {
    (!matches!(value, "" | "true" | "all")).then(|| {
        format!(
            "value {value:?} for parameter \"stats\" is deprecated and will be rejected in the next major \
             release, use \"true\" or \"all\""
        )
    })
}

/// Counts a query that met a limit.
fn refused(service: &Service, error: QueryError) -> ApiError {
    match &error {
        QueryError::OutOfMemory { .. } => service.counters.refuse("query_memory_bytes"),
        QueryError::Overloaded { .. } => service.counters.refuse("queries_memory_bytes"),
        QueryError::TooManySamples(_) => service.counters.refuse("query_samples"),
        QueryError::Timeout(_) => service.counters.refuse("query_timeout"),
        QueryError::Canceled(_)
        | QueryError::Invalid(_)
        | QueryError::Execution(_)
        | QueryError::Storage(_) => {}
    }
    error.into()
}

fn timeout_ms(service: &Service, params: &Params) -> Result<u64, ApiError> {
    let limit_ms = service.app.limits.query_timeout_ms;
    let asked_ms = params.duration("timeout")?;
    Ok(asked_ms.map_or(limit_ms, |ms| u64::try_from(ms).unwrap_or(0).min(limit_ms)))
}

fn check_length(service: &Service, params: &Params) -> Result<(), ApiError> {
    let text = params.get("query");
    let limit = service.app.limits.query_text_bytes;
    if text.len() > limit {
        service.counters.refuse("query_text_bytes");
        let cause = format_args!("text of {} bytes is longer than {limit}", text.len()).to_string();
        return Err(ApiError::parameter("query", cause));
    }
    Ok(())
}

/// Waits for a place among the queries that compute.
pub(super) async fn place(service: &Arc<Service>, timeout_ms: u64) -> Result<OwnedSemaphorePermit, ApiError> {
    let places = service.queries.places.clone();
    let places = match places.try_acquire_owned() {
        Ok(place) => return Ok(place),
        Err(_) => service.queries.places.clone(),
    };
    let _waiting = Going::on(&service.counters.queries_waiting);
    let wait = Duration::from_millis(service.app.limits.query_queue_ms.min(timeout_ms));
    match tokio::time::timeout(wait, places.acquire_owned()).await {
        Ok(place) => Ok(place.expect("the semaphore is never closed")),
        Err(_) => {
            service.counters.refuse("query_concurrency");
            Err(ApiError::new(ErrorKind::Timeout, "query timed out in query queue"))
        }
    }
}

fn evaluate(
    service: &Service,
    expr: &Expr,
    when: When,
    context: &QueryContext,
) -> Result<Answer, QueryError> {
    let (engine, store) = (&service.app.engine, &*service.app.select);
    match when {
        When::At(at) => engine.instant(store, expr, at, context),
        When::Range { start, end, step } => engine.range(store, expr, start, end, step, context),
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Timings {
    pub(super) queued_ns: u64,
    pub(super) total_ns: u64,
}

fn reply(
    service: &Service,
    answer: Answer,
    limit: Option<usize>,
    timings: Option<Timings>,
) -> Result<Reply, ApiError> {
    let Answer { mut value, annotations, statistics, held, .. } = answer;
    let truncated = truncate(&mut value, limit);
    let least_bytes = value::least_bytes(&value);
    let response_bytes = service.app.limits.response_bytes;
    if least_bytes > response_bytes {
        service.counters.refuse("response_bytes");
        let message = format!(
            "the answer needs more than {least_bytes} bytes and the limit is {response_bytes}: narrow the query"
        );
        return Err(ApiError::new(ErrorKind::Execution, message));
    }
    let stats = timings.map(|Timings { queued_ns, total_ns }| Stats { queued_ns, total_ns, statistics });
    let reply = Reply::produce(value::producer(value, stats, held));
    Ok(reply.warn(truncated.then_some(TRUNCATED)).annotate(annotations))
}

/// The plan without the value: who asks where time goes has no use for megabytes of samples.
fn plan(answer: Answer, Timings { queued_ns, total_ns }: Timings) -> Reply {
    let Answer { annotations, statistics, plan, .. } = answer;
    let stats = Stats { queued_ns, total_ns, statistics };
    let reply = Reply::json(move |json| {
        json.object(|json| {
            if let Some(plan) = &plan {
                value::write_plan(json.key("plan"), plan);
            }
            json.key("stats").object(|json| value::write_stats(json, &stats));
        });
    });
    reply.annotate(annotations)
}

fn truncate(value: &mut Value, limit: Option<usize>) -> bool {
    let limit = limit.unwrap_or(usize::MAX);
    match value {
        Value::Vector(samples) if samples.len() > limit => samples.truncate(limit),
        Value::Matrix(series) if series.len() > limit => series.truncate(limit),
        _ => return false,
    }
    true
}

/// `11,000`
fn with_thousands(number: i64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
