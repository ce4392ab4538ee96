//! `POST /api/v1/write`: remote write 1.0 and 2.0, which differ in their decoder and in what the answer
//! says.
//!
//! ```text
//! frames ─► compressed ─ snappy ─► body ─ protobuf ─► Batch ─► Append ─► Ticket ─ durable ─► 204
//!           └──────────────── Buffers, from the pool ───────┘  (of replicas one: `ingest::ha`)
//! ```
//!
//! The hot path of the server: buffers are pooled, the batch borrows the body, and nothing is
//! allocated for a series or a sample in the steady state. Buffers go back before the wait for
//! the disk, so that their number follows the work and not the waiting.

mod answer;
mod message;
mod pool;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body;
use hyper::header::HeaderMap;
use hyper::{Response, StatusCode};
use parking_lot::Mutex;
use tidewatch_ingest::{
    Examined, HaTracker, Replaced, WriteSummary, decode_write_request, decode_write_request_v2, decompress,
};
use tidewatch_model::Batch;
use tidewatch_storage::AppendOutcome;
use tokio::sync::OwnedSemaphorePermit;

use self::answer::{Refused, Written, describe_refused};
use self::message::{Message, message_of};
pub(crate) use self::pool::WritePool;
use self::pool::{Buffers, LabelBuffers};
use crate::backend::{Backend, Phase};
use crate::body::{RequestBody, ResponseBody};
use crate::reply;
use crate::service::Service;

/// Compressed bodies up to this size are decoded and appended where they arrive: below a
/// millisecond of work, a change of threads would be a good part of it.
const INLINE_BYTES: usize = 64 << 10;

/// What became of a request.
struct Taken {
    summary: WriteSummary,
    outcome: AppendOutcome,
    examined: Examined,
}

pub(crate) async fn write(
    service: &Arc<Service>,
    headers: &HeaderMap,
    body: RequestBody,
) -> Response<ResponseBody> {
    let result = match message_of(headers, &service.app.options.write_messages) {
        Ok(message) => take(service, message, body).await.map_err(|refused| refused.of(message)),
        Err(refused) => Err(refused),
    };
    result.unwrap_or_else(|refused| refused.answer(service))
}

async fn take(
    service: &Arc<Service>,
    message: Message,
    body: RequestBody,
) -> Result<Response<ResponseBody>, Refused> {
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
        append(service, message, compressed, room)
    } else {
        let service = service.clone();
        tokio::task::spawn_blocking(move || append(&service, message, compressed, room)).await.map_err(
            |_| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "the write failed for a bug in the server"),
        )?
    };
    let taken = result?;
    let AppendOutcome { accepted, accepted_histograms, ticket, .. } = taken.outcome;
    service.counters.samples_written.fetch_add(accepted + accepted_histograms, Ordering::Relaxed);
    service.app.backend.durable(ticket).await.map_err(|reason| {
        Refused::by(
            "read_only",
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the write is not durable: {reason}"),
        )
    })?;
    let written = Written::of(message, &taken);
    if let Some((count, text)) = describe_refused(&taken) {
        service.counters.samples_refused.fetch_add(count, Ordering::Relaxed);
        return Err(Refused::new(StatusCode::BAD_REQUEST, text).but(written));
    }
    if let Some(text) = of_other_replica(&taken) {
        return Err(Refused::new(StatusCode::ACCEPTED, text).but(written));
    }
    let mut response = reply::empty(StatusCode::NO_CONTENT);
    if let Some(written) = written {
        written.add_to(response.headers_mut());
    }
    Ok(response)
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
    let expected = body.size_hint().upper().map_or(limit, |size| usize::try_from(size).unwrap_or(usize::MAX));
    if expected > limit && body.size_hint().exact().is_some() {
        return Err(too_large());
    }
    let room = service.writes.room(expected.min(limit)).ok_or_else(Refused::no_room)?;
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
    let body_room = service.writes.room(declared).ok_or_else(Refused::no_room)?;
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
    message: Message,
    compressed: Vec<u8>,
    room: (OwnedSemaphorePermit, OwnedSemaphorePermit),
) -> Result<Taken, Refused> {
    let underway = Underway::begin(&*service.app.backend);
    let mut buffers = service.writes.take();
    let result = decode_and_append(service, message, &compressed, &mut buffers);
    drop(underway);
    service.writes.give(buffers);
    service.writes.give_received(compressed);
    drop(room);
    result
}

fn decode_and_append(
    service: &Service,
    message: Message,
    compressed: &[u8],
    buffers: &mut Buffers,
) -> Result<Taken, Refused> {
    let Buffers { body, batch, labels, replaced } = buffers;
    decompress(compressed, &service.app.limits, body)?;
    let mut borrowing = std::mem::take(batch).recycle();
    let result = append_body(service, message, body, labels, replaced, &mut borrowing);
    *batch = borrowing.recycle();
    result
}

fn append_body<'a>(
    service: &Service,
    message: Message,
    body: &'a [u8],
    labels: &'a mut LabelBuffers,
    replaced: &'a mut Replaced,
    batch: &mut Batch<'a>,
) -> Result<Taken, Refused> {
    let limits = &service.app.limits;
    let mut rooms = Vec::new();
    let summary = match message {
        Message::V1 => decode_write_request(body, limits, &mut labels.reordered, batch)?,
        Message::V2 => {
            // Labels written out take more than the body, for which there is room.
            let mut room = |bytes| service.writes.room(bytes).map(|room| rooms.push(room)).is_some();
            decode_write_request_v2(body, limits, &mut room, &mut labels.spelling, batch)?
        }
    };
    if !service.app.options.start_timestamps {
        batch.forget_starts();
    }
    let examined = match &service.app.replicas {
        Some(tracker) => deduplicate(service, tracker, batch, replaced),
        None => Examined::default(),
    };
    let is_less = examined.example.is_some() || examined.refused > 0;
    let nothing_is_left = is_less && batch.series.is_empty();
    let outcome =
        if nothing_is_left { AppendOutcome::default() } else { service.app.append.append(batch)? };
    Ok(Taken { summary, outcome, examined })
}

/// Leaves the samples of replicas out that are not elected, and those of clusters for which there is no room.
fn deduplicate<'a>(
    service: &Service,
    tracker: &Mutex<HaTracker>,
    batch: &mut Batch<'a>,
    replaced: &'a mut Replaced,
) -> Examined {
    let now_ms = service.app.env.clock.wall_ms();
    let examined = tracker.lock().examine(batch, now_ms, replaced);
    if examined.elected {
        service.app.backend.replica_elected();
    }
    replaced.apply(batch);
    if examined.refused > 0 {
        service.counters.refuse("ha_clusters");
    }
    examined
}

/// As Mimir answers where nothing of a request is left: the sender has nothing to repeat, and a person
/// who looks sees why.
fn of_other_replica(taken: &Taken) -> Option<String> {
    let (replica, elected) = taken.examined.example.as_ref()?;
    let stored = taken.outcome.accepted + taken.outcome.accepted_histograms;
    let text = || format!("replicas did not match, rejecting sample: replica={replica}, elected={elected}");
    (stored == 0).then(text)
}
