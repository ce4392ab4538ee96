//! A limit on memory around a program: a cgroup where one can be made, else a limit on its address
//! space.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process::Process;

/// Memory that a program may use, and what enforces it.
pub struct Cage {
    bytes: u64,
    /// The group and its files, where there is one.
    group: Option<Group>,
}

struct Group {
    folder: PathBuf,
    limit: &'static str,
}

/// Address space beyond the limit on memory: stacks and arenas are reserved and not used.
const UNUSED_BYTES: u64 = 512 << 20;

impl Cage {
    pub fn new(bytes: u64) -> Cage {
        let name = format!("tidewatch-tests-{}", std::process::id());
        let kinds = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            // Where the controller is not handed down, the file is missing.
            ("/sys/fs/cgroup", "memory.max"),
        ];
        let group = kinds.into_iter().find_map(|(root, limit)| {
            let folder = Path::new(root).join(&name);
            std::fs::create_dir(&folder).ok()?;
            let group = Group { folder, limit };
            let file = group.folder.join(limit);
            (file.is_file() && std::fs::write(file, bytes.to_string()).is_ok()).then_some(group)
        });
        Cage { bytes, group }
    }

    /// What enforces the limit, for people.
    pub fn describe(&self) -> String {
        match &self.group {
            Some(group) => format!("{} in {}", group.limit, group.folder.display()),
            None => format!("no cgroup can be made: an address space of {} MiB", self.space() >> 20),
        }
    }

    fn space(&self) -> u64 {
        self.bytes + UNUSED_BYTES
    }

    /// Starts a program within the limit.
    pub fn start(&self, program: &Path, arguments: &[String], log: &Path) -> Result<Process> {
        let enter = match &self.group {
            Some(group) => format!("echo $$ > {}", group.folder.join("cgroup.procs").display()),
            None => format!("ulimit -v {}", self.space() / 1024),
        };
        let mut all =
            vec!["-c".to_owned(), format!("{enter} && exec \"$0\" \"$@\""), program.display().to_string()];
        all.extend_from_slice(arguments);
        Process::start("sh", &all, log)
    }
}

impl Drop for Group {
    /// Empty by now: a group with a process in it stays.
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.folder);
    }
}

/// The most memory that a process has had resident.
pub fn resident_peak_bytes(process: &Process) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id()))?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("VmHWM")?;
    let kib: u64 = line.split_whitespace().nth(1).context("a number")?.parse()?;
    Ok(kib << 10)
}

/// CPU time that a process has used, in seconds.
pub fn cpu_seconds(process: &Process) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id()))?;
    // The name, in parentheses, may have spaces.
    let after = stat.rsplit_once(") ").context("a name")?.1;
    let ticks = |at: usize| -> Result<f64> {
        Ok(after.split(' ').nth(at).context("a field")?.parse::<u64>()? as f64)
    };
    // Fields 14 and 15 in hundredths, which Linux has fixed for programs.
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}
