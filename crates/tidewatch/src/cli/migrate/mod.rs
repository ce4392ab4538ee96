//! The migration doors: `import` and `export`, on a data directory that no server has.
//!
//! ```text
//!  SOURCE ─ tidewatch_migrate ─► import ─► tsdb::Backfill ─► blocks
//!              state: how far it has come, durable   ▲
//!  data directory ─ tsdb::Db ─► export ─► tidewatch_migrate ─► text, blocks of Prometheus
//! ```
//!
//! Not here: the formats (`tidewatch_migrate`), how blocks are written (`tsdb`).

mod export;
mod import;
mod progress;
mod prometheus;
mod state;

use std::path::PathBuf;

use clap::{Args, ValueEnum};

pub use export::run as export;
pub use import::run as import;

/// What others write and read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DataFormat {
    /// OpenMetrics text with a time on every line.
    Openmetrics,
    /// A JSON object a line, as VictoriaMetrics exports them.
    Jsonl,
    /// Prometheus' data directory: blocks and, for an import, the write-ahead log.
    Prometheus,
}

#[derive(Debug, Args)]
pub struct Import {
    /// What the sources are.
    #[arg(long)]
    pub format: DataFormat,
    /// Directory for data. The server must not run on it.
    #[arg(long = "storage.tsdb.path", value_name = "DIRECTORY", default_value = "./tidewatch-data")]
    pub storage_path: PathBuf,
    /// Files, or data directories or snapshots of a Prometheus that does not run on them.
    #[arg(required = true)]
    pub sources: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Export {
    /// What to write.
    #[arg(long)]
    pub format: DataFormat,
    /// Directory of the data. The server must not run on it.
    #[arg(long = "storage.tsdb.path", value_name = "DIRECTORY", default_value = "./tidewatch-data")]
    pub storage_path: PathBuf,
    /// Only series that this selector selects; may be given several times.
    #[arg(long = "match", value_name = "SELECTOR")]
    pub matches: Vec<String>,
    /// Only samples from here on: RFC 3339 or Unix seconds.
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// … to here.
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
    /// Where to: a new file, or a directory for blocks; standard output where absent.
    #[arg(long, value_name = "PATH")]
    pub output: Option<PathBuf>,
}
