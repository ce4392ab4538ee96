//! The few sequences of disk operations that are easy to get wrong, written once.

use std::io;
use std::path::{Path, PathBuf};

use crate::traits::{Disk, Open};

/// Creates a directory and its missing parents, and makes each new name durable.
pub fn create_dir_durably(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    let mut at = path;
    while !at.as_os_str().is_empty() && !disk.exists(at)? {
        missing.push(at);
        match at.parent() {
            Some(parent) => at = parent,
            None => break,
        }
    }
    disk.create_dir_all(path)?;
    // The parent of the outermost first: a name counts only below one that is there.
    for created in missing.iter().rev() {
        disk.sync_dir(parent_of(created))?;
    }
    Ok(())
}

/// Puts `bytes` at `path` so that a crash leaves the old content or the new, whole. Goes over a
/// file of the same name with `.tmp` added, which a crash may leave behind and the next call
/// replaces.
pub fn replace_durably(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = beside(path);
    if disk.exists(&beside)? {
        disk.remove(&beside)?;
    }
    let file = disk.open(&beside, Open::Create)?;
    file.append(bytes)?;
    file.sync()?;
    drop(file);
    disk.rename(&beside, path)?;
    disk.sync_dir(parent_of(path))
}

/// The directory that holds the name of `path`.
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}
