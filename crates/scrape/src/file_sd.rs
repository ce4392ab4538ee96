//! Target groups in files: JSON or YAML, found by name or glob, read again while they change.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use tidewatch_env::{Disk, Open};
use tidewatch_yaml::{Entry, Kind, Node, YamlError};

use crate::{FileSdConfig, StaticConfig};

/// Bytes of one discovery file: far more than a person or a script writes.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Files are looked at this often even where `refresh_interval` is longer, since Prometheus is
/// told of changes at once and people expect as much.
const POLL_MS_MAX: i64 = 5_000;

/// The files of one `file_sd_configs` entry and what they said when they were last good.
#[derive(Debug)]
pub(crate) struct FileDiscovery {
    config: FileSdConfig,
    files: BTreeMap<PathBuf, Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// What was read last, good or not.
    bytes: Vec<u8>,
    /// What the last good content said.
    groups: Vec<StaticConfig>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[serde(default)]
    targets: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl FileDiscovery {
    pub(crate) fn new(config: FileSdConfig) -> FileDiscovery {
        FileDiscovery { config, files: BTreeMap::new() }
    }

    pub(crate) fn poll_interval_ms(&self) -> i64 {
        self.config.refresh_interval_ms.clamp(1, POLL_MS_MAX)
    }

    /// Reads what has changed; says whether the groups did. A file that can not be read or
    /// understood keeps its last good groups; one that is gone takes them along.
    pub(crate) fn refresh(&mut self, disk: &dyn Disk) -> bool {
        let paths: Vec<PathBuf> =
            self.config.files.iter().flat_map(|pattern| expand(disk, pattern)).collect();
        let before = self.files.len();
        self.files.retain(|path, _| paths.contains(path));
        let mut has_changed = self.files.len() != before;
        for path in paths {
            has_changed |= self.refresh_file(disk, &path);
        }
        has_changed
    }

    fn refresh_file(&mut self, disk: &dyn Disk, path: &Path) -> bool {
        let bytes = match read_file(disk, path, FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "discovery file can not be read; its last targets stay");
                return false;
            }
        };
        let known = self.files.entry(path.to_owned()).or_default();
        if known.bytes == bytes {
            return false;
        }
        let parsed = parse(path, &bytes);
        known.bytes = bytes;
        match parsed {
            Ok(groups) => {
                let has_changed = known.groups != groups;
                known.groups = groups;
                has_changed
            }
            Err(error) => {
                tracing::error!(path = %path.display(), error, "discovery file is not understood; its last targets stay");
                false
            }
        }
    }

    /// All groups, each label set with the path of its file.
    pub(crate) fn groups(&self) -> impl Iterator<Item = StaticConfig> {
        self.files.iter().flat_map(|(path, known)| {
            let path = path.to_string_lossy();
            known.groups.iter().map(move |group| {
                let mut group = group.clone();
                group.labels.push(("__meta_filepath".to_owned(), path.clone().into_owned()));
                group
            })
        })
    }
}

/// Reads a file of at most `bytes_max` bytes.
pub(crate) fn read_file(disk: &dyn Disk, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Open::Read)?;
    let len = file.len()?;
    if len > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {bytes_max} bytes")));
    }
    let mut bytes = vec![0; len as usize];
    let read = file.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Reads the groups of a file's content; its format follows from the name.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<StaticConfig>, String> {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let groups: Vec<Option<Group>> = match extension.as_str() {
        "json" => serde_json::from_slice(bytes).map_err(|error| error.to_string())?,
        "yml" | "yaml" => {
            let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
            yaml_groups(text).map_err(|error| error.to_string())?
        }
        _ => return Err(format!("invalid file extension {extension:?}: must be json, yml or yaml")),
    };
    let mut configs = Vec::new();
    for (i, group) in groups.into_iter().enumerate() {
        let group = group.ok_or_else(|| format!("nil target group item found (index {i})"))?;
        configs.push(StaticConfig { targets: group.targets, labels: group.labels.into_iter().collect() });
    }
    Ok(configs)
}

/// A document without content has no groups.
fn yaml_groups(text: &str) -> Result<Vec<Option<Group>>, YamlError> {
    let root = tidewatch_yaml::parse_unique(text)?;
    let groups = list(&root)?.iter().map(|node| yaml_group(node));
    groups.collect()
}

fn yaml_group(node: &Node) -> Result<Option<Group>, YamlError> {
    if node.is_null() {
        return Ok(None);
    }
    let mut group = Group { targets: Vec::new(), labels: BTreeMap::new() };
    for (key, value) in map(node)? {
        match scalar(key)? {
            "targets" => {
                let targets = list(value)?.iter().map(|target| scalar(target).map(str::to_owned));
                group.targets = targets.collect::<Result<_, _>>()?;
            }
            "labels" => {
                for (name, value) in map(value)? {
                    group.labels.insert(scalar(name)?.to_owned(), scalar(value)?.to_owned());
                }
            }
            unknown => return Err(key.error(format!("field {unknown} not found in a target group"))),
        }
    }
    Ok(Some(group))
}

/// The items of a list; a null has none.
fn list(node: &Node) -> Result<&[Arc<Node>], YamlError> {
    match &node.kind {
        Kind::List(items) => Ok(items),
        _ if node.is_null() => Ok(&[]),
        _ => Err(node.error(format!("cannot unmarshal {} into a list", node.tag()))),
    }
}

/// The entries of a map; a null has none.
fn map(node: &Node) -> Result<&[Entry], YamlError> {
    match &node.kind {
        Kind::Map(entries) => Ok(entries),
        _ if node.is_null() => Ok(&[]),
        _ => Err(node.error(format!("cannot unmarshal {} into a map", node.tag()))),
    }
}

/// A scalar as it is written; a null is the empty text.
fn scalar(node: &Node) -> Result<&str, YamlError> {
    match &node.kind {
        Kind::Scalar { .. } => Ok(node.text().unwrap_or_default()),
        _ => Err(node.error(format!("cannot unmarshal {} into string", node.tag()))),
    }
}

/// The existing files that a pattern names. Only its last part may hold wildcards.
fn expand(disk: &dyn Disk, pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().unwrap_or_default().to_string_lossy();
    if !name.contains(['*', '?', '[']) {
        return match disk.exists(pattern) {
            Ok(true) => vec![pattern.to_owned()],
            _ => Vec::new(),
        };
    }
    let directory = match pattern.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let Ok(mut names) = disk.list(directory) else { return Vec::new() };
    names.retain(|path| matches(name.as_bytes(), path.file_name().unwrap_or_default().as_encoded_bytes()));
    names.into_iter().map(|path| directory.join(path.file_name().unwrap_or_default())).collect()
}

/// Whether a name fits a pattern of `*`, `?`, `[a-z]`, `[^a-z]` and plain bytes. Goes back to
/// the last star alone, so that the work is bounded by the product of the lengths.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
                continue;
            }
            Some(_) => {
                if let Some(len) = match_one(&pattern[p..], name[n]) {
                    p += len;
                    n += 1;
                    continue;
                }
            }
            None => {}
        }
        let Some((after, at)) = star else { return false };
        (p, n) = (after, at + 1);
        star = Some((after, n));
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Matches one byte against the pattern's first element; gives the element's length.
fn match_one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [b'[', rest @ ..] => {
            let (is_negated, set) = match rest {
                [b'^' | b'!', set @ ..] => (true, set),
                set => (false, set),
            };
            let len = set.iter().skip(1).position(|b| *b == b']')? + 1;
            let is_in = in_set(&set[..len], byte);
            (is_in != is_negated).then_some(1 + usize::from(is_negated) + len + 1)
        }
        [plain, ..] => (*plain == byte).then_some(1),
        [] => None,
    }
}

fn in_set(mut set: &[u8], byte: u8) -> bool {
    loop {
        set = match set {
            [low, b'-', high, rest @ ..] => {
                if (*low..=*high).contains(&byte) {
                    return true;
                }
                rest
            }
            [one, rest @ ..] => {
                if *one == byte {
                    return true;
                }
                rest
            }
            [] => return false,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(name: &str, text: &str) -> Result<Vec<StaticConfig>, String> {
        parse(Path::new(name), text.as_bytes())
    }

    #[test]
    fn json_and_yaml_say_the_same() {
        let expected = vec![
            StaticConfig { targets: vec![], labels: vec![("job".into(), "node".into())] },
            StaticConfig { targets: vec!["a:9100".into(), "b:9100".into()], labels: vec![] },
        ];
        let json = r#"[{"labels": {"job": "node"}}, {"targets": ["a:9100", "b:9100"]}]"#;
        assert_eq!(groups("f.json", json), Ok(expected.clone()));
        let yaml = "- labels:\n    job: node\n- targets:\n    - a:9100\n    - b:9100\n";
        assert_eq!(groups("f.yml", yaml), Ok(expected));
        assert_eq!(groups("f.yaml", ""), Ok(vec![]));
        let port = groups("f.yaml", "- labels: {port: 80, on: true}").unwrap();
        assert_eq!(port[0].labels, [("on".into(), "true".into()), ("port".into(), "80".into())]);
    }

    #[test]
    fn what_is_no_list_of_groups_is_refused() {
        let misspelt = groups("f.yml", "- targats:\n    - localhost:9100\n").unwrap_err();
        assert_eq!(misspelt, "1:3: field targats not found in a target group");
        assert_eq!(groups("f.yml", "targets: [a]").unwrap_err(), "1:1: cannot unmarshal !!map into a list");
        assert_eq!(groups("f.yml", "-").unwrap_err(), "nil target group item found (index 0)");
        assert!(groups("f.json", "{").is_err());
        assert_eq!(groups("f.json", "[null]").unwrap_err(), "nil target group item found (index 0)");
        assert!(groups("f.txt", "[]").unwrap_err().starts_with("invalid file extension"));
    }

    #[test]
    fn globs_match_as_shells_match() {
        for (pattern, name, expected) in [
            ("*.json", "a.json", true),
            ("*.json", "a.yml", false),
            ("a*b*c", "aXbYbZc", true),
            ("a?c.[jy]*", "abc.yml", true),
            ("[a-c][^x]", "by", true),
            ("[a-c][^x]", "bx", false),
            ("**", "", true),
            ("[", "[", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_broken_file_keeps_its_last_good_targets() {
        let disk = tidewatch_env::sim::SimDisk::plain();
        let path = Path::new("/sd/targets.json");
        disk.create_dir_all(Path::new("/sd")).unwrap();
        let config = FileSdConfig { files: vec!["/sd/*.json".into()], refresh_interval_ms: 300_000 };
        let mut discovery = FileDiscovery::new(config);
        let addresses = |discovery: &FileDiscovery| -> Vec<String> {
            discovery.groups().flat_map(|group| group.targets).collect()
        };
        assert!(!discovery.refresh(&disk));
        let write = |text: &str| {
            if disk.exists(path).unwrap() {
                disk.remove(path).unwrap();
            }
            disk.open(path, Open::Create).unwrap().append(text.as_bytes()).unwrap();
        };
        write(r#"[{"targets": ["a:1"]}]"#);
        assert!(discovery.refresh(&disk));
        assert!(!discovery.refresh(&disk));
        write("[{");
        assert!(!discovery.refresh(&disk));
        assert_eq!(addresses(&discovery), ["a:1"]);
        write(r#"[{"targets": ["b:1"]}]"#);
        assert!(discovery.refresh(&disk));
        let group = discovery.groups().next().unwrap();
        assert_eq!(group.labels, [("__meta_filepath".to_owned(), "/sd/targets.json".to_owned())]);
        assert_eq!(group.targets, ["b:1"]);
        disk.remove(path).unwrap();
        assert!(discovery.refresh(&disk));
        assert_eq!(addresses(&discovery), [""; 0]);
        assert_eq!(discovery.poll_interval_ms(), 5_000);
    }
}
