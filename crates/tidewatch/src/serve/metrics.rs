//! The program's own metrics: the store, rules, notifications, configuration, the process.

use std::sync::atomic::Ordering;

use super::backend::Running;
use crate::exposition::Exposition;

/// Everything but what the HTTP server counts itself.
pub fn render(running: &Running) -> String {
    let mut out = Exposition::new();
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    out.family("tidewatch_build_info", "gauge", "The version that runs.").sample(&version, 1.0);
    store(&mut out, running);
    replicas(&mut out, running);
    rules(&mut out, running);
    running.alerting.render(&mut out);
    configuration(&mut out, running);
    process(&mut out, running);
    out.finish()
}

fn store(out: &mut Exposition, running: &Running) {
    let status = running.db.status();
    let head = &status.head;
    out.single("tidewatch_store_head_series", "gauge", "Series in the head.", head.series as f64);
    let help = "Series in the head that have ended, counted once a minute.";
    out.single("tidewatch_store_head_stale_series", "gauge", help, head.stale_series as f64);
    out.single("tidewatch_store_head_samples", "gauge", "Samples in the head.", head.samples as f64);
    out.single("tidewatch_store_head_chunks", "gauge", "Runs of samples in the head.", head.chunks as f64);
    out.family("tidewatch_store_head_memory_bytes", "gauge", "Memory of the head by part.");
    let memory = &head.memory;
    let parts = [
        ("symbols", memory.symbols),
        ("labels", memory.labels),
        ("table", memory.table),
        ("index", memory.index),
        ("series", memory.series),
        ("open_runs", memory.open_runs),
        ("clocks", memory.clocks),
        ("sealed", memory.sealed),
        ("late", memory.late),
        ("histograms", memory.histograms),
    ];
    for (part, bytes) in parts {
        out.sample(&[("part", part)], bytes as f64);
    }
    let block_bytes: u64 = status.blocks.iter().map(|block| block.bytes).sum();
    out.single("tidewatch_store_blocks", "gauge", "Blocks on disk.", status.blocks.len() as f64);
    out.single("tidewatch_store_block_bytes", "gauge", "Bytes of blocks on disk.", block_bytes as f64);
    out.single("tidewatch_store_log_bytes", "gauge", "Bytes of the log on disk.", status.wal_bytes as f64);
    let deleted: u64 = status.blocks.iter().map(|block| block.tombstones).sum();
    let help = "Series in blocks of which something is deleted, until the block is rewritten.";
    out.single("tidewatch_store_tombstones", "gauge", help, deleted as f64);
    if let Some(disk) = status.disk {
        out.single(
            "tidewatch_store_disk_free_bytes",
            "gauge",
            "Room on the data's disk.",
            disk.free_bytes as f64,
        );
        let help = "Room on the data's disk below which samples are refused.";
        out.single("tidewatch_store_disk_reserve_bytes", "gauge", help, disk.reserve_bytes as f64);
    }
    let read_only = f64::from(u8::from(status.read_only.is_some()));
    out.single("tidewatch_store_read_only", "gauge", "Whether writes are refused.", read_only);
    out.single(
        "tidewatch_store_complete",
        "gauge",
        "Whether queries see all data.",
        f64::from(u8::from(status.complete)),
    );
    let damage = status.damage_found as f64;
    out.single("tidewatch_store_damage_total", "counter", "Pieces of data that were found damaged.", damage);
    let counters = status.counters;
    out.single(
        "tidewatch_store_samples_appended_total",
        "counter",
        "Samples taken.",
        counters.samples_appended as f64,
    );
    let late = head.out_of_order as f64;
    out.single(
        "tidewatch_store_head_late_samples",
        "gauge",
        "Samples in the head that came out of order.",
        late,
    );
    out.family("tidewatch_store_samples_refused_total", "counter", "Samples refused, by cause.");
    let refused = [
        ("too_old", counters.refused_too_old),
        ("conflict", counters.refused_conflict),
        ("future", counters.refused_future),
        ("labels", counters.refused_labels),
        ("histogram", counters.refused_histograms),
    ];
    for (cause, count) in refused {
        out.sample(&[("cause", cause)], count as f64);
    }
    out.family("tidewatch_store_job_failures_total", "counter", "Storage jobs that failed or panicked.");
    for (job, count) in running.job_health.failures() {
        out.sample(&[("job", job)], count as f64);
    }
    let simple = [
        ("tidewatch_store_duplicates_total", "Samples that were there already.", counters.duplicates),
        ("tidewatch_store_series_created_total", "Series that were new.", counters.series_created),
        ("tidewatch_store_series_removed_total", "Series that left the head.", counters.series_removed),
        (
            "tidewatch_store_stale_series_cut_total",
            "Series that left the head early because they had ended.",
            counters.stale_series_cut,
        ),
        ("tidewatch_store_commits_total", "Syncs of the log.", counters.commits),
        ("tidewatch_store_cuts_total", "Blocks cut from the head.", counters.cuts),
        ("tidewatch_store_compactions_total", "Blocks merged.", counters.compactions),
        (
            "tidewatch_store_damaged_chunks_set_aside_total",
            "Damaged parts of blocks that queries and merges leave out.",
            counters.chunks_set_aside,
        ),
        ("tidewatch_store_blocks_retired_total", "Blocks dropped by retention.", counters.blocks_retired),
        (
            "tidewatch_store_blocks_cleaned_total",
            "Blocks rewritten without what was deleted.",
            counters.blocks_cleaned,
        ),
        ("tidewatch_store_deletions_total", "Deletions of series.", counters.deletions),
        (
            "tidewatch_store_samples_set_aside_total",
            "Logged samples whose series is unknown.",
            counters.samples_set_aside,
        ),
    ];
    for (name, help, count) in simple {
        out.single(name, "counter", help, count as f64);
    }
}

fn replicas(out: &mut Exposition, running: &Running) {
    let Some(replicas) = &running.replicas else { return };
    let clusters = replicas.tracker().lock().status();
    let help = "Samples left out because another replica of the cluster is elected.";
    out.family("tidewatch_ha_tracker_deduplicated_samples_total", "counter", help);
    for cluster in &clusters {
        out.sample(&[("cluster", &cluster.cluster)], cluster.deduplicated as f64);
    }
    let help = "How often another replica of the cluster took over.";
    out.family("tidewatch_ha_tracker_elected_replica_changes_total", "counter", help);
    for cluster in &clusters {
        out.sample(&[("cluster", &cluster.cluster)], cluster.failovers as f64);
    }
    let help = "When the elected replica was heard last.";
    out.family("tidewatch_ha_tracker_elected_replica_timestamp_seconds", "gauge", help);
    for cluster in &clusters {
        let labels = [("cluster", cluster.cluster.as_str()), ("replica", cluster.elected.as_str())];
        out.sample(&labels, cluster.seen_ms as f64 / 1e3);
    }
}

fn rules(out: &mut Exposition, running: &Running) {
    let groups = running.rules.status().unwrap_or_default();
    let labels: Vec<String> = groups.iter().map(|group| format!("{};{}", group.file, group.name)).collect();
    out.family("tidewatch_rule_group_last_duration_seconds", "gauge", "How long the last evaluation took.");
    for (group, label) in groups.iter().zip(&labels) {
        out.sample(&[("rule_group", label)], group.evaluation_ns as f64 / 1e9);
    }
    out.family(
        "tidewatch_rule_group_iterations_missed_total",
        "counter",
        "Evaluations that were due and did not happen.",
    );
    for (group, label) in groups.iter().zip(&labels) {
        out.sample(&[("rule_group", label)], group.missed as f64);
    }
    out.family("tidewatch_rule_group_rules", "gauge", "Rules of the group.");
    for (group, label) in groups.iter().zip(&labels) {
        out.sample(&[("rule_group", label)], group.rules.len() as f64);
    }
}

fn configuration(out: &mut Exposition, running: &Running) {
    let success = f64::from(u8::from(running.reload_succeeded.load(Ordering::Relaxed)));
    out.single(
        "tidewatch_config_last_reload_successful",
        "gauge",
        "Whether the last reload was good.",
        success,
    );
    let seconds = running.reloaded_ms.load(Ordering::Relaxed) as f64 / 1e3;
    let help = "When the configuration in force was loaded.";
    out.single("tidewatch_config_last_reload_success_timestamp_seconds", "gauge", help, seconds);
    let config = running.config.load();
    let help = "Valid sections of the configuration that this version does not serve.";
    out.family("tidewatch_config_sections_not_served", "gauge", help);
    let mut sections: Vec<&str> = config.warnings.iter().map(|warning| warning.section.as_str()).collect();
    sections.sort_unstable();
    for group in sections.chunk_by(|a, b| a == b) {
        out.sample(&[("section", group[0])], group.len() as f64);
    }
    let help = "Queries that are missing in the query log, as it could not take them.";
    out.single("tidewatch_query_log_failures_total", "counter", help, running.query_log.dropped() as f64);
}

fn process(out: &mut Exposition, running: &Running) {
    let start = running.started_ms as f64 / 1e3;
    out.single(
        "process_start_time_seconds",
        "gauge",
        "Start time of the process since unix epoch in seconds.",
        start,
    );
    let Ok(stat) = procfs::process::Process::myself().and_then(|process| process.stat()) else { return };
    let cpu = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
    out.single(
        "process_cpu_seconds_total",
        "counter",
        "Total user and system CPU time spent in seconds.",
        cpu,
    );
    let resident = (stat.rss * procfs::page_size()) as f64;
    out.single("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", resident);
    out.single("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", stat.vsize as f64);
    out.single("process_threads", "gauge", "Threads of the process.", stat.num_threads as f64);
    if let Ok(files) = procfs::process::Process::myself().and_then(|process| process.fd_count()) {
        out.single("process_open_fds", "gauge", "Number of open file descriptors.", files as f64);
    }
}

pub fn thread_count() -> u64 {
    let stat = procfs::process::Process::myself().and_then(|process| process.stat());
    stat.map_or(1, |stat| stat.num_threads.unsigned_abs())
}
