//! How much memory there is, and who may have which part of it.
//!
//! The budget is half of what the process may use: the rest is for the page cache, the allocator's
//! slack and what nobody counts. Requests are refused where their share is full, so that the
//! process as a whole stays within its limit.

use std::path::Path;

use procfs::process::{LimitValue, Process};
use tidewatch_model::Limits;

/// Shares of the budget, in percent.
const SERIES: u64 = 45;
const QUERIES: u64 = 25;
const QUERY: u64 = 10;
const RULES: u64 = 10;
const IN_FLIGHT: u64 = 10;

/// Write requests may hold this much where there is memory for more: so many fit at once that more
/// would only wait for the log.
const IN_FLIGHT_MAX: u64 = 256 << 20;

/// The least of what the machine has, of what the cgroups of this process allow, and of the limit
/// on its address space.
pub fn limit_bytes() -> u64 {
    let machine = procfs::Current::current().map(|memory: procfs::Meminfo| memory.mem_total);
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let space = Process::myself().and_then(|process| process.limits()).ok().and_then(|limits| {
        match limits.max_address_space.soft_limit {
            LimitValue::Value(bytes) => Some(bytes),
            LimitValue::Unlimited => None,
        }
    });
    let all =
        machine.ok().into_iter().chain(cgroup_limits(&groups, Path::new("/sys/fs/cgroup"))).chain(space);
    all.min().unwrap_or(0)
}

/// The limits of the groups in `text`, which is what the kernel says of a process, and of those
/// around them. A group that is not to be seen from within a container is the root there.
fn cgroup_limits(text: &str, root: &Path) -> Vec<u64> {
    let mut limits = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (folder, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let path = Path::new(path.trim_start_matches('/'));
        for group in path.ancestors() {
            let limit = std::fs::read_to_string(folder.join(group).join(file));
            limits.extend(limit.ok().and_then(|text| text.trim().parse::<u64>().ok()));
        }
    }
    limits
}

/// Writes the shares of queries and rules into the limits.
pub fn share(limits: &mut Limits, limit_bytes: u64) {
    let part = |percent: u64| usize::try_from(limit_bytes / 2 / 100 * percent).unwrap_or(usize::MAX);
    if limit_bytes > 0 {
        limits.query_memory_bytes = part(QUERY);
        limits.queries_memory_bytes = part(QUERIES);
        limits.rules_memory_bytes = part(RULES);
    }
}

/// What a series may take with its samples of some hours: twice what a usual one does.
const SERIES_BYTES: u64 = 1024;

/// How many series may be in memory; `None` where nobody knows how much of it there is.
pub fn series_max(limit_bytes: u64) -> Option<usize> {
    let share = limit_bytes / 2 / 100 * SERIES;
    (share > 0).then(|| usize::try_from(share / SERIES_BYTES).unwrap_or(usize::MAX))
}

/// What write requests may hold at once: one of the largest at least.
pub fn in_flight_bytes(limits: &Limits, limit_bytes: u64) -> usize {
    let share = limit_bytes / 2 / 100 * IN_FLIGHT;
    let least = limits.write_body_bytes + limits.write_compressed_bytes;
    usize::try_from(share.min(IN_FLIGHT_MAX)).unwrap_or(usize::MAX).max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_both_kinds_of_cgroups_are_found_up_to_the_root() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("in a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        write("a/b/memory.max", "max\n");
        write("a/memory.max", "1000\n");
        write("memory/x/memory.limit_in_bytes", "500\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        let found = |text: &str| cgroup_limits(text, folder.path());
        assert_eq!(found("0::/a/b\n"), [1000]);
        assert_eq!(found("4:cpu,memory:/x\n3:cpuset:/x\n"), [500, 9_223_372_036_854_771_712]);
        // A container sees its own group as the root.
        assert_eq!(found("4:memory:/docker/0123\n"), [9_223_372_036_854_771_712]);
        assert!(found("").is_empty());
        assert!(found("garbage\n").is_empty());
    }

    #[test]
    fn shares_are_those_of_the_budget() {
        let mut limits = Limits::default();
        share(&mut limits, 1 << 30);
        assert_eq!((limits.queries_memory_bytes >> 20, limits.query_memory_bytes >> 20), (127, 51));
        assert_eq!((series_max(1 << 30), series_max(0)), (Some(235_929), None));
        assert_eq!(in_flight_bytes(&limits, 1 << 30) >> 20, 51);
        assert_eq!(in_flight_bytes(&limits, 1 << 40) >> 20, 256);
        assert_eq!(in_flight_bytes(&limits, 100 << 20) >> 20, 48);
    }
}
