//! `POST /api/v1/write`: remote write 1.0.
//!
//! ```text
//! frames ─► compressed ─ snappy ─► body ─ protobuf ─► Batch ─► Append ─► Ticket ─ durable ─► 204
//!           └──────────────── Buffers, from the pool ───────┘  (of replicas one: `ingest::ha`)
//! ```
//!
//! The hot path of the server: buffers are pooled, the batch borrows the body, and nothing is
//! allocated for a series or a sample in the steady state. Buffers go back before the wait for
//! the disk, so that their number follows the work and not the waiting.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use parking_lot::Mutex;
use tidewatch_ingest::{
    Examined, HaTracker, Replaced, WriteError, WriteSummary, decode_write_request, decompress,
};
use tidewatch_model::Batch;
use tidewatch_storage::{AppendError, AppendOutcome, Refusal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::backend::{Backend, Phase};
use crate::body::{RequestBody, ResponseBody};
use crate::reply;
use crate::request::media_type;
use crate::service::Service;

/// Compressed bodies up to this size are decoded and appended where they arrive: below a
/// millisecond of work, a change of threads would be a good part of it.
const INLINE_BYTES: usize = 64 << 10;
/// Buffers that wait for a request.
const IDLE_MAX: usize = 32;
/// Buffers larger than this are not kept: one huge request must not cost memory for ever.
const KEPT_BYTES_MAX: usize = 8 << 20;
/// The unit in which [`Room`] is counted, as semaphores count to 2^29 at least.
const ROOM_UNIT: usize = 1 << 10;

/// Memory to decode one request.
#[derive(Default)]
struct Buffers {
    body: Vec<u8>,
    reordered: Vec<u8>,
    batch: Batch<'static>,
    replaced: Replaced,
}

/// Buffers for write requests, and the bound on what all of them hold.
///
/// A request holds memory for what it received while it waits for the rest, and memory to decode it
/// for a fraction of a millisecond: so few of the large buffers are in use, and who decodes gets those
/// that were used last, which the processor's cache still has.
pub(crate) struct WritePool {
    received: Mutex<Vec<Vec<u8>>>,
    idle: Mutex<Vec<Buffers>>,
    room: Arc<Semaphore>,
}

impl WritePool {
    pub(crate) fn new(bytes_in_flight: usize) -> WritePool {
        let units = (bytes_in_flight / ROOM_UNIT).clamp(1, Semaphore::MAX_PERMITS);
        WritePool {
            received: Mutex::default(),
            idle: Mutex::default(),
            room: Arc::new(Semaphore::new(units)),
        }
    }

    /// Takes room for `bytes`, where there is some.
    fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(ROOM_UNIT)).ok()?;
        self.room.clone().try_acquire_many_owned(units).ok()
    }

    /// A buffer to receive a request in.
    fn take_received(&self) -> Vec<u8> {
        self.received.lock().pop().unwrap_or_default()
    }

    fn give_received(&self, mut compressed: Vec<u8>) {
        compressed.clear();
        keep(&self.received, compressed.capacity(), compressed);
    }

    fn take(&self) -> Buffers {
        self.idle.lock().pop().unwrap_or_default()
    }

    fn give(&self, mut buffers: Buffers) {
        let Buffers { body, reordered, batch, replaced } = &mut buffers;
        reordered.clear();
        batch.clear();
        keep(&self.idle, body.capacity() + reordered.capacity() + replaced.capacity(), buffers);
    }
}

fn keep<T>(idle: &Mutex<Vec<T>>, bytes: usize, memory: T) {
    let mut idle = idle.lock();
    if bytes <= KEPT_BYTES_MAX && idle.len() < IDLE_MAX {
        idle.push(memory);
    }
}

/// A refusal of a whole request: status, text, and the limit under which it is counted.
struct Refused {
    status: StatusCode,
    text: String,
    limit: Option<&'static str>,
}

impl Refused {
    fn new(status: StatusCode, text: impl Into<String>) -> Refused {
        Refused { status, text: text.into(), limit: None }
    }

    fn by(limit: &'static str, status: StatusCode, text: impl Into<String>) -> Refused {
        Refused { status, text: text.into(), limit: Some(limit) }
    }
}

impl From<WriteError> for Refused {
    fn from(error: WriteError) -> Refused {
        let text = error.to_string();
        match error {
            WriteError::Bomb { .. } => Refused::by("write_body_bytes", StatusCode::BAD_REQUEST, text),
            _ if error.is_too_large() => Refused::by("write_body_bytes", StatusCode::PAYLOAD_TOO_LARGE, text),
            _ => Refused::new(StatusCode::BAD_REQUEST, text),
        }
    }
}

impl From<AppendError> for Refused {
    fn from(error: AppendError) -> Refused {
        let limit = match error {
            AppendError::ReadOnly { .. } => "read_only",
            AppendError::Overloaded { .. } => "memory",
        };
        Refused::by(limit, StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

pub(crate) async fn write(
    service: &Arc<Service>,
    headers: &HeaderMap,
    body: RequestBody,
) -> Response<ResponseBody> {
    match take(service, headers, body).await {
        Ok(response) => response,
        Err(refused) => {
            if let Some(limit) = refused.limit {
                service.counters.refuse(limit);
            }
            let mut response = reply::text(refused.status, refused.text + "\n");
            if refused.status == StatusCode::SERVICE_UNAVAILABLE {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
            }
            response
        }
    }
}

async fn take(
    service: &Arc<Service>,
    headers: &HeaderMap,
    body: RequestBody,
) -> Result<Response<ResponseBody>, Refused> {
    check_headers(headers)?;
    if matches!(service.app.backend.phase(), Phase::Starting | Phase::Stopping) {
        return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "the server takes no writes now"));
    }
    let mut compressed = service.writes.take_received();
    let room = match receive(service, body, &mut compressed).await {
        Ok(room) => room,
        Err(refused) => {
            service.writes.give_received(compressed);
            return Err(refused);
        }
    };
    let result = if compressed.len() <= INLINE_BYTES {
        append(service, compressed, room)
    } else {
        let service = service.clone();
        tokio::task::spawn_blocking(move || append(&service, compressed, room)).await.map_err(|_| {
            Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "the write failed for a bug in the server")
        })?
    };
    let (summary, outcome) = result?;
    service
        .counters
        .samples_written
        .fetch_add(outcome.accepted + outcome.accepted_histograms, Ordering::Relaxed);
    service.app.backend.durable(outcome.ticket).await.map_err(|reason| {
        Refused::by(
            "read_only",
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the write is not durable: {reason}"),
        )
    })?;
    match describe_refused(&summary, &outcome) {
        None => Ok(reply::empty(StatusCode::NO_CONTENT)),
        Some((count, text)) => {
            service.counters.samples_refused.fetch_add(count, Ordering::Relaxed);
            Err(Refused::new(StatusCode::BAD_REQUEST, text))
        }
    }
}

/// Absent headers mean remote write 1.0 and snappy: old senders name neither.
fn check_headers(headers: &HeaderMap) -> Result<(), Refused> {
    let unsupported = |text: String| Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
    if let Some(content_type) = headers.get(CONTENT_TYPE) {
        let text = content_type.to_str().unwrap_or("");
        if !media_type(text).eq_ignore_ascii_case("application/x-protobuf") {
            return Err(unsupported(format!("Content-Type {text:?} is not application/x-protobuf")));
        }
        let message = text
            .split(';')
            .filter_map(|parameter| parameter.trim().strip_prefix("proto="))
            .next()
            .unwrap_or("prometheus.WriteRequest");
        if message != "prometheus.WriteRequest" {
            return Err(unsupported(format!(
                "message {message:?} is not taken yet: send remote write 1.0 (prometheus.WriteRequest)"
            )));
        }
    }
    match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"" | b"snappy") => Ok(()),
        Some(other) => {
            let other = String::from_utf8_lossy(other);
            Err(unsupported(format!("Content-Encoding {other:?} is not snappy")))
        }
    }
}

/// Reads the body into `compressed` and takes room for it and for what it declares to hold.
async fn receive(
    service: &Service,
    mut body: RequestBody,
    compressed: &mut Vec<u8>,
) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), Refused> {
    let limit = service.app.limits.write_compressed_bytes;
    let too_large = || {
        let text = format!("request body is larger than {limit} bytes");
        Refused::by("write_compressed_bytes", StatusCode::PAYLOAD_TOO_LARGE, text)
    };
    let no_room = || {
        let text = "write requests in flight fill their memory budget";
        Refused::by("write_bytes_in_flight", StatusCode::SERVICE_UNAVAILABLE, text)
    };
    let expected = body.size_hint().upper().map_or(limit, |size| usize::try_from(size).unwrap_or(usize::MAX));
    if expected > limit && body.size_hint().exact().is_some() {
        return Err(too_large());
    }
    let room = service.writes.room(expected.min(limit)).ok_or_else(no_room)?;
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| Refused::new(StatusCode::BAD_REQUEST, format!("error reading body: {error}")))?;
        let data: Bytes = frame.into_data().unwrap_or_default();
        if compressed.len() + data.len() > limit {
            return Err(too_large());
        }
        compressed.extend_from_slice(&data);
    }
    let declared =
        snap::raw::decompress_len(compressed).unwrap_or(0).min(service.app.limits.write_body_bytes);
    let body_room = service.writes.room(declared).ok_or_else(no_room)?;
    Ok((room, body_room))
}

/// A request between its last byte and its last sample.
struct Underway<'a>(&'a dyn Backend);

impl Underway<'_> {
    fn begin(backend: &dyn Backend) -> Underway<'_> {
        backend.write_began();
        Underway(backend)
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.0.write_ended();
    }
}

/// Decodes and appends. Room and buffers are free again when this returns.
fn append(
    service: &Service,
    compressed: Vec<u8>,
    room: (OwnedSemaphorePermit, OwnedSemaphorePermit),
) -> Result<(WriteSummary, AppendOutcome), Refused> {
    let underway = Underway::begin(&*service.app.backend);
    let mut buffers = service.writes.take();
    let result = decode_and_append(service, &compressed, &mut buffers);
    drop(underway);
    service.writes.give(buffers);
    service.writes.give_received(compressed);
    drop(room);
    result
}

fn decode_and_append(
    service: &Service,
    compressed: &[u8],
    buffers: &mut Buffers,
) -> Result<(WriteSummary, AppendOutcome), Refused> {
    let limits = &service.app.limits;
    let Buffers { body, reordered, batch, replaced } = buffers;
    decompress(compressed, limits, body)?;
    let mut borrowing = std::mem::take(batch).recycle();
    let result = append_body(service, body, reordered, replaced, &mut borrowing);
    *batch = borrowing.recycle();
    result
}

fn append_body<'a>(
    service: &Service,
    body: &'a [u8],
    reordered: &'a mut Vec<u8>,
    replaced: &'a mut Replaced,
    batch: &mut Batch<'a>,
) -> Result<(WriteSummary, AppendOutcome), Refused> {
    let summary = decode_write_request(body, &service.app.limits, reordered, batch)?;
    if let Some(tracker) = &service.app.replicas {
        deduplicate(service, tracker, batch, replaced)?;
    }
    Ok((summary, service.app.append.append(batch)?))
}

/// Leaves the samples of replicas out that are not elected. A batch of which nothing is left is
/// answered here.
fn deduplicate<'a>(
    service: &Service,
    tracker: &Mutex<HaTracker>,
    batch: &mut Batch<'a>,
    replaced: &'a mut Replaced,
) -> Result<(), Refused> {
    let now_ms = service.app.env.clock.wall_ms();
    let examined = tracker.lock().examine(batch, now_ms, replaced);
    if examined.elected {
        service.app.backend.replica_elected();
    }
    replaced.apply(batch);
    let Examined { refused, example, .. } = examined;
    if refused > 0 {
        service.counters.refuse("ha_clusters");
        let most = tracker.lock().options().clusters_max;
        let text = format!(
            "too many HA clusters: {refused} samples are of more than {most} (--ha-tracker.max-clusters)"
        );
        return Err(Refused::new(StatusCode::BAD_REQUEST, text));
    }
    match example {
        // As Mimir answers: the sender has nothing to repeat, and a person who looks sees why.
        Some((replica, elected)) if batch.series.is_empty() => Err(Refused::new(
            StatusCode::ACCEPTED,
            format!("replicas did not match, rejecting sample: replica={replica}, elected={elected}"),
        )),
        _ => Ok(()),
    }
}

/// How many samples were refused and, for the sender's log, why.
fn describe_refused(summary: &WriteSummary, outcome: &AppendOutcome) -> Option<(u64, String)> {
    let refused = outcome.refused_count();
    if refused == 0 {
        return None;
    }
    let sent = (summary.samples + summary.histograms) as u64;
    let causes: Vec<String> =
        outcome.refused.iter().map(|(cause, count)| format!("{count} {}", cause_text(*cause))).collect();
    let mut text = format!("{refused} of {sent} samples refused ({})", causes.join(", "));
    if let Some(first) = &outcome.first_refusal {
        text.push_str("; the first: ");
        text.push_str(first);
    }
    Some((refused, text))
}

fn cause_text(cause: Refusal) -> &'static str {
    match cause {
        Refusal::InvalidLabels => "with invalid labels",
        Refusal::LabelLimit => "over a label limit",
        Refusal::TooOld => "too old",
        Refusal::TooFarInFuture => "too far in the future",
        Refusal::Conflict => "in conflict with a stored value",
        Refusal::InvalidHistogram => "with an invalid histogram",
    }
}
