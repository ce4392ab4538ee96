//! How far imports have come, in the data directory: one that was interrupted goes on, one that is
//! finished is not done twice.
//!
//! ```text
//! tidewatch-imports 1
//! done KEY
//! at KEY OFFSET LINES TYPE-LINE
//! made BLOCK
//! ```
//!
//! A key names what is imported by its content, so that another name is no other source. Blocks that
//! wait to be merged are named, so that an import that goes on can tell what they have from what was
//! stored before. The file is replaced as a whole after the samples that it speaks of are durable; a
//! crash in between repeats some of them, and repeats do not count.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tidewatch_env::{Env, File, Open, replace_durably};
use tidewatch_migrate::Place;
use tidewatch_tsdb::OpenError;
use tidewatch_tsdb::block::BlockId;

const HEADER: &str = "tidewatch-imports 1";

/// Sources that are remembered; beyond them the oldest are forgotten.
const SOURCES_MAX: usize = 100_000;

pub struct State {
    env: Env,
    path: PathBuf,
    sources: Vec<(String, Reached)>,
    /// Blocks that no merge has looked at since an import made them.
    made: Vec<BlockId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reached {
    /// Everything before this place of a text is imported; this `# TYPE` line is in force there.
    At {
        place: Place,
        type_line: String,
    },
    Done,
}

impl State {
    pub fn load(env: &Env, dir: &Path) -> Result<State> {
        let path = dir.join("IMPORTS");
        let mut state = State { env: env.clone(), path, sources: Vec::new(), made: Vec::new() };
        let io = || OpenError::io(&state.path);
        if !env.disk.exists(&state.path).map_err(io())? {
            return Ok(state);
        }
        let file = env.disk.open(&state.path, Open::Read).map_err(io())?;
        let mut bytes = vec![0; usize::try_from(file.len().map_err(io())?)?];
        let len = file.read_at(0, &mut bytes).map_err(io())?;
        bytes.truncate(len);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let shown = state.path.display().to_string();
        let mut lines = text.lines();
        if lines.next() != Some(HEADER) {
            bail!("{shown}: this is no record of imports of this version; remove it to import anew");
        }
        for (number, line) in (2..).zip(lines) {
            let parsed = parse(line).with_context(|| {
                format!("{shown}, line {number}: damaged; remove the line to import anew")
            })?;
            match parsed {
                Line::Source(key, reached) => state.sources.push((key, reached)),
                Line::Made(block) => state.made.push(block),
            }
        }
        Ok(state)
    }

    /// The file that remembers.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn reached(&self, key: &str) -> Option<&Reached> {
        self.sources.iter().find(|(known, _)| known == key).map(|(_, reached)| reached)
    }

    pub fn made(&self) -> &[BlockId] {
        &self.made
    }

    /// Remembers how far a source has come, durably.
    pub fn set(&mut self, key: &str, reached: Reached) -> Result<()> {
        self.sources.retain(|(known, _)| known != key);
        self.sources.push((key.to_owned(), reached));
        let surplus = self.sources.len().saturating_sub(SOURCES_MAX);
        self.sources.drain(..surplus);
        self.write()
    }

    /// The same, and which blocks wait to be merged.
    pub fn set_with(
        &mut self,
        key: &str,
        reached: Reached,
        made: impl Iterator<Item = BlockId>,
    ) -> Result<()> {
        self.made = made.collect();
        self.set(key, reached)
    }

    /// Forgets the blocks that waited, durably: they were merged.
    pub fn set_merged(&mut self) -> Result<()> {
        if std::mem::take(&mut self.made).is_empty() { Ok(()) } else { self.write() }
    }

    fn write(&self) -> Result<()> {
        let mut text = format!("{HEADER}\n");
        for (key, reached) in &self.sources {
            text.push_str(&match reached {
                Reached::Done => format!("done {key}\n"),
                Reached::At { place, type_line } => {
                    format!("at {key} {} {} {type_line}\n", place.offset, place.lines)
                }
            });
        }
        for BlockId(block) in &self.made {
            text.push_str(&format!("made {block}\n"));
        }
        replace_durably(&*self.env.disk, &self.path, text.as_bytes())
            .with_context(|| self.path.display().to_string())
    }
}

enum Line {
    Source(String, Reached),
    Made(BlockId),
}

fn parse(line: &str) -> Option<Line> {
    let mut words = line.splitn(5, ' ');
    match (words.next()?, words.next()?) {
        ("done", key) => Some(Line::Source(key.to_owned(), Reached::Done)),
        ("at", key) => {
            let place = Place { offset: words.next()?.parse().ok()?, lines: words.next()?.parse().ok()? };
            Some(Line::Source(key.to_owned(), Reached::At { place, type_line: words.next()?.to_owned() }))
        }
        ("made", block) => Some(Line::Made(BlockId(block.parse().ok()?))),
        _ => None,
    }
}

/// Bytes at either end of a file that its key looks at.
const KEY_BYTES: u64 = 64 << 10;

/// Names a file by its length, its beginning and its end.
pub fn key_of(format: &str, file: &dyn File) -> Result<String> {
    let len = file.len()?;
    let mut bytes = vec![0; KEY_BYTES.min(len) as usize];
    let mut sum = Sum::default();
    for offset in [0, len - KEY_BYTES.min(len)] {
        let count = file.read_at(offset, &mut bytes)?;
        sum.add(&bytes[..count]);
    }
    Ok(format!("{format}-{len}-{sum}"))
}

/// FNV-1a, 64 bits: names sources, guards nothing.
pub struct Sum(u64);

impl Default for Sum {
    fn default() -> Sum {
        Sum(0xcbf2_9ce4_8422_2325)
    }
}

impl Sum {
    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_reached_is_there_after_a_power_cut() {
        let simulation = Env::simulated(1);
        let dir = Path::new("/data");
        tidewatch_env::create_dir_durably(&*simulation.env.disk, dir).expect("a good disk");
        let place = Place { offset: 17, lines: 3 };
        for type_line in ["", "# TYPE a b counter"] {
            let reached = Reached::At { place, type_line: type_line.to_owned() };
            let mut state = State::load(&simulation.env, dir).expect("readable");
            let made = [BlockId(7), BlockId(9)];
            state.set_with("one", reached.clone(), made.into_iter()).expect("a good disk");
            state.set("two", Reached::Done).expect("a good disk");
            let mut state = State::load(&simulation.env, dir).expect("readable");
            assert_eq!(state.reached("one"), Some(&reached));
            assert_eq!(state.reached("two"), Some(&Reached::Done));
            assert_eq!(state.reached("three"), None);
            assert_eq!(state.made(), made);
            state.set_merged().expect("a good disk");
            let state = State::load(&simulation.env, dir).expect("readable");
            assert_eq!((state.reached("one"), state.made()), (Some(&reached), &[][..]));
        }
    }
}
