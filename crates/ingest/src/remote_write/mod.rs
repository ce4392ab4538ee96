//! Remote write 1.0: a snappy block that holds a protobuf `prometheus.WriteRequest`.
//!
//! ```text
//! compressed body ─ decompress ─► body ─ decode_write_request ─► Batch (borrows the body)
//! ```
//!
//! The labels of a series stay the bytes the sender wrote ([`tidewatch_model::RawLabels::Proto`]):
//! the store finds a known series by them and decodes them only when the series is new.

mod decode;
mod encode;
mod histogram;
mod snappy;
mod wire;

pub use decode::{WriteSummary, decode_write_request};
pub use encode::{compress, encode_write_request};
pub use snappy::decompress;

/// Why a write request was refused as a whole: the sender's answer is 400, or 413 for a size.
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
    /// The protobuf is malformed. 400.
    #[error("malformed write request at byte {offset}: {reason}")]
    Malformed { offset: usize, reason: &'static str },
}

impl WriteError {
    /// Whether the request was refused for its size: 413 rather than 400.
    pub fn is_too_large(&self) -> bool {
        matches!(self, WriteError::TooLarge { .. } | WriteError::TooMany { .. })
    }
}
