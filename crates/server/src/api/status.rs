//! `/api/v1/status/…` and what the page asks besides.

use parking_lot::Mutex;
use tidewatch_ingest::HaTracker;

use crate::backend::{Backend, BuildInfo, Phase, ReplayView, RuntimeInfo};
use crate::reply::Reply;
use crate::request::format_time;

pub(crate) fn build_info(info: &BuildInfo) -> Reply {
    Reply::json(|json| {
        json.object(|json| {
            json.key("version").string(&info.version);
            json.key("revision").string(&info.revision);
            json.key("branch").string(&info.branch);
            json.key("buildUser").string(&info.build_user);
            json.key("buildDate").string(&info.build_date);
            json.key("goVersion").string(&info.compiler);
            json.key("application").string("tidewatch");
        });
    })
}

pub(crate) fn runtime_info(info: &RuntimeInfo, now_ms: i64) -> Reply {
    Reply::json(|json| {
        json.object(|json| {
            json.key("startTime").string(&format_time(info.start_time_ms));
            json.key("CWD").string(&info.working_directory);
            json.key("hostname").string(&info.hostname);
            json.key("serverTime").string(&format_time(now_ms));
            json.key("reloadConfigSuccess").bool(info.reload_config_success);
            json.key("lastConfigTime").string(&format_time(info.last_config_time_ms));
            json.key("corruptionCount").integer(info.corruption_count);
            json.key("goroutineCount").integer(info.thread_count);
            json.key("GOMAXPROCS").integer(info.cpu_count);
            json.key("GOMEMLIMIT").integer(info.memory_limit_bytes);
            json.key("GOGC").string("");
            json.key("GODEBUG").string("");
            json.key("storageRetention").string(&info.storage_retention);
        });
    })
}

pub(crate) fn flags(flags: &[(String, String)]) -> Reply {
    Reply::json(|json| json.pairs(flags.iter().map(|(name, value)| (name.as_str(), value.as_str()))))
}

pub(crate) fn config(yaml: &str) -> Reply {
    Reply::json(|json| json.object(|json| json.key("yaml").string(yaml)))
}

pub(crate) fn wal_replay(replay: ReplayView) -> Reply {
    Reply::json(|json| {
        json.object(|json| {
            json.key("min").integer(replay.first);
            json.key("max").integer(replay.last);
            json.key("current").integer(replay.current);
        });
    })
}

/// Who is elected among replicas; an empty list where they are not deduplicated.
pub(crate) fn replicas(tracker: Option<&Mutex<HaTracker>>) -> Reply {
    let clusters = tracker.map(|tracker| tracker.lock().status()).unwrap_or_default();
    Reply::json(|json| {
        json.object(|json| {
            json.key("enabled").bool(tracker.is_some());
            json.key("clusters").array(&clusters, |json, cluster| {
                json.object(|json| {
                    json.key("cluster").string(&cluster.cluster);
                    json.key("replica").string(&cluster.elected);
                    json.key("electedAt").string(&format_time(cluster.elected_ms));
                    json.key("lastReceivedAt").string(&format_time(cluster.seen_ms));
                    json.key("failovers").integer(cluster.failovers);
                    json.key("deduplicatedSamples").integer(cluster.deduplicated);
                });
            });
        });
    })
}

/// What a person should know of, and where the server stands: for the page.
pub(crate) fn notices(backend: &dyn Backend, page_title: &str) -> Reply {
    let phase = match backend.phase() {
        Phase::Starting => "starting",
        Phase::Recovering => "recovering",
        Phase::Complete => "complete",
        Phase::Stopping => "stopping",
    };
    Reply::json(|json| {
        json.object(|json| {
            json.key("title").string(page_title);
            json.key("phase").string(phase);
            json.key("series").integer(backend.series_count());
            json.key("notices").strings(backend.notices());
        });
    })
}
