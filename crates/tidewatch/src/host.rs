//! This host's basic metrics, under the names and labels that node_exporter uses, so that its
//! dashboards and rules work where no node_exporter runs: processor, memory, load, file systems,
//! disks, network.
//!
//! What the kernel does not say is left out, never shown as zero.

use procfs::{Current, CurrentSI, LoadAverage, Meminfo};

use crate::exposition::Exposition;

/// The host at this moment, in Prometheus' text format.
pub fn metrics() -> String {
    let mut out = Exposition::new();
    kernel(&mut out);
    load(&mut out);
    memory(&mut out);
    file_systems(&mut out);
    disks(&mut out);
    network(&mut out);
    identity(&mut out);
    out.finish()
}

fn kernel(out: &mut Exposition) {
    let Ok(stat) = procfs::KernelStats::current() else { return };
    let hertz = procfs::ticks_per_second() as f64;
    out.family("node_cpu_seconds_total", "counter", "Seconds the CPUs spent in each mode.");
    for (cpu, time) in stat.cpu_time.iter().enumerate() {
        let modes = [
            ("idle", Some(time.idle)),
            ("iowait", time.iowait),
            ("irq", time.irq),
            ("nice", Some(time.nice)),
            ("softirq", time.softirq),
            ("steal", time.steal),
            ("system", Some(time.system)),
            ("user", Some(time.user)),
        ];
        for (mode, ticks) in modes {
            if let Some(ticks) = ticks {
                out.sample(&[("cpu", &cpu.to_string()), ("mode", mode)], ticks as f64 / hertz);
            }
        }
    }
    out.single("node_boot_time_seconds", "gauge", "Node boot time, in unixtime.", stat.btime as f64);
    out.single(
        "node_context_switches_total",
        "counter",
        "Total number of context switches.",
        stat.ctxt as f64,
    );
    out.single("node_forks_total", "counter", "Total number of forks.", stat.processes as f64);
    if let Some(running) = stat.procs_running {
        out.single(
            "node_procs_running",
            "gauge",
            "Number of processes in runnable state.",
            f64::from(running),
        );
    }
    if let Some(blocked) = stat.procs_blocked {
        let help = "Number of processes blocked waiting for I/O to complete.";
        out.single("node_procs_blocked", "gauge", help, f64::from(blocked));
    }
}

fn load(out: &mut Exposition) {
    let Ok(load) = LoadAverage::current() else { return };
    // The kernel says two decimals; a float32 would show more.
    let decimals = |value: f32| (f64::from(value) * 100.0).round() / 100.0;
    out.single("node_load1", "gauge", "1m load average.", decimals(load.one));
    out.single("node_load5", "gauge", "5m load average.", decimals(load.five));
    out.single("node_load15", "gauge", "15m load average.", decimals(load.fifteen));
}

fn memory(out: &mut Exposition) {
    let Ok(memory) = Meminfo::current() else { return };
    let fields = [
        ("node_memory_MemTotal_bytes", Some(memory.mem_total)),
        ("node_memory_MemFree_bytes", Some(memory.mem_free)),
        ("node_memory_MemAvailable_bytes", memory.mem_available),
        ("node_memory_Buffers_bytes", Some(memory.buffers)),
        ("node_memory_Cached_bytes", Some(memory.cached)),
        ("node_memory_SwapCached_bytes", Some(memory.swap_cached)),
        ("node_memory_Active_bytes", Some(memory.active)),
        ("node_memory_Inactive_bytes", Some(memory.inactive)),
        ("node_memory_SwapTotal_bytes", Some(memory.swap_total)),
        ("node_memory_SwapFree_bytes", Some(memory.swap_free)),
        ("node_memory_Dirty_bytes", Some(memory.dirty)),
        ("node_memory_Writeback_bytes", Some(memory.writeback)),
        ("node_memory_AnonPages_bytes", memory.anon_pages),
        ("node_memory_Mapped_bytes", Some(memory.mapped)),
        ("node_memory_Shmem_bytes", memory.shmem),
        ("node_memory_Slab_bytes", Some(memory.slab)),
        ("node_memory_SReclaimable_bytes", memory.s_reclaimable),
        ("node_memory_SUnreclaim_bytes", memory.s_unreclaim),
        ("node_memory_KernelStack_bytes", memory.kernel_stack),
        ("node_memory_PageTables_bytes", memory.page_tables),
        ("node_memory_CommitLimit_bytes", memory.commit_limit),
        ("node_memory_Committed_AS_bytes", Some(memory.committed_as)),
    ];
    for (name, bytes) in fields {
        if let Some(bytes) = bytes {
            out.single(name, "gauge", "Memory information field of /proc/meminfo.", bytes as f64);
        }
    }
}

/// File systems that hold no data of a user; node_exporter leaves out the same by default.
const VIRTUAL: [&str; 24] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nsfs",
    "overlay",
    "proc",
    "procfs",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "sysfs",
    "tracefs",
];

fn file_systems(out: &mut Exposition) {
    let Ok(mounts) = procfs::mounts() else { return };
    let mut rows = Vec::new();
    for mount in mounts {
        let hidden = ["/dev", "/proc", "/sys", "/run/credentials", "/var/lib/docker/"];
        let skipped = VIRTUAL.contains(&mount.fs_vfstype.as_str())
            || hidden
                .iter()
                .any(|path| mount.fs_file == *path || mount.fs_file.starts_with(&format!("{path}/")));
        if skipped
            || rows.iter().any(|(mounted, _): &(procfs::MountEntry, _)| mounted.fs_file == mount.fs_file)
        {
            continue;
        }
        if let Ok(space) = rustix::fs::statvfs(mount.fs_file.as_str()) {
            rows.push((mount, space));
        }
    }
    type Pick = fn(&rustix::fs::StatVfs) -> u64;
    let families: [(&'static str, &str, Pick); 6] = [
        ("node_filesystem_size_bytes", "Filesystem size in bytes.", |s| s.f_blocks * s.f_frsize),
        ("node_filesystem_free_bytes", "Filesystem free space in bytes.", |s| s.f_bfree * s.f_frsize),
        ("node_filesystem_avail_bytes", "Filesystem space available to non-root users in bytes.", |s| {
            s.f_bavail * s.f_frsize
        }),
        ("node_filesystem_files", "Filesystem total file nodes.", |s| s.f_files),
        ("node_filesystem_files_free", "Filesystem total free file nodes.", |s| s.f_ffree),
        ("node_filesystem_readonly", "Filesystem read-only status.", |s| {
            u64::from(s.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
        }),
    ];
    for (name, help, pick) in families {
        out.family(name, "gauge", help);
        for (mount, space) in &rows {
            let labels = [
                ("device", &*mount.fs_spec),
                ("fstype", &*mount.fs_vfstype),
                ("mountpoint", &*mount.fs_file),
            ];
            out.sample(&labels, pick(space) as f64);
        }
    }
}

fn disks(out: &mut Exposition) {
    let Ok(mut disks) = procfs::diskstats() else { return };
    disks.retain(|disk| !["ram", "loop", "fd", "dm-"].iter().any(|prefix| disk.name.starts_with(prefix)));
    type Pick = fn(&procfs::DiskStat) -> f64;
    // Sectors of /proc/diskstats are 512 bytes whatever the device, times are milliseconds.
    let families: [(&'static str, &str, Pick); 8] = [
        ("node_disk_reads_completed_total", "The total number of reads completed successfully.", |d| {
            d.reads as f64
        }),
        ("node_disk_read_bytes_total", "The total number of bytes read successfully.", |d| {
            d.sectors_read as f64 * 512.0
        }),
        ("node_disk_read_time_seconds_total", "The total number of seconds spent by all reads.", |d| {
            d.time_reading as f64 / 1e3
        }),
        ("node_disk_writes_completed_total", "The total number of writes completed successfully.", |d| {
            d.writes as f64
        }),
        ("node_disk_written_bytes_total", "The total number of bytes written successfully.", |d| {
            d.sectors_written as f64 * 512.0
        }),
        (
            "node_disk_write_time_seconds_total",
            "This is the total number of seconds spent by all writes.",
            |d| d.time_writing as f64 / 1e3,
        ),
        ("node_disk_io_time_seconds_total", "Total seconds spent doing I/Os.", |d| {
            d.time_in_progress as f64 / 1e3
        }),
        ("node_disk_io_time_weighted_seconds_total", "The weighted # of seconds spent doing I/Os.", |d| {
            d.weighted_time_in_progress as f64 / 1e3
        }),
    ];
    for (name, help, pick) in families {
        out.family(name, "counter", help);
        for disk in &disks {
            out.sample(&[("device", &disk.name)], pick(disk));
        }
    }
}

fn network(out: &mut Exposition) {
    let Ok(process) = procfs::process::Process::myself() else { return };
    let Ok(devices) = process.dev_status() else { return };
    let mut devices: Vec<_> = devices.into_values().collect();
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    type Pick = fn(&procfs::net::DeviceStatus) -> u64;
    let families: [(&'static str, &str, Pick); 8] = [
        ("node_network_receive_bytes_total", "Network device statistic receive_bytes.", |d| d.recv_bytes),
        ("node_network_receive_packets_total", "Network device statistic receive_packets.", |d| {
            d.recv_packets
        }),
        ("node_network_receive_errs_total", "Network device statistic receive_errs.", |d| d.recv_errs),
        ("node_network_receive_drop_total", "Network device statistic receive_drop.", |d| d.recv_drop),
        ("node_network_transmit_bytes_total", "Network device statistic transmit_bytes.", |d| d.sent_bytes),
        ("node_network_transmit_packets_total", "Network device statistic transmit_packets.", |d| {
            d.sent_packets
        }),
        ("node_network_transmit_errs_total", "Network device statistic transmit_errs.", |d| d.sent_errs),
        ("node_network_transmit_drop_total", "Network device statistic transmit_drop.", |d| d.sent_drop),
    ];
    for (name, help, pick) in families {
        out.family(name, "counter", help);
        for device in &devices {
            out.sample(&[("device", &device.name)], pick(device) as f64);
        }
    }
}

fn identity(out: &mut Exposition) {
    let name = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let labels = [
        ("machine", text(name.machine())),
        ("nodename", text(name.nodename())),
        ("release", text(name.release())),
        ("sysname", text(name.sysname())),
        ("version", text(name.version())),
    ];
    let help = "Labeled system information as provided by the uname system call.";
    out.family("node_uname_info", "gauge", help)
        .sample(&labels.each_ref().map(|(n, v)| (*n, v.as_str())), 1.0);
    if let Ok(now) = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        out.single(
            "node_time_seconds",
            "gauge",
            "System time in seconds since epoch (1970).",
            now.as_millis() as f64 / 1e3,
        );
    }
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_os = "linux")]
    fn a_host_shows_what_a_dashboard_needs() {
        let text = super::metrics();
        for family in
            ["node_cpu_seconds_total{", "node_load1 ", "node_memory_MemTotal_bytes ", "node_uname_info{"]
        {
            assert!(text.contains(family), "{family} is missing in\n{text}");
        }
    }
}
