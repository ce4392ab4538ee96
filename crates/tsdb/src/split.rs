//! Definitions that are longer than the log takes, in several frames.
//!
//! One request defines all its new series in one frame. A target that shows nothing but new labels can make that
//! longer than a frame of the log may be: numbers and lengths take more there than in the text of a scrape. The head
//! has the series by then, so the log must have them as well.
//!
//! Invariant: equal frames give equal parts, so that the repeats of a part are known by its hash.
//!
//! Not here: what a frame of definitions looks like (`log`), and which are logged again (`head::repeats`).

use std::ops::Range;

use tidewatch_storage::{AppendError, Ticket};
use tidewatch_wal::FRAME_BYTES_MAX;

use crate::fields::{push_text, push_varint};
use crate::log::{Definitions, Frame, FrameKind, read_frame};

/// The longest frame of definitions. Half of what the log takes: what repeats it must fit, however badly it packs.
const DEFINITIONS_MAX: usize = FRAME_BYTES_MAX / 2;

/// A frame of definitions, with the ids of its series.
pub(crate) type Part = (Range<u32>, Vec<u8>);

/// The parts of a frame of definitions that is too long; `None` of other frames.
pub(crate) fn split(frame: &[u8]) -> Option<Vec<Part>> {
    if frame.len() <= DEFINITIONS_MAX {
        return None;
    }
    let Ok(Frame::Definitions(definitions)) = read_frame(frame) else { return None };
    let mut parts = Vec::new();
    push_parts(definitions.first.0, &definitions.pairs, &lists(&definitions), DEFINITIONS_MAX, &mut parts);
    Some(parts)
}

/// Logs each part, whatever became of the one before: the log is to have them all.
pub(crate) fn log_each(
    parts: Vec<Part>,
    log: impl FnMut(Part) -> Result<Ticket, AppendError>,
) -> Result<Ticket, AppendError> {
    let logged: Vec<_> = parts.into_iter().map(log).collect();
    logged.into_iter().try_fold(Ticket::default(), |newest, ticket| Ok(newest.max(ticket?)))
}

/// The numbers of each series' pairs.
fn lists(definitions: &Definitions<'_>) -> Vec<Vec<usize>> {
    let mut series = Vec::new();
    definitions.for_each(|_, numbers| series.push(numbers.to_vec())).expect("the head wrote it");
    series
}

/// Halves what is too long until nothing is; a single series never is.
fn push_parts(first: u32, pairs: &[(&str, &str)], series: &[Vec<usize>], most: usize, parts: &mut Vec<Part>) {
    let frame = write(first, pairs, series);
    if frame.len() <= most || series.len() < 2 {
        parts.push((first..first + series.len() as u32, frame));
        return;
    }
    drop(frame);
    let (front, back) = series.split_at(series.len() / 2);
    push_parts(first, pairs, front, most, parts);
    push_parts(first + front.len() as u32, pairs, back, most, parts);
}

/// The frame of these series, which have the pairs by their numbers.
fn write(first: u32, pairs: &[(&str, &str)], series: &[Vec<usize>]) -> Vec<u8> {
    let mut used: Vec<usize> = series.iter().flatten().copied().collect();
    used.sort_unstable();
    used.dedup();
    let mut out = vec![FrameKind::Definitions as u8, 0];
    out.extend_from_slice(&first.to_le_bytes());
    push_varint(used.len() as u64, &mut out);
    for pair in &used {
        let (name, value) = pairs[*pair];
        push_text(name.as_bytes(), &mut out);
        push_text(value.as_bytes(), &mut out);
    }
    push_varint(series.len() as u64, &mut out);
    for labels in series {
        push_varint(labels.len() as u64, &mut out);
        for pair in labels {
            let number = used.binary_search(pair).expect("collected above");
            push_varint(number as u64, &mut out);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::head::registry::{PairId, Registry, SeriesId};
    use crate::log::write_definitions;

    type Defined = Vec<(u32, Vec<(String, String)>)>;

    fn defined(frame: &[u8]) -> Defined {
        let Ok(Frame::Definitions(definitions)) = read_frame(frame) else { panic!("not definitions") };
        let mut found = Vec::new();
        let text = |number: &usize| {
            let (name, value) = definitions.pairs[*number];
            (name.to_owned(), value.to_owned())
        };
        definitions
            .for_each(|id, numbers| found.push((id.0, numbers.iter().map(text).collect())))
            .expect("whole");
        found
    }

    proptest! {
        #[test]
        fn parts_define_what_the_whole_did(
            first in 0..1000u32,
            sets in proptest::collection::vec(proptest::collection::btree_map("[a-c]", 0..40u32, 1..4), 1..60),
            most in 1..2000usize,
        ) {
            let mut registry = Registry::new(1);
            let mut intern = |(name, value): (&String, &u32)| registry.intern(name, &"x".repeat(*value as usize));
            let sets: Vec<Vec<PairId>> = sets.iter().map(|set| set.iter().map(&mut intern).collect()).collect();
            let mut frame = Vec::new();
            write_definitions(SeriesId(first), &registry.pairs, sets.iter().map(Vec::as_slice), &mut frame);
            prop_assert_eq!(split(&frame), None);
            let Ok(Frame::Definitions(definitions)) = read_frame(&frame) else { panic!("not definitions") };
            let lists = lists(&definitions);
            prop_assert_eq!(&write(first, &definitions.pairs, &lists), &frame, "written as the head writes it");
            let mut parts = Vec::new();
            push_parts(first, &definitions.pairs, &lists, most, &mut parts);
            prop_assert!(parts.iter().all(|(ids, part)| part.len() <= most || ids.len() == 1));
            prop_assert_eq!(parts.len() == 1, frame.len() <= most || lists.len() == 1);
            let of_parts: Vec<Defined> = parts.iter().map(|(_, part)| defined(part)).collect();
            for ((ids, _), defined) in parts.iter().zip(&of_parts) {
                prop_assert!(defined.iter().map(|(id, _)| *id).eq(ids.clone()));
            }
            prop_assert_eq!(of_parts.concat(), defined(&frame));
        }
    }
}
