//! Names of the simulated disk: directories as the process sees them and as the disk has them.
//!
//! Each directory keeps the order of its own changes, as a journalling file system does, but
//! two directories are independent, and names are independent of the content they lead to: a
//! rename may be durable while the bytes of the file are not.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::content::{Content, Fate};
use super::random::Random;

pub(super) type FileNode = Arc<Mutex<Content>>;
pub(super) type DirNode = Arc<Mutex<Directory>>;

#[derive(Debug, Clone)]
pub(super) enum Node {
    File(FileNode),
    Dir(DirNode),
}

#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) now: BTreeMap<OsString, Node>,
    durable: BTreeMap<OsString, Node>,
}

/// One operation on names, done whole or not at all. `None` removes the name.
#[derive(Debug)]
struct NameChange {
    edits: Vec<(DirNode, OsString, Option<Node>)>,
}

/// The tree of directories, and the changes that no directory sync has covered yet.
#[derive(Debug, Default)]
pub(super) struct Names {
    root: DirNode,
    /// Oldest first. Stays empty on a disk that never forgets.
    unsynced: Vec<NameChange>,
}

impl Names {
    pub(super) fn find(&self, path: &Path) -> io::Result<Node> {
        let mut at = Node::Dir(self.root.clone());
        for name in components(path)? {
            let Node::Dir(dir) = &at else { return Err(io::ErrorKind::NotADirectory.into()) };
            let next = dir.lock().now.get(&name).cloned();
            at = next.ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    pub(super) fn find_file(&self, path: &Path) -> io::Result<FileNode> {
        match self.find(path)? {
            Node::File(file) => Ok(file),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn find_dir(&self, path: &Path) -> io::Result<DirNode> {
        match self.find(path)? {
            Node::Dir(dir) => Ok(dir),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// The directory that holds the last name of `path`, and that name.
    pub(super) fn slot(&self, path: &Path) -> io::Result<(DirNode, OsString)> {
        let mut names = components(path)?;
        let last = names.pop().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.find_dir(&names.iter().collect::<PathBuf>())?, last))
    }

    /// Puts or removes names as one change.
    pub(super) fn change(&mut self, edits: Vec<(DirNode, OsString, Option<Node>)>, forgets: bool) {
        for (dir, name, node) in &edits {
            edit(&mut dir.lock().now, name, node.as_ref());
        }
        if forgets {
            self.unsynced.push(NameChange { edits });
        }
    }

    /// Makes the names of `dir` durable, and with them what they cannot be without: earlier
    /// changes of another directory that a rename between the two joined to this one.
    pub(super) fn sync(&mut self, dir: &DirNode) {
        let mut needed = vec![dir.clone()];
        let mut due = vec![false; self.unsynced.len()];
        for (change, due) in self.unsynced.iter().zip(&mut due).rev() {
            let dirs = change.edits.iter().map(|(dir, ..)| dir);
            if dirs.clone().any(|dir| contains(&needed, dir)) {
                *due = true;
                needed.extend(dirs.cloned());
            }
        }
        let mut due = due.into_iter();
        self.unsynced.retain(|change| {
            let due = due.next().expect("one flag for each change");
            if due {
                change.apply();
            }
            !due
        });
    }

    /// Lets a prefix of each directory's changes survive, and gives every file that is still
    /// reachable the content that its own fate leaves it.
    pub(super) fn cut_power(&mut self, fate: Option<Fate>, random: &mut Random) {
        let mut stopped: Vec<DirNode> = Vec::new();
        let name_fate = fate.unwrap_or_else(|| Fate::draw(random));
        for change in self.unsynced.drain(..) {
            let survives = match name_fate {
                Fate::Lost => false,
                Fate::Kept => true,
                Fate::Prefix | Fate::Scattered => random.below(4) != 0,
            };
            let blocked = change.edits.iter().any(|(dir, ..)| contains(&stopped, dir));
            if survives && !blocked {
                change.apply();
            } else {
                stopped.extend(change.edits.iter().map(|(dir, ..)| dir.clone()));
            }
        }
        let mut seen = BTreeSet::new();
        cut_power_below(&self.root, fate, random, &mut seen);
    }

    /// Every file with its path, in order.
    pub(super) fn files(&self) -> Vec<(PathBuf, FileNode)> {
        let mut found = Vec::new();
        let mut dirs = vec![(PathBuf::from("/"), self.root.clone())];
        while let Some((path, dir)) = dirs.pop() {
            for (name, node) in &dir.lock().now {
                match node {
                    Node::File(file) => found.push((path.join(name), file.clone())),
                    Node::Dir(dir) => dirs.push((path.join(name), dir.clone())),
                }
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }
}

impl NameChange {
    fn apply(&self) {
        for (dir, name, node) in &self.edits {
            edit(&mut dir.lock().durable, name, node.as_ref());
        }
    }
}

fn edit(names: &mut BTreeMap<OsString, Node>, name: &OsString, node: Option<&Node>) {
    match node {
        Some(node) => names.insert(name.clone(), node.clone()),
        None => names.remove(name),
    };
}

fn contains(dirs: &[DirNode], dir: &DirNode) -> bool {
    dirs.iter().any(|known| Arc::ptr_eq(known, dir))
}

fn cut_power_below(root: &DirNode, fate: Option<Fate>, random: &mut Random, seen: &mut BTreeSet<usize>) {
    let mut dirs = vec![root.clone()];
    while let Some(dir) = dirs.pop() {
        let mut dir = dir.lock();
        dir.now = dir.durable.clone();
        for node in dir.now.values() {
            match node {
                Node::Dir(inner) => dirs.push(inner.clone()),
                // A file with two names is cut once.
                Node::File(file) if seen.insert(Arc::as_ptr(file) as usize) => {
                    let fate = fate.unwrap_or_else(|| Fate::draw(random));
                    file.lock().cut_power(fate, random);
                }
                Node::File(_) => {}
            }
        }
    }
}

/// The names of a path below the root, to which relative paths belong as well.
fn components(path: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => names.push(name.to_owned()),
            Component::ParentDir | Component::Prefix(_) => return Err(io::ErrorKind::InvalidInput.into()),
        }
    }
    Ok(names)
}
