//! The table of clocks: where each column of timestamps lies and what it spans.
//!
//! ```text
//! offset  size  field       of each clock, 32 bytes
//!      0     8  offset      of its column in the data section
//!      8     8  first_ms
//!     16     4  span_ms     from the first timestamp to the last
//!     20     4  len         of the column
//!     24     4  count       timestamps
//!     28     4  crc32       of the column
//! ```
//!
//! Fixed in size, so that a query learns what a chunk spans without touching its pages, and a
//! block whose series share no clock needs no memory for them when it is opened.

use bytes::Bytes;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clock {
    pub(super) offset: u64,
    pub(super) first_ms: i64,
    pub(super) span_ms: u32,
    pub(super) len: u32,
    pub(super) count: u32,
    pub(super) crc: u32,
}

impl Clock {
    pub(super) const LEN: usize = 32;

    /// The last timestamp. Saturates on a table that no writer made.
    pub(super) fn last_ms(&self) -> i64 {
        self.first_ms.saturating_add(i64::from(self.span_ms))
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.first_ms.to_le_bytes());
        for word in [self.span_ms, self.len, self.count, self.crc] {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }

    fn decode(bytes: &[u8; Clock::LEN]) -> Clock {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        Clock {
            offset: long(0),
            first_ms: long(8) as i64,
            span_ms: word(16),
            len: word(20),
            count: word(24),
            crc: word(28),
        }
    }
}

/// The table, mapped.
#[derive(Debug, Clone)]
pub(super) struct ClockTable {
    bytes: Bytes,
}

impl ClockTable {
    pub(super) fn open(bytes: Bytes) -> Result<ClockTable, &'static str> {
        match bytes.len() % Clock::LEN {
            0 => Ok(ClockTable { bytes }),
            _ => Err("the table of clocks is cut short"),
        }
    }

    pub(super) fn get(&self, clock: u32) -> Option<Clock> {
        self.bytes.as_chunks().0.get(clock as usize).map(Clock::decode)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Clock> {
        self.bytes.as_chunks().0.iter().map(Clock::decode)
    }
}
