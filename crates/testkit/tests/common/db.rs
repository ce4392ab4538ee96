//! The real store behind the scripts' door: in memory, or on a simulated disk where every load is
//! committed, cut into blocks as far as it is due, and read by another process.

use tidewatch_env::Env;
use tidewatch_env::sim::Simulation;
use tidewatch_model::{Batch, BatchHistogram, NativeHistogram, RawLabels, Sample};
use tidewatch_storage::{Append, Select};
use tidewatch_testkit::script::{Load, LoadedSample};
use tidewatch_testkit::{SampleData, TestStore};
use tidewatch_tsdb::{Db, DbOptions, Job};

pub enum DbStore {
    Memory(Db),
    Disk {
        simulation: Simulation,
        db: Option<Db>,
        /// Each load is cut in the middle, so that its parts lie in a block and in the head.
        pieces: bool,
    },
}

fn options() -> DbOptions {
    // Scripts load samples of 1970, which no retention would keep.
    DbOptions { retention_ms: None, ..DbOptions::new("/data") }
}

fn open(simulation: &Simulation) -> Db {
    let db = Db::open(simulation.env.clone(), options()).expect("a good disk");
    db.recover().expect("a good disk");
    db
}

impl DbStore {
    pub fn in_memory() -> DbStore {
        DbStore::Memory(Db::in_memory(Env::in_memory(), options()))
    }

    pub fn on_disk() -> DbStore {
        let simulation = Env::simulated(1);
        let db = Some(open(&simulation));
        DbStore::Disk { simulation, db, pieces: false }
    }

    #[allow(dead_code, reason = "not every test cuts to pieces")]
    pub fn on_disk_in_pieces() -> DbStore {
        let mut store = DbStore::on_disk();
        if let DbStore::Disk { pieces, .. } = &mut store {
            *pieces = true;
        }
        store
    }

    fn db(&self) -> &Db {
        match self {
            DbStore::Memory(db) => db,
            DbStore::Disk { db, .. } => db.as_ref().expect("taken only while it is reopened"),
        }
    }

    /// Moves what lies before a time to a block, and starts again on the same disk.
    #[allow(dead_code, reason = "not every test cuts where it likes")]
    pub fn cut(&mut self, until_ms: i64) {
        let DbStore::Disk { simulation, db, .. } = self else { return };
        if let Some(old) = db.take() {
            old.commit().expect("a good disk");
            old.run(Job::Cut { until_ms }).expect("a good disk");
        }
        *db = Some(open(simulation));
    }

    /// Does all that is due, and starts again on the same disk.
    fn settle(&mut self) {
        let DbStore::Disk { simulation, db, .. } = self else { return };
        if let Some(old) = db.take() {
            old.commit().expect("a good disk");
            while let Some(job) = old.next_job(simulation.env.clock.wall_ms()) {
                old.run(job).expect("a good disk");
            }
        }
        *db = Some(open(simulation));
    }
}

impl TestStore for DbStore {
    fn load(&mut self, load: &Load) -> Result<(), String> {
        let mut batch = Batch::new();
        for series in &load.series {
            let labels = RawLabels::Canonical(series.labels.as_bytes());
            let is_float = |sample: &LoadedSample| matches!(sample.data, SampleData::Float(_));
            // In the order of time, whatever the kinds: the window is one.
            for stretch in series.samples.chunk_by(|a, b| is_float(a) == is_float(b)) {
                let (mut samples, mut starts, mut histograms) = (Vec::new(), Vec::new(), Vec::new());
                for sample in stretch {
                    let (timestamp, start) = (sample.timestamp, sample.start);
                    match &sample.data {
                        SampleData::Float(value) => {
                            samples.push(Sample { timestamp, value: *value });
                            starts.push(start);
                        }
                        SampleData::Histogram(value) => {
                            let value = NativeHistogram::Float((**value).clone());
                            histograms.push(BatchHistogram { timestamp, start, value });
                        }
                    }
                }
                if histograms.is_empty() {
                    batch.push(labels, &samples);
                    batch.set_starts(&starts);
                } else {
                    batch.push_histograms(labels, &histograms);
                }
            }
        }
        let outcome = self.db().append(&batch).map_err(|error| error.to_string())?;
        if outcome.refused_count() > 0 {
            return Err(outcome.first_refusal.unwrap_or_else(|| "a sample was refused".to_owned()));
        }
        match self {
            DbStore::Disk { pieces: true, .. } => self.cut(middle(load)),
            _ => self.settle(),
        }
        Ok(())
    }

    fn clear(&mut self) {
        *self = match self {
            DbStore::Memory(_) => DbStore::in_memory(),
            DbStore::Disk { pieces: true, .. } => DbStore::on_disk_in_pieces(),
            DbStore::Disk { .. } => DbStore::on_disk(),
        };
    }

    fn select(&self) -> &dyn Select {
        self.db()
    }
}

/// The time between the first and the last sample.
fn middle(load: &Load) -> i64 {
    let times = || load.series.iter().flat_map(|series| series.samples.iter().map(|sample| sample.timestamp));
    (times().min().unwrap_or_default() + times().max().unwrap_or_default() + 1) / 2
}
