//! A block: its four files put together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Deserialize;
use tidewatch_env::Env;
use tidewatch_model::histogram::CounterResetHint;
use tidewatch_model::{Labels, NativeHistogram};

use super::index::{ChunkAt, Index};
use super::reader::Reader;
use super::tombstones::{self, Tombstones, is_deleted};
use super::{histogram, xor, xor2};

/// What `meta.json` says, as far as an import needs it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meta {
    pub ulid: String,
    pub min_time: i64,
    /// Not included.
    pub max_time: i64,
    #[serde(default)]
    pub stats: Stats,
    #[serde(default)]
    compaction: Compaction,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Stats {
    pub num_samples: u64,
    pub num_series: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Compaction {
    parents: Vec<Parent>,
    hints: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Parent {
    ulid: String,
}

impl Meta {
    /// Whether the log has samples of the block's times that are not in it: it holds what came out of
    /// order, or series alone that had ended.
    pub fn is_beside_log(&self) -> bool {
        let hints = ["from-out-of-order", "from-stale-series"];
        self.compaction.hints.iter().any(|hint| hints.contains(&hint.as_str()))
    }

    /// Whether a reset that a chunk begins with is one that a sender told: so an export of ours says. What Prometheus
    /// writes anew of such a block has the hint no more.
    fn tells_resets(&self) -> bool {
        self.compaction.hints.iter().any(|hint| hint == TELLS_RESETS)
    }

    /// The blocks that this one replaces.
    pub fn parents(&self) -> impl Iterator<Item = &str> {
        self.compaction.parents.iter().map(|parent| &*parent.ulid)
    }
}

/// The hint in `meta.json` by which an import knows an export, see [`Meta::tells_resets`]. Prometheus looks for hints
/// that it knows and leaves others alone.
pub const TELLS_RESETS: &str = "tidewatch-tells-resets";

/// Encodings of chunks of floats; the other one has start timestamps, too.
pub const XOR: u8 = 1;
const XOR2: u8 = 4;

const CHUNKS_MAGIC: u32 = 0x85bd_40dd;

/// An open block.
pub struct Block {
    dir: PathBuf,
    pub meta: Meta,
    index: Index,
    /// The files of chunks, by number from 0.
    chunks: BTreeMap<u64, Bytes>,
    tombstones: Tombstones,
}

/// Samples of one kind of one series, ascending unless the block is damaged.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    pub labels: &'a Labels,
    pub times: &'a [i64],
    pub values: Values<'a>,
    /// When the counter of each sample started, 0 where that is not known; `None` where it is of none.
    pub starts: Option<&'a [i64]>,
}

#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    Floats(&'a [f64]),
    Histograms(&'a [NativeHistogram]),
}

/// A chunk as it is read, kept from one to the next.
#[derive(Default)]
struct Columns {
    times: Vec<i64>,
    floats: Vec<f64>,
    histograms: Vec<NativeHistogram>,
    /// Empty, or one for each sample.
    starts: Vec<i64>,
}

impl Block {
    pub fn read_meta(env: &Env, dir: &Path) -> Result<Meta, String> {
        let bytes = env.disk.map(&dir.join("meta.json")).map_err(|error| error.to_string())?;
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())
    }

    /// Maps the files of a block.
    pub fn open(env: &Env, dir: &Path, meta: Meta) -> Result<Block, String> {
        let map = |path: &Path| env.disk.map(path).map_err(|error| format!("{}: {error}", path.display()));
        let index = dir.join("index");
        let index = Index::open(map(&index)?).map_err(|reason| format!("{}: {reason}", index.display()))?;
        let mut chunks = BTreeMap::new();
        let folder = dir.join("chunks");
        let names = env.disk.list(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for name in names {
            let number = name.to_str().and_then(|name| name.parse::<u64>().ok());
            if let Some(number) = number.and_then(|number| number.checked_sub(1)) {
                chunks.insert(number, map(&folder.join(name))?);
            }
        }
        let path = dir.join("tombstones");
        let tombstones = match env.disk.exists(&path).map_err(|error| error.to_string())? {
            true => {
                tombstones::decode(&map(&path)?).map_err(|reason| format!("{}: {reason}", path.display()))?
            }
            false => Tombstones::new(),
        };
        Ok(Block { dir: dir.to_owned(), meta, index, chunks, tombstones })
    }

    /// Visits the samples that are not deleted, chunk by chunk, in the order of the index, which is
    /// that of labels and times unless it is damaged. `problem` gets a place and what can not be read
    /// there; a visit that fails ends it.
    pub fn visit<E>(
        &self,
        problem: &mut dyn FnMut(String, String),
        visit: &mut dyn FnMut(Run<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let index = self.dir.join("index");
        let mut columns = Columns::default();
        let mut damaged = Vec::new();
        let mut in_index = |at: usize, reason: &str| damaged.push((at, reason.to_owned()));
        self.index.visit(&mut in_index, &mut |series| {
            let deleted = self.tombstones.get(&series.reference);
            for chunk in &series.chunks {
                if let Err(reason) = self.read(chunk.reference, &mut columns) {
                    let (place, what) = self.lost(&series.labels, chunk, &reason);
                    problem(place, what);
                    continue;
                }
                if let Some(intervals) = deleted {
                    columns.retain(|time| !is_deleted(intervals, time));
                }
                if !columns.times.is_empty() {
                    visit(columns.run(&series.labels))?;
                }
            }
            Ok(())
        })?;
        for (at, reason) in damaged {
            problem(format!("{}:{at}", index.display()), reason);
        }
        Ok(())
    }

    /// Where a chunk is that can not be read, and what that costs.
    fn lost(&self, labels: &Labels, chunk: &ChunkAt, reason: &str) -> (String, String) {
        let (file, offset) = ((chunk.reference >> 32) + 1, chunk.reference & 0xffff_ffff);
        let path = self.dir.join("chunks").join(format!("{file:06}"));
        let (from, to) = (chunk.min_ms, chunk.max_ms);
        let what = format!("{labels} lacks its samples from {from} to {to} ms: {reason}");
        (format!("{}:{offset}", path.display()), what)
    }

    fn read(&self, reference: u64, columns: &mut Columns) -> Result<(), String> {
        let Columns { times, floats, histograms, starts } = columns;
        times.clear();
        floats.clear();
        histograms.clear();
        starts.clear();
        let (encoding, data) = self.chunk(reference)?;
        match encoding {
            XOR => xor::decode(data, times, floats)?,
            XOR2 => xor2::decode(data, times, floats, starts)?,
            histogram::INTEGER | histogram::FLOAT => {
                histogram::decode(encoding, data, times, histograms)?;
                let first = histograms.first_mut().filter(|first| !first.is_stale());
                if let Some(first) = first
                    && self.meta.tells_resets()
                    && histogram::begins_with_reset(data)
                {
                    first.set_hint(CounterResetHint::Reset);
                }
            }
            _ => return Err(format!("the chunk has encoding {encoding}, which is not known")),
        }
        Ok(())
    }

    /// Encoding and data of a chunk, its checksum held.
    fn chunk(&self, reference: u64) -> Result<(u8, &[u8]), String> {
        let file = self.chunks.get(&(reference >> 32)).ok_or("the file of the chunk is missing")?;
        if Reader::new(file).be32() != Ok(CHUNKS_MAGIC) {
            return Err("this is no file of chunks".to_owned());
        }
        let at = (reference & 0xffff_ffff) as usize;
        chunk_at(file.get(at..).unwrap_or_default())
    }
}

impl Columns {
    fn run<'a>(&'a self, labels: &'a Labels) -> Run<'a> {
        let values = match self.histograms.is_empty() {
            true => Values::Floats(&self.floats),
            false => Values::Histograms(&self.histograms),
        };
        let starts = self.starts.iter().any(|start| *start != 0).then_some(&self.starts[..]);
        Run { labels, times: &self.times, values, starts }
    }

    fn retain(&mut self, keep: impl Fn(i64) -> bool) {
        let kept: Vec<bool> = self.times.iter().map(|time| keep(*time)).collect();
        retain_rows(&mut self.times, &kept);
        retain_rows(&mut self.floats, &kept);
        retain_rows(&mut self.histograms, &kept);
        retain_rows(&mut self.starts, &kept);
    }
}

/// Keeps some rows of a column; one that is empty stays so.
fn retain_rows<T>(column: &mut Vec<T>, kept: &[bool]) {
    let mut kept = kept.iter();
    column.retain(|_| *kept.next().expect("columns are equally long"));
}

fn chunk_at(bytes: &[u8]) -> Result<(u8, &[u8]), String> {
    const SHORT: &str = "the chunk is cut short";
    let mut reader = Reader::new(bytes);
    let len = reader.uvarint().map_err(|_| SHORT)?;
    let body = reader.take(len.checked_add(1).ok_or(SHORT)?).map_err(|_| SHORT)?;
    if reader.be32() != Ok(crc32c::crc32c(body)) {
        return Err("the checksum of the chunk does not hold".to_owned());
    }
    Ok((body[0], &body[1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_blocks_lie_beside_the_log() {
        let is_beside = |hints: &str| {
            let text =
                format!(r#"{{"ulid":"A","minTime":0,"maxTime":1,"compaction":{{"hints":[{hints}]}}}}"#);
            serde_json::from_str::<Meta>(&text).expect("a meta.json").is_beside_log()
        };
        let hints = ["", r#""from-out-of-order""#, r#""from-stale-series""#, r#""tidewatch-tells-resets""#];
        assert_eq!(hints.map(is_beside), [false, true, true, false]);
    }
}
