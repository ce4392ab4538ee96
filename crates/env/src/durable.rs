//! The few sequences of disk operations that are easy to get wrong, written once.

use std::io;
use std::path::{Path, PathBuf};

use crate::traits::{Disk, Open};

/// Creates a directory and its missing parents, and makes its whole path durable. Also the part
/// that was there before: whoever created it may have been killed in front of the sync.
pub fn create_dir_durably(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let existed: Vec<bool> = path.ancestors().map(|at| disk.exists(at)).collect::<io::Result<_>>()?;
    disk.create_dir_all(path)?;
    for (at, existed) in path.ancestors().zip(existed) {
        if at.as_os_str().is_empty() || at.parent().is_none() {
            break;
        }
        match disk.sync_dir(parent_of(at)) {
            // A directory of others that we may pass but not read is not ours to sync.
            Err(error) if existed && !is_failure(&error) => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

/// Whether the disk failed, rather than declined.
fn is_failure(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    !matches!(error.kind(), InvalidInput | PermissionDenied | Unsupported)
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

/// Removes a file so that no crash brings it back. One that is gone already goes for good with that.
pub fn remove_durably(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let is_gone = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    };
    disk.remove(path).or_else(is_gone)?;
    disk.sync_dir(parent_of(path)).or_else(is_gone)
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
