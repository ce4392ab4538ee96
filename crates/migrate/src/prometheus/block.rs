//! A block: its four files put together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Deserialize;
use tidewatch_env::Env;
use tidewatch_model::Labels;

use super::index::Index;
use super::reader::Reader;
use super::tombstones::{self, Tombstones, is_deleted};
use super::xor;

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
    /// Whether the block holds samples that came out of order: the log goes on beside it.
    pub fn is_out_of_order(&self) -> bool {
        self.compaction.hints.iter().any(|hint| hint == "from-out-of-order")
    }

    /// The blocks that this one replaces.
    pub fn parents(&self) -> impl Iterator<Item = &str> {
        self.compaction.parents.iter().map(|parent| &*parent.ulid)
    }
}

/// Encodings of chunks, by number, that are known and not floats.
const HISTOGRAMS: [(u8, &str); 2] = [(2, "native histograms"), (3, "native histograms of floats")];

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

/// The samples of one series, ascending.
pub struct Run<'a> {
    pub labels: &'a Labels,
    pub times: &'a [i64],
    pub values: &'a [f64],
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

    /// Visits each series with the samples that are not deleted, in the order of the index, which
    /// is that of labels unless it is damaged. `problem` gets a place and what can not be read
    /// there; a visit that fails ends it.
    pub fn visit<E>(
        &self,
        problem: &mut dyn FnMut(String, String),
        visit: &mut dyn FnMut(Run<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let index = self.dir.join("index");
        let (mut times, mut values) = (Vec::new(), Vec::new());
        let mut damaged = Vec::new();
        let mut in_index = |at: usize, reason: &str| damaged.push((at, reason.to_owned()));
        self.index.visit(&mut in_index, &mut |series| {
            times.clear();
            values.clear();
            for chunk in &series.chunks {
                let before = times.len();
                let read = self
                    .chunk(chunk.reference)
                    .and_then(|data| xor::decode(data, &mut times, &mut values).map_err(str::to_owned));
                if let Err(reason) = read {
                    times.truncate(before);
                    values.truncate(before);
                    let (file, offset) = ((chunk.reference >> 32) + 1, chunk.reference & 0xffff_ffff);
                    let place =
                        format!("{}:{offset}", self.dir.join("chunks").join(format!("{file:06}")).display());
                    let (from, to) = (chunk.min_ms, chunk.max_ms);
                    problem(
                        place,
                        format!("{} lacks its samples from {from} to {to} ms: {reason}", series.labels),
                    );
                }
            }
            if let Some(intervals) = self.tombstones.get(&series.reference) {
                let kept = |time: &i64| !is_deleted(intervals, *time);
                let rows: Vec<usize> = (0..times.len()).filter(|row| kept(&times[*row])).collect();
                times = rows.iter().map(|row| times[*row]).collect();
                values = rows.iter().map(|row| values[*row]).collect();
            }
            visit(Run { labels: &series.labels, times: &times, values: &values })
        })?;
        for (at, reason) in damaged {
            problem(format!("{}:{at}", index.display()), reason);
        }
        Ok(())
    }

    /// The data of a chunk of floats.
    fn chunk(&self, reference: u64) -> Result<&[u8], String> {
        let file = self.chunks.get(&(reference >> 32)).ok_or("the file of the chunk is missing")?;
        if Reader::new(file).be32() != Ok(CHUNKS_MAGIC) {
            return Err("this is no file of chunks".to_owned());
        }
        let at = (reference & 0xffff_ffff) as usize;
        let (encoding, data) = chunk_at(file.get(at..).unwrap_or_default())?;
        match (encoding, HISTOGRAMS.iter().find(|(number, _)| *number == encoding)) {
            (1, _) => Ok(data),
            (_, Some((_, name))) => Err(format!("the chunk has {name}, which are not imported yet")),
            _ => Err(format!("the chunk has encoding {encoding}, which is not known")),
        }
    }
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
