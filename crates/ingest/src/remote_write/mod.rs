//! Remote write, 1.0 and 2.0: a snappy block that holds a protobuf `prometheus.WriteRequest` or an
//! `io.prometheus.write.v2.Request`.
//!
//! ```text
//! compressed body ─ decompress ─► body ┬─ decode_write_request ───────────────────────► Batch (borrows
//!                                      └─ decode_write_request_v2 ─► Spelling (labels) ─►     either)
//! ```
//!
//! The labels of a series are the bytes that a sender of 1.0 writes
//! ([`tidewatch_model::RawLabels::Proto`]): the store finds a known series by them and decodes them
//! only when the series is new. Of 2.0, which numbers its strings, they are written out, so that a
//! series is the same however it comes.

mod decode;
mod decode_v2;
mod encode;
mod histogram;
mod snappy;
mod spelling;
mod wire;

pub use decode::decode_write_request;
pub use decode_v2::decode_write_request_v2;
pub use encode::{compress, encode_write_request};
pub use snappy::decompress;
pub use spelling::Spelling;

/// What a request held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteSummary {
    /// Series with samples or histograms: those in the batch.
    pub series: usize,
    /// Series of 1.0 that carry neither; they are left out of the batch. Exemplars come in such ones.
    pub empty_series: usize,
    pub samples: usize,
    pub histograms: usize,
    pub exemplars: usize,
    pub metadata: usize,
    pub left_out: LeftOut,
}

/// What can not be taken of a request of 2.0 while the rest is: the sender is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Samples and histograms of series that are malformed.
    pub malformed: u64,
    /// The same of series whose labels are too long.
    pub over_limit: u64,
    /// Series that have neither samples nor histograms, whatever else is wrong with them.
    pub empty_series: u64,
    /// Malformed exemplars.
    pub exemplars: u64,
    /// Place and cause of the first.
    pub first: Option<String>,
}

/// Why a write request was refused as a whole: the sender's answer is 400, 413 for a size, or 503.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The compressed or the declared size is over a limit; nothing was read. 413.
    #[error("{what} of {size} bytes is over the limit of {limit}")]
    TooLarge { what: &'static str, size: usize, limit: usize },
    /// The declared size can not come from so few bytes: a decompression bomb or garbage. 400.
    #[error("snappy block of {compressed} bytes declares {declared} bytes, more than 22 times as many")]
    Bomb { compressed: usize, declared: usize },
    /// The body is no snappy block. 400.
    #[error("body is no snappy block: {0}")]
    Snappy(#[from] snap::Error),
    /// The request holds too many samples or metadata entries. 413.
    #[error("request holds more than {limit} {what}")]
    TooMany { what: &'static str, limit: usize },
    /// The symbols, and the labels and metadata that are made of them, take more than a request may have. 413.
    #[error(
        "labels and metadata of the request, written out, are over the limit of {limit} bytes: send fewer series"
    )]
    Expands { limit: usize },
    /// There is no memory to write labels out. 503.
    #[error("write requests in flight fill their memory budget")]
    NoRoom,
    /// The protobuf is malformed. 400.
    #[error("malformed write request at byte {offset}: {reason}")]
    Malformed { offset: usize, reason: &'static str },
}

impl WriteError {
    /// Whether the request was refused for its size: 413 rather than 400.
    pub fn is_too_large(&self) -> bool {
        use WriteError::{Expands, TooLarge, TooMany};
        matches!(self, TooLarge { .. } | TooMany { .. } | Expands { .. })
    }
}
