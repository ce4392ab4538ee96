//! Segment files by name and number.

use std::path::{Path, PathBuf};

use tidewatch_env::Disk;

use crate::error::WalError;

/// The file of a segment, `00000017.wal`: eight digits or more, so that names sort as numbers do for a long time.
pub fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.wal"))
}

/// No log comes to a number of that size, which would be 64 PiB, but somebody may give it to a file: others must be able
/// to follow each number, and whoever keeps a position in one word has half of it for the segment.
const NUMBERS_END: u64 = 1 << 32;

/// The number of the segment that has this name, if one has.
pub fn number(name: &Path) -> Option<u64> {
    let number = name.to_str()?.strip_suffix(".wal")?.parse().ok()?;
    // One number, one name: "1.wal" or "+0000001.wal" are not ours.
    (number < NUMBERS_END && path(Path::new(""), number) == name).then_some(number)
}

/// What a log's directory holds.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Ascending.
    pub(crate) numbers: Vec<u64>,
    /// Files that are no segments.
    pub(crate) foreign: Vec<PathBuf>,
}

pub(crate) fn list(disk: &dyn Disk, dir: &Path) -> Result<Listing, WalError> {
    let mut listing = Listing::default();
    for name in disk.list(dir).map_err(WalError::io(dir))? {
        match number(&name) {
            Some(number) => listing.numbers.push(number),
            None => listing.foreign.push(dir.join(name)),
        }
    }
    listing.numbers.sort_unstable();
    Ok(listing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_name() {
        for n in [1, 99_999_999, 100_000_000, NUMBERS_END - 1] {
            assert_eq!(number(&path(Path::new(""), n)), Some(n));
        }
        for n in [NUMBERS_END, u64::MAX] {
            assert_eq!(number(&path(Path::new(""), n)), None);
        }
        for name in ["1.wal", "+0000001.wal", "000000001.wal", "00000001.tmp", "00000001", "x"] {
            assert_eq!(number(Path::new(name)), None, "{name}");
        }
    }
}
