//! The file that an export writes.
//!
//! ```text
//! create ─► write, write, … ─► finish ─► NAME.tmp, synced ─ rename ─► NAME
//! ```
//!
//! So what bears the name is whole, and an export that failed leaves nothing in the way of the next one; one that was
//! killed leaves `NAME.tmp`.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use tidewatch_env::parent_of;

pub struct Output {
    file: File,
    path: PathBuf,
    beside: PathBuf,
    is_finished: bool,
}

impl Output {
    pub fn create(path: &Path) -> io::Result<Output> {
        let taken = |path: &Path, why: &str| {
            io::Error::new(
                ErrorKind::AlreadyExists,
                format!("{}: the file is there already{why}", path.display()),
            )
        };
        // Also a link to nowhere.
        if fs::symlink_metadata(path).is_ok() {
            return Err(taken(path, ": name another, or remove it"));
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(".tmp");
        let beside = PathBuf::from(beside);
        let file = File::create_new(&beside).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                taken(&beside, ", of an export that runs or was killed: remove it then")
            }
            _ => named(path)(error),
        })?;
        Ok(Output { file, path: path.to_owned(), beside, is_finished: false })
    }

    /// Gives what was written its name: durable when this returns, as far as the file system can say.
    pub fn finish(mut self) -> io::Result<()> {
        let synced = self.file.sync_all().and_then(|()| fs::rename(&self.beside, &self.path));
        synced.map_err(named(&self.path))?;
        self.is_finished = true;
        // Where a directory can not be synced, the file is whole and has its name all the same.
        let _ = File::open(parent_of(&self.path)).and_then(|folder| folder.sync_all());
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|error| match error.kind() {
            // Whoever writes goes on.
            ErrorKind::Interrupted => error,
            _ => named(&self.path)(error),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.is_finished {
            let _ = fs::remove_file(&self.beside);
        }
    }
}

/// Names what was to be written, and what helps where the disk is full.
pub fn named(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |error| {
        let remedy = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                ": make room, or name a place on another disk"
            }
            _ => "",
        };
        io::Error::new(error.kind(), format!("{}: {error}{remedy}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a disk");
        entries.map(|entry| entry.expect("a disk").file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn what_was_not_finished_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a disk");
        let path = folder.path().join("out");
        let mut output = Output::create(&path).expect("a disk");
        output.write_all(b"half").expect("a disk");
        let said = Output::create(&path).err().expect("one at a time").to_string();
        assert!(said.starts_with(&format!("{}.tmp: the file is there already", path.display())), "{said}");
        drop(output);
        assert_eq!(names(folder.path()), [""; 0]);
        let mut output = Output::create(&path).expect("a disk");
        output.write_all(b"whole").expect("a disk");
        output.finish().expect("a disk");
        assert_eq!(
            (names(folder.path()), fs::read(&path).expect("a disk")),
            (vec!["out".to_owned()], b"whole".to_vec())
        );
        let said = Output::create(&path).err().expect("it is there").to_string();
        assert_eq!(
            said,
            format!("{}: the file is there already: name another, or remove it", path.display())
        );
    }

    #[test]
    fn a_full_disk_is_told_with_the_file_and_what_helps() {
        let Ok(file) = File::options().write(true).open("/dev/full") else { return };
        let folder = tempfile::tempdir().expect("a disk");
        let path = folder.path().join("out");
        let output = Output::create(&path).expect("a disk");
        let beside = output.beside.clone();
        let mut output = Output { file, path: path.clone(), beside, is_finished: false };
        let said = output.write_all(b"x").expect_err("no room").to_string();
        let expected = "No space left on device (os error 28): make room, or name a place on another disk";
        assert_eq!(said, format!("{}: {expected}", path.display()));
    }
}
