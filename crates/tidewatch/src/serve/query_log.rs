//! The file that `global.query_log_file` names: opened anew at each reload, so that it can be rotated.
//! Queries of clients come from the server, those of rules by [`Logged`].
//!
//! It may be a pipe, a terminal or another device (`/dev/stdout` is one of these), or our own standard output or error
//! where that is a socket, as under systemd. No query waits for who reads there: a line that finds no room is dropped
//! and counted. It is opened to append, since others may write to it.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write, stderr, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use rustix::fs::{OFlags, Stat, fstat};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use tidewatch_model::{Annotations, Value};
use tidewatch_parser::Expr;
use tidewatch_rules::{EvalError, Evaluator};
use tidewatch_server::{Asker, LoggedQuery};

use crate::evaluate::{LocalEvaluator, for_rule};

/// Between two words about lines that are dropped: a slow reader makes some room again and again.
const TELL_EVERY: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct QueryLog {
    /// Guards against lines that mix.
    target: Mutex<Option<Target>>,
    /// Whether there is one: asked for each query.
    on: AtomicBool,
    /// Lines that were dropped.
    dropped: AtomicU64,
}

impl QueryLog {
    /// Writes to `target` from now on, or to nothing. A line that is written in part goes on where the file is the same.
    pub fn switch(&self, target: Option<Target>) {
        self.on.store(target.is_some(), Ordering::Relaxed);
        let mut current = self.target.lock();
        let former = std::mem::replace(&mut *current, target);
        let Some(former) = former.filter(|former| !former.rest.is_empty()) else { return };
        match &mut *current {
            Some(target) if target.is_same(&former) => target.rest = former.rest,
            _ => drop(self.dropped.fetch_add(1, Ordering::Relaxed)),
        }
    }

    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Writes one line. A query does not fail for its log.
    pub fn write(&self, line: &str) {
        let told = self.target.lock().as_mut().and_then(|target| {
            let error = target.write(line.as_bytes()).err()?;
            self.dropped.fetch_add(1, Ordering::Relaxed);
            target.words_of(&error)
        });
        // Not while the others wait: who reads our words may be slow, too.
        if let Some((file, reason)) = told {
            tracing::error!(%file, reason, "queries are missing in the query log");
        }
    }
}

/// Where lines go.
pub struct Target {
    path: PathBuf,
    /// `None` for a pipe that nobody has opened to read yet.
    sink: Option<Sink>,
    /// The end of a line whose beginning is written: it comes before the next one.
    rest: Vec<u8>,
    /// When somebody was told last that lines are dropped.
    told: Option<Instant>,
}

impl Target {
    pub fn open(path: &Path) -> Result<Target> {
        let sink = open(path).with_context(|| format!("open the query log {}", path.display()))?;
        Ok(Target { path: path.to_owned(), sink, rest: Vec::new(), told: None })
    }

    /// Whether what both write comes to the same place, one behind the other.
    fn is_same(&self, other: &Target) -> bool {
        let place = |target: &Target| Some(target.sink.as_ref()?.place());
        place(self).is_some_and(|here| place(other) == Some(here))
    }

    /// Writes a line, be it that its end has to wait. After an error nothing of it is written.
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.sink.is_none() {
            self.sink = open(&self.path)?;
        }
        let Some(sink) = &mut self.sink else { return Err(Errno::NXIO.into()) };
        write_some(sink, &mut self.rest)?;
        self.rest.extend_from_slice(line);
        match write_some(sink, &mut self.rest) {
            Err(error) if self.rest.len() == line.len() => {
                self.rest.clear();
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Which file lacks lines and why, if it is time for a word. None goes where the lines do, where there is no room, or
    /// half a line.
    fn words_of(&mut self, error: &io::Error) -> Option<(String, String)> {
        let is_same = |sink: &Sink| fstat(stderr()).map(place_of) == sink.place();
        if self.told.is_some_and(|told| told.elapsed() < TELL_EVERY)
            || self.sink.as_ref().is_some_and(is_same)
        {
            return None;
        }
        self.told = Some(Instant::now());
        let reason = match error.kind() {
            ErrorKind::WouldBlock => "who reads it is too slow".to_owned(),
            ErrorKind::BrokenPipe => "nobody reads it".to_owned(),
            _ if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => "nobody reads it".to_owned(),
            _ => error.to_string(),
        };
        Some((self.path.display().to_string(), reason))
    }
}

/// What lines are written to.
enum Sink {
    File(File),
    /// One that our process was started with: no name opens it.
    Socket(OwnedFd),
}

impl Sink {
    /// Device and number of the file.
    fn place(&self) -> Result<(u64, u64), Errno> {
        let stat = match self {
            Sink::File(file) => fstat(file),
            Sink::Socket(socket) => fstat(socket),
        };
        stat.map(place_of)
    }
}

fn place_of(stat: Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Sink::File(file) => file.write(bytes),
            // Whoever else has it may wait, so it is not the socket that must not.
            Sink::Socket(socket) => Ok(send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens a file, a pipe or a device, without waiting for anybody: `None` for a pipe that nobody reads.
fn open(path: &Path) -> io::Result<Option<Sink>> {
    // A terminal must not become ours. The flags mean nothing to files.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    match OpenOptions::new().append(true).create(true).custom_flags(flags).open(path) {
        Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => match fs::metadata(path)? {
            metadata if metadata.file_type().is_fifo() => Ok(None),
            metadata if metadata.file_type().is_socket() => own_socket(&metadata).map(Some),
            _ => Err(error),
        },
        opened => opened.map(|file| Some(Sink::File(file))),
    }
}

/// Standard output or error, if that is this socket.
fn own_socket(metadata: &Metadata) -> io::Result<Sink> {
    let own = [stdout().as_fd().try_clone_to_owned(), stderr().as_fd().try_clone_to_owned()];
    let mut own = own.into_iter().flatten().map(Sink::Socket);
    let place = Ok((metadata.dev(), metadata.ino()));
    own.find(|socket| socket.place() == place).ok_or_else(|| {
        io::Error::other(
            "it is a socket, and neither standard output nor standard error: name a file or a pipe",
        )
    })
}

/// Writes as much as there is room for, and leaves the rest.
fn write_some(sink: &mut Sink, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut written = 0;
    let outcome = loop {
        if written == bytes.len() {
            break Ok(());
        }
        match sink.write(&bytes[written..]) {
            Ok(0) => break Err(ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    bytes.drain(..written);
    outcome
}

/// Evaluates the rules of a group and logs their queries.
pub struct Logged<'a> {
    pub evaluator: &'a LocalEvaluator,
    pub log: &'a QueryLog,
    pub file: &'a str,
    pub group: &'a str,
}

impl Evaluator for Logged<'_> {
    fn instant(&self, expr: &Expr, at_ms: i64) -> Result<(Value, Annotations), EvalError> {
        if !self.log.is_on() {
            return self.evaluator.instant(expr, at_ms);
        }
        let began_ns = self.monotonic_ns();
        let answer = self.evaluator.answer(expr, at_ms);
        let logged = LoggedQuery {
            query: &expr.to_string(),
            asker: Asker::RuleGroup { file: self.file, name: self.group },
            start_ms: at_ms,
            end_ms: at_ms,
            step_ms: 0,
            queued_ns: 0,
            total_ns: self.monotonic_ns().saturating_sub(began_ns),
            result: answer.as_ref().map(|answer| answer.statistics.clone()),
        };
        self.log.write(&logged.line(self.evaluator.env.clock.wall_ms()));
        for_rule(answer)
    }

    fn monotonic_ns(&self) -> u64 {
        self.evaluator.monotonic_ns()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::Command;

    use super::*;

    fn pipe(folder: &Path) -> PathBuf {
        let path = folder.join("pipe");
        assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
        path
    }

    fn log_to(path: &Path) -> QueryLog {
        let log = QueryLog::default();
        log.switch(Some(Target::open(path).expect("it opens")));
        log
    }

    /// A reader that takes what is there, and waits for nobody.
    fn reader(path: &Path) -> File {
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        OpenOptions::new().read(true).custom_flags(flags).open(path).expect("it opens")
    }

    fn read(reader: &mut File) -> String {
        let mut bytes = Vec::new();
        // An error says that there is nothing more for now.
        let _ = reader.read_to_end(&mut bytes);
        String::from_utf8(bytes).expect("text")
    }

    // A pipe got no lines.
    #[test]
    fn a_pipe_gets_lines_while_somebody_reads_it_and_keeps_nobody_waiting() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = pipe(folder.path());
        let log = log_to(&path);
        log.write("nobody is there\n");
        assert!(log.is_on() && log.dropped() == 1);
        let mut first = reader(&path);
        log.write("one\n");
        assert_eq!((read(&mut first).as_str(), log.dropped()), ("one\n", 1));
        drop(first);
        log.write("nobody is there again\n");
        let mut second = reader(&path);
        log.write("two\n");
        assert_eq!((read(&mut second).as_str(), log.dropped()), ("two\n", 2));
    }

    // Lines beyond 4 KiB may go in part; those beyond what a pipe holds do.
    #[test]
    fn a_slow_reader_gets_whole_lines_and_the_others_are_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = pipe(folder.path());
        let mut reader = reader(&path);
        let log = log_to(&path);
        let line = |number: usize| format!("{number} {}\n", "x".repeat(number * 7919 % 200_000));
        let (mut text, mut written) = (String::new(), 0);
        for number in 0..100 {
            log.write(&line(number));
            if number % 3 == 0 {
                text += &read(&mut reader);
            }
            written += 1;
        }
        // What waits comes with later lines, piece by piece.
        while !text.ends_with("the end\n") {
            log.write("the end\n");
            written += 1;
            text += &read(&mut reader);
        }
        let numbers: Vec<usize> = text
            .lines()
            .filter(|line| *line != "the end")
            .map(|text| {
                let number = text.split(' ').next().and_then(|number| number.parse().ok()).expect("a number");
                assert_eq!(format!("{text}\n"), line(number), "line {number} is whole");
                number
            })
            .collect();
        assert!(numbers.len() > 10 && numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        assert!(log.dropped() > 10);
        assert_eq!(text.lines().count() as u64 + log.dropped(), written);
    }

    // The half of a line that waited was gone, and the next line stood behind the other half.
    #[test]
    fn a_reload_leaves_lines_whole_and_counts_what_a_new_file_cuts_off() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = pipe(folder.path());
        let mut reader = reader(&path);
        let log = log_to(&path);
        let long = format!("{}\n", "x".repeat(50_000));
        log.write(&long);
        log.write(&long);
        log.switch(Some(Target::open(&path).expect("it opens")));
        let mut text = read(&mut reader);
        log.write("the end\n");
        text += &read(&mut reader);
        assert_eq!((text, log.dropped()), (format!("{long}{long}the end\n"), 0));
        log.write(&long);
        log.write(&long);
        log.switch(Some(Target::open(&folder.path().join("other")).expect("it opens")));
        assert_eq!(log.dropped(), 1);
    }

    #[test]
    fn devices_take_lines_and_what_fails_is_counted() {
        let [null, full] = ["/dev/null", "/dev/full"].map(|path| log_to(Path::new(path)));
        for log in [&null, &full] {
            log.write("one\n");
            log.write("two\n");
        }
        assert_eq!((null.dropped(), full.dropped()), (0, 2));
        null.switch(None);
        null.write("three\n");
        assert!(!null.is_on() && null.dropped() == 0);
    }

    // Lines went over what others had written to the file, as where it is standard output.
    #[test]
    fn lines_come_behind_what_others_write_to_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let log = log_to(&path);
        log.write("one\n");
        OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(b"other\n"))
            .expect("a disk");
        log.write("two\n");
        assert_eq!(fs::read_to_string(&path).expect("a disk"), "one\nother\ntwo\n");
        for path in [folder.path().to_owned(), folder.path().join("none/log")] {
            let error = format!("{:#}", Target::open(&path).err().expect("it can not be opened"));
            assert!(error.starts_with(&format!("open the query log {}: ", path.display())), "{error}");
        }
    }
}
