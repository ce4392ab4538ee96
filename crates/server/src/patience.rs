//! A request's body from a client that may stall, or that hears of a refusal only when it has sent all.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use crate::body::BodyError;

/// A body as a whole may take this many times as long as one frame of it.
const WHOLE_FACTOR: u32 = 5;
/// How much of a refused body is still read. Most clients send all of it before they read an answer; closing
/// on them resets the connection, and the answer that names the reason is lost.
const REST_BYTES_MAX: u64 = 64 << 20;
/// How long the rest of a refused body may take.
const REST_TIME: Duration = Duration::from_secs(10);

/// What to do with a body that nobody has read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// The client sends it in any case.
    Read,
    /// The client waits for our word (`Expect: 100-continue`), or can be told to stop (HTTP/2).
    Leave,
}

/// Ends with an error when nothing comes for too long, or too little for very long: a handler
/// that waits for its body holds memory and a connection.
pub(crate) struct PatientBody {
    /// Taken at the end, when the rest is read.
    body: Option<Incoming>,
    rest: Rest,
    patience: Duration,
    /// Set while a frame is waited for.
    deadline: Option<Pin<Box<Sleep>>>,
    opened: Instant,
}

impl PatientBody {
    pub(crate) fn new(body: Incoming, patience: Duration, rest: Rest) -> PatientBody {
        PatientBody { body: Some(body), rest, patience, deadline: None, opened: Instant::now() }
    }
}

impl Drop for PatientBody {
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        if self.rest == Rest::Leave || body.is_end_stream() || body.size_hint().lower() > REST_BYTES_MAX {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(read_rest(body));
        }
    }
}

/// Reads and forgets, while the answer is on its way.
async fn read_rest(mut body: Incoming) {
    let deadline = Instant::now() + REST_TIME;
    let mut left = REST_BYTES_MAX;
    while let Ok(Some(Ok(frame))) = timeout_at(deadline, body.frame()).await {
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        match left.checked_sub(bytes) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

impl Body for PatientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(context) {
            this.deadline = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let whole = this.opened + this.patience * WHOLE_FACTOR;
        let next = whole.min(Instant::now() + this.patience);
        let deadline = this.deadline.get_or_insert_with(|| Box::pin(sleep_until(next)));
        match deadline.as_mut().poll(context) {
            Poll::Ready(()) => {
                this.rest = Rest::Leave;
                Poll::Ready(Some(Err("the client is too slow in sending it".into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, |body| body.size_hint())
    }
}
