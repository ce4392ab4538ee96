//! A disk on which something happens in the middle of a job: when the next file of blocks is begun.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tidewatch_env::sim::SimDisk;
use tidewatch_env::{Disk, File, Lock, Open, Space};

type Event = Box<dyn FnOnce() + Send>;

#[derive(Clone)]
pub struct InterruptedDisk {
    disk: SimDisk,
    event: Arc<Mutex<Option<Event>>>,
}

impl InterruptedDisk {
    pub fn new(disk: SimDisk) -> InterruptedDisk {
        InterruptedDisk { disk, event: Arc::default() }
    }

    /// Lets something happen when the next file of blocks is begun.
    pub fn at_next_block(&self, event: impl FnOnce() + Send + 'static) {
        *self.event.lock().expect("no panic") = Some(Box::new(event));
    }

    /// Whether what was to happen still waits for a file of blocks.
    pub fn waits(&self) -> bool {
        self.event.lock().expect("no panic").is_some()
    }
}

impl Disk for InterruptedDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let is_of_blocks = path.components().any(|part| part.as_os_str() == "blocks");
        if how == Open::Create && is_of_blocks {
            let event = self.event.lock().expect("no panic").take();
            event.into_iter().for_each(|event| event());
        }
        self.disk.open(path, how)
    }

    fn map(&self, path: &Path) -> io::Result<Bytes> {
        self.disk.map(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir_all(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.disk.lock(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.disk.space(path)
    }
}
