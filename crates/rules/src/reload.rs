//! New rule files in place of old ones, without an alert losing its state.

use std::collections::HashMap;
use std::sync::Arc;

use tidewatch_model::Labels;

use crate::definition::RuleFile;
use crate::effects::AlertChange;
use crate::group::{Group, Settings};

/// What became of the groups.
#[derive(Debug, Default)]
pub struct Reloaded {
    /// In the order of the files and of the groups within them.
    pub groups: Vec<Group>,
    /// Alerts whose rules are no more or stand elsewhere in their group, for the journal.
    pub forgotten: Vec<ForgottenAlerts>,
    /// Series of groups that are no more. End them a while later with
    /// [`stale_markers`](crate::stale_markers), unless another rule gives them by then: two of the
    /// group's intervals, as Prometheus waits.
    pub ended: Vec<EndedSeries>,
}

#[derive(Debug)]
pub struct ForgottenAlerts {
    pub file: String,
    pub group: String,
    pub changes: Vec<AlertChange>,
}

#[derive(Debug)]
pub struct EndedSeries {
    pub series: Vec<Labels>,
    pub due_ms: i64,
}

/// Groups for `files`, which take over the state of those of `old` with the same file and name.
pub fn reload(old: Vec<Group>, files: Vec<RuleFile>, settings: &Arc<Settings>, now_ms: i64) -> Reloaded {
    let identity = |group: &Group| (group.file().to_owned(), group.name().to_owned());
    let mut former: HashMap<(String, String), Group> =
        old.into_iter().map(|group| (identity(&group), group)).collect();
    let mut reloaded = Reloaded::default();
    for file in files {
        for definition in file.groups {
            let mut group = Group::new(&file.name, definition, settings.clone(), now_ms);
            if let Some(old) = former.remove(&identity(&group)) {
                let changes = group.succeed(old);
                reloaded.forget(group.file(), group.name(), changes);
            }
            reloaded.groups.push(group);
        }
    }
    let mut retired: Vec<Group> = former.into_values().collect();
    retired.sort_by_key(identity);
    for group in retired {
        let (file, name) = identity(&group);
        let due_ms = now_ms + 2 * group.interval_ms();
        let (changes, series) = group.retire();
        reloaded.forget(&file, &name, changes);
        if !series.is_empty() {
            reloaded.ended.push(EndedSeries { series, due_ms });
        }
    }
    reloaded
}

impl Reloaded {
    fn forget(&mut self, file: &str, group: &str, changes: Vec<AlertChange>) {
        if !changes.is_empty() {
            self.forgotten.push(ForgottenAlerts { file: file.to_owned(), group: group.to_owned(), changes });
        }
    }
}
