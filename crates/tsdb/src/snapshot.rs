//! Snapshots: the data as it is, in a directory that opens as a data directory.
//!
//! ```text
//! snapshots/20261128T014500Z-0123456789abcdef.tmp ── complete, synced, renamed ──► …-0123456789abcdef
//!   FORMAT
//!   blocks/…      second names of the blocks and of their tombstones, which never change
//!   blocks/…      new blocks with what the head has, unless it is left out
//! ```
//!
//! A snapshot takes the room of the head's samples alone, until the blocks that it shares are
//! replaced. It has everything that was acknowledged before the call began, and of what comes
//! meanwhile perhaps a part. A call that fails removes what it made; a crash leaves a directory that ends in `.tmp`,
//! which the next start removes: it keeps blocks on the disk that are replaced since.
//!
//! Not here: the journal of alerts, which is not the store's.

use std::io;
use std::path::Path;

use tidewatch_env::create_dir_durably;
use tidewatch_storage::{SelectError, TimeRange};

use crate::block::{block_path, tombstones_path};
use crate::db::Db;
use crate::directory::write_format;
use crate::files::Files;
use crate::jobs::JobError;
use crate::resolve::Resolution;
use crate::stretches::Stretches;

/// Ends the name of a snapshot that is not complete.
const UNDER_WAY: &str = "tmp";

impl Db {
    /// Makes a snapshot and returns its name. Durable when this returns. Waits for a job that runs.
    pub fn snapshot(&self, skip_head: bool) -> Result<String, JobError> {
        let Some(files) = &self.files else { return Err(JobError::InMemory) };
        if !self.is_complete() {
            return Err(SelectError::Recovering.into());
        }
        let _no_job = self.running.lock();
        let all = files.directory.snapshots();
        self.try_at(&all, |path| create_dir_durably(&*self.env.disk, path))?;
        self.try_at(&all, |path| self.remove_unfinished(path))?;
        files.watch_space();
        if files.is_low() && !skip_head {
            let source = io::Error::new(
                io::ErrorKind::StorageFull,
                "a snapshot of the head needs more room than is free",
            );
            return Err(JobError::Io { path: all, source });
        }
        let name = format!("{}-{:016x}", utc(self.env.clock.wall_ms()), self.env.entropy.next_u64() >> 1);
        let beside = all.join(format!("{name}.{UNDER_WAY}"));
        let made = self.make_snapshot(files, &beside, skip_head).and_then(|()| {
            self.try_at(&beside, |path| self.env.disk.rename(path, &all.join(&name)))?;
            self.try_at(&all, |path| self.env.disk.sync_dir(path))
        });
        if made.is_err() {
            // Its room may be the last there is. Where that fails, too, the next call does it.
            let _ = self.env.disk.remove_dir_all(&beside);
            files.watch_space();
        }
        made.map(|()| name)
    }

    fn make_snapshot(&self, files: &Files, beside: &Path, skip_head: bool) -> Result<(), JobError> {
        let blocks = beside.join("blocks");
        self.try_at(&blocks, |path| create_dir_durably(&*self.env.disk, path))?;
        self.try_at(beside, |path| write_format(&self.env, path))?;
        self.try_at(&blocks, |path| self.link_blocks(files, path))?;
        if !skip_head {
            self.write_head(&blocks)?;
        }
        let disk = &*self.env.disk;
        self.try_at(&blocks, |path| disk.sync_dir(path))?;
        self.try_at(beside, |path| disk.sync_dir(path))
    }

    fn try_at(&self, path: &Path, act: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), JobError> {
        act(path).map_err(|source| JobError::Io { path: path.to_owned(), source })
    }

    fn remove_unfinished(&self, all: &Path) -> io::Result<()> {
        let names = self.env.disk.list(all)?;
        let mut unfinished = names.iter().filter(|name| name.extension().is_some_and(|end| end == UNDER_WAY));
        unfinished.try_for_each(|name| self.env.disk.remove_dir_all(&all.join(name)))
    }

    fn link_blocks(&self, files: &Files, to: &Path) -> io::Result<()> {
        let from = files.directory.blocks();
        for block in self.blocks.list().iter() {
            let id = block.meta().id;
            self.env.disk.link(&block_path(&from, id), &block_path(to, id))?;
            if !block.tombstones().is_empty() {
                self.env.disk.link(&tombstones_path(&from, id), &tombstones_path(to, id))?;
            }
        }
        Ok(())
    }

    /// Writes what the head has, one block for each stretch of two hours.
    fn write_head(&self, dir: &Path) -> Result<(), JobError> {
        let Some((_, newest)) = self.head.time_range() else { return Ok(()) };
        let mut stretches = Stretches::new();
        self.head.stretches_before(newest.saturating_add(1), &mut stretches);
        for shard in &self.head.shards {
            let shard = shard.lock();
            let late = shard.late.values().flatten().map(|late| late.timestamp);
            let histograms = shard.histograms.values().flat_map(|series| &series.late).map(|(time, _)| *time);
            late.chain(histograms).for_each(|time| stretches.add(time));
        }
        let ids = self.head.ids_by_labels();
        let copy = |resolution: &Resolution, range: TimeRange| self.head.whole_snapshot(resolution, range);
        for range in stretches.ranges() {
            self.write_block(dir, &ids, range, &copy)?;
        }
        Ok(())
    }
}

/// Whether a directory has the name of a snapshot.
pub(crate) fn is_snapshot_name(name: &Path) -> bool {
    const MODEL: &[u8] = b"20261128T014500Z-0123456789abcdef";
    let is_like = |(byte, model): (u8, u8)| match model {
        b'T' | b'Z' | b'-' => byte == model,
        _ => byte.is_ascii_digit() || byte.is_ascii_lowercase() && byte.is_ascii_hexdigit(),
    };
    let name = name.as_os_str().as_encoded_bytes();
    name.len() == MODEL.len() && name.iter().copied().zip(MODEL.iter().copied()).all(is_like)
}

/// A time to the second, as Prometheus names snapshots: `20261128T014500Z`.
fn utc(time_ms: i64) -> String {
    let seconds = time_ms.div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years that begin in March, in eras of 400 of them: the leap day is the last of its year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_time_in_utc() {
        assert_eq!(utc(0), "19700101T000000Z");
        assert_eq!(utc(951_827_696_999), "20000229T123456Z");
        assert_eq!(utc(1_767_225_599_000), "20251231T235959Z");
        assert_eq!(utc(-1), "19691231T235959Z");
    }
}
