//! New rule files in place of old ones, or a new process, without an alert losing its state.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use tidewatch_model::Labels;

use crate::alert::AlertInstance;
use crate::definition::RuleFile;
use crate::dependencies;
use crate::effects::{AlertChange, ChangeKind, RuleId};
use crate::group::{Group, Settings};
use crate::patience::Wait;
use crate::running::{Retired, RuleKey};

/// An evaluation that takes longer is rare.
const EVALUATION_MS: i64 = 15_000;

/// What became of the groups.
#[derive(Debug, Default)]
pub struct Reloaded {
    /// In the order of the files and of the groups within them.
    pub groups: Vec<Group>,
    /// Alerts whose rules are no more or stand elsewhere, for the journal, in this order.
    pub notes: Vec<GroupNote>,
    /// Series of groups that are no more. End them a while later with
    /// [`stale_markers`](crate::stale_markers), unless another rule [gives](Group::gives) them by then:
    /// two of the group's intervals, as Prometheus waits.
    pub ended: Vec<EndedSeries>,
}

/// Changes of alerts that no evaluation made, of one group.
#[derive(Debug)]
pub struct GroupNote {
    pub file: String,
    pub group: String,
    pub changes: Vec<AlertChange>,
}

#[derive(Debug)]
pub struct EndedSeries {
    pub series: Vec<Labels>,
    pub due_ms: i64,
}

/// Groups for `files`, which take over the state of those of `old` with the same file and name, and
/// the alerts of others whose rule stands in another group or file now.
pub fn reload(old: Vec<Group>, files: Vec<RuleFile>, settings: &Arc<Settings>, now_ms: i64) -> Reloaded {
    let identity = |group: &Group| (group.file().to_owned(), group.name().to_owned());
    // All slept together, and a group that comes now finds as little as they do.
    let wait = old.iter().map(|group| group.wait.clone()).fold(Wait::default(), Wait::and);
    let mut former: HashMap<(String, String), Group> =
        old.into_iter().map(|group| (identity(&group), group)).collect();
    let mut reloaded = Reloaded::default();
    let mut homeless = Vec::new();
    for file in files {
        for definition in file.groups {
            let mut group = Group::new(&file.name, definition, settings.clone(), now_ms);
            match former.remove(&identity(&group)) {
                Some(old) => {
                    let (changes, retired) = group.succeed(old);
                    reloaded.note(group.file(), group.name(), changes);
                    homeless.push((identity(&group), retired, Leaves::ToGroup(reloaded.groups.len())));
                }
                None => group.wait = wait.clone(),
            }
            reloaded.groups.push(group);
        }
    }
    dependencies::settle(&mut reloaded.groups);
    let mut former: Vec<Group> = former.into_values().collect();
    former.sort_by_key(identity);
    for group in former {
        let due_ms = now_ms + 2 * group.interval_ms();
        let identity = identity(&group);
        let (retired, series) = group.retire();
        homeless.push((identity, retired, Leaves::ToEnd { series, due_ms }));
    }
    let heirs = reloaded.heirs();
    for ((file, name), retired, leaves) in homeless {
        let (alerts, series) = reloaded.hand_on(retired, &heirs);
        let notes = rehome(&mut reloaded.groups, &file, &name, alerts);
        reloaded.notes.extend(notes);
        reloaded.leave(leaves, series);
    }
    reloaded.spare_given();
    reloaded
}

/// Where series go that no rule gives any more: to a group that ends them with its next evaluation, or
/// to the end of a group that is no more.
enum Leaves {
    ToGroup(usize),
    ToEnd { series: Vec<Labels>, due_ms: i64 },
}

/// Finds a rule for each alert that has none in its group any more: in a group that is new first, as
/// one that was there has had its own; of these, in one of the same name, then of the same file. Returns
/// what a journal is to note, in an order that leaves no alert without a home: where they are now, then
/// that the old group has none.
pub fn rehome(
    groups: &mut [Group],
    file: &str,
    name: &str,
    mut alerts: Vec<(RuleId, AlertInstance)>,
) -> Vec<GroupNote> {
    if alerts.is_empty() {
        return Vec::new();
    }
    let mut gone: BTreeSet<(RuleId, Labels)> =
        alerts.iter().map(|(rule, instance)| (rule.clone(), instance.labels.clone())).collect();
    let instances = alerts.clone();
    let mut order: Vec<&mut Group> = groups.iter_mut().collect();
    order.sort_by_key(|group| (!group.is_new(), group.name() != name, group.file() != file));
    let mut notes = Vec::new();
    for group in order {
        if alerts.is_empty() {
            break;
        }
        let changes = group.take_in(&mut alerts);
        if group.file() == file && group.name() == name {
            // Back at its place, under the key that it had.
            changes.iter().for_each(|change| {
                gone.remove(&(change.rule.clone(), change.instance.labels.clone()));
            });
        }
        if !changes.is_empty() {
            let (file, group) = (group.file().to_owned(), group.name().to_owned());
            notes.push(GroupNote { file, group, changes });
        }
    }
    let gone =
        instances.into_iter().filter(|(rule, alert)| gone.contains(&(rule.clone(), alert.labels.clone())));
    let change = |(rule, instance)| AlertChange { rule, kind: ChangeKind::Forgotten, instance };
    let gone =
        GroupNote { file: file.to_owned(), group: name.to_owned(), changes: gone.map(change).collect() };
    notes.extend((!gone.changes.is_empty()).then_some(gone));
    notes
}

/// Until when samples came to a process whose groups were evaluated last at the times that `last_ms` knows.
/// Mostly that is the newest of these. Where a group was due before and not evaluated, it still waited after
/// a sleep, and samples came before that.
pub fn awake_until_ms(groups: &[Group], last_ms: impl Fn(&Group) -> Option<i64>, newest_ms: i64) -> i64 {
    let waited = |group: &Group| {
        last_ms(group).filter(|last_ms| group.slot_after(*last_ms) < newest_ms - EVALUATION_MS)
    };
    groups.iter().filter_map(waited).min().unwrap_or(newest_ms)
}

impl Reloaded {
    fn note(&mut self, file: &str, group: &str, changes: Vec<AlertChange>) {
        if !changes.is_empty() {
            self.notes.push(GroupNote { file: file.to_owned(), group: group.to_owned(), changes });
        }
    }

    /// The places of recording rules: group, and rule within it.
    fn heirs(&self) -> HashMap<RuleKey, Vec<(usize, usize)>> {
        let mut heirs: HashMap<RuleKey, Vec<(usize, usize)>> = HashMap::new();
        for (group, rules) in self.groups.iter().map(Group::recording_rules).enumerate() {
            rules.for_each(|(rule, key)| heirs.entry(key).or_default().push((group, rule)));
        }
        heirs
    }

    /// Gives recorded series to the rule that records them now, in another group or file: it goes on with
    /// them, and its next evaluation ends those that it does not give. Returns the alerts, which
    /// [`rehome`] takes, and the series that found none.
    fn hand_on(
        &mut self,
        retired: Vec<Retired>,
        heirs: &HashMap<RuleKey, Vec<(usize, usize)>>,
    ) -> (Vec<(RuleId, AlertInstance)>, Vec<Labels>) {
        let (mut alerts, mut left) = (Vec::new(), Vec::new());
        for Retired { key, alerts: of_rule, series } in retired {
            alerts.extend(of_rule);
            let heirs = heirs.get(&key).map_or(&[][..], Vec::as_slice);
            // A rule that has given none yet is more likely the one that moved.
            let new = heirs.iter().find(|(group, rule)| self.groups[*group].given_by(*rule).is_empty());
            match new.or(heirs.first()) {
                Some((group, rule)) => self.groups[*group].given_by(*rule).extend(series),
                None => left.extend(series),
            }
        }
        (alerts, left)
    }

    fn leave(&mut self, leaves: Leaves, mut left: Vec<Labels>) {
        match leaves {
            Leaves::ToGroup(index) => self.groups[index].ended.extend(left),
            Leaves::ToEnd { mut series, due_ms } => {
                series.append(&mut left);
                self.ended.push(EndedSeries { series, due_ms });
            }
        }
    }

    /// Ends no series that a rule shows now, such as those of an alert that moved.
    fn spare_given(&mut self) {
        let of_groups = self.groups.iter().flat_map(|group| &group.ended);
        let ended: HashSet<&Labels> =
            of_groups.chain(self.ended.iter().flat_map(|ended| &ended.series)).collect();
        let given = self.groups.iter().flat_map(Group::given);
        let given: HashSet<Labels> = given.filter(|series| ended.contains(series)).cloned().collect();
        let of_groups = self.groups.iter_mut().map(|group| &mut group.ended);
        for series in of_groups.chain(self.ended.iter_mut().map(|ended| &mut ended.series)) {
            series.retain(|series| !given.contains(series));
        }
        self.ended.retain(|ended| !ended.series.is_empty());
    }
}
