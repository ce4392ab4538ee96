//! The journal gives back what it was told, after any restart, crash, snapshot and damage.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use tidewatch_env::Env;
use tidewatch_env::sim::{Failure, Simulation};
use tidewatch_journal::{
    Alert, AlertKey, AlertState, DecodeError, GAPS_MAX, Gap, GroupKey, Journal, JournalError, JournalOptions,
    JournalState, Record, decode_frame, encode_frame,
};
use tidewatch_model::Labels;
use tidewatch_wal::{WalError, WalOptions};

fn dir() -> &'static Path {
    Path::new("/data/journal")
}

/// Small enough that a few records make a snapshot due.
const OPTIONS: JournalOptions =
    JournalOptions { log_bytes: 1_000, wal: WalOptions { segment_bytes: 1_500, segment_min: 1, owner: 0 } };

fn open(env: &Env) -> (Journal, JournalState) {
    Journal::open_with(env, dir(), OPTIONS).unwrap()
}

fn group(name: &str) -> GroupKey {
    GroupKey { file: "rules.yml".to_owned(), group: name.to_owned() }
}

fn alert_key(instance: &str) -> AlertKey {
    AlertKey {
        group: group("hosts"),
        rule: "HostDown".to_owned(),
        rule_index: 2,
        labels: Labels::from_pairs([("alertname", "HostDown"), ("instance", instance)]),
    }
}

fn alert(state: AlertState, active_at_ms: i64) -> Alert {
    Alert {
        state,
        value: f64::NAN,
        active_at_ms,
        fired_at_ms: (state == AlertState::Firing).then_some(active_at_ms + 30_000),
        resolved_at_ms: None,
        keep_firing_since_ms: None,
        last_sent_at_ms: Some(-1),
        valid_until_ms: None,
        annotations: BTreeMap::from([("summary".to_owned(), "it is down".to_owned())]),
    }
}

fn one_of_each() -> Vec<Record> {
    vec![
        Record::Alert(alert_key("a"), alert(AlertState::Firing, 5)),
        Record::AlertForgotten(alert_key("b")),
        Record::GroupEvaluated { group: group("hosts"), at_ms: 7 },
        Record::GroupForgotten(group("gone")),
        Record::Gap(Gap { from_ms: 1, to_ms: 3, group: group("hosts"), evaluations: 2 }),
        Record::Silence { id: "s".to_owned(), bytes: Bytes::from_static(b"silence") },
        Record::SilenceRemoved { id: "t".to_owned() },
        Record::OutboxPut { id: 9, bytes: Bytes::from_static(b"page") },
        Record::OutboxRemoved { id: 8 },
    ]
}

/// The naive reference: the last word on each key.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model(JournalState);

impl Model {
    fn apply(&mut self, records: &[Record]) {
        let state = &mut self.0;
        for record in records.iter().cloned() {
            match record {
                Record::Alert(key, alert) => drop(state.alerts.insert(key, alert)),
                Record::AlertForgotten(key) => drop(state.alerts.remove(&key)),
                Record::GroupEvaluated { group, at_ms } => drop(state.groups.insert(group, at_ms)),
                Record::GroupForgotten(group) => drop(state.groups.remove(&group)),
                Record::Gap(gap) => drop(state.gaps.insert(gap)),
                Record::Silence { id, bytes } => drop(state.silences.insert(id, bytes)),
                Record::SilenceRemoved { id } => drop(state.silences.remove(&id)),
                Record::OutboxPut { id, bytes } => drop(state.outbox.insert(id, bytes)),
                Record::OutboxRemoved { id } => drop(state.outbox.remove(&id)),
            }
        }
    }
}

/// The state without what is said about the files.
fn content(mut state: JournalState) -> JournalState {
    state.findings = Default::default();
    state
}

#[test]
fn what_was_appended_is_the_state_and_comes_back() {
    let env = Env::in_memory();
    let (journal, empty) = open(&env);
    assert_eq!(empty, JournalState::default());
    let position = journal.append(&one_of_each()).unwrap();
    assert!(journal.durable() <= position);
    assert!(journal.commit().unwrap() > position);
    let mut model = Model::default();
    model.apply(&one_of_each());
    assert_eq!(journal.state(), model.0);
    let (_, again) = open(&env);
    assert_eq!(again, model.0);
    assert_eq!(again.alerts[&alert_key("a")].fired_at_ms, Some(30_005), "to the millisecond");
}

#[test]
fn the_bytes_are_frozen() {
    let mut bytes = Vec::new();
    encode_frame(&one_of_each(), &mut bytes);
    let text: String =
        bytes.iter().flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from).collect();
    let group = r"\t\x00\x00\x00rules.yml\x05\x00\x00\x00hosts";
    let key = |instance| {
        format!(
            r"{group}\x08\x00\x00\x00HostDown\x02\x00\x00\x00\x02\x00\x00\x00\t\x00\x00\x00alertname\x08\x00\x00\x00HostDown\x08\x00\x00\x00instance\x01\x00\x00\x00{instance}"
        )
    };
    let expected = [
        r"\x01".to_owned(),
        format!(r"\x01\x97\x00\x00\x00{}\x02", key("a")),
        r"\x00\x00\x00\x00\x00\x00\xf8\x7f\x05\x00\x00\x00\x00\x00\x00\x00".to_owned(),
        r"\x015u\x00\x00\x00\x00\x00\x00\x00\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff\x00".to_owned(),
        r"\x01\x00\x00\x00\x07\x00\x00\x00summary\n\x00\x00\x00it is down".to_owned(),
        format!(r"\x02T\x00\x00\x00{}", key("b")),
        format!(r"\x03\x1e\x00\x00\x00{group}\x07\x00\x00\x00\x00\x00\x00\x00"),
        r"\x04\x15\x00\x00\x00\t\x00\x00\x00rules.yml\x04\x00\x00\x00gone".to_owned(),
        format!(r"\x05.\x00\x00\x00{group}\x01\x00\x00\x00\x00\x00\x00\x00"),
        r"\x03\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00".to_owned(),
        r"\x06\x0c\x00\x00\x00\x01\x00\x00\x00ssilence".to_owned(),
        r"\x07\x05\x00\x00\x00\x01\x00\x00\x00t".to_owned(),
        r"\x08\x0c\x00\x00\x00\t\x00\x00\x00\x00\x00\x00\x00page".to_owned(),
        r"\t\x08\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00".to_owned(),
    ]
    .concat();
    assert_eq!(text, expected);
    assert_eq!(decode_frame(&bytes), Ok(one_of_each()));
}

#[test]
fn a_frame_cut_or_changed_anywhere_is_refused_or_read_but_never_panics() {
    let mut bytes = Vec::new();
    encode_frame(&one_of_each(), &mut bytes);
    let starts: Vec<usize> = (0..=one_of_each().len())
        .map(|count| {
            let mut part = Vec::new();
            encode_frame(&one_of_each()[..count], &mut part);
            part.len()
        })
        .collect();
    for len in 0..bytes.len() {
        let outcome = decode_frame(&bytes[..len]);
        assert_eq!(outcome.is_ok(), starts.contains(&len), "{len} bytes: {outcome:?}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        if let Ok(records) = decode_frame(&bad) {
            let mut again = Vec::new();
            encode_frame(&records, &mut again);
            assert_eq!(again, bad, "what is read has one spelling");
        }
    }
    assert_eq!(decode_frame(&[2]), Err(DecodeError::Version(2)));
    assert_eq!(decode_frame(&[1, 77, 0, 0, 0, 0]), Err(DecodeError::Kind(77)));
}

#[test]
fn a_snapshot_replaces_the_log_and_changes_nothing() {
    let env = Env::in_memory();
    let (journal, _) = open(&env);
    let mut model = Model::default();
    let mut snapshots = 0;
    for round in 0..200 {
        let name = format!("host-{}", round % 7);
        let records = [
            Record::Alert(alert_key(&name), alert(AlertState::Pending, round)),
            Record::OutboxPut { id: round as u64, bytes: Bytes::from(vec![7; 40]) },
            Record::OutboxRemoved { id: (round as u64).saturating_sub(3) },
            Record::GroupEvaluated { group: group("hosts"), at_ms: round },
        ];
        model.apply(&records);
        journal.append(&records).unwrap();
        journal.commit().unwrap();
        snapshots += usize::from(journal.maintain().unwrap());
        assert_eq!(journal.state(), model.0);
    }
    assert!(snapshots > 5, "{snapshots} snapshots");
    assert!(env.disk.list(dir()).unwrap().len() < 6, "old segments go");
    assert_eq!(open(&env).1, model.0);
}

#[test]
fn restarts_do_not_pile_up_segments() {
    let env = Env::in_memory();
    let mut model = Model::default();
    for round in 0..40 {
        let (journal, state) = open(&env);
        assert_eq!(state, model.0);
        let records = [Record::GroupEvaluated { group: group("hosts"), at_ms: round }];
        model.apply(&records);
        journal.append(&records).unwrap();
        journal.commit().unwrap();
        journal.maintain().unwrap();
    }
    assert!(env.disk.list(dir()).unwrap().len() <= 10);
}

#[test]
fn only_the_newest_gaps_are_remembered() {
    let env = Env::in_memory();
    let (journal, _) = open(&env);
    let gap = |from_ms| Record::Gap(Gap { from_ms, to_ms: from_ms + 1, group: group("g"), evaluations: 1 });
    for from_ms in 0..GAPS_MAX as i64 + 10 {
        journal.append(&[gap(from_ms), gap(from_ms)]).unwrap();
    }
    journal.commit().unwrap();
    for state in [journal.state(), open(&env).1] {
        assert_eq!(state.gaps.len(), GAPS_MAX);
        assert_eq!(state.gaps.first().unwrap().from_ms, 10);
    }
}

#[test]
fn damage_costs_its_frame_is_named_and_set_aside() {
    let simulation = Env::simulated(1);
    let (journal, _) = open(&simulation.env);
    for at_ms in 0..3 {
        let name = format!("g{at_ms}");
        journal.append(&[Record::GroupEvaluated { group: group(&name), at_ms }]).unwrap();
    }
    journal.commit().unwrap();
    let path = dir().join("00000001.wal");
    let mut bytes = simulation.disk.peek(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    simulation.disk.poke(&path, &bytes).unwrap();
    let (journal, state) = open(&simulation.env);
    assert_eq!(state.groups.keys().map(|key| &key.group[..]).collect::<Vec<_>>(), ["g0", "g2"]);
    assert_eq!(state.findings.damage.len(), 1);
    assert!(state.findings.damage[0].path == path && state.findings.foreign.is_empty());
    for at_ms in 0..100 {
        journal.append(&[Record::GroupEvaluated { group: group("g"), at_ms }]).unwrap();
    }
    assert!(journal.maintain().unwrap());
    assert!(!simulation.env.disk.exists(&path).unwrap());
    assert_eq!(simulation.disk.peek(&dir().join("damaged/00000001.wal")).unwrap(), bytes);
    let (_, state) = open(&simulation.env);
    assert_eq!((state.groups.len(), state.findings), (3, Default::default()));
}

#[test]
fn a_journal_of_a_newer_release_is_an_error_of_its_own() {
    let env = Env::in_memory();
    let (wal, _) = tidewatch_wal::Wal::open(&env, dir(), OPTIONS.wal).unwrap();
    wal.append(&[&[2, 0, 0]]).unwrap();
    wal.commit().unwrap();
    let error = Journal::open(&env, dir()).err().unwrap();
    assert!(matches!(error, JournalError::Version { found: 2, newest: 1, .. }), "{error}");
}

/// Calls as a rule engine and a notifier make them, over several lives.
struct Life {
    /// What was acknowledged, or read by a later process.
    sure: Model,
    /// Calls since then. A crash may leave any of them: the disk does not keep their order.
    unsure: Vec<Vec<Record>>,
}

impl Life {
    fn run(&mut self, simulation: &Simulation, process: i64) -> Result<(), JournalError> {
        let (journal, _) = Journal::open_with(&simulation.env, dir(), OPTIONS)?;
        for round in 0..12_i64 {
            let id = (process * 100 + round) as u64;
            let host = format!("host-{}", round % 4);
            let records = match round % 4 {
                3 => vec![Record::AlertForgotten(alert_key(&host)), Record::OutboxRemoved { id: id - 2 }],
                _ => vec![
                    Record::Alert(alert_key(&host), alert(AlertState::Firing, id as i64)),
                    Record::OutboxPut { id, bytes: Bytes::from(vec![round as u8; 90]) },
                ],
            };
            self.append(simulation, &journal, &records)?;
            if round % 2 == 1 {
                self.commit(&journal)?;
            }
            if round % 5 == 4 {
                self.pass_full(simulation, journal.maintain().map(|_| ()))?;
            }
        }
        simulation.disk.free_space();
        self.commit(&journal)
    }

    fn append(
        &mut self,
        simulation: &Simulation,
        journal: &Journal,
        records: &[Record],
    ) -> Result<(), JournalError> {
        if let Err(error) = journal.append(records) {
            self.pass_full(simulation, Err(error))?;
            journal.commit()?;
            journal.append(records)?;
        }
        self.unsure.push(records.to_vec());
        assert_eq!(journal.state(), self.all().0);
        Ok(())
    }

    fn commit(&mut self, journal: &Journal) -> Result<(), JournalError> {
        match journal.commit() {
            Err(JournalError::Log(WalError::Full { .. })) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => {
                self.sure = self.all();
                self.unsure.clear();
                Ok(())
            }
        }
    }

    /// A full disk is no end: somebody makes room.
    fn pass_full(
        &self,
        simulation: &Simulation,
        outcome: Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        match outcome {
            Err(JournalError::Log(WalError::Full { .. })) => {
                simulation.disk.free_space();
                Ok(())
            }
            other => other,
        }
    }

    /// The state with every call in it.
    fn all(&self) -> Model {
        let mut model = self.sure.clone();
        self.unsure.iter().for_each(|call| model.apply(call));
        model
    }

    /// Whether `found` is what is sure and any of the calls since, whole and in their order.
    fn may_be(&self, found: &Model) -> bool {
        let mut possible = vec![self.sure.clone()];
        for call in &self.unsure {
            for mut model in possible.clone() {
                model.apply(call);
                if !possible.contains(&model) {
                    possible.push(model);
                }
            }
        }
        possible.contains(found)
    }

    /// After the end of a process: the journal opens, and holds a state that it may hold.
    fn check(&mut self, simulation: &Simulation) {
        let (_, state) = Journal::open_with(&simulation.env, dir(), OPTIONS).unwrap();
        let found = Model(content(state));
        assert!(self.may_be(&found), "{found:?} is not {:?} and any of {:?}", self.sure, self.unsure);
        // What was read once stays: whoever read it acts on it.
        self.sure = found;
        self.unsure.clear();
    }
}

/// Three lives and a crash, a kill and a crash behind them; the `n`-th operation of the disk
/// fails. Returns how many there were.
fn run(failure: Failure, n: u64, crash_seed: u64) -> u64 {
    let simulation = Env::simulated(n);
    let mut life = Life { sure: Model::default(), unsure: Vec::new() };
    let mut fired = false;
    for process in 0..3 {
        if !fired {
            simulation.disk.fail_at(n, failure);
        }
        let outcome = life.run(&simulation, process);
        fired |= simulation.disk.fired();
        assert!(outcome.is_ok() || fired, "{outcome:?}");
        simulation.disk.repair();
        simulation.disk.free_space();
        match process {
            1 => simulation.disk.kill(),
            _ => simulation.disk.crash(crash_seed + process as u64),
        }
        life.check(&simulation);
    }
    simulation.disk.changes()
}

#[test]
fn calls_are_there_whole_and_acknowledged_ones_for_good_whatever_operation_fails() {
    for failure in [Failure::Crash, Failure::Io, Failure::IoForGood, Failure::Full] {
        let operations = run(failure, u64::MAX, 0);
        assert!(operations > 100, "{operations} operations");
        for n in 1..=operations {
            for crash_seed in [0, 1, n * 7 + 2, n * 13 + 3] {
                run(failure, n, crash_seed);
            }
        }
    }
}

fn any_record() -> impl Strategy<Value = Record> {
    let name = || "[a-c]{0,2}";
    let key = || {
        (name(), name(), 0..3_u32, name()).prop_map(|(file, rule, rule_index, value)| AlertKey {
            group: GroupKey { file, group: "g".to_owned() },
            rule,
            rule_index,
            labels: Labels::from_pairs([("l", value)]),
        })
    };
    let times = || prop::array::uniform5(any::<Option<i64>>());
    let state = prop_oneof![Just(AlertState::Inactive), Just(AlertState::Pending), Just(AlertState::Firing)];
    let alert =
        (state, any::<u64>(), any::<i64>(), times(), prop::collection::btree_map(name(), name(), 0..3))
            .prop_map(|(state, bits, active_at_ms, times, annotations)| Alert {
                state,
                value: f64::from_bits(bits),
                active_at_ms,
                fired_at_ms: times[0],
                resolved_at_ms: times[1],
                keep_firing_since_ms: times[2],
                last_sent_at_ms: times[3],
                valid_until_ms: times[4],
                annotations,
            });
    let group_key = || (name(), name()).prop_map(|(file, group)| GroupKey { file, group });
    let bytes = || prop::collection::vec(any::<u8>(), 0..50).prop_map(Bytes::from);
    prop_oneof![
        (key(), alert).prop_map(|(key, alert)| Record::Alert(key, alert)),
        key().prop_map(Record::AlertForgotten),
        (group_key(), any::<i64>()).prop_map(|(group, at_ms)| Record::GroupEvaluated { group, at_ms }),
        group_key().prop_map(Record::GroupForgotten),
        (group_key(), any::<i64>(), any::<i64>(), any::<u64>()).prop_map(
            |(group, from_ms, to_ms, evaluations)| {
                Record::Gap(Gap { from_ms, to_ms, group, evaluations })
            }
        ),
        (name(), bytes()).prop_map(|(id, bytes)| Record::Silence { id, bytes }),
        name().prop_map(|id| Record::SilenceRemoved { id }),
        (0..5_u64, bytes()).prop_map(|(id, bytes)| Record::OutboxPut { id, bytes }),
        (0..5_u64).prop_map(|id| Record::OutboxRemoved { id }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_records_come_back(calls in prop::collection::vec((prop::collection::vec(any_record(), 0..4), 0..4_u8), 0..40)) {
        let env = Env::in_memory();
        let mut journal = open(&env).0;
        let mut model = Model::default();
        for (records, then) in calls {
            let mut bytes = Vec::new();
            encode_frame(&records, &mut bytes);
            prop_assert_eq!(decode_frame(&bytes), Ok(records.clone()));
            journal.append(&records).unwrap();
            model.apply(&records);
            match then {
                0 => drop(journal.maintain().unwrap()),
                1 => {
                    journal.commit().unwrap();
                    let (again, state) = open(&env);
                    prop_assert_eq!(&state, &model.0);
                    journal = again;
                }
                _ => {}
            }
            prop_assert_eq!(&journal.state(), &model.0);
        }
    }
}
