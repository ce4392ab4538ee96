//! How far a long command has come: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Between two lines where there is no terminal, and between two looks of a bar.
const LINE_EVERY: Duration = Duration::from_secs(10);
const BAR_EVERY: Duration = Duration::from_millis(100);

pub struct Progress {
    bar: Option<ProgressBar>,
    what: String,
    all: u64,
    said: Instant,
}

impl Progress {
    /// `all` is counted in whatever the caller counts in.
    pub fn start(what: &str, all: u64) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix} [{wide_bar}] {percent} % {msg}, {eta} left")
                .expect("a template of known fields");
            ProgressBar::new(all).with_style(style.progress_chars("=> ")).with_prefix(what.to_owned())
        });
        Progress { bar, what: what.to_owned(), all, said: Instant::now() }
    }

    /// So much is done; `detail` says what came of it.
    pub fn set(&mut self, done: u64, err: &mut dyn Write, detail: impl FnOnce() -> String) {
        let every = if self.bar.is_some() { BAR_EVERY } else { LINE_EVERY };
        if self.said.elapsed() < every {
            return;
        }
        self.said = Instant::now();
        if let Some(bar) = &self.bar {
            bar.set_position(done.min(self.all));
            bar.set_message(detail());
        } else {
            let percent = done.min(self.all) * 100 / self.all.max(1);
            // Nobody may be left to read this.
            let _ = writeln!(err, "{}: {percent} %, {}", self.what, detail());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
