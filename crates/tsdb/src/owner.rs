//! Which data directory files are of.
//!
//! Images and the log name series by numbers, which mean other series elsewhere: a file of another directory would give
//! ours the samples of its own. So a directory has a number, drawn when it is made. It stands in `OWNER`
//! (`tidewatch-owner 0123456789abcdef` and a newline), in each image and in each segment of the log.
//!
//! `OWNER` itself may be lost or exchanged, and costs nothing; exchanged together with images or the log it is believed.
//! Blocks bear the labels of their series and may be brought from anywhere. Who copies all of a directory copies its
//! number: files fit both as long as neither goes on, and behind that nothing tells them apart. Files of earlier releases
//! do not say whose they are, nor do those that were written while `OWNER` could not be; they are taken for ours.
//!
//! ```text
//! OWNER ──┬─ an image or a segment says the same, or none says anything ─► it holds
//! images ─┤
//! log ────┴─ else ─► what most of them say: it is `OWNER` that is gone, damaged, or of elsewhere
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use tidewatch_env::{Env, replace_durably};
use tidewatch_wal::{segment_number, segment_owner};

use crate::directory::read_small;
use crate::head::image::ImageHeader;
use crate::image::is_image_name;

const NAME: &str = "OWNER";

const WRONG: &str = "the file was missing, damaged or of another data directory; a start writes it anew";

/// What a directory says of itself.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    pub(crate) owner: Option<u64>,
    /// What is wrong with `OWNER`, if something is.
    pub(crate) flaw: Option<&'static str>,
}

pub(crate) fn owner_path(root: &Path) -> PathBuf {
    root.join(NAME)
}

/// Looks whose the files are, and changes nothing.
pub(crate) fn look(env: &Env, root: &Path) -> Looked {
    // First, as it is durable before a file that says so: a server beside us may be at its first start.
    let said = said_by_files(env, root);
    let path = owner_path(root);
    // A disk that fails is asked once more.
    let bytes = read_small(env, &path).or_else(|_| read_small(env, &path));
    let stated = bytes.as_deref().ok().and_then(parse);
    let holds = stated.is_some_and(|stated| said.is_empty() || said.contains_key(&stated));
    let is_gone = said.is_empty() && bytes.is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    let most = said.into_iter().max_by_key(|(_, files)| *files).map(|(owner, _)| owner);
    Looked { owner: if holds { stated } else { most }, flaw: (!holds && !is_gone).then_some(WRONG) }
}

pub(crate) fn write(env: &Env, root: &Path, owner: u64) -> io::Result<()> {
    replace_durably(&*env.disk, &owner_path(root), text(owner).as_bytes())
}

fn text(owner: u64) -> String {
    format!("tidewatch-owner {owner:016x}\n")
}

fn parse(bytes: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(bytes).ok()?.trim_end().rsplit(' ').next()?;
    let owner = u64::from_str_radix(digits, 16).ok()?;
    (owner != 0 && bytes == text(owner).as_bytes()).then_some(owner)
}

/// What images and segments say, and how many of them.
fn said_by_files(env: &Env, root: &Path) -> BTreeMap<u64, usize> {
    let of_image = |bytes: &[u8]| ImageHeader::decode(bytes).ok().map(|header| header.owner);
    let is_segment = |name: &Path| segment_number(name).is_some();
    let images = said_in(env, &root.join("head"), is_image_name, of_image);
    let segments = said_in(env, &root.join("wal"), is_segment, segment_owner);
    let mut said = BTreeMap::new();
    for owner in images.into_iter().chain(segments).filter(|owner| *owner != 0) {
        *said.entry(owner).or_default() += 1;
    }
    said
}

fn said_in(
    env: &Env,
    dir: &Path,
    is_one: impl Fn(&Path) -> bool,
    owner_of: impl Fn(&[u8]) -> Option<u64>,
) -> Vec<u64> {
    let names = env.disk.list(dir).unwrap_or_default().into_iter().filter(|name| is_one(name));
    let bytes = names.filter_map(|name| read_small(env, &dir.join(name)).ok());
    bytes.filter_map(|bytes| owner_of(&bytes)).collect()
}
