//! Frames that are appended but not yet written: buffers that become one write each.

use std::collections::VecDeque;

use crc32fast::Hasher;

use crate::format::{FRAME_HEADER_SIZE, FrameHeader, Position, SEGMENT_HEADER_SIZE, SegmentHeader};
use crate::writer::WalOptions;

/// How many bytes may wait in memory to be written: two of the largest frames.
pub const PENDING_BYTES_MAX: usize = 2 * crate::FRAME_BYTES_MAX;

/// Buffers kept for reuse: one that fills, one that is being written.
const POOLED_COUNT_MAX: usize = 2;

/// A buffer that one burst made larger than this goes back to the allocator.
const POOLED_BYTES_MAX: usize = 4 << 20;

/// A stretch of one segment that is written at once.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) start: Position,
    /// Where the segment before ended. Counts only where the batch begins its segment.
    pub(crate) previous_end: u64,
    pub(crate) owner: u64,
    pub(crate) salt: u32,
    pub(crate) bytes: Vec<u8>,
}

impl Batch {
    /// The header of the segment that the batch belongs to.
    pub(crate) fn segment_header(&self) -> SegmentHeader {
        let Batch { start, previous_end, owner, salt, .. } = *self;
        SegmentHeader { number: start.segment, previous_end, owner, salt }
    }

    pub(crate) fn end(&self) -> Position {
        Position { segment: self.start.segment, offset: self.start.offset + self.bytes.len() as u64 }
    }
}

/// Decides where each frame goes.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Where the next frame goes, if it fits.
    next: Position,
    previous_end: u64,
    /// Of all segments.
    owner: u64,
    salt: u32,
    segment_bytes: u64,
    /// Not yet taken by a commit; together they end at `next`.
    batches: VecDeque<Batch>,
    /// Bytes in `batches` and in those that a commit took and has not finished.
    bytes: usize,
    pool: Vec<Vec<u8>>,
}

impl Pending {
    pub(crate) fn new(segment: u64, previous_end: u64, salt: u32, options: &WalOptions) -> Pending {
        Pending {
            next: Position { segment, offset: SEGMENT_HEADER_SIZE as u64 },
            previous_end,
            owner: options.owner,
            salt,
            segment_bytes: options.segment_bytes,
            batches: VecDeque::new(),
            bytes: 0,
            pool: Vec::new(),
        }
    }

    pub(crate) fn next(&self) -> Position {
        self.next
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a frame of `len` bytes begins a new segment.
    pub(crate) fn needs_cut(&self, len: usize) -> bool {
        !self.is_at_segment_start()
            && self.next.offset + (FRAME_HEADER_SIZE + len) as u64 > self.segment_bytes
    }

    fn is_at_segment_start(&self) -> bool {
        self.next.offset == SEGMENT_HEADER_SIZE as u64
    }

    /// The next frame begins a new segment, unless the current one is empty.
    pub(crate) fn cut(&mut self, salt: u32) {
        if !self.is_at_segment_start() {
            self.previous_end = self.next.offset;
            self.next = Position { segment: self.next.segment + 1, offset: SEGMENT_HEADER_SIZE as u64 };
            self.salt = salt;
        }
    }

    /// Adds the frame made of `parts`, which are `len` bytes and have gone through `body`.
    pub(crate) fn push(&mut self, parts: &[&[u8]], len: u32, body: Hasher) -> Position {
        let position = self.next;
        let header = FrameHeader::seal(len, self.salt, body, position).encode();
        let bytes = &mut self.batch().bytes;
        bytes.extend_from_slice(&header);
        for part in parts {
            bytes.extend_from_slice(part);
        }
        let size = FRAME_HEADER_SIZE + len as usize;
        self.next.offset += size as u64;
        self.bytes += size;
        position
    }

    /// The batch that ends at `next`.
    fn batch(&mut self) -> &mut Batch {
        if self.batches.back().is_none_or(|last| last.end() != self.next) {
            let bytes = self.pool.pop().unwrap_or_default();
            let Pending { next: start, previous_end, owner, salt, .. } = *self;
            self.batches.push_back(Batch { start, previous_end, owner, salt, bytes });
        }
        self.batches.back_mut().expect("pushed above where there was none")
    }

    /// Hands all batches to a commit.
    pub(crate) fn take(&mut self, into: &mut VecDeque<Batch>) {
        into.append(&mut self.batches);
    }

    /// Takes back the buffer of a batch that was written.
    pub(crate) fn recycle(&mut self, batch: Batch) {
        self.bytes -= batch.bytes.len();
        let mut bytes = batch.bytes;
        if self.pool.len() < POOLED_COUNT_MAX && bytes.capacity() <= POOLED_BYTES_MAX {
            bytes.clear();
            self.pool.push(bytes);
        }
    }
}
