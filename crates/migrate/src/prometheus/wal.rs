//! Segments of the write-ahead log: pages of 32 KiB with fragments of records.
//!
//! ```text
//! fragment  type (1), length (2, big-endian), CRC-32C (4, big-endian), bytes
//! type      lowest three bits: 0 the rest of the page is empty, 1 a whole record, 2 its first part,
//!           3 a middle one, 4 its last; 8 compressed with snappy, 16 with zstd
//! ```
//!
//! A record may span pages, never segments. Behind damage reading goes on at the next page: the
//! records that the damage hit are lost, and named by its place.

use std::io::Read;
use std::path::{Path, PathBuf};

use tidewatch_env::Env;

const PAGE: usize = 32 << 10;
const HEADER: usize = 7;

/// The longest record that is unpacked: Prometheus' batches are far below.
const RECORD_BYTES_MAX: usize = 256 << 20;

/// Missing segments of one gap that are named.
const GAP_MAX: usize = 3;

const SNAPPY: u8 = 8;
const ZSTD: u8 = 16;

/// The files of a log, in the order in which they are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Segments {
    pub files: Vec<PathBuf>,
    /// Those that ought to lie between them and are not there.
    pub missing: Vec<PathBuf>,
}

impl Segments {
    /// The newest checkpoint of a log's directory and the segments behind it. None where there is
    /// no such directory.
    pub fn list(env: &Env, dir: &Path) -> std::io::Result<Segments> {
        let mut segments = Segments::default();
        if !env.disk.exists(dir)? {
            return Ok(segments);
        }
        let names: Vec<String> =
            env.disk.list(dir)?.iter().filter_map(|name| Some(name.to_str()?.to_owned())).collect();
        let checkpoint = names
            .iter()
            .filter_map(|name| Some((number(name.strip_prefix("checkpoint.")?)?, name)))
            .max_by_key(|(number, _)| *number);
        if let Some((_, name)) = checkpoint {
            let folder = dir.join(name);
            let mut inside: Vec<_> = env.disk.list(&folder)?;
            inside.retain(|name| name.to_str().is_some_and(|name| number(name).is_some()));
            inside.sort_by_key(|name| name.to_str().and_then(number));
            segments.files.extend(inside.iter().map(|name| folder.join(name)));
        }
        let mut behind: Vec<(u64, &String)> =
            names.iter().filter_map(|name| Some((number(name)?, name))).collect();
        behind.retain(|(number, _)| checkpoint.is_none_or(|(covered, _)| *number > covered));
        behind.sort_unstable();
        let first = checkpoint.map(|(covered, _)| covered + 1).or(behind.first().map(|(number, _)| *number));
        let mut expected = first.unwrap_or(0);
        for (number, _) in &behind {
            // A stray name with a large number must not count millions.
            let gap = (expected..*number).take(GAP_MAX).map(|gone| dir.join(format!("{gone:08}")));
            segments.missing.extend(gap);
            expected = number.saturating_add(1);
        }
        segments.files.extend(behind.iter().map(|(_, name)| dir.join(name)));
        Ok(segments)
    }
}

fn number(name: &str) -> Option<u64> {
    name.bytes().all(|byte| byte.is_ascii_digit()).then(|| name.parse().ok())?
}

/// Visits the records of a segment, unpacked, with the offset at which they begin. `problem` gets
/// the offset of what can not be read.
pub fn read_segment(
    segment: &[u8],
    problem: &mut dyn FnMut(usize, &str),
    visit: &mut dyn FnMut(usize, &[u8]),
) {
    let mut record = Partial::default();
    for (number, page) in segment.chunks(PAGE).enumerate() {
        let start = number * PAGE;
        let mut at = 0;
        while at < page.len() && page[at] & 7 != 0 {
            match fragment(&page[at..]) {
                Ok((kind, bytes)) => {
                    match record.add(start + at, kind, bytes) {
                        Ok(None) => {}
                        Ok(Some(from)) => match unpack(kind, &record.bytes) {
                            Ok(None) => visit(from, &record.bytes),
                            Ok(Some(unpacked)) => visit(from, &unpacked),
                            Err(reason) => problem(from, reason),
                        },
                        Err(reason) => problem(start + at, reason),
                    }
                    at += HEADER + bytes.len();
                }
                Err(reason) => {
                    problem(start + at, reason);
                    record.from = None;
                    break;
                }
            }
        }
    }
    if let Some(from) = record.from {
        problem(from, "a record has no end: it was being written");
    }
}

/// A record whose last fragment has not come.
#[derive(Default)]
struct Partial {
    bytes: Vec<u8>,
    /// Where it begins; `None` where there is none.
    from: Option<usize>,
}

impl Partial {
    /// Adds a fragment; gives where the record began once it is whole.
    fn add(&mut self, at: usize, kind: u8, bytes: &[u8]) -> Result<Option<usize>, &'static str> {
        match (kind & 7, self.from) {
            (1 | 2, unfinished) => {
                self.bytes.clear();
                self.bytes.extend_from_slice(bytes);
                self.from = (kind & 7 == 2).then_some(at);
                if unfinished.is_some() && kind & 7 == 2 {
                    return Err("the record before has no end");
                }
                Ok((kind & 7 == 1).then_some(at))
            }
            (3, Some(_)) => {
                self.bytes.extend_from_slice(bytes);
                Ok(None)
            }
            (4, Some(from)) => {
                self.bytes.extend_from_slice(bytes);
                self.from = None;
                Ok(Some(from))
            }
            // The rest of a record that damage has hit; that was named.
            (3 | 4, None) => Ok(None),
            _ => Err("a fragment is of no known type"),
        }
    }
}

fn fragment(bytes: &[u8]) -> Result<(u8, &[u8]), &'static str> {
    const SHORT: &str = "a fragment is cut short";
    let (header, rest) = bytes.split_first_chunk::<HEADER>().ok_or(SHORT)?;
    let len = usize::from(u16::from_be_bytes([header[1], header[2]]));
    let body = rest.get(..len).ok_or(SHORT)?;
    if crc32c::crc32c(body).to_be_bytes() != header[3..] {
        return Err("the checksum of a fragment does not hold");
    }
    Ok((header[0], body))
}

/// What a record is before it was compressed; `None` where it was not.
fn unpack(kind: u8, bytes: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    if kind & SNAPPY != 0 {
        // A copy of 64 bytes takes three: more is not what snappy packs.
        let room = bytes.len().saturating_mul(22).saturating_add(64).min(RECORD_BYTES_MAX);
        return match snap::raw::decompress_len(bytes) {
            Ok(len) if len <= room => snap::raw::Decoder::new().decompress_vec(bytes).map(Some),
            Ok(_) => return Err("a record is packed to less than snappy can"),
            Err(error) => Err(error),
        }
        .map_err(|_| "a record is not snappy");
    }
    if kind & ZSTD != 0 {
        let mut unpacked = Vec::new();
        let decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(|_| "zstd has no room")?;
        let read = decoder.take(RECORD_BYTES_MAX as u64 + 1).read_to_end(&mut unpacked);
        return match read {
            Ok(len) if len <= RECORD_BYTES_MAX => Ok(Some(unpacked)),
            Ok(_) => Err("a record is too long"),
            Err(_) => Err("a record is not zstd"),
        };
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The segment of these records, with a flag for how each is compressed.
    fn segment(records: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (flag, record) in records {
            let packed = match *flag {
                SNAPPY => snap::raw::Encoder::new().compress_vec(record).expect("short"),
                ZSTD => zstd::bulk::compress(record, 1).expect("short"),
                _ => record.clone(),
            };
            let mut rest = &packed[..];
            let mut first = true;
            loop {
                let room = PAGE - out.len() % PAGE;
                if room <= HEADER {
                    out.resize(out.len() + room, 0);
                    continue;
                }
                let (part, behind) = rest.split_at(rest.len().min(room - HEADER));
                let kind = match (first, behind.is_empty()) {
                    (true, true) => 1,
                    (true, false) => 2,
                    (false, false) => 3,
                    (false, true) => 4,
                };
                out.push(kind | flag);
                out.extend_from_slice(&(part.len() as u16).to_be_bytes());
                out.extend_from_slice(&crc32c::crc32c(part).to_be_bytes());
                out.extend_from_slice(part);
                (rest, first) = (behind, false);
                if rest.is_empty() {
                    break;
                }
            }
        }
        out
    }

    fn read(segment: &[u8]) -> (Vec<Vec<u8>>, usize) {
        let (mut records, mut problems) = (Vec::new(), 0);
        read_segment(segment, &mut |_, _| problems += 1, &mut |_, record| records.push(record.to_vec()));
        (records, problems)
    }

    fn records() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
        let flag = prop_oneof![Just(0), Just(SNAPPY), Just(ZSTD)];
        let bytes = (any::<u8>(), 1usize..70_000).prop_map(|(seed, len)| {
            (0..len).map(|at| (at as u8).wrapping_mul(seed | 1) ^ (at >> 8) as u8).collect()
        });
        proptest::collection::vec((flag, bytes), 0..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn records_read_back_across_pages(records in records()) {
            let (read, problems) = read(&segment(&records));
            prop_assert_eq!(read, records.into_iter().map(|(_, record)| record).collect::<Vec<_>>());
            prop_assert_eq!(problems, 0);
        }

        #[test]
        fn damage_costs_what_it_hit_and_is_named(records in records(), at in any::<prop::sample::Index>()) {
            prop_assume!(!records.is_empty());
            let mut bytes = segment(&records);
            let at = at.index(bytes.len());
            bytes[at] ^= 0x10;
            let page_end = (at / PAGE + 1) * PAGE;
            let (read, _) = read(&bytes);
            // What begins behind the damaged page is all there.
            let behind = records.iter().enumerate().filter(|(n, _)| segment(&records[..*n]).len() >= page_end);
            for (_, (_, record)) in behind {
                prop_assert!(read.contains(record));
            }
        }

        #[test]
        fn any_bytes_are_read_or_named(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            read(&bytes);
        }
    }
}
