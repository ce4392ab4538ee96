//! `tidewatch import`: what others stored, into a data directory.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use tidewatch_env::{Env, File, Open};
use tidewatch_migrate::openmetrics::Said;
use tidewatch_migrate::{Lines, Piece, Place, jsonl, openmetrics};
use tidewatch_model::Labels;
use tidewatch_tsdb::block::{StoredRun, StoredValues};
use tidewatch_tsdb::{Backfill, Conflicts, Damage, OpenError};

use super::beside::Beside;
use super::progress::Progress;
use super::state::{Reached, State, key_of};
use super::{Import, ImportFormat, prometheus};
use crate::cli::Console;
use crate::cli::check::{FAILED, OK};

/// Problems that are named one by one; the rest is counted.
const NAMED_MAX: u64 = 20;

/// An import under way.
pub struct Importer<'a, 'c> {
    pub env: Env,
    pub backfill: Backfill,
    pub state: State,
    pub console: &'a mut Console<'c>,
    /// Lines, records, series or samples that were left out.
    pub problems: u64,
    pub beside: Beside,
}

pub fn run(arguments: &Import, console: &mut Console<'_>) -> Result<u8> {
    let env = Env::real()?;
    for source in &arguments.sources {
        // Before anything is created.
        env.disk
            .exists(source)
            .map_err(OpenError::io(source))?
            .then_some(())
            .with_context(|| format!("{}: no such source", source.display()))?;
        match arguments.format {
            ImportFormat::Prometheus => prometheus::check(&env, source)?,
            _ => drop(
                env.disk
                    .open(source, Open::Read)
                    .and_then(|file| file.read_at(0, &mut [0]))
                    .map_err(OpenError::io(source))?,
            ),
        }
    }
    let mut backfill = Backfill::open(&env, &arguments.storage_path)?;
    for Damage { path, offset, reason } in backfill.damage() {
        writeln!(console.err, "{path}: damaged at byte {offset}: {reason}")?;
    }
    let state = State::load(&env, &arguments.storage_path)?;
    backfill.resume(state.made().iter().copied());
    let mut importer = Importer { env, backfill, state, console, problems: 0, beside: Beside::default() };
    for source in &arguments.sources {
        match arguments.format {
            ImportFormat::Prometheus => prometheus::import(&mut importer, source)?,
            format => importer.text(source, format)?,
        }
    }
    importer.finish(&arguments.storage_path)
}

impl Importer<'_, '_> {
    /// Names something that is left out.
    pub fn problem(&mut self, place: impl Display, reason: impl Display) {
        self.problems += 1;
        if self.problems <= NAMED_MAX {
            // Nobody may be left to read this.
            let _ = writeln!(self.console.err, "  LEFT OUT: {place}: {reason}");
        } else if self.problems == NAMED_MAX + 1 {
            let _ = writeln!(self.console.err, "  LEFT OUT: more; from here on they are only counted");
        }
    }

    /// Says how far a source has been read. What was read is written once much of it is there, so that is no measure.
    pub fn show(&mut self, progress: &mut Progress, done: u64) {
        let read = self.backfill.taken();
        progress.set(done, self.console.err, || format!("{read} samples read"));
    }

    /// Remembers how far a source has come; what was collected of it is flushed.
    pub fn reached(&mut self, key: &str, reached: Reached) -> Result<()> {
        self.state.set_with(key, reached, self.backfill.made())
    }

    /// Says that nothing is to be done for a source, and how it is imported again all the same.
    pub fn was_imported(&mut self, shown: &str, key: &str) -> Result<()> {
        let file = self.state.path().display();
        let remedy = format!("to import it anew, remove the line with {key} from {file}");
        Ok(writeln!(self.console.out, "{shown}: was imported before; {remedy}")?)
    }

    fn text(&mut self, source: &Path, format: ImportFormat) -> Result<()> {
        let shown = source.display().to_string();
        let file = self.env.disk.open(source, Open::Read).map_err(OpenError::io(source))?;
        let name = if format == ImportFormat::Jsonl { "jsonl" } else { "openmetrics" };
        let key = key_of(name, &*file).with_context(|| shown.clone())?;
        let mut from = (Place::default(), String::new());
        match self.state.reached(&key) {
            Some(Reached::Done) => {
                self.was_imported(&shown, &key)?;
                return Ok(());
            }
            Some(Reached::At { place, type_line }) => {
                from = (*place, type_line.clone());
                writeln!(self.console.out, "{shown}: goes on at line {}", place.lines + 1)?;
            }
            None => {}
        }
        let mut progress = Progress::start(&shown, file.len().with_context(|| shown.clone())?);
        let is_openmetrics = format == ImportFormat::Openmetrics;
        let is_complete =
            is_openmetrics && self.read_beside_again(file.clone(), from.0).with_context(|| shown.clone())?;
        let mut reader = openmetrics::Reader::resume(&from.1, is_complete);
        let mut lines = Lines::new(file, from.0);
        while let Some(piece) = lines.next_piece().with_context(|| shown.clone())? {
            match piece {
                Piece::TooLong { line } => self.problem(format!("{shown}:{line}"), "the line is too long"),
                Piece::Lines { bytes, first } => {
                    for (number, line) in (first..).zip(bytes.split_inclusive(|byte| *byte == b'\n')) {
                        let taken = match format {
                            ImportFormat::Jsonl => self.jsonl_line(line),
                            _ => self.openmetrics_line(&mut reader, line),
                        };
                        taken.unwrap_or_else(|reason| self.problem(format!("{shown}:{number}"), reason));
                    }
                }
            }
            let place = lines.place();
            if self.backfill.is_full() {
                self.backfill.flush()?;
                self.reached(&key, Reached::At { place, type_line: reader.type_line() })?;
            }
            self.show(&mut progress, place.offset);
        }
        self.backfill.flush()?;
        if is_openmetrics && !reader.is_complete() {
            let reason = "the text does not end with \"# EOF\", so it may have been cut short";
            self.problem(&shown, reason);
        }
        // What stands beside the samples is stored with that of all sources, and then this one is done.
        self.reached(&key, Reached::At { place: lines.place(), type_line: reader.type_line() })?;
        self.beside.then_done(key);
        Ok(())
    }

    /// Reads the part of a text again of which an import before this one has the samples: what stands
    /// beside these it had not stored yet. Gives whether that part ends the text.
    fn read_beside_again(&mut self, file: Arc<dyn File>, until: Place) -> Result<bool> {
        let mut reader = openmetrics::Reader::default();
        let mut lines = Lines::new(file, Place::default());
        let mut number = 0;
        while number < until.lines
            && let Some(piece) = lines.next_piece()?
        {
            let Piece::Lines { bytes, first } = piece else { continue };
            number = first - 1;
            for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                if number == until.lines {
                    break;
                }
                number += 1;
                let has_more = line.starts_with(b"# ") || line.windows(4).any(|at| at == b" # {");
                if !has_more {
                    reader.skip(line);
                } else if let Ok(said) = reader.read(line) {
                    // What is wrong with a line was said then.
                    self.beside.take(&said);
                }
            }
        }
        Ok(reader.is_complete())
    }

    fn openmetrics_line(&mut self, reader: &mut openmetrics::Reader, line: &[u8]) -> Result<(), String> {
        let said = reader.read(line)?;
        self.beside.take(&said);
        match said {
            Said::Sample(line) => self.take(&line.labels, &[line.timestamp], &[line.value]),
            Said::Nothing | Said::Word { .. } => Ok(()),
        }
    }

    fn jsonl_line(&mut self, line: &[u8]) -> Result<(), String> {
        match jsonl::read(line)? {
            Some(line) => self.take(&line.labels, &line.times, &line.values),
            None => Ok(()),
        }
    }

    /// Collects floats; what can not be stored of them is the error.
    fn take(&mut self, labels: &Labels, timestamps: &[i64], values: &[f64]) -> Result<(), String> {
        let run = StoredRun { timestamps, values: StoredValues::Floats(values), starts: None };
        self.backfill.push(labels, &run)
    }

    /// Merges what overlaps, and says what came of all.
    fn finish(mut self, dir: &Path) -> Result<u8> {
        {
            let mut progress = Progress::start("merging blocks that overlap", 0);
            let err = &mut *self.console.err;
            self.backfill.merge(&mut |merged| progress.set(merged, err, || format!("{merged} merged")))?;
        }
        let Importer { env, backfill, mut state, console, problems, beside } = self;
        let counts = backfill.counts().clone();
        // Gives the directory back.
        drop(backfill);
        state.set_merged()?;
        let out = &mut *console.out;
        beside.store(&env, dir, &mut state, out)?;
        writeln!(out, "{} samples in {} blocks written", counts.samples, counts.blocks)?;
        if counts.duplicates > 0 {
            writeln!(out, "{} samples came twice", counts.duplicates)?;
        }
        if let Conflicts { count, first: Some(first) } = &counts.stored_conflicts {
            writeln!(
                out,
                "{count} samples have other values than the store has at these times; the stored ones were kept, \
                 first: {first}"
            )?;
        }
        if let Conflicts { count, first: Some(first) } = &counts.conflicts {
            writeln!(out, "{count} samples had another value for their time; the first: {first}")?;
        }
        for reason in &counts.unmerged {
            writeln!(out, "blocks that overlap were left so: {reason}")?;
        }
        if counts.samples > 0 {
            writeln!(
                out,
                "what is older than the server's retention goes when the server starts: 15 days, or \
                 --storage.tsdb.retention.time"
            )?;
        }
        if problems > 0 {
            writeln!(out, "{problems} lines, records or series were left out")?;
            return Ok(FAILED);
        }
        Ok(OK)
    }
}

/// Names in a directory, with their paths; none where there is no such directory.
pub fn entries(env: &Env, dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    if !env.disk.exists(dir).map_err(OpenError::io(dir))? {
        return Ok(Vec::new());
    }
    let names = env.disk.list(dir).map_err(OpenError::io(dir))?;
    let text = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(names.iter().filter_map(|path| text(path).map(|name| (name.clone(), dir.join(name)))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an import says of a text of which an earlier one has the first lines: whether it ends.
    fn goes_on(text: &str, lines: usize) -> bool {
        let env = Env::simulated(1).env;
        let (dir, source) = (Path::new("/data"), Path::new("/in.txt"));
        let backfill = Backfill::open(&env, dir).expect("a good disk");
        let file = env.disk.open(source, Open::Create).expect("a good disk");
        file.append(text.as_bytes()).expect("a good disk");
        let mut state = State::load(&env, dir).expect("a good disk");
        let before: usize = text.split_inclusive('\n').take(lines).map(str::len).sum();
        let place = Place { offset: before as u64, lines: lines as u64 };
        let key = key_of("openmetrics", &*file).expect("a good disk");
        state.set(&key, Reached::At { place, type_line: String::new() }).expect("a good disk");
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut console = Console { out: &mut out, err: &mut err };
        let console = &mut console;
        let beside = Beside::default();
        let mut importer = Importer { env, backfill, state, console, problems: 0, beside };
        importer.text(source, ImportFormat::Openmetrics).expect("a good disk");
        let problems = importer.problems;
        let said = String::from_utf8_lossy(&err).into_owned();
        assert_eq!(problems, u64::from(said.contains("does not end with \"# EOF\"")), "{said}");
        problems == 0
    }

    #[test]
    fn an_import_that_goes_on_knows_whether_the_text_has_ended() {
        let text = "x 1 1795000000\n# EOF\n\n\n";
        assert_eq!((0..=4).map(|lines| goes_on(text, lines)).collect::<Vec<_>>(), [true; 5]);
        // Two texts behind one another, of which the second was cut short.
        let text = "x 1 1795000000\n# EOF\nx 2 1795000015\n\n";
        assert_eq!((0..=4).map(|lines| goes_on(text, lines)).collect::<Vec<_>>(), [false; 5]);
    }
}
