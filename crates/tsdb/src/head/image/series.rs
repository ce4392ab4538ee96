//! Images of the directory of series.

use bytes::Bytes;

use super::sections::{ImageWriter, Section};
use super::{ImageHeader, ImageKind, VERSION, sections};
use crate::fields::{Reader, push_text, push_varint};
use crate::head::PAGE_SERIES;
use crate::head::registry::{PairId, Registry, SeriesId};
use crate::log::FrameError;

const PAIRS: u8 = 1;
const SERIES: u8 = 2;

/// Pairs of one section: where parity can not bring it back all are lost, and the series that bear one.
const SECTION_PAIRS: usize = 1024;

/// Labels that one byte says to be those of the series before, or not, at a time.
const MASK_LABELS: usize = 7;

impl Registry {
    /// The image of all living series of a data directory, at a position in the log.
    pub(crate) fn to_image(&self, position: (u64, u64), owner: u64) -> Vec<u8> {
        let next_id = self.next_id().0;
        let kind = ImageKind::Series;
        let header =
            ImageHeader { version: VERSION, kind, position, floor: 0, bar: 0, next_id, sections: 0, owner };
        let mut image = ImageWriter::new(header);
        let (pairs, numbers) = self.used_pairs();
        self.write_pairs(&pairs, &mut image);
        for page in (0..next_id).step_by(PAGE_SERIES as usize) {
            let ids = page..page.saturating_add(PAGE_SERIES).min(next_id);
            let alive = ids.map(SeriesId).filter(|id| self.is_alive(*id));
            let count = alive.clone().count();
            if count > 0 {
                image.section(|out| self.write_series(page, count, alive, &numbers, out));
            }
        }
        image.finish()
    }

    /// The pairs that living series bear, and the place of each pair among them.
    fn used_pairs(&self) -> (Vec<PairId>, Vec<u32>) {
        let mut numbers = vec![0; self.pairs.len()];
        self.ids().flat_map(|id| self.labels(id)).for_each(|pair| numbers[pair.0 as usize] = 1);
        let used = |pair: &PairId| numbers[pair.0 as usize] == 1;
        let pairs: Vec<PairId> = (0..numbers.len() as u32).map(PairId).filter(used).collect();
        pairs.iter().zip(0..).for_each(|(pair, number)| numbers[pair.0 as usize] = number);
        (pairs, numbers)
    }

    fn write_pairs(&self, pairs: &[PairId], image: &mut ImageWriter) {
        for (at, pairs) in pairs.chunks(SECTION_PAIRS).enumerate() {
            image.section(|out| {
                out.push(PAIRS);
                push_varint((at * SECTION_PAIRS) as u64, out);
                push_varint(pairs.len() as u64, out);
                for pair in pairs {
                    let (name, value) = self.pairs.get(*pair);
                    push_text(name.as_bytes(), out);
                    push_text(value.as_bytes(), out);
                }
            });
        }
    }

    fn write_series(
        &self,
        first: u32,
        count: usize,
        ids: impl Iterator<Item = SeriesId>,
        numbers: &[u32],
        out: &mut Vec<u8>,
    ) {
        out.push(SERIES);
        out.extend_from_slice(&first.to_le_bytes());
        push_varint(count as u64, out);
        let (mut next, mut before) = (first, &[][..]);
        for id in ids {
            let labels = self.labels(id);
            push_varint(u64::from(id.0 - next), out);
            push_varint(labels.len() as u64, out);
            for (at, part) in labels.chunks(MASK_LABELS).enumerate() {
                let same = |label: usize| before.get(at * MASK_LABELS + label) == Some(&part[label]);
                let mask = (0..part.len()).fold(0, |mask, label| mask | u8::from(same(label)) << label);
                out.push(mask);
                let others = part.iter().enumerate().filter(|(label, _)| mask >> label & 1 == 0);
                others.for_each(|(_, pair)| push_varint(u64::from(numbers[pair.0 as usize]), out));
            }
            (next, before) = (id.0 + 1, labels);
        }
    }
}

/// More labels than any limit lets in.
const LABELS_MAX: u64 = 1 << 12;

/// What takes series out of an image.
pub(crate) trait SeriesVisitor {
    fn pair(&mut self, name: &str, value: &str) -> PairId;
    fn series(&mut self, id: SeriesId, labels: &[PairId]);
}

/// Gives the series of an image, ascending; `damage` gets what can not be read. Gives whether all could.
pub(crate) fn visit_series(
    file: &Bytes,
    header: &ImageHeader,
    visitor: &mut impl SeriesVisitor,
    mut damage: impl FnMut(u64, &str),
) -> bool {
    // Earlier releases wrote the pairs once more behind the series, for where the first are lost.
    let (mut pairs, mut series) = (Pairs::within(file), Vec::new());
    let visit = |section: Section| {
        let mut body = Reader { bytes: &section.body };
        match body.byte()? {
            PAIRS => pairs.read(body, visitor),
            SERIES => {
                series.push(section);
                Ok(())
            }
            _ => Err(FrameError::Malformed),
        }
    };
    let mut is_whole = sections(file, header, visit, &mut damage);
    for Section { offset, body, .. } in series {
        if read_series(Reader { bytes: &body[1..] }, header.next_id, visitor, &pairs).is_err() {
            damage(offset, "a section of the image is malformed, or its labels are damaged");
            is_whole = false;
        }
    }
    is_whole
}

/// The pairs of an image by their numbers; `None` for those that were lost.
struct Pairs {
    known: Vec<Option<PairId>>,
    /// A pair takes four bytes at least, whatever a number says.
    max: usize,
}

impl Pairs {
    fn within(bytes: &[u8]) -> Pairs {
        Pairs { known: Vec::new(), max: bytes.len() / 4 }
    }

    fn read(&mut self, mut body: Reader<'_>, visitor: &mut impl SeriesVisitor) -> Result<(), FrameError> {
        let first = body.varint()?;
        let count = body.varint()?;
        for number in (0..count).map(|at| first.saturating_add(at)) {
            let pair = visitor.pair(body.utf8()?, body.utf8()?);
            let at = usize::try_from(number).ok().filter(|at| *at < self.max).ok_or(FrameError::Malformed)?;
            if self.known.len() <= at {
                // Where a section between them was lost its pairs are not known.
                self.known.resize(at + 1, None);
            }
            self.known[at] = Some(pair);
        }
        Ok(())
    }

    fn get(&self, number: u64) -> Option<PairId> {
        usize::try_from(number).ok().and_then(|at| self.known.get(at).copied().flatten())
    }
}

/// Ids that the header does not have, or that are of another page, are none: each one that is left out
/// costs memory.
fn read_series(
    mut body: Reader<'_>,
    next_id: u32,
    visitor: &mut impl SeriesVisitor,
    pairs: &Pairs,
) -> Result<(), FrameError> {
    let mut next = u64::from(u32::from_le_bytes(body.array()?));
    let end = u64::from(next_id).min(next.saturating_add(u64::from(PAGE_SERIES)));
    let (mut labels, mut before): (Vec<PairId>, Vec<PairId>) = (Vec::new(), Vec::new());
    // Series whose labels were lost: the others of the section are whole.
    let mut lost = false;
    for _ in 0..body.varint()? {
        let id = next.checked_add(body.varint()?).filter(|id| *id < end);
        let id = id.and_then(|id| u32::try_from(id).ok()).ok_or(FrameError::Malformed)?;
        let count = body.varint()?;
        if count > LABELS_MAX {
            return Err(FrameError::Malformed);
        }
        labels.clear();
        while (labels.len() as u64) < count {
            let part = (count - labels.len() as u64).min(MASK_LABELS as u64);
            let mask = body.byte()?;
            for label in 0..part {
                let pair = match mask >> label & 1 {
                    1 => *before.get(labels.len()).ok_or(FrameError::Malformed)?,
                    _ => pairs.get(body.varint()?).unwrap_or(LOST),
                };
                labels.push(pair);
            }
        }
        match labels.contains(&LOST) {
            true => lost = true,
            false => visitor.series(SeriesId(id), &labels),
        }
        next = u64::from(id) + 1;
        std::mem::swap(&mut labels, &mut before);
    }
    if lost { Err(FrameError::Malformed) } else { Ok(()) }
}

/// In place of a pair that was lost.
const LOST: PairId = PairId(u32::MAX);

/// Reads bytes as a section of pairs and as one of series, as if their checksums held.
pub(super) fn walk_series(bytes: &[u8]) {
    let mut registry = Registry::new(0);
    let mut pairs = Pairs::within(bytes);
    let _ = pairs.read(Reader { bytes }, &mut registry);
    let _ = read_series(Reader { bytes }, 64 * PAGE_SERIES, &mut registry, &pairs);
}
