//! The bytes of one simulated file: as the process sees them, and as the disk has them.
//!
//! ```text
//! write, truncate ──► now        what reads and maps return
//!                └──► unsynced   changes in order
//! sync ──► unsynced applied to durable
//! power cut ──► durable plus whatever part of unsynced the fate allows ──► now
//! ```
//!
//! Invariant: bytes of `durable` that no unsynced change touches survive every power cut.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;

use super::random::Random;

/// What a disk writes as a unit. Between two sectors any order is possible.
const SECTOR_SIZE: u64 = 512;

/// What becomes of unsynced changes when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// All are lost.
    Lost,
    /// All had reached the disk.
    Kept,
    /// The first few are there, the next one torn at some byte.
    Prefix,
    /// Each sector has its own past: the disk wrote them in any order, the length by itself.
    Scattered,
}

impl Fate {
    pub(super) fn draw(random: &mut Random) -> Fate {
        [Fate::Lost, Fate::Kept, Fate::Prefix, Fate::Scattered, Fate::Scattered][random.upto(4)]
    }
}

#[derive(Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Resize { len: u64 },
}

#[derive(Debug, Default)]
pub(super) struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Oldest first. Stays empty on a disk that never forgets.
    unsynced: Vec<Change>,
    /// Ranges that the disk can no longer read.
    unreadable: Vec<Range<u64>>,
}

impl Content {
    pub(super) fn now(&self) -> &[u8] {
        &self.now
    }

    pub(super) fn len(&self) -> u64 {
        self.now.len() as u64
    }

    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let start = self.now.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        let count = buffer.len().min(self.now.len() - start);
        let range = start as u64..(start + count) as u64;
        self.check_readable(&range)?;
        buffer[..count].copy_from_slice(&self.now[start..start + count]);
        Ok(count)
    }

    pub(super) fn read_all(&self) -> io::Result<Vec<u8>> {
        self.check_readable(&(0..self.len()))?;
        Ok(self.now.clone())
    }

    fn check_readable(&self, range: &Range<u64>) -> io::Result<()> {
        let bad = self.unreadable.iter().any(|bad| bad.start < range.end && range.start < bad.end);
        if bad { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
    }

    pub(super) fn make_unreadable(&mut self, range: Range<u64>) {
        self.unreadable.push(range);
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8], forgets: bool) {
        write_into(&mut self.now, offset, bytes);
        if forgets {
            self.unsynced.push(Change::Write { offset, bytes: bytes.to_vec() });
        }
    }

    pub(super) fn resize(&mut self, len: u64, forgets: bool) {
        resize_to(&mut self.now, len);
        if forgets {
            self.unsynced.push(Change::Resize { len });
        }
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// What Linux does when writing back fails: any part of the changes may be on the disk, all
    /// of them stay visible, and none is ever written again, so that the next sync "succeeds"
    /// without them.
    pub(super) fn fail_sync(&mut self, random: &mut Random) {
        self.durable = self.outcome(Fate::draw(random), random);
        self.unsynced.clear();
    }

    pub(super) fn cut_power(&mut self, fate: Fate, random: &mut Random) {
        self.durable = self.outcome(fate, random);
        self.unsynced.clear();
        self.now.clone_from(&self.durable);
    }

    /// Replaces the bytes behind everybody's back: damage, or a file put there by hand.
    pub(super) fn overwrite(&mut self, bytes: Vec<u8>) {
        self.durable.clone_from(&bytes);
        self.now = bytes;
        self.unsynced.clear();
    }

    fn outcome(&self, fate: Fate, random: &mut Random) -> Vec<u8> {
        match fate {
            Fate::Lost => self.durable.clone(),
            Fate::Kept => self.after(self.unsynced.len()),
            Fate::Prefix => self.torn_prefix(random),
            Fate::Scattered => self.scattered(random),
        }
    }

    /// Durable bytes plus the first `count` changes.
    fn after(&self, count: usize) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for change in &self.unsynced[..count] {
            change.apply(&mut bytes);
        }
        bytes
    }

    fn torn_prefix(&self, random: &mut Random) -> Vec<u8> {
        let count = random.upto(self.unsynced.len());
        let mut bytes = self.after(count);
        if let Some(Change::Write { offset, bytes: written }) = self.unsynced.get(count) {
            let torn = random.upto(written.len());
            write_into(&mut bytes, *offset, &written[..torn]);
        }
        bytes
    }

    fn scattered(&self, random: &mut Random) -> Vec<u8> {
        // The length is metadata and has a moment of its own.
        let mut bytes = self.durable.clone();
        let len_moment = random.upto(self.unsynced.len());
        let len = self.after(len_moment).len();
        resize_to(&mut bytes, len as u64);
        for sector in self.touched_sectors() {
            let start = (sector * SECTOR_SIZE) as usize;
            let until = (start + SECTOR_SIZE as usize).min(len);
            if start < until {
                self.age_sector(start, &mut bytes[start..until], random);
            }
        }
        bytes
    }

    /// Gives one sector, which starts at `start`, the content of some moment; torn between two
    /// moments one time in four.
    fn age_sector(&self, start: usize, sector: &mut [u8], random: &mut Random) {
        let moment = random.upto(self.unsynced.len());
        if moment == 0 && start >= self.durable.len() {
            // The length got there, the data did not: a hole, or what the block held before.
            if random.below(4) == 0 {
                random.fill(sector);
            }
            return;
        }
        self.sector_at(start, moment, sector);
        if moment < self.unsynced.len() && random.below(4) == 0 {
            let mut later = vec![0; sector.len()];
            self.sector_at(start, moment + 1, &mut later);
            let torn = random.upto(sector.len());
            sector[..torn].copy_from_slice(&later[..torn]);
        }
    }

    /// The bytes from `start` on after the first `count` changes.
    fn sector_at(&self, start: usize, count: usize, sector: &mut [u8]) {
        sector.fill(0);
        let known = self.durable.len().saturating_sub(start).min(sector.len());
        if known > 0 {
            sector[..known].copy_from_slice(&self.durable[start..start + known]);
        }
        for change in &self.unsynced[..count] {
            match change {
                Change::Write { offset, bytes } => overlay(sector, start, *offset as usize, bytes),
                Change::Resize { len } => {
                    let kept = (*len as usize).saturating_sub(start).min(sector.len());
                    sector[kept..].fill(0);
                }
            }
        }
    }

    fn touched_sectors(&self) -> BTreeSet<u64> {
        let end = self.unsynced.iter().map(Change::end).max().unwrap_or(0).max(self.durable.len() as u64);
        let mut sectors = BTreeSet::new();
        for change in &self.unsynced {
            let (start, until) = match change {
                Change::Write { offset, .. } => (*offset, change.end()),
                // Everything behind the new end was given up.
                Change::Resize { len } => (*len, end),
            };
            sectors.extend(start / SECTOR_SIZE..until.div_ceil(SECTOR_SIZE));
        }
        sectors
    }
}

impl Change {
    fn apply(&self, target: &mut Vec<u8>) {
        match self {
            Change::Write { offset, bytes } => write_into(target, *offset, bytes),
            Change::Resize { len } => resize_to(target, *len),
        }
    }

    fn end(&self) -> u64 {
        match self {
            Change::Write { offset, bytes } => offset + bytes.len() as u64,
            Change::Resize { len } => *len,
        }
    }
}

fn write_into(target: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let start = usize::try_from(offset).expect("simulated files fit into memory");
    let end = start + bytes.len();
    if target.len() < end {
        target.resize(end, 0);
    }
    target[start..end].copy_from_slice(bytes);
}

fn resize_to(target: &mut Vec<u8>, len: u64) {
    target.resize(usize::try_from(len).expect("simulated files fit into memory"), 0);
}

/// Lays `bytes`, which belong at `offset`, over the part of them that `sector` shows.
fn overlay(sector: &mut [u8], sector_start: usize, offset: usize, bytes: &[u8]) {
    let from = offset.max(sector_start);
    let until = (offset + bytes.len()).min(sector_start + sector.len());
    if from < until {
        sector[from - sector_start..until - sector_start]
            .copy_from_slice(&bytes[from - offset..until - offset]);
    }
}
