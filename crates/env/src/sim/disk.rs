//! The simulated disk: keeps what was synced, forgets what it may, fails when told.

use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use super::content::{Content, Fate};
use super::faults::{Failure, Fault, Faults, Need};
use super::names::{DirNode, FileNode, Names, Node};
use super::random::Random;
use crate::traits::{Disk, File, Lock, Open, Space};

/// What a simulated disk says it holds when nobody set a size.
const TOTAL_BYTES: u64 = 1 << 40;

/// A disk in memory. Clones are the same disk: keep one to control what a
/// [`Disk`] handed to the code under test does.
///
/// Changes (create, write, truncate, reserve, sync, rename, link, remove, directory create and
/// sync, lock) are counted from 1 over the life of the disk, so a test that makes its n-th one
/// fail, for n = 1, 2, … until [`fired`](SimDisk::fired) stays false, has met every case.
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Shared>,
}

struct Shared {
    /// Guards everything: the simulated disk does one thing at a time.
    state: Mutex<State>,
    /// Whether unsynced changes are kept, so that a crash can lose them.
    forgets: bool,
}

struct State {
    names: Names,
    faults: Faults,
    random: Random,
    /// Counts processes: handles and locks of an earlier one are dead.
    process: u64,
    locked: Vec<Weak<Mutex<Content>>>,
    capacity: Option<u64>,
}

impl SimDisk {
    /// An empty disk that forgets what is not synced when it [crashes](SimDisk::crash).
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::with(seed, true)
    }

    /// An empty disk that never forgets: plain memory behind the interface of a disk, for
    /// stores that are not meant to outlive the process.
    pub fn plain() -> SimDisk {
        SimDisk::with(0, false)
    }

    fn with(seed: u64, forgets: bool) -> SimDisk {
        let state = State {
            names: Names::default(),
            faults: Faults::default(),
            random: Random::new(seed),
            process: 0,
            locked: Vec::new(),
            capacity: None,
        };
        SimDisk { shared: Arc::new(Shared { state: Mutex::new(state), forgets }) }
    }

    /// The power goes and comes back. What was synced is there; of the rest, whatever a real
    /// disk might have kept, drawn from `seed`: 0 loses everything unsynced, 1 keeps it all,
    /// any other seed gives each file and directory a fate of its own, with prefixes, holes,
    /// and torn and reordered sectors. Open handles and locks are dead afterwards.
    pub fn crash(&self, seed: u64) {
        let mut state = self.shared.state.lock();
        state.restart();
        if self.shared.forgets {
            let fate = match seed {
                0 => Some(Fate::Lost),
                1 => Some(Fate::Kept),
                _ => None,
            };
            state.names.cut_power(fate, &mut Random::new(seed));
        }
    }

    /// The process is killed, the machine goes on: nothing is lost, but handles and locks are
    /// dead, and what was not synced still can be lost later.
    pub fn kill(&self) {
        self.shared.state.lock().restart();
    }

    /// How many changes were asked for so far.
    pub fn changes(&self) -> u64 {
        self.shared.state.lock().faults.changes()
    }

    /// How many reads (open to read, read, map, list) were asked for so far.
    pub fn reads(&self) -> u64 {
        self.shared.state.lock().faults.reads()
    }

    /// Makes the `n`-th change, counted from 1, fail; replaces an earlier plan, and ends with
    /// the next crash or kill.
    pub fn fail_at(&self, n: u64, failure: Failure) {
        self.shared.state.lock().faults.plan_change(n, failure);
    }

    /// Makes the `n`-th read, counted from 1, fail once.
    pub fn fail_read_at(&self, n: u64) {
        self.shared.state.lock().faults.plan_read(n);
    }

    /// Whether the last plan came true.
    pub fn fired(&self) -> bool {
        self.shared.state.lock().faults.fired()
    }

    /// There is room again.
    pub fn free_space(&self) {
        self.shared.state.lock().faults.full = false;
    }

    /// Changes work again after [`Failure::IoForGood`].
    pub fn repair(&self) {
        self.shared.state.lock().faults.broken = false;
    }

    /// How much the disk holds; more is refused as on a full disk.
    pub fn set_capacity(&self, bytes: u64) {
        self.shared.state.lock().capacity = Some(bytes);
    }

    /// Makes a range of a file fail whenever it is read or mapped.
    pub fn make_unreadable(&self, path: &Path, range: Range<u64>) -> io::Result<()> {
        self.shared.state.lock().names.find_file(path)?.lock().make_unreadable(range);
        Ok(())
    }

    /// The bytes of a file, past all faults and counters.
    pub fn peek(&self, path: &Path) -> io::Result<Vec<u8>> {
        Ok(self.shared.state.lock().names.find_file(path)?.lock().now().to_vec())
    }

    /// Replaces the bytes of a file durably, past all faults and counters: damage.
    pub fn poke(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.shared.state.lock().names.find_file(path)?.lock().overwrite(bytes.to_vec());
        Ok(())
    }

    /// Every file there is, in the order of its path.
    pub fn files(&self) -> Vec<PathBuf> {
        self.shared.state.lock().names.files().into_iter().map(|(path, _)| path).collect()
    }

    /// Runs one change of names: `plan` checks it and says what to put and remove.
    fn rename_like(
        &self,
        need: Need,
        plan: impl FnOnce(&Names) -> io::Result<Vec<(DirNode, OsString, Option<Node>)>>,
    ) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        state.faults.check_power()?;
        let edits = plan(&state.names)?;
        let outcome = state.faults.change(need);
        let done = match &outcome {
            Ok(()) => true,
            // Only a crash leaves open whether a change of names took place.
            Err(fault) => fault.partial && state.faults.power_off && state.random.coin(),
        };
        if done {
            state.names.change(edits, self.shared.forgets);
        }
        Ok(outcome?)
    }

    fn handle(&self, state: &State, node: FileNode, writable: bool) -> Arc<dyn File> {
        Arc::new(SimFile { disk: self.clone(), node, process: state.process, writable })
    }

    fn create_file(&self, path: &Path) -> io::Result<FileNode> {
        let node = FileNode::default();
        self.rename_like(Need::Room, |names| {
            let (dir, name) = names.slot(path)?;
            if dir.lock().now.contains_key(&name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            Ok(vec![(dir, name, Some(Node::File(node.clone())))])
        })?;
        Ok(node)
    }
}

impl State {
    fn restart(&mut self) {
        self.process += 1;
        self.locked.clear();
        self.faults.restart();
    }

    fn used_bytes(&self) -> u64 {
        self.names.files().iter().map(|(_, file)| file.lock().len()).sum()
    }

    fn check_room(&self, more: u64) -> Result<(), Fault> {
        match self.capacity {
            Some(capacity) if self.used_bytes() + more > capacity => {
                Err(Fault { error: io::ErrorKind::StorageFull.into(), partial: true })
            }
            _ => Ok(()),
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let node = if how == Open::Create {
            self.create_file(path)?
        } else {
            let mut state = self.shared.state.lock();
            state.faults.read()?;
            state.names.find_file(path)?
        };
        let state = self.shared.state.lock();
        Ok(self.handle(&state, node, how != Open::Read))
    }

    fn map(&self, path: &Path) -> io::Result<Bytes> {
        let mut state = self.shared.state.lock();
        state.faults.read()?;
        let file = state.names.find_file(path)?;
        let bytes = file.lock().read_all()?;
        Ok(Bytes::from(bytes))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if to.starts_with(from) && to != from {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.rename_like(Need::Change, |names| {
            let node = names.find(from)?;
            let (source, target) = (names.slot(from)?, names.slot(to)?);
            let replaced = target.0.lock().now.get(&target.1).cloned();
            match (&node, replaced) {
                (_, None) | (Node::File(_), Some(Node::File(_))) => {}
                (Node::Dir(_), Some(Node::Dir(dir))) if dir.lock().now.is_empty() => {}
                (Node::Dir(_), Some(Node::Dir(_))) => return Err(io::ErrorKind::DirectoryNotEmpty.into()),
                (Node::Dir(_), Some(Node::File(_))) => return Err(io::ErrorKind::NotADirectory.into()),
                (Node::File(_), Some(Node::Dir(_))) => return Err(io::ErrorKind::IsADirectory.into()),
            }
            if from == to {
                return Ok(Vec::new());
            }
            Ok(vec![(target.0, target.1, Some(node)), (source.0, source.1, None)])
        })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.rename_like(Need::Room, |names| {
            let node = names.find_file(from)?;
            let (dir, name) = names.slot(to)?;
            if dir.lock().now.contains_key(&name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            Ok(vec![(dir, name, Some(Node::File(node)))])
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.rename_like(Need::Change, |names| {
            names.find_file(path)?;
            let (dir, name) = names.slot(path)?;
            Ok(vec![(dir, name, None)])
        })
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        // One name after the other, the innermost first: a crash may leave any part of it.
        let mut dirs = vec![path.to_owned()];
        let mut doomed = Vec::new();
        while let Some(dir) = dirs.pop() {
            let names = self.shared.state.lock().names.find_dir(&dir)?;
            for (name, node) in &names.lock().now {
                match node {
                    Node::File(_) => doomed.push(dir.join(name)),
                    Node::Dir(_) => dirs.push(dir.join(name)),
                }
            }
            doomed.push(dir);
        }
        doomed.sort();
        for path in doomed.iter().rev() {
            self.rename_like(Need::Change, |names| {
                let (dir, name) = names.slot(path)?;
                Ok(vec![(dir, name, None)])
            })?;
        }
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut at = PathBuf::new();
        for component in path.components() {
            at.push(component);
            match self.shared.state.lock().names.find(&at) {
                Ok(Node::Dir(_)) => continue,
                Ok(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            self.rename_like(Need::Room, |names| {
                let (dir, name) = names.slot(&at)?;
                Ok(vec![(dir, name, Some(Node::Dir(DirNode::default())))])
            })?;
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        state.faults.check_power()?;
        let dir = state.names.find_dir(path)?;
        // A failed one leaves its changes unsynced: they may be lost or kept.
        state.faults.change(Need::Change)?;
        state.names.sync(&dir);
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut state = self.shared.state.lock();
        state.faults.read()?;
        let dir = state.names.find_dir(path)?;
        let names = dir.lock().now.keys().map(PathBuf::from).collect();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.shared.state.lock();
        state.faults.check_power()?;
        match state.names.find(path) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let found = self.shared.state.lock().names.find_file(path);
        let node = match found {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create_file(path)?,
            other => other?,
        };
        let mut state = self.shared.state.lock();
        state.faults.check_power()?;
        let held = Arc::downgrade(&node);
        if state.locked.iter().any(|other| other.ptr_eq(&held)) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.locked.push(held);
        Ok(Box::new(SimLock { disk: self.clone(), node, process: state.process }))
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let state = self.shared.state.lock();
        state.faults.check_power()?;
        let total_bytes = state.capacity.unwrap_or(TOTAL_BYTES);
        let free_bytes = if state.faults.full { 0 } else { total_bytes.saturating_sub(state.used_bytes()) };
        Ok(Space { total_bytes, free_bytes })
    }
}

struct SimFile {
    disk: SimDisk,
    node: FileNode,
    process: u64,
    writable: bool,
}

impl SimFile {
    /// The disk, if this handle may still use it.
    fn state(&self) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        let state = self.disk.shared.state.lock();
        if state.process != self.process {
            return Err(io::Error::other("simulated: the process that opened this file is gone"));
        }
        Ok(state)
    }

    fn writable_state(&self) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.state()
    }

    fn write(&self, offset: Option<u64>, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.writable_state()?;
        let mut content = self.node.lock();
        let offset = offset.unwrap_or(content.len());
        let growth = (offset + bytes.len() as u64).saturating_sub(content.len());
        drop(content);
        let outcome = state.faults.change(Need::Room).and_then(|()| state.check_room(growth));
        let written = match &outcome {
            Ok(()) => bytes.len(),
            Err(fault) if fault.partial => state.random.upto(bytes.len()),
            Err(_) => 0,
        };
        content = self.node.lock();
        content.write(offset, &bytes[..written], self.disk.shared.forgets);
        Ok(outcome?)
    }
}

impl File for SimFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.write(None, bytes)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write(Some(offset), bytes)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.state()?.faults.read()?;
        self.node.lock().read(offset, buffer)
    }

    fn len(&self) -> io::Result<u64> {
        self.state()?.faults.check_power()?;
        Ok(self.node.lock().len())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state()?;
        let outcome = state.faults.change(Need::Change);
        match &outcome {
            Ok(()) => self.node.lock().sync(),
            // A crash decides later what of the file is there.
            Err(fault) if fault.partial && !state.faults.power_off => {
                self.node.lock().fail_sync(&mut state.random);
            }
            Err(_) => {}
        }
        Ok(outcome?)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.writable_state()?;
        state.faults.change(Need::Change)?;
        self.node.lock().resize(len, self.disk.shared.forgets);
        Ok(())
    }

    fn reserve(&self, _len: u64) -> io::Result<()> {
        Ok(self.writable_state()?.faults.change(Need::Room)?)
    }
}

struct SimLock {
    disk: SimDisk,
    node: FileNode,
    process: u64,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.shared.state.lock();
        if state.process == self.process {
            let held = Arc::downgrade(&self.node);
            state.locked.retain(|other| !other.ptr_eq(&held));
        }
    }
}
