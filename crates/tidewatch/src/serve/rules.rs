//! Rule groups, each on a task of its own: wait until due, step, record, repeat.
//!
//! ```text
//! sleep ─► Group::step ─► samples ─► store
//!   ▲          └─► effects ─► Alerting::record (store committed, journal, outbox) ─┐
//!   └────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Tasks begin when the store is complete, so that no rule is evaluated on part of the data.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tidewatch_env::Env;
use tidewatch_model::Labels;
use tidewatch_rules::{EndedSeries, Group, GroupStatus, Reloaded, RuleSample, stale_markers};
use tidewatch_storage::Append;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::alerting::Alerting;
use super::pulse::Pulse;
use super::query_log::{Logged, QueryLog};
use crate::evaluate::{LocalEvaluator, append_rule_samples};

/// A sleeping task looks at the clock at least this often, since the clock may be set.
const SLEEP_MAX: Duration = Duration::from_secs(5);

const DAY_MS: i64 = 86_400_000;

/// What the tasks share.
pub struct RuleContext {
    pub env: Env,
    pub evaluator: LocalEvaluator,
    pub query_log: Arc<QueryLog>,
    pub append: Arc<dyn Append>,
    pub alerting: Arc<Alerting>,
    /// Turns true when the store is complete.
    pub complete: watch::Receiver<bool>,
    pub pulse: Arc<Pulse>,
    /// Until when rules wait after a sleep, as far as was said.
    pub said_wait_ms: AtomicI64,
}

impl RuleContext {
    /// All groups wait at once; one line is for all of them, and another where it takes longer.
    fn say_that_rules_wait(&self, now_ms: i64, until_ms: i64) {
        let said_ms = self.said_wait_ms.load(Ordering::Relaxed);
        // Where a clock was ahead, more was said than is true.
        let is_news = until_ms > said_ms.saturating_add(30_000) || said_ms.saturating_sub(until_ms) > DAY_MS;
        if is_news
            && self
                .said_wait_ms
                .compare_exchange(said_ms, until_ms, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            let seconds = (until_ms - now_ms) / 1000;
            tracing::warn!(
                seconds,
                "this process did not run for longer than samples last: rules wait for targets and senders to \
                 come back, and alerts that fire are told again meanwhile"
            );
        }
    }
}

/// A group and what the API shows of it, which must not wait for an evaluation.
struct Running {
    group: Mutex<Option<Group>>,
    status: ArcSwap<GroupStatus>,
}

/// The groups of the configuration in force.
pub struct Rules {
    context: Arc<RuleContext>,
    /// Guards against two reloads at once; the tasks hold clones of the entries. `None` until the groups that the
    /// journal knows have their alerts back; stays while a reload or the end has stopped the tasks, for those who ask.
    groups: Mutex<Option<Vec<Arc<Running>>>>,
    /// Series of groups that are no more, until they are ended; a reload meanwhile changes nothing for them.
    ended: Arc<Mutex<Vec<EndedSeries>>>,
    tasks: Mutex<Tasks>,
}

/// Tasks end when `stop` says so or is dropped.
struct Tasks {
    stop: watch::Sender<bool>,
    handles: Vec<JoinHandle<()>>,
}

impl Rules {
    pub fn new(context: RuleContext) -> Rules {
        let tasks = Tasks { stop: watch::channel(false).0, handles: Vec::new() };
        Rules {
            context: Arc::new(context),
            groups: Mutex::new(None),
            ended: Arc::default(),
            tasks: Mutex::new(tasks),
        }
    }

    /// Stops all tasks, between two evaluations, and gives their groups back.
    pub async fn stop(&self) -> Vec<Group> {
        let handles = {
            let mut tasks = self.tasks.lock();
            tasks.stop.send_replace(true);
            std::mem::take(&mut tasks.handles)
        };
        for handle in handles {
            if handle.await.is_err() {
                tracing::error!("a rule group's task panicked");
            }
        }
        let groups = self.groups.lock();
        groups.iter().flatten().filter_map(|running| running.group.lock().take()).collect()
    }

    /// Starts tasks for these groups, and ends series that no rule gives any more.
    pub fn start(&self, reloaded: Reloaded) {
        let (stop, stopped) = watch::channel(false);
        let mut handles = Vec::new();
        let mut groups = Vec::new();
        for group in reloaded.groups {
            let status = ArcSwap::from_pointee(group.status());
            let running = Arc::new(Running { group: Mutex::new(Some(group)), status });
            handles.push(tokio::spawn(run(self.context.clone(), running.clone(), stopped.clone())));
            groups.push(running);
        }
        self.ended.lock().extend(reloaded.ended);
        let ending =
            Ending { context: self.context.clone(), groups: groups.clone(), ended: self.ended.clone() };
        handles.push(tokio::spawn(ending.run(stopped)));
        *self.groups.lock() = Some(groups);
        *self.tasks.lock() = Tasks { stop, handles };
    }

    /// `None` until groups were started.
    pub fn status(&self) -> Option<Vec<GroupStatus>> {
        let groups = self.groups.lock();
        let groups = groups.as_ref()?.iter();
        Some(groups.map(|running| GroupStatus::clone(&running.status.load())).collect())
    }
}

async fn run(context: Arc<RuleContext>, running: Arc<Running>, mut stopped: watch::Receiver<bool>) {
    let mut complete = context.complete.clone();
    tokio::select! {
        _ = complete.wait_for(|complete| *complete) => {}
        _ = stopped.wait_for(|stop| *stop) => return,
    }
    let now_ms = || context.env.clock.wall_ms();
    let mut pulse = context.pulse.listen(now_ms());
    if let Some(group) = running.group.lock().as_mut() {
        group.woke(pulse.began_ms());
    }
    let mut sleeps = Vec::new();
    loop {
        let Some(due_ms) = running.group.lock().as_ref().map(Group::next_due_ms) else { return };
        let wait_ms = (due_ms - now_ms()).max(0).unsigned_abs();
        let is_stopped = tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(wait_ms).min(SLEEP_MAX)) => false,
            _ = stopped.wait_for(|stop| *stop) => true,
        };
        let at_ms = now_ms();
        sleeps.extend(pulse.beat(at_ms));
        if let Some(group) = running.group.lock().as_mut() {
            sleeps.drain(..).for_each(|(since_ms, until_ms)| group.slept(since_ms, until_ms));
        }
        if is_stopped {
            return;
        }
        // Queries and syncs block. As of the beat: stopped before it begins, it would look into the sleep.
        let (shared, running) = (context.clone(), running.clone());
        let mut work = tokio::task::spawn_blocking(move || step(&shared, &running, at_ms));
        // An evaluation that takes long is no sleep.
        let outcome = loop {
            tokio::select! {
                outcome = &mut work => break outcome,
                () = tokio::time::sleep(SLEEP_MAX) => sleeps.extend(pulse.beat(now_ms())),
            }
        };
        if outcome.is_err() {
            tracing::error!("an evaluation panicked; the group goes on with its next one");
        }
    }
}

fn step(context: &RuleContext, running: &Running, now_ms: i64) {
    let mut guard = running.group.lock();
    let Some(group) = guard.as_mut() else { return };
    let mut append = |samples: &[RuleSample]| append_rule_samples(&*context.append, samples).map(drop);
    let (file, name) = (group.file().to_owned(), group.name().to_owned());
    let evaluator =
        Logged { evaluator: &context.evaluator, log: &context.query_log, file: &file, group: &name };
    let effects = group.step(now_ms, &evaluator, &mut append);
    if let Some(until_ms) = group.waits_until_ms(now_ms) {
        context.say_that_rules_wait(now_ms, until_ms);
    }
    let Some(effects) = effects else { return };
    for failure in &effects.failures {
        tracing::warn!(
            file = group.file(),
            group = group.name(),
            rule = failure.rule.name,
            "evaluating rule failed: {}",
            failure.message
        );
    }
    if let Some(gap) = &effects.gap {
        tracing::warn!(
            file = group.file(),
            group = group.name(),
            missed = gap.evaluations,
            "evaluations were missed"
        );
    }
    context.alerting.record(group.file(), group.name(), &effects);
    running.status.store(Arc::new(group.status()));
}

/// Ends the series of groups that are no more, a while after they went.
struct Ending {
    context: Arc<RuleContext>,
    /// Those in force, which may give the series by then.
    groups: Vec<Arc<Running>>,
    ended: Arc<Mutex<Vec<EndedSeries>>>,
}

impl Ending {
    async fn run(self, mut stopped: watch::Receiver<bool>) {
        let ending = Arc::new(self);
        loop {
            let Some(due_ms) = ending.ended.lock().iter().map(|ended| ended.due_ms).min() else { return };
            let wait_ms = (due_ms - ending.context.env.clock.wall_ms()).max(0).unsigned_abs();
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(wait_ms).min(SLEEP_MAX)) => {}
                _ = stopped.wait_for(|stop| *stop) => return,
            }
            let ending = ending.clone();
            // A group is asked between two evaluations.
            let work = tokio::task::spawn_blocking(move || ending.end(ending.context.env.clock.wall_ms()));
            if work.await.is_err() {
                tracing::error!("ending series of rules that are no more panicked");
            }
        }
    }

    fn end(&self, now_ms: i64) {
        let due: Vec<EndedSeries> =
            self.ended.lock().extract_if(.., |ended| ended.due_ms <= now_ms).collect();
        let mut series: Vec<Labels> = due.into_iter().flat_map(|ended| ended.series).collect();
        for running in &self.groups {
            if let Some(group) = &*running.group.lock() {
                series.retain(|series| !group.gives(series));
            }
        }
        if series.is_empty() {
            return;
        }
        let samples = stale_markers(&series, now_ms);
        if let Err(reason) = append_rule_samples(&*self.context.append, &samples) {
            tracing::warn!(reason, "series of rules that are no more could not be ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tidewatch_journal::Journal;
    use tidewatch_promql::{Engine, EngineOptions, MemoryPool};
    use tidewatch_rules::{LoadOptions, RuleFile, Settings, reload};
    use tidewatch_tsdb::{Db, DbOptions};

    use super::*;

    fn rules(env: &Env) -> Rules {
        let db = Arc::new(Db::in_memory(env.clone(), DbOptions::new("/data")));
        let (journal, state) = Journal::open(env, Path::new("/journal")).expect("memory");
        Rules::new(RuleContext {
            env: env.clone(),
            evaluator: LocalEvaluator {
                env: env.clone(),
                engine: Arc::new(Engine::new(env.clone(), EngineOptions::default())),
                store: db.clone(),
                timeout_ms: 1000,
                memory: MemoryPool::new(1 << 20),
            },
            query_log: Arc::default(),
            append: db.clone(),
            alerting: Arc::new(Alerting::new(env.clone(), db, journal, &state)),
            complete: watch::channel(false).1,
            pulse: Arc::default(),
            said_wait_ms: AtomicI64::new(i64::MIN),
        })
    }

    fn names(rules: &Rules) -> Option<Vec<String>> {
        rules.status().map(|groups| groups.into_iter().map(|group| group.name).collect())
    }

    // Who asks for alerts must not take what is not known for nothing.
    #[tokio::test]
    async fn groups_are_shown_from_their_first_start_and_while_they_are_exchanged() {
        let env = Env::in_memory();
        let rules = rules(&env);
        assert_eq!(names(&rules), None);
        assert!(rules.stop().await.is_empty());
        assert_eq!(names(&rules), None);
        let text = "groups: [{name: a, rules: [{alert: Up, expr: up}]}]";
        let file = RuleFile::parse(text, "r.yml", &LoadOptions::default()).expect("valid");
        let settings = Arc::new(Settings::default());
        rules.start(reload(Vec::new(), vec![file], &settings, env.clock.wall_ms()));
        assert_eq!(names(&rules), Some(vec!["a".to_owned()]));
        let former = rules.stop().await;
        assert_eq!((former.len(), names(&rules)), (1, Some(vec!["a".to_owned()])));
        assert!(rules.stop().await.is_empty(), "a group is handed out once");
        rules.start(reload(former, Vec::new(), &settings, env.clock.wall_ms()));
        assert_eq!(names(&rules), Some(Vec::new()));
    }

    fn reloaded(rules: &str, former: Vec<Group>) -> Reloaded {
        let file = RuleFile::parse(rules, "r.yml", &LoadOptions::default()).expect("valid");
        reload(former, vec![file], &Arc::new(Settings::default()), 0)
    }

    // A second reload within two intervals left series of the first one's rules to be seen for five minutes;
    // and series that another rule gave since were ended.
    #[tokio::test]
    async fn series_of_rules_that_are_gone_end_after_further_reloads_unless_given_again() {
        let clock = Arc::new(tidewatch_env::sim::SimClock::at(0));
        let env = Env::in_memory_at(clock);
        let rules = rules(&env);
        let both = r#"
groups:
- name: a
  rules:
  - {record: r, expr: vector(1)}
  - {record: s, expr: 'label_replace(vector(1), "x", "1", "", "")'}
"#;
        let evaluate = |group: &mut Group, at_ms| {
            let mut append =
                |samples: &[RuleSample]| append_rule_samples(&*rules.context.append, samples).map(drop);
            let effects = group.evaluate(at_ms, &rules.context.evaluator, &mut append);
            assert!(effects.failures.is_empty(), "{effects:?}");
        };
        let mut groups = reloaded(both, Vec::new()).groups;
        groups.iter_mut().for_each(|group| evaluate(group, 1_000));
        // Other labels: the rule is another one, and gives the same series.
        let other = "groups: [{name: b, rules: [{record: s, expr: vector(2), labels: {x: '1'}}]}]";
        rules.start(reloaded(other, groups));
        let former = rules.stop().await;
        rules.start(reloaded(other, former));
        let former = rules.stop().await;
        assert_eq!(rules.ended.lock().len(), 1);
        let mut reloaded = reloaded(other, former);
        reloaded.groups.iter_mut().for_each(|group| evaluate(group, 61_000));
        rules.start(reloaded);
        let ending = Ending {
            context: rules.context.clone(),
            groups: rules.groups.lock().clone().expect("they run"),
            ended: rules.ended.clone(),
        };
        ending.end(100_000);
        assert_eq!(rules.ended.lock().len(), 1, "not yet");
        ending.end(120_000);
        assert!(rules.ended.lock().is_empty());
        let expr = tidewatch_parser::parse_expr("{__name__=~'r|s'}", &Default::default()).expect("valid");
        let value = rules.context.evaluator.answer(&expr, 120_001).expect("an answer").value;
        let tidewatch_model::Value::Vector(samples) = value else { panic!("a vector") };
        let names: Vec<_> = samples.iter().map(|sample| sample.labels.to_string()).collect();
        assert_eq!(names, [r#"{__name__="s", x="1"}"#]);
        rules.stop().await;
    }
}
