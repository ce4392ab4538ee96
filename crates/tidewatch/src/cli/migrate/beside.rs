//! What a log of Prometheus, or a text, has beside samples: exemplars, and what is said of metrics.
//!
//! The store keeps these in its own log and not in blocks, so they are handed to it at the end, when
//! no backfill has the directory any more. Only then is their source done: an import that ended
//! before reads it again.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use tidewatch_env::Env;
use tidewatch_migrate::openmetrics::{Line, Said, Word};
use tidewatch_model::{Batch, BatchExemplar, Exemplar, Labels, Metadata, MetricType, RawLabels};
use tidewatch_storage::Append;
use tidewatch_tsdb::{Db, DbOptions, FamilyMetadata};

use super::state::{Reached, State};

/// As many as a server keeps by default.
const EXEMPLARS_MAX: usize = 100_000;

/// See the module.
#[derive(Default)]
pub struct Beside {
    exemplars: Vec<(Labels, Exemplar)>,
    /// By family; the newest word counts.
    families: BTreeMap<String, FamilyMetadata>,
    /// Keys of sources that are done with this.
    sources: Vec<String>,
}

impl Beside {
    pub fn is_empty(&self) -> bool {
        self.exemplars.is_empty() && self.families.is_empty()
    }

    pub fn exemplar(&mut self, series: &Labels, exemplar: Exemplar) {
        self.exemplars.push((series.clone(), exemplar));
        if self.exemplars.len() >= 2 * EXEMPLARS_MAX {
            self.keep_newest();
        }
    }

    /// A text has them by series: which are the newest shows when they are in the order of time.
    fn keep_newest(&mut self) {
        self.exemplars.sort_by_key(|(_, exemplar)| exemplar.timestamp);
        let past = self.exemplars.len().saturating_sub(EXEMPLARS_MAX);
        self.exemplars.drain(..past);
    }

    /// Takes what a line of a text says beside its sample.
    pub fn take(&mut self, said: &Said) {
        match said {
            Said::Sample(Line { labels, exemplar: Some(exemplar), .. }) => {
                self.exemplar(labels, exemplar.clone());
            }
            Said::Word { family, word } => {
                let known = self.families.entry(family.clone()).or_default();
                match word {
                    Word::Kind(kind) => known.kind = *kind,
                    Word::Help(help) => known.help.clone_from(help),
                    Word::Unit(unit) => known.unit.clone_from(unit),
                }
            }
            Said::Sample(_) | Said::Nothing => {}
        }
    }

    pub fn metadata(&mut self, series: &Labels, known: FamilyMetadata) {
        if let Some(name) = series.metric_name() {
            self.families.insert(family(name, known.kind).to_owned(), known);
        }
    }

    pub fn then_done(&mut self, key: String) {
        self.sources.push(key);
    }

    /// Hands everything to the store, durably, and remembers that the sources are done.
    pub fn store(mut self, env: &Env, dir: &Path, state: &mut State, out: &mut dyn Write) -> Result<()> {
        if !self.is_empty() {
            self.keep_newest();
            let options =
                DbOptions { retention_ms: None, exemplars_max: EXEMPLARS_MAX, ..DbOptions::new(dir) };
            let db = Db::open(env.clone(), options)?;
            db.recover()?;
            db.append(&self.batch()).context("exemplars and metadata")?;
            db.commit().context("exemplars and metadata")?;
            let (exemplars, families) = (self.exemplars.len(), self.families.len());
            writeln!(
                out,
                "{exemplars} exemplars and the metadata of {families} metrics handed to the store"
            )?;
        }
        self.sources.iter().try_for_each(|key| state.set(key, Reached::Done))
    }

    fn batch(&self) -> Batch<'_> {
        let mut batch = Batch::new();
        batch.exemplars.extend(self.exemplars.iter().map(|(series, exemplar)| BatchExemplar {
            series: RawLabels::Canonical(series.as_bytes()),
            labels: RawLabels::Canonical(exemplar.labels.as_bytes()),
            value: exemplar.value,
            timestamp: exemplar.timestamp,
        }));
        batch.metadata.extend(self.families.iter().map(|(family, known)| Metadata {
            family,
            kind: known.kind,
            help: &known.help,
            unit: &known.unit,
        }));
        batch
    }
}

/// The log tells of each series: those of a classic histogram or a summary are one family.
fn family(name: &str, kind: MetricType) -> &str {
    let endings: &[&str] = match kind {
        MetricType::Histogram | MetricType::GaugeHistogram => &["_bucket", "_sum", "_count"],
        MetricType::Summary => &["_sum", "_count"],
        _ => &[],
    };
    endings.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exemplars_and_metadata_are_in_the_store_and_their_source_is_done() {
        let simulation = Env::simulated(1);
        let (env, dir) = (&simulation.env, Path::new("/data"));
        tidewatch_env::create_dir_durably(&*env.disk, dir).expect("a good disk");
        let mut beside = Beside::default();
        let series = Labels::from_pairs([("__name__", "wait_seconds_bucket"), ("le", "1.0")]);
        let labels = Labels::from_pairs([("trace", "abc")]);
        beside.exemplar(&series, Exemplar { labels, value: 0.5, timestamp: 1000 });
        let known =
            FamilyMetadata { kind: MetricType::Histogram, help: "Waits.".to_owned(), unit: "s".to_owned() };
        beside.metadata(&series, known.clone());
        beside.then_done("log".to_owned());
        let mut state = State::load(env, dir).expect("readable");
        beside.store(env, dir, &mut state, &mut Vec::new()).expect("a good disk");
        assert_eq!(state.reached("log"), Some(&Reached::Done));
        let options = DbOptions { exemplars_max: 10, ..DbOptions::new(dir) };
        let db = Db::open(env.clone(), options).expect("opens");
        db.recover().expect("recovers");
        assert_eq!(db.metadata(), [("wait_seconds".to_owned(), known)]);
        assert_eq!(db.status().head.exemplars, 1);
    }
}
