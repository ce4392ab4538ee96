//! The list of blocks: which files ought to be there.
//!
//! Blocks are found by their names, so one whose file somebody removed would leave no trace, and so would its
//! tombstones. `LIST` says which there were and what times they have. It is looked at once, at a start, to
//! name what is missing, and to tell what a merge was about to remove; what there is, the files say. It does not lie
//! among the blocks: who removes their directory must not take along what would say so.
//!
//! ```text
//! offset  size  field
//!      0     4  magic     "TWBL"
//!      4     2  version   2; 1, which is read, says nothing of tombstones
//!      6     2  reserved  zero
//!      8     4  count     of blocks
//!     12     …  blocks    of each, ids ascending: id u64, oldest and newest time i64, u8: 1 with tombstones, else 0
//!      …     4  crc32     over all before
//! ```
//!
//! Invariant: every block of the list is durable under its name, with its tombstones. So a block comes into the list
//! after its file is there, and goes out of it, durably, before its file does, be it removed or set aside; a crash in
//! between leaves a file that is not in the list, of which nothing follows. Where the list can not be written (a full
//! disk) it is removed. What lies under `damaged/` says nothing: a block that was mended has a copy there.
//!
//! It says something of this directory only: a snapshot has none.
//!
//! Earlier releases had it in `blocks/LIST` and know nothing of `LIST`. So where one is there, such a release wrote it
//! last, and it holds; [`BlockFile::write`] removes it once `LIST` is written.

use std::io;
use std::path::{Path, PathBuf};

use tidewatch_env::{Env, remove_durably, replace_durably};

use crate::block::{Block, BlockId, BlockMeta, block_path, tombstones_path};
use crate::directory::{Directory, read_whole};
use crate::fields::Reader;

const MAGIC: [u8; 4] = *b"TWBL";
const HEAD: [u8; 8] = [b'T', b'W', b'B', b'L', 2, 0, 0, 0];
const HEAD_BEFORE: [u8; 8] = [b'T', b'W', b'B', b'L', 1, 0, 0, 0];

/// A block that ought to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) id: BlockId,
    min_ms: i64,
    max_ms: i64,
    has_tombstones: bool,
}

impl Expected {
    pub(crate) fn of(block: &Block) -> Expected {
        let BlockMeta { id, min_ms, max_ms, .. } = *block.meta();
        Expected { id, min_ms, max_ms, has_tombstones: !block.tombstones().is_empty() }
    }

    /// What is lost of a block in `dir`; `None` where it is among those that are there, and its tombstones, too.
    fn missing(&self, env: &Env, dir: &Path, there: &There) -> Option<(PathBuf, String)> {
        let Expected { id, min_ms, max_ms, has_tombstones } = self;
        let (block, tombstones) = (block_path(dir, *id), tombstones_path(dir, *id));
        let is_other =
            |block: &BlockMeta| block.id == *id && (block.min_ms, block.max_ms) != (*min_ms, *max_ms);
        if there.whole.iter().any(is_other) {
            let lost = format!(
                "the file is another block: the one that was here had samples from {min_ms} to {max_ms} ms; put it \
                 back from a copy while no server has the data, or if you put the other in its place, nothing is amiss"
            );
            return Some((block, lost));
        }
        if !there.files.contains(id) {
            let lost = format!(
                "the file is missing, with its samples from {min_ms} to {max_ms} ms: put it back from a copy while no \
                 server has the data; if you put other blocks in its place, nothing is amiss"
            );
            return Some((block, lost));
        }
        // What a merge has replaced may be gone, and then its tombstones are.
        let is_there = |path: &Path| env.disk.exists(path).unwrap_or(true);
        let lost = "the file is missing: what was deleted from the block is there again; delete it again";
        (*has_tombstones && is_there(&block) && !is_there(&tombstones)).then(|| (tombstones, lost.to_owned()))
    }
}

/// The blocks that there are.
pub(crate) struct There {
    /// Their files, and those that these were merged from.
    pub(crate) files: Vec<BlockId>,
    /// Those of which nothing is lost.
    pub(crate) whole: Vec<BlockMeta>,
}

/// What the list on the disk says, as far as that is known.
#[derive(Debug, Default)]
pub(crate) struct BlockFile {
    written: Option<Vec<Expected>>,
}

/// Where the list of a data directory is.
pub(crate) fn list_path(root: &Path) -> PathBuf {
    root.join("LIST")
}

/// Where earlier releases had it.
pub(crate) fn list_path_before(root: &Path) -> PathBuf {
    root.join("blocks/LIST")
}

impl BlockFile {
    /// Reports the blocks that ought to be there and are not among `there`.
    pub(crate) fn check(&mut self, env: &Env, directory: &Directory, there: &There) {
        let Looked { expected, damage } = look(env, &directory.root, there);
        // Tombstones that were set aside just now are no longer where they were.
        let missing = damage.into_iter().filter(|(path, _)| !directory.has_damage(path));
        missing.for_each(|(path, reason)| directory.report(&path, 0, reason));
        self.written = expected;
    }

    /// The blocks that the list on the disk names, as far as that is known.
    pub(crate) fn ids(&self) -> impl Iterator<Item = BlockId> {
        self.written.iter().flatten().map(|block| block.id)
    }

    /// Whether the list on the disk names a block, as far as that is known.
    pub(crate) fn names(&self, id: BlockId) -> bool {
        self.ids().any(|listed| listed == id)
    }

    /// Writes the list, unless it says this already.
    pub(crate) fn write(&mut self, env: &Env, root: &Path, blocks: Vec<Expected>) -> io::Result<()> {
        let before = list_path_before(root);
        let is_before = env.disk.exists(&before)?;
        if !is_before && self.written.as_ref() == Some(&blocks) {
            return Ok(());
        }
        // Nobody knows what a failure leaves.
        self.written = None;
        replace_durably(&*env.disk, &list_path(root), &encode(&blocks))?;
        if is_before {
            remove_durably(&*env.disk, &before)?;
        }
        self.written = Some(blocks);
        Ok(())
    }

    /// The same before other blocks go: that must not fail for want of room.
    pub(crate) fn write_or_remove(
        &mut self,
        env: &Env,
        root: &Path,
        blocks: Vec<Expected>,
    ) -> io::Result<()> {
        if self.write(env, root, blocks).is_ok() {
            return Ok(());
        }
        // Also where one is gone: the directory may have failed to be synced.
        let mut lists = [list_path_before(root), list_path(root)].into_iter();
        lists.try_for_each(|list| remove_durably(&*env.disk, &list))
    }
}

/// What the list in a directory says, and what is wrong: by file, why.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    expected: Option<Vec<Expected>>,
    pub(crate) damage: Vec<(PathBuf, String)>,
}

/// Looks for blocks that ought to be in a data directory and are not among `there`.
pub(crate) fn look(env: &Env, root: &Path, there: &There) -> Looked {
    let (before, mut looked) = (list_path_before(root), Looked::default());
    let list = if env.disk.exists(&before).unwrap_or(false) { before } else { list_path(root) };
    // A disk that fails is asked once more. What can not be read then says nothing.
    let Ok(bytes) = read_whole(env, &list).or_else(|_| read_whole(env, &list)) else { return looked };
    let dir = root.join("blocks");
    match decode(&bytes) {
        Ok(expected) => {
            looked.damage.extend(expected.iter().filter_map(|block| block.missing(env, &dir, there)));
            looked.expected = Some(expected);
        }
        Err(IsNewer(true)) => {}
        Err(IsNewer(false)) => looked.damage.push((list, "the list of blocks is damaged".to_owned())),
    }
    looked
}

fn encode(blocks: &[Expected]) -> Vec<u8> {
    let mut bytes = HEAD.to_vec();
    bytes.extend_from_slice(&(blocks.len() as u32).to_le_bytes());
    for block in blocks {
        bytes.extend_from_slice(&block.id.0.to_le_bytes());
        bytes.extend_from_slice(&block.min_ms.to_le_bytes());
        bytes.extend_from_slice(&block.max_ms.to_le_bytes());
        bytes.push(u8::from(block.has_tombstones));
    }
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// Why bytes are no list that can be read: a newer release wrote them, or they are damaged.
#[derive(Debug, PartialEq, Eq)]
struct IsNewer(bool);

fn decode(bytes: &[u8]) -> Result<Vec<Expected>, IsNewer> {
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or(IsNewer(false))?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) || !body.starts_with(&MAGIC) {
        return Err(IsNewer(false));
    }
    let says_tombstones = !body.starts_with(&HEAD_BEFORE);
    let body = body.strip_prefix(&HEAD).or_else(|| body.strip_prefix(&HEAD_BEFORE)).ok_or(IsNewer(true))?;
    read_blocks(Reader { bytes: body }, says_tombstones).ok_or(IsNewer(false))
}

fn read_blocks(mut body: Reader<'_>, says_tombstones: bool) -> Option<Vec<Expected>> {
    let count = u32::from_le_bytes(body.array().ok()?) as usize;
    let mut blocks = Vec::new();
    while !body.bytes.is_empty() {
        let [id, min_ms, max_ms] = [body.array().ok()?, body.array().ok()?, body.array().ok()?];
        blocks.push(Expected {
            id: BlockId(u64::from_le_bytes(id)),
            min_ms: i64::from_le_bytes(min_ms),
            max_ms: i64::from_le_bytes(max_ms),
            has_tombstones: match says_tombstones {
                true => [false, true].get(usize::from(body.byte().ok()?)).copied()?,
                false => false,
            },
        });
    }
    (blocks.len() == count).then_some(blocks)
}

/// Reads bytes as a list, and as one whose checksum holds: for tests of bytes that may be anything.
pub fn walk(bytes: &[u8]) {
    let _ = decode(bytes);
    let mut sealed = bytes.to_vec();
    sealed.extend_from_slice(&crc32fast::hash(bytes).to_le_bytes());
    if let Ok(blocks) = decode(&sealed)
        && sealed.starts_with(&HEAD)
    {
        assert_eq!(encode(&blocks), sealed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_list_of_blocks_is_frozen() {
        let block = Expected { id: BlockId(7), min_ms: 258, max_ms: -1, has_tombstones: true };
        let bytes = encode(&[block]);
        let mut expected = b"TWBL".to_vec();
        expected.extend([2, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
        expected.extend([255; 8]);
        assert_eq!((&bytes[..36], bytes[36]), (&expected[..], 1));
        assert_eq!(bytes.len(), 41);
        let of_version = |version, len| {
            let mut bytes = bytes[..len].to_vec();
            bytes[4] = version;
            bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
            decode(&bytes)
        };
        assert_eq!(of_version(1, 36), Ok(vec![Expected { has_tombstones: false, ..block }]));
        assert_eq!((of_version(2, 37), of_version(3, 37)), (Ok(vec![block]), Err(IsNewer(true))));
    }

    #[test]
    fn a_list_that_is_cut_or_has_another_bit_is_none() {
        let bytes = encode(&[3, 9].map(|id| Expected {
            id: BlockId(id),
            min_ms: 0,
            max_ms: 5,
            has_tombstones: id == 3,
        }));
        for len in 0..bytes.len() {
            assert_eq!(decode(&bytes[..len]), Err(IsNewer(false)), "{len} bytes");
        }
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&broken), Err(IsNewer(false)), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn lists_come_back(blocks in proptest::collection::vec(any::<(u64, i64, i64, bool)>(), 0..9)) {
            let blocks: Vec<_> = blocks.into_iter()
                .map(|(id, min_ms, max_ms, has_tombstones)| Expected { id: BlockId(id), min_ms, max_ms, has_tombstones })
                .collect();
            prop_assert_eq!(decode(&encode(&blocks)), Ok(blocks));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..90), is_list in any::<bool>()) {
            let head = if is_list { &HEAD[..] } else { &[] };
            walk(&[head, &bytes].concat());
        }
    }
}
