//! Bodies of requests and answers.
//!
//! An answer is empty, at hand as a whole, or written piece by piece while the client takes it.
//! A piecewise body holds no thread and at most [`PIECE_BYTES`] or so of text, however large the
//! answer; when it would pass the limit it ends the connection instead of looking complete.

use std::error::Error;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

/// How much text is written before it is handed on: large enough that framing costs nothing,
/// small enough that a slow client holds little.
const PIECE_BYTES: usize = 64 << 10;

/// Why a body broke off.
pub type BodyError = Box<dyn Error + Send + Sync>;

/// The body of a request, whatever carries it.
pub type RequestBody = UnsyncBoxBody<Bytes, BodyError>;

/// Appends the next part of a text; says whether more follows.
pub(crate) type Producer = Box<dyn FnMut(&mut Vec<u8>) -> More + Send>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum More {
    Follows,
    Nothing,
}

/// The body of an answer.
pub struct ResponseBody(Kind);

enum Kind {
    Whole(Bytes),
    Pieces(Box<Pieces>),
}

struct Pieces {
    /// Taken when there is nothing more.
    producer: Option<Producer>,
    /// The beginning, written already.
    first: Vec<u8>,
    gzip: Option<GzEncoder<Vec<u8>>>,
    written: usize,
    limit: usize,
    begun: Instant,
}

/// How long an answer may take to be taken: it holds memory that other queries want. The largest
/// passes at half a megabyte a second.
const ANSWER_TIME: Duration = Duration::from_secs(10 * 60);

impl ResponseBody {
    pub(crate) fn empty() -> ResponseBody {
        ResponseBody(Kind::Whole(Bytes::new()))
    }

    pub(crate) fn whole(bytes: impl Into<Bytes>) -> ResponseBody {
        ResponseBody(Kind::Whole(bytes.into()))
    }

    /// Writes the beginning at once: an answer that fits into it becomes a whole.
    pub(crate) fn produce(mut producer: Producer, limit: usize) -> ResponseBody {
        let mut first = Vec::new();
        if fill(&mut producer, &mut first) == More::Nothing {
            return ResponseBody::whole(first);
        }
        let pieces =
            Pieces { producer: Some(producer), first, gzip: None, written: 0, limit, begun: Instant::now() };
        ResponseBody(Kind::Pieces(Box::new(pieces)))
    }

    /// Compresses, unless the body is so small that it would not pay. Returns whether it did.
    pub(crate) fn compress(&mut self) -> bool {
        const WORTHWHILE_BYTES: usize = 1 << 10;
        match &mut self.0 {
            Kind::Whole(bytes) if bytes.len() < WORTHWHILE_BYTES => return false,
            Kind::Whole(bytes) => {
                let mut gzip = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
                *bytes = gzip.write_all(bytes).and_then(|()| gzip.finish()).expect("memory takes all").into();
            }
            Kind::Pieces(pieces) => pieces.gzip = Some(GzEncoder::new(Vec::new(), Compression::fast())),
        }
        true
    }

    /// The text, where it is at hand as a whole.
    pub fn as_whole(&self) -> Option<&Bytes> {
        match &self.0 {
            Kind::Whole(bytes) => Some(bytes),
            Kind::Pieces(_) => None,
        }
    }
}

/// Produces until a piece is full or all is written.
fn fill(producer: &mut Producer, piece: &mut Vec<u8>) -> More {
    while piece.len() < PIECE_BYTES {
        if producer(piece) == More::Nothing {
            return More::Nothing;
        }
    }
    More::Follows
}

impl Pieces {
    fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        loop {
            let mut piece = std::mem::take(&mut self.first);
            if piece.is_empty() {
                let producer = self.producer.as_mut()?;
                if fill(producer, &mut piece) == More::Nothing {
                    self.producer = None;
                }
            }
            if self.begun.elapsed() > ANSWER_TIME {
                self.producer = None;
                return Some(Err("the client is too slow in taking the answer".into()));
            }
            self.written += piece.len();
            if self.written > self.limit {
                self.producer = None;
                return Some(Err(format!("answer is larger than {} bytes", self.limit).into()));
            }
            let ready = match self.encode(piece) {
                Ok(ready) => ready,
                Err(error) => return Some(Err(error.into())),
            };
            // A compressor may keep a piece to itself.
            if !ready.is_empty() {
                return Some(Ok(ready.into()));
            }
        }
    }

    fn encode(&mut self, piece: Vec<u8>) -> std::io::Result<Vec<u8>> {
        let Some(gzip) = &mut self.gzip else { return Ok(piece) };
        gzip.write_all(&piece)?;
        if self.producer.is_none() {
            return self.gzip.take().expect("matched above").finish();
        }
        Ok(std::mem::take(gzip.get_mut()))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let next = match &mut self.get_mut().0 {
            Kind::Whole(bytes) if bytes.is_empty() => None,
            Kind::Whole(bytes) => Some(Ok(std::mem::take(bytes))),
            Kind::Pieces(pieces) => pieces.next(),
        };
        Poll::Ready(next.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Pieces(pieces) => pieces.first.is_empty() && pieces.producer.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Pieces(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use http_body_util::BodyExt;

    use super::*;

    /// `count` numbers, one a line.
    fn numbers(count: usize) -> Producer {
        let mut next = 0;
        Box::new(move |out| {
            out.extend_from_slice(format!("{next}\n").as_bytes());
            next += 1;
            if next < count { More::Follows } else { More::Nothing }
        })
    }

    fn expected(count: usize) -> Vec<u8> {
        (0..count).flat_map(|n| format!("{n}\n").into_bytes()).collect()
    }

    fn collect(body: ResponseBody) -> Result<Vec<u8>, BodyError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        Ok(runtime.block_on(body.collect())?.to_bytes().to_vec())
    }

    #[test]
    fn a_short_answer_is_whole_and_a_long_one_comes_in_pieces() {
        let short = ResponseBody::produce(numbers(10), 1 << 20);
        assert_eq!(short.as_whole().map(|b| b.to_vec()), Some(expected(10)));
        let long = ResponseBody::produce(numbers(100_000), 1 << 20);
        assert!(long.as_whole().is_none());
        assert_eq!(collect(long).expect("below the limit"), expected(100_000));
    }

    #[test]
    fn both_kinds_of_body_come_back_from_gzip() {
        for count in [1_000, 100_000] {
            let mut body = ResponseBody::produce(numbers(count), 1 << 20);
            assert!(body.compress());
            let compressed = collect(body).expect("below the limit");
            let mut text = Vec::new();
            flate2::read::GzDecoder::new(&compressed[..]).read_to_end(&mut text).expect("gzip");
            assert_eq!(text, expected(count));
        }
        assert!(!ResponseBody::produce(numbers(10), 1 << 20).compress());
    }

    #[test]
    fn an_answer_over_the_limit_breaks_off_with_an_error() {
        let body = ResponseBody::produce(numbers(100_000), 100_000);
        let error = collect(body).expect_err("over the limit");
        assert_eq!(error.to_string(), "answer is larger than 100000 bytes");
    }
}
