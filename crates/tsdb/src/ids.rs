//! Lists of series in frames: how many (varint), then of each the distance of its id to the one before
//! (varint; the first: the id).

use crate::fields::{Reader, push_varint};
use crate::head::registry::SeriesId;
use crate::log::FrameError;

/// A list that ends its frame, checked.
#[derive(Debug)]
pub(crate) struct Ids<'a> {
    count: u64,
    distances: Reader<'a>,
}

/// Appends a list of ascending ids.
pub(crate) fn push_ids(ids: &[SeriesId], out: &mut Vec<u8>) {
    push_varint(ids.len() as u64, out);
    let mut before = 0;
    for id in ids {
        push_varint(u64::from(id.0 - before), out);
        before = id.0;
    }
}

impl<'a> Ids<'a> {
    pub(crate) fn read(mut reader: Reader<'a>) -> Result<Ids<'a>, FrameError> {
        let count = reader.varint()?;
        let mut walk = reader.clone();
        let mut id = 0u64;
        for _ in 0..count {
            id = id.saturating_add(walk.varint()?);
        }
        if !walk.bytes.is_empty() || id > u64::from(u32::MAX) {
            return Err(FrameError::Malformed);
        }
        Ok(Ids { count, distances: reader })
    }

    /// Visits the series, ascending.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(SeriesId)) {
        let mut distances = self.distances.clone();
        let mut id = 0;
        for _ in 0..self.count {
            id += distances.varint().expect("walked when the frame was read");
            visit(SeriesId(id as u32));
        }
    }
}
