//! An alert whose condition always holds, on a machine that sleeps, stutters and restarts at random: it
//! never ends, and rules are evaluated again when the machine stays awake. From one seed each.
//!
//! Time is counted in seconds. Targets are scraped as long as the machine is awake, their timers stop while
//! it is not; groups look at the clock every five seconds, and hear of it when none did for a while.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tidewatch_model::{Annotations, InstantSample, Labels, SampleValue, Value, is_stale};
use tidewatch_parser::Expr;
use tidewatch_rules::{
    AlertState, ChangeKind, EvalError, Evaluator, Group, LoadOptions, RuleFile, RuleSample, Settings,
    awake_until_ms, reload,
};

const LOOKBACK: i64 = 300;
const LOOK: i64 = 5;
const NOTICED: i64 = 15;

const RULES: &str = r#"
groups:
- {name: plain, interval: 15s, rules: [{alert: Plain, expr: a}]}
- {name: late, interval: 30s, query_offset: 1m, rules: [{alert: Late, expr: a}]}
- {name: mixed, interval: 1m, rules: [{record: r, expr: a}, {alert: Mixed, expr: r}]}
- {name: reader, interval: 15s, rules: [{record: s, expr: r}, {alert: Reader, expr: r}]}
- {name: chain, interval: 30s, rules: [{alert: Chain, expr: s}]}
"#;

/// The newest samples of each series, by metric; times of samples and of ends.
#[derive(Default)]
struct Store {
    series: HashMap<String, BTreeMap<Labels, Vec<(i64, bool)>>>,
}

impl Store {
    fn add(&mut self, labels: &Labels, at: i64, is_end: bool) {
        let metric = labels.metric_name().expect("a metric").to_owned();
        self.series.entry(metric).or_default().entry(labels.clone()).or_default().push((at, is_end));
    }
}

impl Evaluator for Store {
    fn instant(&self, expr: &Expr, at_ms: i64) -> Result<(Value, Annotations), EvalError> {
        let at = at_ms / 1000;
        let holds = |times: &Vec<(i64, bool)>| {
            let newest = times.iter().rev().find(|(time, _)| *time <= at);
            newest.is_some_and(|(time, is_end)| at - time < LOOKBACK && !is_end)
        };
        let sample = |labels: &Labels| InstantSample {
            labels: labels.clone(),
            timestamp: at_ms,
            value: SampleValue::Float(1.0),
        };
        let series = self.series.get(&expr.to_string()).into_iter().flatten();
        let vector = series.filter(|(_, times)| holds(times)).map(|(labels, _)| sample(labels)).collect();
        Ok((Value::Vector(vector), Annotations::default()))
    }

    fn monotonic_ns(&self) -> u64 {
        0
    }
}

struct Machine {
    random: u64,
    now: i64,
    scrape_interval: i64,
    store: Store,
    groups: Vec<Group>,
    /// When each group looked at the clock last, and any of them; what nobody saw, and what each heard.
    looks: Vec<i64>,
    beat: i64,
    sleeps: Vec<(i64, i64)>,
    heard: Vec<usize>,
    /// Seconds until the scrapes of three targets.
    timers: [i64; 3],
    /// Alerts that ended, and whether each group was evaluated since the machine woke.
    ended: Vec<String>,
    evaluated: Vec<bool>,
    marks: BTreeMap<String, i64>,
}

fn groups(scrape_interval: i64, now: i64) -> Vec<Group> {
    let settings = Settings {
        lookback_ms: LOOKBACK * 1000,
        refill_ms: (2 * scrape_interval).max(30) * 1000,
        ..Settings::default()
    };
    let file = RuleFile::parse(RULES, "rules.yml", &LoadOptions::default()).expect("valid");
    reload(Vec::new(), vec![file], &Arc::new(settings), now * 1000).groups
}

impl Machine {
    fn new(seed: u64) -> Machine {
        let mut machine = Machine {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            now: 1_000_000,
            scrape_interval: 0,
            store: Store::default(),
            groups: Vec::new(),
            looks: Vec::new(),
            beat: 1_000_000,
            sleeps: Vec::new(),
            heard: vec![0; 5],
            timers: [0; 3],
            ended: Vec::new(),
            evaluated: Vec::new(),
            marks: BTreeMap::new(),
        };
        machine.scrape_interval = [10, 15, 30, 60][machine.below(4) as usize];
        machine.groups = groups(machine.scrape_interval, machine.now);
        machine.looks = vec![machine.now; machine.groups.len()];
        machine.evaluated = vec![false; machine.groups.len()];
        machine.timers = [0, 1, 2].map(|_| machine.below(machine.scrape_interval));
        machine
    }

    /// xorshift64.
    fn below(&mut self, bound: i64) -> i64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % bound as u64) as i64
    }

    fn run(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.now += 1;
            for target in 0..self.timers.len() {
                self.timers[target] -= 1;
                if self.timers[target] < 0 {
                    self.timers[target] = self.scrape_interval - 1;
                    let labels = Labels::from_pairs([("__name__", "a"), ("i", ["0", "1", "2"][target])]);
                    self.store.add(&labels, self.now, false);
                }
            }
            // Tasks run in any order.
            let first = self.below(self.groups.len() as i64) as usize;
            for place in 0..self.groups.len() {
                let index = (first + place) % self.groups.len();
                let is_due = self.now * 1000 >= self.groups[index].next_due_ms();
                if is_due || self.now - self.looks[index] >= LOOK {
                    self.look(index);
                }
            }
        }
    }

    fn look(&mut self, index: usize) {
        let (now_ms, group) = (self.now * 1000, &mut self.groups[index]);
        if self.now - self.beat > NOTICED {
            self.sleeps.push((self.beat * 1000, now_ms));
        }
        (self.looks[index], self.beat) = (self.now, self.now);
        self.sleeps[self.heard[index]..].iter().for_each(|(since, until)| group.slept(*since, *until));
        self.heard[index] = self.sleeps.len();
        let mut given: Vec<RuleSample> = Vec::new();
        // Rules of one group read each other's samples, so these are stored at once.
        let store = std::cell::RefCell::new(std::mem::take(&mut self.store));
        struct Shared<'s>(&'s std::cell::RefCell<Store>);
        impl Evaluator for Shared<'_> {
            fn instant(&self, expr: &Expr, at_ms: i64) -> Result<(Value, Annotations), EvalError> {
                self.0.borrow().instant(expr, at_ms)
            }
            fn monotonic_ns(&self) -> u64 {
                0
            }
        }
        let effects = group.step(now_ms, &Shared(&store), &mut |samples| {
            for sample in samples {
                let is_end = matches!(sample.value, SampleValue::Float(value) if is_stale(value));
                store.borrow_mut().add(&sample.labels, sample.timestamp / 1000, is_end);
            }
            given.extend_from_slice(samples);
            Ok(())
        });
        self.store = store.into_inner();
        let Some(effects) = effects else { return };
        if effects.evaluated {
            self.evaluated[index] = true;
            self.marks.insert(group.name().to_owned(), effects.at_ms);
        }
        for change in effects.changes.iter().filter(|change| change.kind == ChangeKind::Resolved) {
            self.ended.push(format!("{} at {}", change.instance.labels, self.now));
        }
    }

    /// The process ends, and begins after a while with what its journal kept.
    fn restart(&mut self, seconds: i64) {
        self.now += seconds;
        let mut groups = groups(self.scrape_interval, self.now);
        let newest_ms = self.marks.values().copied().max();
        let last_ms = |group: &Group| self.marks.get(group.name()).copied();
        let awake_ms = newest_ms.map(|newest_ms| awake_until_ms(&groups, last_ms, newest_ms));
        for (old, new) in self.groups.iter().zip(&mut groups) {
            let mut alerts = old.alerts().map(|(id, alert)| (id, alert.clone())).collect();
            new.restore(self.marks.get(new.name()).copied(), awake_ms, &mut alerts);
            new.woke(self.now * 1000);
        }
        self.groups = groups;
        self.looks.fill(self.now);
        self.beat = self.now;
        self.heard.fill(self.sleeps.len());
        // Each target has its place in the interval.
        self.timers = [0, 1, 2].map(|target| (target * 17 - self.now).rem_euclid(self.scrape_interval));
    }
}

#[test]
fn an_alert_that_holds_never_ends_however_the_machine_sleeps() {
    for seed in 0..400 {
        let mut machine = Machine::new(seed);
        machine.run(900);
        let mut story = vec![format!("seed {seed}, scraped every {} s", machine.scrape_interval)];
        let (mut is_tired, mut was_tired) = (false, false);
        for _ in 0..12 {
            let longest = [20, 120, 300, 4_000][machine.below(4) as usize];
            let sleep = 1 + machine.below(longest);
            let longest = [10, 60, 400][machine.below(3) as usize];
            let mut awake = 1 + machine.below(longest);
            if machine.below(5) == 0 && !was_tired {
                // A process knows of one sleep before it began, not of several in a row.
                let refill = 2 * machine.scrape_interval;
                machine.run(refill);
                story.push(format!("awake for {refill}, restart for {sleep}"));
                machine.restart(sleep);
                awake += refill;
            } else {
                story.push(format!("sleep for {sleep}"));
                machine.now += sleep;
            }
            (was_tired, is_tired) = (is_tired && awake < 120, awake < 120);
            story.push(format!("awake for {awake}"));
            machine.run(awake);
            assert!(machine.ended.is_empty(), "{story:#?} {:#?}", machine.ended);
        }
        machine.evaluated.fill(false);
        machine.run(900);
        assert!(machine.ended.is_empty(), "{story:#?} {:#?}", machine.ended);
        assert!(machine.evaluated.iter().all(|evaluated| *evaluated), "{story:#?}");
        let firing = machine.groups.iter().flat_map(Group::alerts);
        assert_eq!(firing.filter(|(_, alert)| alert.state == AlertState::Firing).count(), 15, "{story:#?}");
    }
}
