//! Who is elected among replicas, across restarts.
//!
//! The file `ha-tracker` in the data directory is replaced whenever somebody is elected, which is
//! rare. Where it can not be read, the first replica of each cluster that is heard is elected again,
//! and that is said.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, ensure};
use parking_lot::Mutex;
use tidewatch_env::{Env, create_dir_durably, replace_durably};
use tidewatch_ingest::{HaOptions, HaTracker, decode_state, encode_state};
use tidewatch_model::is_valid_label_name;

use crate::cli::serve::ServeArgs;

pub struct Replicas {
    env: Env,
    path: PathBuf,
    tracker: Arc<Mutex<HaTracker>>,
    /// Why the file could not be read or written, if that is so. Held while it is written, so that the
    /// newest state is written last.
    problem: Mutex<Option<String>>,
}

impl Replicas {
    /// Opens what the flags ask for; `None` where replicas are not deduplicated. The data directory is
    /// locked by now.
    pub fn open(env: &Env, arguments: &ServeArgs) -> Result<Option<Replicas>> {
        let flags = &arguments.ha_tracker;
        if !flags.accept_ha_samples {
            return Ok(None);
        }
        for (flag, label) in [("cluster", &flags.cluster), ("replica", &flags.replica)] {
            ensure!(is_valid_label_name(label), "--ha-tracker.{flag}: {label:?} is not a valid label name");
        }
        ensure!(
            flags.cluster != flags.replica,
            "--ha-tracker.cluster and --ha-tracker.replica are one label"
        );
        ensure!(flags.failover_timeout_ms > 0, "--ha-tracker.failover-timeout: has to be longer than 0");
        ensure!(flags.max_clusters > 0, "--ha-tracker.max-clusters: has to be 1 at least");
        let mut tracker = HaTracker::new(HaOptions {
            cluster_label: flags.cluster.clone(),
            replica_label: flags.replica.clone(),
            failover_timeout_ms: flags.failover_timeout_ms,
            clusters_max: flags.max_clusters,
        });
        let path = arguments.storage_path.join("ha-tracker");
        let problem = read(env, &path, &mut tracker).err();
        if let Some(problem) = &problem {
            tracing::error!(file = %path.display(), problem, "who was elected among replicas is not known");
        }
        create_dir_durably(&*env.disk, &arguments.storage_path)?;
        let tracker = Arc::new(Mutex::new(tracker));
        Ok(Some(Replicas { env: env.clone(), path, tracker, problem: Mutex::new(problem) }))
    }

    pub fn tracker(&self) -> Arc<Mutex<HaTracker>> {
        self.tracker.clone()
    }

    /// Stores who is elected. Where that fails it is said, and tried again at the next election.
    pub fn store(&self) {
        let mut problem = self.problem.lock();
        let state = encode_state(&self.tracker.lock());
        let outcome = replace_durably(&*self.env.disk, &self.path, &state);
        *problem = outcome.err().map(|error| error.to_string());
        if let Some(problem) = &*problem {
            tracing::error!(file = %self.path.display(), problem, "who is elected among replicas was not stored");
        }
    }

    pub fn notices(&self) -> Option<String> {
        let problem = self.problem.lock();
        problem.as_ref().map(|problem| format!("{}: {problem}: replicas may switch", self.path.display()))
    }
}

fn read(env: &Env, path: &std::path::Path, tracker: &mut HaTracker) -> Result<(), String> {
    if !env.disk.exists(path).map_err(|error| error.to_string())? {
        return Ok(());
    }
    let bytes = env.disk.map(path).map_err(|error| error.to_string())?;
    decode_state(&bytes, tracker, env.clock.wall_ms()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tidewatch_ingest::Replaced;
    use tidewatch_model::{Batch, Labels, RawLabels};

    use super::*;

    fn open(env: &Env) -> Replicas {
        let flags = ["tidewatch", "--ha-tracker.accept-ha-samples", "--storage.tsdb.path=/data"];
        let arguments = crate::cli::Cli::parse_from(flags).serve;
        Replicas::open(env, &arguments).expect("good flags").expect("switched on")
    }

    fn hear(replicas: &Replicas, replica: &str) {
        let labels = Labels::from_pairs([("cluster", "eu"), ("__replica__", replica)]);
        let mut batch = Batch::new();
        batch.push(RawLabels::Canonical(labels.as_bytes()), &[]);
        let now_ms = replicas.env.clock.wall_ms();
        let examined = replicas.tracker.lock().examine(&batch, now_ms, &mut Replaced::default());
        if examined.elected {
            replicas.store();
        }
    }

    #[test]
    fn who_is_elected_is_known_after_a_power_cut_and_damage_is_said() {
        let simulation = Env::simulated(1);
        let replicas = open(&simulation.env);
        hear(&replicas, "a");
        simulation.disk.crash(0);
        let replicas = open(&simulation.env);
        hear(&replicas, "b");
        assert_eq!(replicas.tracker.lock().status()[0].elected, "a");
        assert_eq!(replicas.notices(), None);
        simulation.disk.poke(std::path::Path::new("/data/ha-tracker"), b"junk").expect("there");
        let replicas = open(&simulation.env);
        let notice = replicas.notices().expect("a notice");
        assert!(notice.contains("/data/ha-tracker") && notice.contains("damaged"), "{notice}");
        hear(&replicas, "b");
        assert_eq!(replicas.notices(), None, "the file is good again");
        assert_eq!(open(&simulation.env).tracker.lock().status()[0].elected, "b");
    }
}
