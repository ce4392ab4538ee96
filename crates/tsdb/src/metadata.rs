//! What senders said about metric families: type, help, unit. The newest word counts.
//!
//! A frame of metadata (kind 19) has what changed:
//!
//! ```text
//! offset  size  field
//!      0     2  kind, flags as in `log`
//!      2     4  count
//!            …  of each: type u8, then family, help and unit, each with its length as varint
//! ```
//!
//! The log is trimmed when images are written; everything is logged again before that.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use tidewatch_model::{Metadata, MetricType};
use tidewatch_storage::{AppendError, Ticket};

use crate::fields::{Reader, push_text};
use crate::head::append::FrameLog;
use crate::log::{FrameError, FrameKind};

/// Bytes of families that are kept; one that comes later is not.
const BYTES_MAX: usize = 16 << 20;

/// What a family takes beside its texts, in memory; in a frame it is less.
const FAMILY_BYTES: usize = 128;

/// What is known of a family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FamilyMetadata {
    pub kind: MetricType,
    pub help: String,
    pub unit: String,
}

#[derive(Debug, Default)]
pub(crate) struct MetadataStore {
    /// Guards the families; held while a frame is logged.
    families: Mutex<Families>,
}

#[derive(Debug, Default)]
struct Families {
    known: BTreeMap<String, FamilyMetadata>,
    bytes: usize,
    /// Families that were named while recovery was running: what the log had of them is older.
    /// `None` once it is over.
    fresh: Option<BTreeSet<String>>,
}

fn size_of_entry(family: &str, known: &FamilyMetadata) -> usize {
    FAMILY_BYTES + family.len() + known.help.len() + known.unit.len()
}

impl Families {
    /// Whether this is news, and taken.
    fn set(&mut self, metadata: &Metadata<'_>) -> bool {
        let Metadata { family, kind, help, unit } = *metadata;
        let known = self.known.get(family);
        if known.is_some_and(|known| known.kind == kind && known.help == help && known.unit == unit) {
            return false;
        }
        let before = known.map_or(0, |known| size_of_entry(family, known));
        let bytes = self.bytes - before + FAMILY_BYTES + family.len() + help.len() + unit.len();
        if family.is_empty() || bytes > BYTES_MAX {
            return false;
        }
        self.bytes = bytes;
        let known = FamilyMetadata { kind, help: help.to_owned(), unit: unit.to_owned() };
        self.known.insert(family.to_owned(), known);
        true
    }
}

impl MetadataStore {
    pub(crate) fn new(recovers: bool) -> MetadataStore {
        MetadataStore {
            families: Mutex::new(Families { fresh: recovers.then(BTreeSet::new), ..Families::default() }),
        }
    }

    /// Takes what is new of a batch, and logs it.
    pub(crate) fn append(
        &self,
        metadata: &[Metadata<'_>],
        log: &dyn FrameLog,
    ) -> Result<Option<Ticket>, AppendError> {
        if metadata.is_empty() {
            return Ok(None);
        }
        let mut families = self.families.lock();
        let news: Vec<&Metadata<'_>> = metadata.iter().filter(|metadata| families.set(metadata)).collect();
        if news.is_empty() {
            return Ok(None);
        }
        if let Some(fresh) = &mut families.fresh {
            fresh.extend(news.iter().map(|metadata| metadata.family.to_owned()));
        }
        log.append(&frame(news.into_iter().copied())).map(Some)
    }

    /// Puts back what the log has, unless something newer came meanwhile.
    pub(crate) fn restore(&self, logged: &Logged<'_>) -> Result<(), FrameError> {
        let mut families = self.families.lock();
        logged.for_each(|metadata| {
            if !families.fresh.as_ref().is_some_and(|fresh| fresh.contains(metadata.family)) {
                families.set(metadata);
            }
        })
    }

    /// Recovery is over.
    pub(crate) fn complete(&self) {
        self.families.lock().fresh = None;
    }

    /// Logs everything again, so that the log before may go.
    pub(crate) fn log_all(&self, log: &dyn FrameLog) -> Result<(), AppendError> {
        let families = self.families.lock();
        if families.known.is_empty() {
            return Ok(());
        }
        let all = families.known.iter().map(|(family, known)| Metadata {
            family,
            kind: known.kind,
            help: &known.help,
            unit: &known.unit,
        });
        log.append(&frame(all)).map(drop)
    }

    /// All families, by name.
    pub(crate) fn list(&self) -> Vec<(String, FamilyMetadata)> {
        let families = self.families.lock();
        families.known.iter().map(|(family, known)| (family.clone(), known.clone())).collect()
    }
}

fn frame<'a>(metadata: impl Iterator<Item = Metadata<'a>>) -> Vec<u8> {
    let mut bytes = vec![FrameKind::Metadata as u8, 0, 0, 0, 0, 0];
    let mut count = 0u32;
    for Metadata { family, kind, help, unit } in metadata {
        count += 1;
        bytes.push(kind as u8);
        [family, help, unit].into_iter().for_each(|text| push_text(text.as_bytes(), &mut bytes));
    }
    bytes[2..6].copy_from_slice(&count.to_le_bytes());
    bytes
}

/// Metadata of a frame. What stands before a malformed entry is good.
#[derive(Debug)]
pub(crate) struct Logged<'a> {
    count: u32,
    fields: Reader<'a>,
}

pub(crate) fn read_metadata(mut reader: Reader<'_>) -> Result<Logged<'_>, FrameError> {
    let count = u32::from_le_bytes(reader.array()?);
    Ok(Logged { count, fields: reader })
}

impl Logged<'_> {
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Metadata<'_>)) -> Result<(), FrameError> {
        let mut reader = self.fields.clone();
        for _ in 0..self.count {
            let kind = kind_of(reader.byte()?).ok_or(FrameError::Malformed)?;
            let (family, help, unit) = (reader.utf8()?, reader.utf8()?, reader.utf8()?);
            visit(&Metadata { family, kind, help, unit });
        }
        if reader.bytes.is_empty() { Ok(()) } else { Err(FrameError::Malformed) }
    }
}

fn kind_of(byte: u8) -> Option<MetricType> {
    let all = [
        MetricType::Unknown,
        MetricType::Counter,
        MetricType::Gauge,
        MetricType::Histogram,
        MetricType::GaugeHistogram,
        MetricType::Summary,
        MetricType::Info,
        MetricType::Stateset,
    ];
    all.into_iter().find(|kind| *kind as u8 == byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::append::Kept;
    use crate::log::{Frame, read_frame};

    fn entry<'a>(family: &'a str, kind: MetricType, help: &'a str) -> Metadata<'a> {
        Metadata { family, kind, help, unit: "s" }
    }

    #[test]
    fn news_alone_is_logged_and_comes_back() {
        let (store, log) = (MetadataStore::new(false), Kept::default());
        let up = entry("up", MetricType::Gauge, "Up.");
        assert!(store.append(&[up, entry("", MetricType::Gauge, "")], &log).expect("logged").is_some());
        assert_eq!(store.append(&[up], &log).expect("nothing to log"), None);
        let changed = entry("up", MetricType::Counter, "Is up.");
        store.append(&[changed, entry("t", MetricType::Info, "")], &log).expect("logged");
        let expected: &[u8] = b"\x13\0\x01\0\0\0\x02\x02up\x03Up.\x01s";
        assert_eq!(log.0.lock()[0], expected);
        let again = MetadataStore::new(true);
        let newer = entry("t", MetricType::Stateset, "Newer.");
        again.append(&[newer], &Kept::default()).expect("logged");
        for frame in &*log.0.lock() {
            let Ok(Frame::Metadata(logged)) = read_frame(frame) else { panic!("not metadata") };
            again.restore(&logged).expect("whole");
        }
        again.complete();
        let listed = again.list();
        assert_eq!(listed.iter().map(|(family, _)| family.as_str()).collect::<Vec<_>>(), ["t", "up"]);
        assert_eq!((listed[0].1.help.as_str(), listed[1].1.help.as_str()), ("Newer.", "Is up."));
    }
}
