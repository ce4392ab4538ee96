//! The migration doors: `import` and `export`, on a data directory that no server has.
//!
//! ```text
//!  SOURCE ─ tidewatch_migrate ─► import ─► tsdb::Backfill ─► blocks
//!              state: how far it has come, durable   ▲
//!  data directory ─ tsdb::Stored ─► export ─► tidewatch_migrate ─► text, blocks of Prometheus
//!                                       └─► tidewatch_parquet ─► rows
//! ```
//!
//! Not here: the formats (`tidewatch_migrate`, `tidewatch_parquet`), how blocks are written (`tsdb`).

mod beside;
mod export;
mod import;
mod output;
mod parquet;
mod progress;
mod prometheus;
mod state;
mod text;

use std::path::PathBuf;

use clap::{Args, ValueEnum};

pub use export::run as export;
pub use import::run as import;

/// What others write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ImportFormat {
    /// OpenMetrics text with a time on every line.
    Openmetrics,
    /// A JSON object a line, as VictoriaMetrics exports them.
    Jsonl,
    /// Prometheus' data directory: blocks and the write-ahead log.
    Prometheus,
}

/// What others read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// OpenMetrics text with a time on every line.
    Openmetrics,
    /// A JSON object a line, as VictoriaMetrics imports them.
    Jsonl,
    /// A row for each sample; only in builds with the feature `parquet`.
    Parquet,
    /// Prometheus' blocks.
    Prometheus,
}

#[derive(Debug, Args)]
pub struct Import {
    /// What the sources are.
    #[arg(long)]
    pub format: ImportFormat,
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
    pub format: ExportFormat,
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
    /// Where to: a new file, or a directory for blocks; standard output where absent, for text.
    #[arg(long, value_name = "PATH")]
    pub output: Option<PathBuf>,
}
