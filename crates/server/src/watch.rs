//! Ends connections that take a place and do nothing with it.
//!
//! ```text
//!            bytes                request            answer taken
//! Fresh ──────────────► Heading ──────────► Serving ──────────────► Idle ─ bytes ─► Heading
//!   │ header timeout       │ header timeout    │ nothing moves for     │ idle timeout
//!   ▼                      ▼                   ▼ the idle timeout      ▼
//!   └──────────────────────┴────── closed ─────┴───────────────────────┘
//! ```
//!
//! While a handler computes, nothing has to move: handlers have deadlines of their own, and so
//! has the body that they wait for ([`crate::patience`]).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::body::{BodyError, ResponseBody};

/// How long a connection may take for what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    pub(crate) header: Duration,
    pub(crate) idle: Duration,
}

/// What is known of one connection; shared by its stream, its requests and its watcher.
#[derive(Clone)]
pub(crate) struct Watch(Arc<Mutex<State>>);

struct State {
    /// Requests whose handler runs.
    computing: usize,
    /// Requests that are not answered completely yet, those above among them.
    serving: usize,
    served_any: bool,
    /// Many requests share the connection, and bytes need not begin a request.
    multiplexed: bool,
    /// When bytes last moved, either way.
    moved: Instant,
    /// When the first bytes came after the last answer.
    heading_since: Option<Instant>,
    opened: Instant,
}

impl Watch {
    pub(crate) fn new() -> Watch {
        let now = Instant::now();
        Watch(Arc::new(Mutex::new(State {
            computing: 0,
            serving: 0,
            served_any: false,
            multiplexed: false,
            moved: now,
            heading_since: None,
            opened: now,
        })))
    }

    /// Resolves when the connection has had its time.
    pub(crate) async fn expired(self, timeouts: Timeouts) {
        // A deadline may come nearer while we sleep, when bytes begin a header.
        let nap_max = timeouts.header / 4;
        loop {
            let now = Instant::now();
            let deadline = self.0.lock().deadline(timeouts);
            match deadline {
                Some(deadline) if deadline <= now => return,
                Some(deadline) => tokio::time::sleep((deadline - now).min(nap_max)).await,
                None => tokio::time::sleep(nap_max).await,
            }
        }
    }

    pub(crate) fn request(&self, multiplexed: bool) -> Serving {
        let mut state = self.0.lock();
        state.serving += 1;
        state.computing += 1;
        state.served_any = true;
        state.multiplexed = multiplexed;
        state.heading_since = None;
        Serving { watch: self.clone(), computing: true }
    }

    fn moved(&self, read: bool) {
        let mut state = self.0.lock();
        state.moved = Instant::now();
        if read && state.serving == 0 && state.heading_since.is_none() {
            state.heading_since = Some(state.moved);
        }
    }
}

impl State {
    fn deadline(&self, timeouts: Timeouts) -> Option<Instant> {
        if self.computing > 0 {
            return None;
        }
        if self.serving > 0 {
            return Some(self.moved + timeouts.idle);
        }
        if !self.served_any {
            return Some(self.opened + timeouts.header);
        }
        match self.heading_since {
            Some(since) if !self.multiplexed => Some(since + timeouts.header),
            _ => Some(self.moved + timeouts.idle),
        }
    }
}

/// A request that is being served: computed first, then answered.
pub(crate) struct Serving {
    watch: Watch,
    computing: bool,
}

impl Serving {
    /// The handler is done; from here on bytes have to move.
    pub(crate) fn computed(&mut self) {
        if std::mem::take(&mut self.computing) {
            let mut state = self.watch.0.lock();
            state.computing -= 1;
            state.moved = Instant::now();
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.computed();
        let mut state = self.watch.0.lock();
        state.serving -= 1;
        state.moved = Instant::now();
    }
}

/// The body of an answer, which is served until it is dropped.
pub(crate) struct ServedBody {
    pub(crate) body: ResponseBody,
    pub(crate) _serving: Serving,
}

impl Body for ServedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that notes when bytes move.
pub(crate) struct WatchedStream<S> {
    pub(crate) stream: S,
    pub(crate) watch: Watch,
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.watch.moved(true);
        }
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        if matches!(poll, Poll::Ready(Ok(count)) if count > 0) {
            self.watch.moved(false);
        }
        poll
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        if matches!(poll, Poll::Ready(Ok(count)) if count > 0) {
            self.watch.moved(false);
        }
        poll
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
