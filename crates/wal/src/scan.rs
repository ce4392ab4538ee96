//! Walks the bytes of one segment from frame to frame, and over damage to the next good one.

use std::ops::Range;

use bytes::Bytes;

use crate::format::{
    FRAME_HEADER_SIZE, FRAME_MAGIC, FrameHeader, HeaderCheck, Position, SEGMENT_HEADER_SIZE, SegmentHeader,
};

/// How many bytes a walk sums in search of frames behind damage, as a multiple of the segment.
/// Real damage needs a small part of one; a file made to look like nested frames would
/// otherwise cost the square of its size.
const SEARCH_BUDGET_FACTOR: usize = 16;

/// One stretch of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Frame {
        offset: usize,
        body: Range<usize>,
    },
    /// Bytes that are no frame, with a good frame behind them.
    Gap {
        range: Range<usize>,
        reason: &'static str,
    },
    /// Bytes that are no frame, up to the end: torn, or damaged.
    Tail {
        range: Range<usize>,
        reason: &'static str,
    },
}

/// A segment in memory and how far it was walked.
#[derive(Debug)]
pub(crate) struct Scan {
    number: u64,
    bytes: Bytes,
    at: usize,
    /// From the header; from the first good frame where the header is damaged.
    salt: Option<u32>,
    search_budget: usize,
    /// The header is damaged and this was not said yet.
    header_damage: bool,
}

impl Scan {
    /// Begins at `offset`, or at the first frame where that lies in the header.
    pub(crate) fn new(number: u64, bytes: Bytes, offset: usize) -> Scan {
        let salt = match SegmentHeader::check(&bytes) {
            HeaderCheck::Good(header) => Some(header.salt),
            HeaderCheck::Newer(_) | HeaderCheck::Damaged => None,
        };
        let search_budget = bytes.len().saturating_mul(SEARCH_BUDGET_FACTOR);
        let (at, header_damage) = match (salt, offset < SEGMENT_HEADER_SIZE) {
            (Some(_), true) => (SEGMENT_HEADER_SIZE, false),
            (None, true) => (0, true),
            (_, false) => (offset.min(bytes.len()), false),
        };
        Scan { number, bytes, at, salt, search_budget, header_damage }
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(crate) fn next(&mut self) -> Option<Piece> {
        if self.at >= self.bytes.len() {
            return None;
        }
        if !std::mem::take(&mut self.header_damage)
            && let Some((header, body)) = self.frame_at(self.at)
        {
            let offset = std::mem::replace(&mut self.at, body.end);
            self.salt = Some(header.salt);
            return Some(Piece::Frame { offset, body });
        }
        Some(self.skip_damage())
    }

    /// The frame at `offset`, if there is a whole and good one.
    fn frame_at(&self, offset: usize) -> Option<(FrameHeader, Range<usize>)> {
        let (header, body) = self.candidate_at(offset)?;
        let position = Position { segment: self.number, offset: offset as u64 };
        header.matches(&self.bytes[body.clone()], position).then_some((header, body))
    }

    /// What looks like a frame of this segment before its body is summed.
    fn candidate_at(&self, offset: usize) -> Option<(FrameHeader, Range<usize>)> {
        let header = FrameHeader::decode(&self.bytes[offset..])?;
        let start = offset + FRAME_HEADER_SIZE;
        let body = start..start.checked_add(header.len as usize)?;
        let fits = body.end <= self.bytes.len();
        let ours = self.salt.is_none_or(|salt| salt == header.salt);
        (fits && ours).then_some((header, body))
    }

    fn skip_damage(&mut self) -> Piece {
        let start = self.at;
        let reason = self.reason_at(start);
        match self.find_frame(start + 1) {
            Some(found) => {
                self.at = found;
                Piece::Gap { range: start..found, reason }
            }
            None => {
                self.at = self.bytes.len();
                Piece::Tail { range: start..self.at, reason }
            }
        }
    }

    fn reason_at(&self, offset: usize) -> &'static str {
        if offset < SEGMENT_HEADER_SIZE {
            return "the header of the segment is damaged";
        }
        match self.candidate_at(offset) {
            Some(_) => "the frame does not match its checksum",
            None => "there is no frame here",
        }
    }

    /// The next good frame at or behind `from`.
    fn find_frame(&mut self, from: usize) -> Option<usize> {
        let mut from = from;
        loop {
            let rest = self.bytes.get(from..)?;
            let found = from + rest.windows(FRAME_MAGIC.len()).position(|w| w == FRAME_MAGIC)?;
            if let Some((_, body)) = self.candidate_at(found) {
                self.search_budget = self.search_budget.checked_sub(body.len())?;
                if self.frame_at(found).is_some() {
                    return Some(found);
                }
            }
            from = found + 1;
        }
    }
}
