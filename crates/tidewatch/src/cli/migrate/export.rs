//! `tidewatch export`: what a data directory holds, in forms that others read.

use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use tidewatch_env::Env;
use tidewatch_migrate::prometheus::{BlockWriter, Values};
use tidewatch_model::{Labels, Matcher};
use tidewatch_storage::TimeRange;
use tidewatch_tsdb::block::{StoredRun, StoredValues};
use tidewatch_tsdb::offline::check_ours;
use tidewatch_tsdb::{BLOCK_MS, Db, DbOptions, Stored};

use super::output::{Output, named};
use super::parquet::{self, ParquetWriter};
use super::progress::Progress;
use super::{Export, ExportFormat, text};
use crate::cli::Console;
use crate::cli::check::OK;
use crate::time;

/// What was written, and what there was no place for.
#[derive(Default)]
pub struct Counts {
    pub series: u64,
    pub samples: u64,
    pub blocks: u64,
    pub markers: u64,
    pub nameless: u64,
    pub histograms: u64,
    pub starts: u64,
    pub exemplars: u64,
    pub exemplars_left: u64,
    pub metadata_left: u64,
}

pub fn run(arguments: &Export, console: &mut Console<'_>) -> Result<u8> {
    let range = range(arguments)?;
    let selectors = selectors(arguments)?;
    if arguments.format == ExportFormat::Parquet {
        parquet::check()?;
    }
    let env = Env::real()?;
    let db = open(&env, &arguments.storage_path)?;
    let err = &mut *console.err;
    let mut counts = match (arguments.format, &arguments.output) {
        (ExportFormat::Prometheus, None) => bail!("--output: name a directory for the blocks"),
        (ExportFormat::Parquet, None) => bail!("--output: name a file for the rows"),
        (ExportFormat::Prometheus, Some(output)) => write_blocks(&env, &db, &selectors, range, output, err)?,
        (format, None) => {
            write_text(&db, &selectors, range, format, &mut BufWriter::new(&mut *console.out), err)?
        }
        (format, Some(output)) => {
            let mut writer = BufWriter::new(Output::create(output)?);
            let (writer, counts) = match format {
                ExportFormat::Parquet => write_rows(&db, &selectors, range, writer, err)?,
                format => {
                    let counts = write_text(&db, &selectors, range, format, &mut writer, err)?;
                    (writer, counts)
                }
            };
            writer.into_inner().map_err(|error| error.into_error())?.finish()?;
            counts
        }
    };
    if arguments.format != ExportFormat::Openmetrics {
        let exemplars = db.exemplars(&selectors, range)?;
        counts.exemplars_left = exemplars.iter().map(|(_, of_series)| of_series.len() as u64).sum();
        counts.metadata_left = text::count_metadata(&db, &selectors, range)?;
    }
    say(&counts, arguments.format, console.err)?;
    for damage in db.status().damage {
        writeln!(console.err, "  DAMAGED: {} at offset {}: {}", damage.path, damage.offset, damage.reason)?;
    }
    Ok(OK)
}

fn say(counts: &Counts, format: ExportFormat, err: &mut dyn Write) -> Result<()> {
    match format {
        ExportFormat::Prometheus => {
            writeln!(err, "{} samples in {} blocks written", counts.samples, counts.blocks)?;
        }
        _ => writeln!(err, "{} samples of {} series written", counts.samples, counts.series)?,
    }
    for (count, what) in [
        (counts.markers, "staleness markers left out: OpenMetrics has no word for them"),
        (counts.nameless, "series left out: OpenMetrics has none without a metric name"),
        (counts.histograms, "native histograms left out: only blocks of Prometheus have a place for them"),
        (counts.exemplars, "exemplars among them"),
        (
            counts.exemplars_left,
            "exemplars left out: they stand on samples of `_total` and `_bucket`, and in OpenMetrics alone",
        ),
        (
            counts.metadata_left,
            "descriptions of metrics left out: type, help and unit stand in OpenMetrics alone",
        ),
        (counts.starts, "start timestamps left out: the format has no place for them"),
    ] {
        if count > 0 {
            writeln!(err, "{count} {what}")?;
        }
    }
    Ok(())
}

fn range(arguments: &Export) -> Result<TimeRange> {
    let parse = |name: &str, text: &Option<String>, otherwise: i64| match text {
        None => Ok(otherwise),
        Some(text) => time::parse(text)
            .with_context(|| format!("--{name}: {text:?} is no time: write RFC 3339 or Unix seconds")),
    };
    let range = TimeRange {
        start: parse("from", &arguments.from, i64::MIN)?,
        end: parse("to", &arguments.to, i64::MAX)?,
    };
    if range.start > range.end {
        bail!("--from is after --to");
    }
    Ok(range)
}

/// The matchers of each selector; one without matchers where none is given.
fn selectors(arguments: &Export) -> Result<Vec<Vec<Matcher>>> {
    if arguments.matches.is_empty() {
        return Ok(vec![Vec::new()]);
    }
    let parse = |text: &String| {
        tidewatch_parser::parse_metric_selector(text)
            .map_err(|error| anyhow::anyhow!("--match={text}: {error}"))
    };
    arguments.matches.iter().map(parse).collect()
}

/// Opens a database that is there, without removing what a server's retention would.
fn open(env: &Env, dir: &Path) -> Result<Db> {
    check_ours(env, dir)?;
    let options = DbOptions { retention_ms: None, exemplars_max: usize::MAX, ..DbOptions::new(dir) };
    let db = Db::open(env.clone(), options)?;
    db.recover()?;
    Ok(db)
}

/// The series of several selectors, each once, in the order of their labels.
pub struct Union {
    selections: Vec<Stored>,
    /// Selection and series.
    series: Vec<(usize, usize)>,
}

/// Takes samples of a series and says what became of them.
pub type Visit<'a> = dyn FnMut(&Labels, &StoredRun<'_>, &mut Counts) -> Result<()> + 'a;

impl Union {
    pub fn select(db: &Db, selectors: &[Vec<Matcher>], range: TimeRange) -> Result<Union> {
        let selections: Vec<Stored> =
            selectors.iter().map(|matchers| db.stored(matchers, range)).collect::<Result<_, _>>()?;
        let mut series: Vec<(usize, usize)> = (0..selections.len())
            .flat_map(|at| (0..selections[at].len()).map(move |series| (at, series)))
            .collect();
        if selections.len() > 1 {
            let labels = |place: &(usize, usize)| selections[place.0].labels(place.1);
            series.sort_by(|a, b| labels(a).cmp(labels(b)));
            series.dedup_by(|a, b| labels(a) == labels(b));
        }
        Ok(Union { selections, series })
    }

    pub fn len(&self) -> usize {
        self.series.len()
    }

    pub fn labels(&self, number: usize) -> &Labels {
        let (at, series) = self.series[number];
        self.selections[at].labels(series)
    }

    /// Visits the samples of each series in order. What is visited counts as written until the visit
    /// says otherwise.
    pub fn visit(
        &self,
        range: TimeRange,
        counts: &mut Counts,
        progress: &mut dyn FnMut(u64),
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        for number in 0..self.len() {
            self.visit_one(number, range, counts, visit)?;
            progress(number as u64);
        }
        Ok(())
    }

    /// Visits the samples of one series.
    pub fn visit_one(
        &self,
        number: usize,
        range: TimeRange,
        counts: &mut Counts,
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        let (at, series) = self.series[number];
        let labels = self.labels(number);
        let before = counts.samples;
        self.selections[at].visit(series, range, &mut |run| {
            counts.samples += run.timestamps.len() as u64;
            let starts = run.starts.unwrap_or(&[]).iter();
            counts.starts += starts.filter(|start| **start != 0).count() as u64;
            visit(labels, &run, counts)
        })?;
        counts.series += u64::from(counts.samples > before);
        Ok(())
    }
}

fn write_text(
    db: &Db,
    selectors: &[Vec<Matcher>],
    range: TimeRange,
    format: ExportFormat,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Counts> {
    match format {
        ExportFormat::Openmetrics => text::write_openmetrics(db, selectors, range, out, err),
        _ => text::write_jsonl(db, selectors, range, out, err),
    }
}

/// Writes a row of Parquet for each sample. Markers of staleness are NaNs there as here.
fn write_rows(
    db: &Db,
    selectors: &[Vec<Matcher>],
    range: TimeRange,
    out: BufWriter<Output>,
    err: &mut dyn Write,
) -> Result<(BufWriter<Output>, Counts)> {
    let mut writer = ParquetWriter::new(out)?;
    let counts = visit_floats(db, selectors, range, err, &mut |labels, timestamps, values| {
        writer.push(labels, timestamps, values)?;
        Ok(())
    })?;
    Ok((writer.finish()?, counts))
}

/// Takes floats of a series, with their times.
type VisitFloats<'a> = dyn FnMut(&Labels, &[i64], &[f64]) -> Result<()> + 'a;

/// Visits the floats of all series for a form that has no place for histograms, and counts these.
pub fn visit_floats(
    db: &Db,
    selectors: &[Vec<Matcher>],
    range: TimeRange,
    err: &mut dyn Write,
    visit: &mut VisitFloats<'_>,
) -> Result<Counts> {
    let union = Union::select(db, selectors, range)?;
    let mut counts = Counts::default();
    let mut progress = Progress::start("export", union.len() as u64);
    let mut shown = |done| progress.set(done, err, || format!("{done} series"));
    union.visit(range, &mut counts, &mut shown, &mut |labels, run, counts| {
        match run.values {
            StoredValues::Floats(values) => visit(labels, run.timestamps, values)?,
            StoredValues::Histograms(_) => leave_histograms(run, counts),
        }
        Ok(())
    })?;
    Ok(counts)
}

pub fn leave_histograms(run: &StoredRun<'_>, counts: &mut Counts) {
    counts.samples -= run.timestamps.len() as u64;
    counts.histograms += run.timestamps.len() as u64;
}

/// Writes a block for each stretch of two hours that has samples, as Prometheus cuts its own.
fn write_blocks(
    env: &Env,
    db: &Db,
    selectors: &[Vec<Matcher>],
    range: TimeRange,
    output: &Path,
    err: &mut dyn Write,
) -> Result<Counts> {
    let mut counts = Counts::default();
    let Some((oldest, newest)) = held(db) else { return Ok(counts) };
    let (start, end) = (range.start.max(oldest), range.end.min(newest));
    let mut progress = Progress::start("export", end.saturating_sub(start).unsigned_abs());
    let mut from = start;
    while from <= end {
        let until = from.div_euclid(BLOCK_MS).saturating_add(1).saturating_mul(BLOCK_MS);
        let window = TimeRange { start: from, end: end.min(until - 1) };
        let union = Union::select(db, selectors, window)?;
        let mut writer = BlockWriter::create(env, output).map_err(named(output))?;
        union.visit(window, &mut counts, &mut |_| {}, &mut |labels, run, _| {
            let values = match run.values {
                StoredValues::Floats(values) => Values::Floats(values),
                StoredValues::Histograms(values) => Values::Histograms(values),
            };
            Ok(writer.push(labels, run.timestamps, values).map_err(named(output))?)
        })?;
        counts.blocks += u64::from(writer.finish().map_err(named(output))?.is_some());
        let samples = counts.samples;
        progress.set(until.saturating_sub(start).unsigned_abs(), err, || format!("{samples} samples"));
        from = until;
        // Nothing may be stored for years: such stretches are not worth a look each.
        from = next_held(db, from).unwrap_or(i64::MAX);
    }
    Ok(counts)
}

/// From when to when there are samples.
fn held(db: &Db) -> Option<(i64, i64)> {
    let status = db.status();
    let head = status.head.min_time.zip(status.head.max_time);
    let blocks = status.blocks.iter().map(|block| (block.min_time, block.max_time));
    blocks.chain(head).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

/// The first time from `from` on at which there may be a sample.
fn next_held(db: &Db, from: i64) -> Option<i64> {
    let status = db.status();
    let head = status.head.min_time.zip(status.head.max_time);
    let blocks = status.blocks.iter().map(|block| (block.min_time, block.max_time));
    blocks.chain(head).filter(|(_, newest)| *newest >= from).map(|(oldest, _)| oldest.max(from)).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a command says of a place that it can not look into, without which nobody could tell which one that is.
    #[test]
    fn a_directory_that_can_not_be_looked_into_is_named() {
        let folder = tempfile::tempdir().expect("a disk");
        let file = folder.path().join("file");
        std::fs::write(&file, "").expect("a disk");
        let env = Env::real().expect("threads");
        for other in [file.clone(), file.join("data"), folder.path().join("none")] {
            let said = open(&env, &other).err().expect("a file is no directory").to_string();
            assert_eq!(said, format!("{}: this is no data directory of Tidewatch", other.display()));
        }
        let said =
            super::super::import::entries(&env, &file.join("wal")).expect_err("a file is none").to_string();
        assert_eq!(said, format!("{}: Not a directory (os error 20)", file.join("wal").display()));
        let said = super::super::state::State::load(&env, &file).err().expect("a file is none").to_string();
        assert_eq!(said, format!("{}: Not a directory (os error 20)", file.join("IMPORTS").display()));
    }
}
