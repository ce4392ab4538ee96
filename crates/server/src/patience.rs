//! A request's body from a client that may stall.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::body::BodyError;

/// A body as a whole may take this many times as long as one frame of it.
const WHOLE_FACTOR: u32 = 5;

/// Ends with an error when nothing comes for too long, or too little for very long: a handler
/// that waits for its body holds memory and a connection.
pub(crate) struct PatientBody {
    body: Incoming,
    patience: Duration,
    /// Set while a frame is waited for.
    deadline: Option<Pin<Box<Sleep>>>,
    opened: Instant,
}

impl PatientBody {
    pub(crate) fn new(body: Incoming, patience: Duration) -> PatientBody {
        PatientBody { body, patience, deadline: None, opened: Instant::now() }
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
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.deadline = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let whole = this.opened + this.patience * WHOLE_FACTOR;
        let next = whole.min(Instant::now() + this.patience);
        let deadline = this.deadline.get_or_insert_with(|| Box::pin(sleep_until(next)));
        match deadline.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Some(Err("the client is too slow in sending it".into()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
